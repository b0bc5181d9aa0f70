// Package sched decides which task starts where, and which has to make room.
//
// It is a plain value. State is changed by Apply, whose changes say what is on record (a job,
// a machine, a start, an end), and asked by Plan, which answers with the tasks to be started and
// to be told to go now. A State to which all changes were applied equals one made anew from the
// rows. Time comes in with the changes and questions.
//
// The order within a pool (plan.go, share.go): priority first; then a user of whom nothing runs gets
// one task; then the group that used least by its weight, and of it the user who used least; of one
// user the job submitted first. What was used is counted in seconds of a machine, worth half after a
// week. Limits of users, groups and jobs hold back whom they concern and nobody else.
//
// What does not fit lets others pass. The first for which there is no room is the pool's head
// (head.go): it is promised a time, places are kept for it, and what passes it must be gone by
// then or leave them alone. So large tasks and gangs do not starve behind small ones.
//
// Tasks make room (preempt.go) for the logins whose seats they borrowed, at once; and those of low
// priority for more urgent ones that would start by it, after a while and not too many at a time. What
// was let past the head can be called back by it if its priority is low.
//
// Cost: tasks are never held one by one (queue.go). A job is a number of tasks and the position of the
// first that never started; only those that must start again are listed. What has the same needs in
// the same pool is one shape, and what holds for one of a shape holds for all. Machines are kept in order
// of what is left of them (index.go, machine.go). So the work of a pass grows with shapes, and with
// the logarithm of machines, not with tasks; only what is found for a head is a look at all machines.
//
// What it deliberately does not do: it knows no dependencies or retries, and enforces no time limits. Whether
// a job waits for another, and whether a task is to start again, its caller says.
package sched
