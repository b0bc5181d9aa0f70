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

// JobSpec is what a user asks for.
type JobSpec struct {
	Name        string            `json:"name,omitempty"`
	Pool        PoolName          `json:"pool"`
	Command     string            `json:"command"`         // run by /bin/sh -c, in the user's login environment
	Array       string            `json:"array,omitempty"` // "1-100", "0-9:3", "1,4,7-9"; empty: one task, index 0
	Nodes       int               `json:"nodes,omitempty"`
	Launcher    string            `json:"launcher,omitempty"`
	Resources   Resources         `json:"resources,omitzero"`
	Workdir     string            `json:"workdir,omitempty"` // default: the user's home
	Inputs      map[string]string `json:"inputs,omitempty"`
	Outputs     map[string]string `json:"outputs,omitempty"`
	Prepare     string            `json:"prepare,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Secrets     map[string]string `json:"secrets,omitempty"`
	TimeLimit   Duration          `json:"timeLimit,omitempty"`
	Retries     int               `json:"retries,omitempty"`
	After       []string          `json:"after,omitempty"` // job ids or names; all must succeed
	Tasks       []TaskSpec        `json:"tasks,omitempty"`
	Release     string            `json:"release,omitempty"`
	Preemptible *bool             `json:"preemptible,omitempty"`
	Share       string            `json:"share,omitempty"` // private or group
	Priority    string            `json:"priority,omitempty"`
}

// TaskSpec is one command of a job of different commands.
type TaskSpec struct {
	Name    string   `json:"name"`
	Command string   `json:"command"`
	After   []string `json:"after,omitempty"`
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
	Submitted time.Time `json:"submitted"`
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Cancel    bool      `json:"cancel,omitempty"`  // desired: end it
	Blocked   bool      `json:"blocked,omitempty"` // waits for other jobs: no demand for machines yet
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
	CauseMachineLost Cause = "machineLost"
	CauseSetupFailed Cause = "setupFailed" // the command could not be started
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
}
