// Package engine is the control loop: it looks at what is on record and at what
// providers see, asks packages fleet and scale, records what they decide and
// carries it out.
//
// # A pass
//
// A pass reads the store, judges (judge.go: no I/O, only values), and if there is
// something to record does both again inside an Update, so that what it decides on
// is what is true: a login that takes a seat and an engine that retires the machine
// cannot pass each other by. Then it launches the effects. What an effect relies on
// is on disk before it begins; what became of it is told to the next pass by the
// provider's answer and by observing. A pass never waits for a provider.
//
// Passes happen when somebody wakes the engine, soon after the store changed, and
// when something is due. They cost time in proportion to what there is, and the
// engine rests a multiple of that between them.
//
// # Who writes what
//
//	state, wanted, epoch, reason   the engine alone: by a pass, or when an agent says ready or failed
//	health                         from the agent's stream: up, unknown when it breaks, down after a
//	                               grace in which the provider could be observed
//	cordons                        each by its owner: the operator through Drain, the autoscaler by a pass,
//	                               health by a pass
//	idleAt                         since when no session and no task is on the machine
//
// # What is kept in memory only
//
// Which streams are open, which effects are under way and when to try again, and the
// latest observation. All of it is found again after a restart: agents come back, effects
// are repeated under the same machine and token, providers are observed.
package engine
