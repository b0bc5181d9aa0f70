// Package tasks and those below it run attempts at tasks as their users, so that neither their output nor their end is lost
// when the agent is killed or replaced. This one holds what both sides share:
// records on disk, the lines they exchange, and the taking away of what is left.
//
// Two processes share the work:
//
//	runner       part of the agent's `run`. It takes orders from the control plane, knows every attempt, and
//	             reports. It may be killed and replaced at any moment.
//	supervisor   `shoal-agent task supervise`, one for all tasks of the machine, started with the first task and
//	             gone half a minute after the last. It is the parent of the tasks: starts them, reads their output,
//	             waits for their end, and writes both to disk before it tells the Runner.
//
// One supervisor instead of one per task, because starting this program costs the processor more (2.2 ms, and 8 MB while
// it runs) than all of a task that does nothing: 1.2 ms for a shell as another user with its output in a file, and a
// quarter of one for all else. That is so little because control groups, scratch directories and records, which are
// dear to make and to remove, serve one task after another; see the benchmarks. The price of one supervisor: when
// it is killed, all tasks of the machine end as lost.
//
// On disk, in a directory that is root's alone, an attempt has
//
//	17.0.1.rec   a line when it is accepted, where there are no control groups one for each process of its own, and one
//	             when it has ended
//	17.0.1.out   what it wrote to stdout, as soon as there is something; .err likewise
//	17.0.1.ack   roughly how much of both the control plane has, so that a new Runner need not send all again
//
// None of it is synced: these files are to outlive processes, not the machine, whose loss ends
// the task anyway. The first line of a record takes a block of the file system, into which the others fit, so a
// full disk does not cost an exit status.
//
// An attempt in the runner:
//
//	waiting   an older attempt of the same task has not ended yet
//	sent      handed to the supervisor, or about to be. One with Hold is told to be ready when it is, and begins when
//	          its order comes again without
//	running   its command was started, a moment ago: of most that are over by then the end says enough
//	ended     reported until that is acknowledged, kept until it is to be forgotten
//
// A task in the supervisor gets its directories, files and pass (package passes), its outputs are opened, its job is
// prepared unless that was done here since the machine's start, by whichever task of it comes first; then the command
// runs, or with Idle nothing does. When it ends, its pass ends first, then all its processes, and only then is it told.
//
// What is kept for a job (its scratch directory, that it is prepared) goes with its release command, when it is told
// that the job has ended, or an hour after its last attempt here.
//
// Tasks that are not idempotent live under a lease, which the runner renews whenever the control plane has answered. The
// supervisor counts it, because the agent may be killed, and by the clock that goes on while the machine is
// suspended. When it runs out they are killed and lost, and none starts before it is renewed.
//
// If the supervisor goes, what it held is looked up on disk: with an end there it ended; without
// a record it never started and is handed to the next supervisor; else its processes are killed and it is lost.
// So no attempt is started twice, and none gets stuck.
//
// A task ends when its first process ends. What other processes of its write within a moment after that is still
// taken, then they are killed: a background process that keeps a pipe open delays nothing. With
// a time limit or a Stop they all get a signal and the grace to end by themselves.
package tasks
