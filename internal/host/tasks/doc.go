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
// One supervisor instead of one per task, because starting this program costs the processor as much again (2.2 ms, and
// 8 MB while it runs) as all of a task that does nothing (1.9 ms: the shell 0.6, the control groups 0.4 to 0.6, the
// files 0.3; see the benchmarks). Its price: when it is killed, all tasks of the machine end as lost.
//
// On disk, in a directory that is root's alone, an attempt has
//
//	17.0.1.rec   a line when it is accepted, when its first process has started, and when it has ended
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
//	sent      handed to the supervisor, or about to be
//	running   its first process was started
//	ended     reported until that is acknowledged, kept until it is to be forgotten
//
// If the supervisor goes, what it held is looked up on disk: with an end there it ended; without
// a record it never started and is handed to the next supervisor; else its processes are killed and it is lost.
// So no attempt is started twice, and none gets stuck.
//
// A task ends when its first process ends. What other processes of its write within a moment after that is still
// taken, then they are killed: a background process that keeps a pipe open delays nothing. With
// a time limit or a Stop they all get a signal and the grace to end by themselves.
package tasks
