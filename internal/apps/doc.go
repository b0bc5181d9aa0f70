// Package apps keeps users' web apps: which there are, on which machine, and how they are.
//
// An app is one user's own instance of an http endpoint of a pool. Whoever opens it gets the one that lives, or a new one:
//
//	waiting   it is in the broker's line for a seat, as a part of its user's session like an ssh connection of hers: so
//	          all that is hers comes to lie on one machine
//	starting  it has a machine, whose agent has been told; the agent reports until the app answers
//	running   the gateway gets in at Address
//	ended     it was stopped, nobody used it for as long as the pool lets machines idle, or it ended by itself
//	failed    it never came up, it died, or its machine did. Who opens it again gets a new one, on another machine
//
// One goroutine for each app that lives takes its seat and waits for its end; what is known lies in the store, so
// a server that is restarted goes on where the former was. It takes the seat again, on the machine the app has:
// the broker has forgotten all parts, the machine runs on.
//
// The agents' reports are the word on what runs. An app whose machine does not answer is unknown, not gone: it is
// over when the machine is.
//
// What this package deliberately does not do: it asks nobody for permission. Callers do.
package apps
