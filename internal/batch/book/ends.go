package book

import (
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
)

// again is a task that must start again, not before a time.
type again struct {
	at     time.Time
	memory shoal.Bytes // if not what its job says
}

// finish ends an attempt that is live, whose fields but State are filled in, and moves its task on.
func (g *Group) finish(a *shoal.Attempt, from, to shoal.JobState) error {
	if a.Release {
		return g.finishRelease(a, to)
	}
	j, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	g.Touch(j)
	if outcome.Infrastructure(to) && j.Cancel {
		to = shoal.JobCancelled
	}
	if a.State = to; outcome.Infrastructure(to) && !j.Cancel && j.Spec.Requeue == "never" {
		a.State = shoal.JobFailed // whoever asked for it decides what is done about it
	}
	if a.Ended.IsZero() {
		a.Ended = g.Now
	}
	recalled := a.Behind != nil && a.Started.IsZero()
	if next := g.Attempt(g.b.behind[a.AttemptRef]); recalled && next != nil && next.Behind != nil && *next.Behind == a.AttemptRef {
		g.Change(next).Behind = a.Behind // it waits for that one now
	}
	a.Behind = nil
	task := sched.Task{Job: a.Job, Position: g.placeOf(a)}
	g.changes = append(g.changes, sched.End{Task: task, At: g.Now, Ran: outcome.Ran(*a)})
	if j.Started.IsZero() && !a.Started.IsZero() {
		j.Started = a.Started
	}
	if outcome.Bound(j.Job, a, g.b.world.Pools[j.Spec.Pool]); outcome.OwnFailure(*a) {
		a.Failures++
	}
	j.Counts.Add(from, -1)
	if !outcome.Repeats(j.Job, *a) {
		j.Counts.Add(a.State, 1)
		if err := g.tooMany(j); err != nil {
			return err
		}
		return g.Followers(j, task.Position, a.Index)
	}
	j.Counts.Add(shoal.JobQueued, 1)
	g.demand = true
	switch a.State {
	case shoal.JobLost:
		j.lost++
		g.keepPlaces(task, *a)
	case shoal.JobPreempted:
		if !recalled {
			j.preempted++
		}
	default:
		j.retry++
	}
	g.again[a.Job] = append(g.again[a.Job], task.Position)
	memory := outcome.Memory(j.Job, *a, g.b.world.Pools[j.Spec.Pool])
	if wait := outcome.Postpone(a.Attempt); wait > 0 {
		g.later[task] = again{time.Now().Add(wait), memory}
	} else {
		g.changes = append(g.changes, sched.Again{Task: task, Memory: memory})
	}
	return nil
}

// refill is for how long the places of a gang that lost a node are kept for it.
const refill = 10 * time.Minute

// keepPlaces keeps what a gang that lost a node had of places, so that it starts anew as soon as there
// is one more.
func (g *Group) keepPlaces(task sched.Task, a shoal.Attempt) {
	var machines []shoal.MachineID
	for _, m := range a.Members {
		if m.State != shoal.JobLost && g.b.world.Gone(m.Machine, m.Epoch) == "" {
			machines = append(machines, m.Machine)
		}
	}
	if len(machines) > 0 && len(a.Members) > 1 {
		g.changes = append(g.changes, sched.Hold{Task: task, Machines: machines, Until: g.Now.Add(refill)})
	}
}

// tooMany cancels what is left of a job of which as many tasks failed as may.
func (g *Group) tooMany(j *Row) error {
	failed := j.Counts.Failed + j.Counts.TimedOut
	if j.Spec.MaxFails == 0 || failed < j.Spec.MaxFails || j.Cancel || j.Counts.Queued+j.Counts.Starting+j.Counts.Running == 0 {
		return nil
	}
	return g.Cancel(j, fmt.Sprintf("%s failed, and the job allows no more", outcome.Tasks(failed)))
}

// end completes the row of a job that is over, and frees or ends those that waited for it.
func (g *Group) end(r *Row) error {
	r.Ended, r.Blocked, r.over = g.Now, false, true
	if err := g.outcome(r); err != nil {
		return err
	}
	g.changes = append(g.changes, sched.EndJob{ID: r.ID})
	g.active[holder{r.User, r.Spec.Pool}]--
	g.demand = true
	sentence := fmt.Sprintf("job %s %s", outcome.Title(r.Job), outcome.Ended(r.State))
	if r.Reason != "" {
		sentence += ": " + r.Reason
	}
	g.Event(r, "jobEnded", "%s", sentence)
	if err := g.release(r); err != nil {
		return err
	}
	return g.dependents(r)
}

// outcome gives a job that is over its reason, if it is not a success.
func (g *Group) outcome(r *Row) error {
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
	worst, err := g.Tx.Failures(r.ID, 1)
	if err != nil {
		return err
	}
	if len(worst) > 0 {
		r.Reason = cancelled + outcome.Worst(r.Counts, worst[0])
	}
	return nil
}

// Stop has the nodes of an attempt ended that still run.
func (g *Group) Stop(a shoal.Attempt, state shoal.JobState) {
	for _, m := range gang.Nodes(a) {
		if !m.State.Ended() {
			g.send(m.Machine, gang.Stop(a.AttemptRef, state))
		}
	}
}
