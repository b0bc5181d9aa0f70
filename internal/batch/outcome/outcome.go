// Package outcome says how attempts, tasks and jobs end, and what follows from it.
package outcome

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
)

// ExitOwn is the exit code of what never ran to an exit of its own.
const ExitOwn = 125

// Title is how a job is named in sentences: "12 (sweep)".
func Title(j shoal.Job) string {
	if j.Spec.Name == "" {
		return string(j.ID)
	}
	return fmt.Sprintf("%s (%s)", j.ID, j.Spec.Name)
}

// Ended says that something ended so.
func Ended(s shoal.JobState) string {
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

// Tasks counts them: "1 task", "8 tasks".
func Tasks(n int) string {
	if n == 1 {
		return "1 task"
	}
	return strconv.Itoa(n) + " tasks"
}

// Reason says in a sentence how an attempt ended, where the agent did not.
func Reason(a shoal.Attempt, spec shoal.JobSpec) string {
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

// CompareRefs orders tasks by job and index.
func CompareRefs(a, b shoal.TaskRef) int {
	return cmp.Or(cmp.Compare(len(a.Job), len(b.Job)), cmp.Compare(a.Job, b.Job), cmp.Compare(a.Index, b.Index))
}

// Infrastructure reports whether an attempt ended so through no fault of its task.
func Infrastructure(s shoal.JobState) bool { return s == shoal.JobLost || s == shoal.JobPreempted }

// OwnFailure reports whether an attempt ended by a failure of the task's own.
func OwnFailure(a shoal.Attempt) bool {
	if a.State != shoal.JobFailed && a.State != shoal.JobTimedOut {
		return false
	}
	return a.Cause != shoal.CauseMachineLost && a.Cause != shoal.CausePreempted && a.Cause != shoal.CauseQuota
}

// Repeats reports whether a task whose latest attempt stands as a must start again.
func Repeats(j shoal.Job, a shoal.Attempt) bool {
	switch {
	case j.Cancel || a.Release:
		return false
	case a.State == shoal.JobQueued: // somebody asked for it
		return true
	case Infrastructure(a.State):
		return true
	case !OwnFailure(a) || a.Failures > j.Spec.Retries:
		return false
	case j.Spec.Retry == nil || len(j.Spec.Retry.On) == 0:
		return a.State == shoal.JobFailed
	}
	return slices.Contains(j.Spec.Retry.On, a.Cause)
}

// Postpone is how long a task waits before its next attempt: not at all at first, then ever longer,
// so that a task that nobody can run does not keep everybody busy.
func Postpone(attempt int) time.Duration {
	if attempt < 3 {
		return 0
	}
	return min(time.Second<<min(attempt-3, 10), time.Minute)
}

// Worst says in a sentence how a job ended, by its tasks and the first of them that did not succeed.
func Worst(c shoal.Counts, first shoal.Attempt) string {
	if c.Total() == 1 {
		return first.Reason
	}
	return fmt.Sprintf("%d of %s did not succeed; the first is %s: %s", c.Failed+c.TimedOut+c.Cancelled, Tasks(c.Total()), first.TaskRef, first.Reason)
}

// Told reports whether an attempt ended so because somebody told it to.
func Told(s shoal.JobState) bool {
	return s == shoal.JobCancelled || s == shoal.JobLost || s == shoal.JobPreempted
}

// Verdict is the state in which an attempt ended, by what its agent says and what was asked of it.
func Verdict(j shoal.Job, a shoal.Attempt, said shoal.JobState) shoal.JobState {
	switch said {
	case shoal.JobSucceeded:
		if a.ExitCode != 0 || a.Signal != 0 {
			return shoal.JobFailed
		}
	case shoal.JobFailed:
		if j.Cancel && a.Cause == shoal.CauseSignal {
			return shoal.JobCancelled
		}
	case shoal.JobCancelled, shoal.JobLost, shoal.JobPreempted:
		if j.Cancel {
			return shoal.JobCancelled
		}
		if said == shoal.JobCancelled {
			return shoal.JobLost // nobody cancelled it: the agent did not know it any more
		}
	}
	return said
}

// Cause lets pass what is a cause.
func Cause(c shoal.Cause) shoal.Cause {
	switch c {
	case shoal.CauseExit, shoal.CauseSignal, shoal.CauseOOM, shoal.CauseTimeLimit, shoal.CauseCancelled, shoal.CauseMachineLost, shoal.CauseSetupFailed,
		shoal.CausePreempted, shoal.CauseQuota:
		return c
	}
	return ""
}

// Later is the later of two times.
func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Clean bounds a sentence that came from outside.
func Clean(s string) string {
	if end := maxReason; len(s) > end {
		for end > maxReason-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "…"
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "�")
}

// Following is the number of the attempt that comes next. One that was asked for has its number already.
func Following(last *shoal.Attempt) int {
	switch {
	case last == nil:
		return 1
	case last.State == shoal.JobQueued:
		return last.Attempt
	}
	return last.Attempt + 1
}

// State is a task's state by its latest attempt.
func State(j shoal.Job, a shoal.Attempt) shoal.JobState {
	if a.State.Ended() && Repeats(j, a) {
		return shoal.JobQueued
	}
	return a.State
}

// maxReason bounds the sentence an agent may give.
const maxReason = 2000

// Verb is the one or the other by a number.
func Verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Memory is how much memory the next attempt of a task gets on each node, if not what its job asks for: more
// after it ran out of it, up to the most that there is and that its user may have.
func Memory(j shoal.Job, a shoal.Attempt, p shoal.Pool) shoal.Bytes {
	if !grows(j, a) {
		return a.Memory
	}
	want := shoal.Bytes(float64(had(j, a)) * float64(j.Spec.Retry.Memory))
	for _, most := range []shoal.Bytes{p.Machine.Memory, quota(j, a, p)} {
		if most > 0 {
			want = min(want, max(most, had(j, a)))
		}
	}
	return want
}

// Bound ends a task that ran out of memory and may not have more than it had: another attempt would come to the same end.
func Bound(j shoal.Job, a *shoal.Attempt, p shoal.Pool) {
	if most := quota(j, *a, p); grows(j, *a) && most > 0 && had(j, *a) >= most {
		a.Cause, a.Reason = shoal.CauseQuota, fmt.Sprintf("it needed more memory than the %s it was given, and may have no more in pool %s", had(j, *a), p.Name)
	}
}

// grows reports whether the next attempt is to have more memory.
func grows(j shoal.Job, a shoal.Attempt) bool {
	return a.Cause == shoal.CauseOOM && j.Spec.Retry != nil && j.Spec.Retry.Memory > 1
}

// had is how much memory an attempt had on each node.
func had(j shoal.Job, a shoal.Attempt) shoal.Bytes {
	if a.Memory > 0 {
		return a.Memory
	}
	return j.Spec.Resources.Memory
}

// quota is how much memory on each node the user and the group of a job may have for one task; 0: that is not limited.
func quota(j shoal.Job, a shoal.Attempt, p shoal.Pool) shoal.Bytes {
	user, group := p.Limits.PerUser.Memory, p.Limits.PerGroup.Memory
	if user == 0 || group > 0 && group < user {
		user = group
	}
	return user / shoal.Bytes(max(len(a.Members), 1))
}

// Within bounds a time that an agent's clock gave: nothing happens before a task was placed nor after now.
func Within(t, from, now time.Time) time.Time {
	switch {
	case t.IsZero() || t.After(now):
		return now
	case t.Before(from):
		return from
	}
	return t.UTC().Round(0)
}

// Move moves past times by so much, because the clock was set; a zero one says that there is none. What began after it was set stays in the past.
func Move(by time.Duration, now time.Time, times ...*time.Time) {
	for _, t := range times {
		if !t.IsZero() {
			*t = Within(t.Add(by), time.Time{}, now)
		}
	}
}

// Ran is for how long an attempt ran that came to an end of its own; 0: it did not.
func Ran(a shoal.Attempt) time.Duration {
	if a.Started.IsZero() || a.State != shoal.JobSucceeded && a.State != shoal.JobFailed {
		return 0
	}
	return max(a.Ended.Sub(a.Started), 1)
}
