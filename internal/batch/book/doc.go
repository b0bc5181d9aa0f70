// Package book keeps the books of jobs: it places their tasks on machines, stores what the machines'
// agents report, and ends each job with its outcome.
//
// One goroutine, Run, owns the truth. Whatever changes a job (a submission, a report, a
// cancellation) is a request that waits for it; those that wait together, and what package sched says
// is to be started, share one transaction, in which the row of a job is written once however many of
// its tasks moved. What was committed is then applied to the state of package sched, and only then are
// the agents told. So a restart at any point finds in the store what it needs, and an order that was
// lost is in the machine's next Snapshot.
//
// The life of an attempt and who moves it:
//
//	starting    placed: recorded by Run before its agents are told; several nodes wait for each other
//	running     its agent says so
//	succeeded, failed, timedout, cancelled, preempted   its agent says so
//	lost        its machine stopped, failed, went, was started anew or is silent for too long
//
// While an attempt is live its cause is empty, until it is settled how it ends: it was told to go, a node
// of it has ended, or its nodes did not get ready. That is on record before its agents are told, and they
// are told until the end of each node is.
//
// A task whose attempt was lost, or failed with retries left, waits again before those of its job
// that never started. The attempt number is the fence: news of any but the current attempt, or from
// another machine than its own, change nothing; that machine is told to end or forget it. When what
// runs on a silent machine is over, package fence says.
//
// Output is in files of its own, one for each attempt and stream that wrote anything, appended by
// offset before the attempt's row says how long they are. An end is recorded only with all output
// there, so whoever follows knows where to stop.
//
// A task's output as it is read is that of all its attempts, one after the other, with a line
// between them; so an offset means the same whenever it is asked for.
//
// It makes no machines: waiting tasks are demand that the engine sees in the store.
package book
