// Package fleet compares machines as they should be with machines as their
// provider sees them, and says what to do. It is pure: a World goes in, Actions
// with reasons come out, at most one for each machine.
//
// There are two sorts of actions. Some only put on record what was seen or
// decided (Accept, Note, Fail, …): Apply does that to a machine. The others are
// effects (Create, Start, Stop, Delete) that somebody must carry out; what they
// rely on is on record by then, so that a crash at any point loses nothing:
//
//	requested  Create is called until it succeeds or the provider shows the machine
//	booting    the provider has it; the agent says when it is ready, or a deadline ends it
//	ready      failed or gone when the provider says so
//	stopping   Stop or Delete is called until the provider shows it done
//	stopped    Start is called if it should run: somebody else stopped it
//	failed     Delete is called until the provider shows it gone; a retry is a new machine
//
// Unknown is not gone. A machine is gone only if a complete observation that
// began after the last effect on it does not list it. What carries our tag without
// a row is removed.
//
// Machines of a pool that fail one after another while they boot are made ever more
// slowly (Backoff), and after a number of tries hardly at all.
package fleet
