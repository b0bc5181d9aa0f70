// Package sched decides which task starts where.
//
// It is a plain value. State is changed by Apply, whose changes say what is on record (a job,
// a machine, a start, an end), and asked by Plan, which answers with the tasks to be started
// now. A State to which all changes were applied equals one made anew from the rows.
//
// The order within a pool: priority first; among users of equal priority whoever has the fewest
// processors in use there; of one user the job submitted first. What does not fit lets others
// pass, with one exception: for the first shape that fits on no machine now, one machine is kept,
// and takes no other shape of the same or a lower priority until that one has been served. So
// large tasks do not starve behind small ones.
//
// Tasks are never held one by one. A job is a number of tasks and the position of the first that
// never started; only those that must start again are listed. What asks for the same resources in
// the same pool is one shape, and what holds for one of a shape holds for all: the work of a pass
// grows with shapes and machines, not with tasks.
//
// What it deliberately does not do: it knows no time limits, dependencies or retries. Whether a job
// waits for another, and whether a task is to start again, its caller says.
package sched
