// Package remote is the side of a gateway that is a process of its own: a Directory and a Router for its front end, which it gets from a
// control plane elsewhere, and goes on to be for a while when that does not answer.
//
// It keeps a mirror of who may come in and of the sessions on machines that run, by a stream (package gatehub is the other end). Keys
// are looked at in the mirror. A login is asked of the control plane; while that is away, whoever has a session on a machine that runs is let in
// there, as long as the mirror is not older than OfflineFor, and others wait for a while and are told why they cannot come.
//
// The states, which the stream alone moves:
//
//	away     there is no stream
//	joining  the mirror is whole, and the control plane is being told of all connections that are there
//	up       logins are asked of it
//	barred   it does not know this gateway any more: nobody new is taken, and who is there stays
//
// Which connections there are is told whole whenever a stream begins, and by what changes after that, so that nothing has to be kept
// while nobody listens. No login begins while that is told: it could be taken off the record for not being in it.
//
// Of several servers one leads. Each attempt at a stream that fails is followed by one at the next of them; an answer of one that led
// before counts as none.
package remote
