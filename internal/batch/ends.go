package batch

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/sched"
)

// again is a task that must start again, not before a time.
type again struct {
	at     time.Time
	memory shoal.Bytes // if not what its job says
}

// finish ends an attempt that is live, whose fields but State are filled in, and moves its task on.
func (g *group) finish(a *shoal.Attempt, from, to shoal.JobState) error {
	if a.Release {
		return g.finishRelease(a, to)
	}
	j, err := g.job(a.Job)
	if err != nil {
		return err
	}
	g.touch(j)
	if infrastructure(to) && j.Cancel {
		to = shoal.JobCancelled
	}
	if a.State = to; infrastructure(to) && !j.Cancel && j.Spec.Requeue == "never" {
		a.State = shoal.JobFailed // whoever asked for it decides what is done about it
	}
	if a.Ended.IsZero() {
		a.Ended = g.now
	}
	task := sched.Task{Job: a.Job, Position: g.placeOf(a)}
	g.changes = append(g.changes, sched.End{Task: task, At: g.now})
	if j.Started.IsZero() && !a.Started.IsZero() {
		j.Started = a.Started
	}
	if own(*a) {
		a.Failures++
	}
	j.Counts.Add(from, -1)
	if !repeats(j.Job, *a) {
		j.Counts.Add(a.State, 1)
		if err := g.tooMany(j); err != nil {
			return err
		}
		return g.followers(j, task.Position, a.Index)
	}
	j.Counts.Add(shoal.JobQueued, 1)
	g.demand = true
	switch a.State {
	case shoal.JobLost:
		j.lost++
		g.keepPlaces(task, *a)
	case shoal.JobPreempted:
		j.preempted++
	default:
		j.retry++
	}
	g.again[a.Job] = append(g.again[a.Job], task.Position)
	memory := a.Memory
	if a.Cause == shoal.CauseOOM && j.Spec.Retry != nil {
		memory = g.more(j.Job, *a)
	}
	if wait := postpone(a.Attempt); wait > 0 {
		g.later[task] = again{g.now.Add(wait), memory}
	} else {
		g.changes = append(g.changes, sched.Again{Task: task, Memory: memory})
	}
	return nil
}

// refill is for how long the places of a gang that lost a node are kept for it.
const refill = 10 * time.Minute

// keepPlaces keeps what a gang that lost a node had of places, so that it starts anew as soon as there
// is one more.
func (g *group) keepPlaces(task sched.Task, a shoal.Attempt) {
	var machines []shoal.MachineID
	for _, m := range a.Members {
		if m.State != shoal.JobLost && g.b.nodeGone(m.Machine, m.Epoch) == "" {
			machines = append(machines, m.Machine)
		}
	}
	if len(machines) > 0 && len(a.Members) > 1 {
		g.changes = append(g.changes, sched.Hold{Task: task, Machines: machines, Until: g.now.Add(refill)})
	}
}

// more is how much memory a task gets that ran out of it.
func (g *group) more(j shoal.Job, a shoal.Attempt) shoal.Bytes {
	had := a.Memory
	if had == 0 {
		had = j.Spec.Resources.Memory
	}
	if j.Spec.Retry.Memory <= 1 {
		return a.Memory
	}
	want := shoal.Bytes(float64(had) * float64(j.Spec.Retry.Memory))
	if most := g.b.pools[j.Spec.Pool].Machine.Memory; most > 0 {
		want = min(want, max(most, had))
	}
	return want
}

// infrastructure reports whether an attempt ended so through no fault of its task.
func infrastructure(s shoal.JobState) bool { return s == shoal.JobLost || s == shoal.JobPreempted }

// own reports whether an attempt ended by a failure of the task's own.
func own(a shoal.Attempt) bool {
	if a.State != shoal.JobFailed && a.State != shoal.JobTimedOut {
		return false
	}
	return a.Cause != shoal.CauseMachineLost && a.Cause != shoal.CausePreempted && a.Cause != shoal.CauseQuota
}

// repeats reports whether a task whose latest attempt stands as a must start again.
func repeats(j shoal.Job, a shoal.Attempt) bool {
	switch {
	case j.Cancel || a.Release:
		return false
	case a.State == shoal.JobQueued: // somebody asked for it
		return true
	case infrastructure(a.State):
		return true
	case !own(a) || a.Failures > j.Spec.Retries:
		return false
	case j.Spec.Retry == nil || len(j.Spec.Retry.On) == 0:
		return a.State == shoal.JobFailed
	}
	return slices.Contains(j.Spec.Retry.On, a.Cause)
}

// postpone is how long a task waits before its next attempt: not at all at first, then ever longer,
// so that a task that nobody can run does not keep everybody busy.
func postpone(attempt int) time.Duration {
	if attempt < 3 {
		return 0
	}
	return min(time.Second<<min(attempt-3, 10), maxPostpone)
}

// tooMany cancels what is left of a job of which as many tasks failed as may.
func (g *group) tooMany(j *row) error {
	failed := j.Counts.Failed + j.Counts.TimedOut
	if j.Spec.MaxFails == 0 || failed < j.Spec.MaxFails || j.Cancel || j.Counts.Queued+j.Counts.Starting+j.Counts.Running == 0 {
		return nil
	}
	return g.cancel(j, fmt.Sprintf("%s failed, and the job allows no more", tasks(failed)))
}

// end completes the row of a job that is over, and frees or ends those that waited for it.
func (g *group) end(r *row) error {
	r.Ended, r.Blocked = g.now, false
	if err := g.outcome(r); err != nil {
		return err
	}
	g.changes = append(g.changes, sched.EndJob{ID: r.ID})
	g.active[holder{r.User, r.Spec.Pool}]--
	g.demand = true
	sentence := fmt.Sprintf("job %s %s", title(r.Job), ended(r.State))
	if r.Reason != "" {
		sentence += ": " + r.Reason
	}
	g.event(r, "jobEnded", "%s", sentence)
	if err := g.release(r); err != nil {
		return err
	}
	return g.dependents(r)
}

// outcome gives a job that is over its reason, if it is not a success.
func (g *group) outcome(r *row) error {
	if r.State == shoal.JobSucceeded {
		r.Reason = ""
		return nil
	}
	cancelled := ""
	if r.Cancel && r.Reason != "" {
		if r.State == shoal.JobCancelled {
			return nil
		}
		cancelled = r.Reason + "; "
	}
	worst, err := g.tx.Failures(r.ID, 1)
	if err != nil {
		return err
	}
	c := r.Counts
	switch {
	case len(worst) == 0:
	case c.Total() == 1:
		r.Reason = cancelled + worst[0].Reason
	default:
		r.Reason = cancelled + fmt.Sprintf("%d of %s did not succeed; the first is %s: %s", c.Failed+c.TimedOut+c.Cancelled, tasks(c.Total()), worst[0].TaskRef, worst[0].Reason)
	}
	return nil
}

// stop has the nodes of an attempt ended that still run.
func (g *group) stop(a shoal.Attempt, state shoal.JobState) {
	for _, m := range gang.Nodes(a) {
		if !m.State.Ended() {
			g.send(m.Machine, stopOrder(a.AttemptRef, state))
		}
	}
}
