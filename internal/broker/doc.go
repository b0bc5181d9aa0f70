// Package broker keeps the sessions: who is where, who waits, and for how long
// somebody's place is hers.
//
// A login is a Request that waits in one line. One goroutine, Run, seats the
// line: it asks package route for all of it at once, in order of arrival, and
// records the answers in one transaction. Whoever must wait has a session row in
// state waiting, which is the demand by which the engine starts machines. When a
// client goes away its row is withdrawn.
//
// The life of a session and who moves it:
//
//	waiting       made by a pass over the line that found no seat
//	active        a part (a connection) is open; the front end tells when it closes
//	disconnected  no part is open; only what lives on the machine (pins) holds it
//	ended         nothing lived there any more, its machine went, or somebody ended it
//
// What lives on a machine is known from its agent's Activity only. Unknown is not
// gone: a session ends when an agent that answers has shown nothing for some
// seconds, and never because an agent is silent. What lives on a machine without
// a session (the server was restored from a backup) is given one.
//
// After a restart of the server the parts on record belong to front ends that are
// no more: Run begins by clearing them. Those of gateways that are processes of
// their own stay (gateways.go).
package broker
