// Package agenthub is the control plane's side of the agent protocol (package
// api, agent.go): it lets machines join, streams to each what it should be,
// takes what its agent saw, and stands for the users whose requests an agent
// relays.
//
// # Tokens
//
// Nothing is stored of them. The token to join with and the token of a machine
// are HMACs of the machine's identifier and of the number of its start, under
// a key of the installation. A token is good only for the start it names: as
// soon as the machine is started again, or is gone, it is refused. Of one start the
// first ssh host key counts, so a join token that leaked is of no use once the
// machine itself has joined.
//
// # Streams
//
// A machine has one stream; a newer one ends the older. It begins with a
// Snapshot, and what is to be told later waits in a queue of bounded length. An
// agent that reads too slowly loses the queue and gets a new Snapshot instead,
// as after any break: a lost record costs time and never correctness. The open
// stream is what tells that a machine is alive; the engine hears of each that
// opens and breaks.
//
// # Accounts
//
// Run follows the store. A change of users, groups or pools makes new Accounts,
// once for all machines of a pool, and each stream sends the newest only. What
// the accounts are is told by their Rev; whether an agent has put into effect all
// that was true at some revision of the store, AccountsReady answers: changes of
// users that agents need not know of (a password) make no new Accounts.
package agenthub
