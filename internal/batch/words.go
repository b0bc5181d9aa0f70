package batch

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/ledger"
)

// exitOwn is the exit code of what never ran to an exit of its own.
const exitOwn = ledger.ExitOwn

// title is how a job is named in sentences: "12 (sweep)".
func title(j shoal.Job) string {
	if j.Spec.Name == "" {
		return string(j.ID)
	}
	return fmt.Sprintf("%s (%s)", j.ID, j.Spec.Name)
}

// ended says that something ended so.
func ended(s shoal.JobState) string {
	switch s {
	case shoal.JobTimedOut:
		return "ran out of time"
	case shoal.JobCancelled:
		return "was cancelled"
	case shoal.JobLost:
		return "lost its machine"
	case shoal.JobPreempted:
		return "had to go"
	}
	return string(s) // succeeded, failed
}

// tasks counts them: "1 task", "8 tasks".
func tasks(n int) string {
	if n == 1 {
		return "1 task"
	}
	return strconv.Itoa(n) + " tasks"
}

// reasonOf says in a sentence how an attempt ended, where the agent did not.
func reasonOf(a shoal.Attempt, spec shoal.JobSpec) string {
	switch {
	case a.State == shoal.JobSucceeded:
		return ""
	case a.Cause == shoal.CauseOOM && a.Memory > spec.Resources.Memory:
		return fmt.Sprintf("it needed more memory than the %s it was given", a.Memory)
	case a.Cause == shoal.CauseOOM:
		return fmt.Sprintf("it needed more memory than the %s it asked for", spec.Resources.Memory)
	case a.Cause == shoal.CauseTimeLimit || a.State == shoal.JobTimedOut:
		return fmt.Sprintf("it ran longer than its time limit of %s", spec.TimeLimit)
	case a.Cause == shoal.CauseCancelled || a.State == shoal.JobCancelled:
		return "it was cancelled"
	case a.Cause == shoal.CauseSetupFailed:
		return "its command could not be started"
	case a.Signal > 0:
		return fmt.Sprintf("it was ended by signal %d", a.Signal)
	case a.ExitCode == 128+9: // what a shell says of a command that was killed
		return fmt.Sprintf("it exited with %d: a command of it was killed (signal 9)", a.ExitCode)
	case a.ExitCode == 127:
		return "it exited with 127: a command was not found"
	case a.ExitCode == 126:
		return "it exited with 126: a command could not be run"
	}
	return fmt.Sprintf("it exited with %d", a.ExitCode)
}

func compareRefs(a, b shoal.TaskRef) int {
	return cmp.Or(cmp.Compare(len(a.Job), len(b.Job)), cmp.Compare(a.Job, b.Job), cmp.Compare(a.Index, b.Index))
}
