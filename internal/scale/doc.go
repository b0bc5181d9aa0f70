// Package scale decides how many machines a pool should have, and which of those
// it has may go. It is pure: a State and now go in, a Decision with its reasons
// comes out.
//
// Growing. What waits is counted against what machines that serve, or are about
// to, can still take: logins against seats, tasks against processors, memory and
// GPUs. What does not fit is turned into the least number of further machines.
// Seats and tasks are counted apart and the larger number wins, because they share
// machines. Machines that are requested or booting count as if they were ready,
// so that asking again while they start asks for no more.
//
// Shrinking. A machine may go if it is ready, it is known that nobody is on it
// (no session, no task, and its agent is heard from), nobody put a cordon on it,
// it has been so for the pool's idle time, and the rest is enough without it. A
// machine that is not as the pool now says is replaced once it is empty.
//
// Where a pool has more machines than it may (its maximum was lowered, its size
// was set by hand, it is being deleted) empty machines go at once, and others get
// the autoscaler's cordon: nobody new comes, and they go when they are empty. The
// cordon is taken back when the machines are wanted again.
//
// Rules make the pool larger or smaller by figures: seats, the queue, loads. What is asked of a pool is shared by its
// machines, so a figure can be worked out for any number of them: machines on their way count, and a machine goes only
// if no rule would want it back. Where figures are not known nothing goes.
//
// The bounds are those of the schedule's window that holds (bounds.go). Beyond them there are the provider's room and
// what the pool may cost: they hold new machines back and take none away.
//
// While machines run that could take people, one does.
//
// The owner of an operator's cordon is the operator: such a machine is left alone.
package scale
