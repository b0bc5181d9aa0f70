package shoal

import "time"

// JobState is the state of a job, of a task, or of one attempt at a task.
type JobState string

// The states. Lost and preempted end an attempt, never a task or job: a new attempt follows.
const (
	JobQueued    JobState = "queued"
	JobStarting  JobState = "starting"
	JobRunning   JobState = "running"
	JobSucceeded JobState = "succeeded"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
	JobTimedOut  JobState = "timedout"
	JobLost      JobState = "lost"
	JobPreempted JobState = "preempted"
)

// Ended reports whether nothing more happens in the state.
func (s JobState) Ended() bool {
	switch s {
	case JobQueued, JobStarting, JobRunning:
		return false
	}
	return true
}

// JobSpec is what a user asks for. A job has one task, an array of them (Array or Items), or Tasks of
// different commands.
type JobSpec struct {
	Name        string               `json:"name,omitempty"`
	Pool        PoolName             `json:"pool"`
	Command     string               `json:"command"`         // run by /bin/sh -c, in the user's login environment
	Array       string               `json:"array,omitempty"` // "1-100", "0-9:3", "1,4,7-9"; empty: one task, index 0
	Items       []Item               `json:"items,omitempty"` // one task for each, with indexes from 0 unless Array gives as many
	Tasks       []TaskSpec           `json:"tasks,omitempty"`
	Nodes       Nodes                `json:"nodes,omitzero"` // machines of each task, all at once
	Launcher    string               `json:"launcher,omitempty"`
	Processes   int                  `json:"processes,omitempty"` // of the launcher mpi, on all nodes; 0: one for each processor
	Resources   Resources            `json:"resources,omitzero"`  // on each node
	Container   *Container           `json:"container,omitempty"`
	Workdir     string               `json:"workdir,omitempty"` // default: the user's home
	Inputs      map[string]string    `json:"inputs,omitempty"`
	Outputs     map[string]OutputDir `json:"outputs,omitempty"`
	Prepare     string               `json:"prepare,omitempty"` // on every node before the first task there
	Release     string               `json:"release,omitempty"` // on every node that ran a task, at the end
	Env         map[string]string    `json:"env,omitempty"`
	Secrets     map[string]string    `json:"secrets,omitempty"`
	Stdout      string               `json:"stdout,omitempty"` // a file of the machine that gets a copy: %j is the job, %a the index, %n the rank, %x the name
	Stderr      string               `json:"stderr,omitempty"`
	TimeLimit   Duration             `json:"timeLimit,omitempty"`
	Signal      string               `json:"signal,omitempty"` // sent ahead of the time limit's end: "USR1@60s"
	Retries     int                  `json:"retries,omitempty"`
	Retry       *Retry               `json:"retry,omitempty"`
	Requeue     string               `json:"requeue,omitempty"`    // after a loss or preemption: always (the default) or never
	Idempotent  bool                 `json:"idempotent,omitempty"` // two attempts may overlap: a silent machine's tasks start elsewhere at once
	OnNodeLoss  string               `json:"onNodeLoss,omitempty"` // restart (the default) or continue without it
	MaxRunning  int                  `json:"maxRunning,omitempty"` // tasks at a time; 0: no limit
	MaxFails    int                  `json:"maxFails,omitempty"`   // failed tasks after which the rest is cancelled; 0: no limit
	After       []Dependency         `json:"after,omitempty"`
	Preemptible *bool                `json:"preemptible,omitempty"` // false: never borrows what logins are entitled to
	Share       string               `json:"share,omitempty"`       // private or group
	Priority    string               `json:"priority,omitempty"`
	Labels      map[string]string    `json:"labels,omitempty"`
	ExternalID  string               `json:"externalId,omitempty"` // the client's own name, unique among a user's jobs
	Dialect     string               `json:"dialect,omitempty"`    // whose variables tasks see beside ours: batchai or slurm
}

// GivesWay reports whether the job may be preempted, which is so unless it says otherwise.
func (s JobSpec) GivesWay() bool { return s.Preemptible == nil || *s.Preemptible }

// TaskSpec is one command of a job of different commands; its index is its place in the list.
type TaskSpec struct {
	Name    string            `json:"name"`
	Command string            `json:"command"`
	Env     map[string]string `json:"env,omitempty"`
	After   []string          `json:"after,omitempty"` // names of tasks of the same job that must succeed first
}

// Container is the image in which a job's commands run, by the runtime that its machine has.
type Container struct {
	Image   string   `json:"image"`
	Options []string `json:"options,omitempty"` // of the runtime's run command
}

// Retry says which of a job's own failures are tried again, Retries times, and with how much memory.
type Retry struct {
	On     []Cause `json:"on,omitempty"`     // empty: all
	Memory Factor  `json:"memory,omitempty"` // "2x": each further attempt after oom gets so much more
}

// Job is a submitted job with what became of it.
type Job struct {
	ID     JobID     `json:"id"`
	User   UserName  `json:"user"`
	Spec   JobSpec   `json:"spec"`
	State  JobState  `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
	Counts Counts    `json:"counts"`
	// Next is the position in the array of the first task that never had an attempt:
	// tasks before it have rows of their own, tasks from it on are queued.
	Next      int       `json:"next"`
	Items     int       `json:"items,omitempty"` // how many items its tasks work on; Spec does not hold them any more
	Submitted time.Time `json:"submitted"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Cancel    bool      `json:"cancel,omitempty"`  // desired: end it
	Blocked   bool      `json:"blocked,omitempty"` // waits for other jobs: no demand for machines yet
	// Promised is when the job starts at the latest, as long as no machine is lost and nothing more
	// urgent comes. It is found when the job is read, and zero where nothing can be promised.
	Promised time.Time `json:"promised,omitzero"`
	Meta
}

// Counts are a job's tasks by state.
type Counts struct {
	Queued    int `json:"queued,omitempty"`
	Starting  int `json:"starting,omitempty"`
	Running   int `json:"running,omitempty"`
	Succeeded int `json:"succeeded,omitempty"`
	Failed    int `json:"failed,omitempty"`
	Cancelled int `json:"cancelled,omitempty"`
	TimedOut  int `json:"timedout,omitempty"`
}

// Total is the number of tasks.
func (c Counts) Total() int {
	return c.Queued + c.Starting + c.Running + c.Succeeded + c.Failed + c.Cancelled + c.TimedOut
}

// Add moves n tasks into (or, negative, out of) a state.
func (c *Counts) Add(s JobState, n int) {
	switch s {
	case JobQueued, JobLost, JobPreempted:
		c.Queued += n
	case JobStarting:
		c.Starting += n
	case JobRunning:
		c.Running += n
	case JobSucceeded:
		c.Succeeded += n
	case JobFailed:
		c.Failed += n
	case JobCancelled:
		c.Cancelled += n
	case JobTimedOut:
		c.TimedOut += n
	}
}

// Outcome is the state of a job whose tasks are counted by c: its worst task decides.
func (c Counts) Outcome() JobState {
	switch {
	case c.Starting+c.Running > 0:
		return JobRunning
	case c.Queued > 0 && c.Total() > c.Queued:
		return JobRunning
	case c.Queued > 0:
		return JobQueued
	case c.Failed > 0:
		return JobFailed
	case c.TimedOut > 0:
		return JobTimedOut
	case c.Cancelled > 0:
		return JobCancelled
	}
	return JobSucceeded
}

// Cause is why an attempt ended, from a closed list.
type Cause string

// The causes.
const (
	CauseExit        Cause = "exit"
	CauseSignal      Cause = "signal"
	CauseOOM         Cause = "oom"
	CauseTimeLimit   Cause = "timeLimit"
	CauseCancelled   Cause = "cancelled"
	CausePreempted   Cause = "preempted"
	CauseMachineLost Cause = "machineLost"
	CauseSetupFailed Cause = "setupFailed" // the command could not be started
	CauseQuota       Cause = "quota"       // it would go beyond what its user may use
)

// Attempt is one try at one task. The last attempt of a task is the task's state.
type Attempt struct {
	AttemptRef
	User        UserName  `json:"user"`
	Pool        PoolName  `json:"pool"`
	Machine     MachineID `json:"machine,omitempty"`
	Epoch       int       `json:"epoch,omitempty"` // the start of the machine it was placed in
	GPUs        []int     `json:"gpus,omitempty"`  // numbers of the machine's GPUs that are its own
	State       JobState  `json:"state"`
	Cause       Cause     `json:"cause,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	ExitCode    int       `json:"exitCode"` // meaningful when ended; 128+n for signal n
	Signal      int       `json:"signal,omitempty"`
	Failures    int       `json:"failures,omitempty"` // of the task's own, this attempt included: against retries
	Placed      time.Time `json:"placed"`
	Started     time.Time `json:"started,omitzero"`
	Ended       time.Time `json:"ended,omitzero"`
	StdoutBytes int64     `json:"stdoutBytes,omitempty"` // final once ended: where a follower stops
	StderrBytes int64     `json:"stderrBytes,omitempty"`
	TruncatedAt *int64    `json:"truncatedAt,omitempty"` // output after this was lost with the machine
	MaxMemory   Bytes     `json:"maxMemory,omitempty"`
	CPUTime     Duration  `json:"cpuTime,omitempty"`
	Memory      Bytes     `json:"memory,omitempty"`     // what it was given, where that is not what its job asks for
	Backfilled  bool      `json:"backfilled,omitempty"` // it was started before one that is ahead of it
	Release     bool      `json:"release,omitempty"`    // it is the job's release command on a machine; its index is negative
	// Behind is the attempt on the same machine whose place it takes when that has ended; nil once it has ended itself.
	Behind  *AttemptRef `json:"behind,omitempty"`
	Members []Member    `json:"members,omitempty"` // its nodes by rank, if it has several; Machine, Epoch and GPUs are the first's
}

// Member is one node of an attempt that has several.
type Member struct {
	Machine     MachineID `json:"machine"`
	Epoch       int       `json:"epoch,omitempty"`
	GPUs        []int     `json:"gpus,omitempty"`
	State       JobState  `json:"state"` // starting until its node is ready to begin
	Cause       Cause     `json:"cause,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	ExitCode    int       `json:"exitCode,omitempty"`
	Signal      int       `json:"signal,omitempty"`
	StdoutBytes int64     `json:"stdoutBytes,omitempty"`
	StderrBytes int64     `json:"stderrBytes,omitempty"`
	MaxMemory   Bytes     `json:"maxMemory,omitempty"`
	CPUTime     Duration  `json:"cpuTime,omitempty"`
}
