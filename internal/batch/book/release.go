package book

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/book/history"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
)

// A job's release command runs once on each machine that ran a task of it, when the job is over. What
// runs it is an attempt like any other to the machine; its index is negative, so it is no task.

// releaseLimit is how long a release command may take.
const releaseLimit = 10 * time.Minute

// note remembers on which machines a job with a release command has run something. b.mu is held.
func (b *Book) note(a shoal.Attempt) {
	machines := b.ran[a.Job]
	if machines == nil {
		machines = map[shoal.MachineID]int{}
		b.ran[a.Job] = machines
	}
	machines[a.Machine] = a.Epoch
	for _, m := range a.Members {
		machines[m.Machine] = m.Epoch
	}
}

// release has the release command of a job that is over run.
func (g *Group) release(r *Row) error {
	if r.Spec.Release == "" {
		return nil
	}
	g.b.mu.Lock()
	ran := g.b.ran[r.ID]
	ids := make([]shoal.MachineID, 0, len(ran))
	for id := range ran {
		ids = append(ids, id)
	}
	g.b.mu.Unlock()
	slices.Sort(ids)
	p := placing{Group: g, machines: map[shoal.MachineID]*shoal.Machine{}}
	for k, id := range ids {
		m, err := p.machine(id)
		if err != nil {
			return err
		}
		if m == nil || m.State != shoal.MachineReady || m.Epoch != ran[id] {
			continue // whatever it would release is gone
		}
		a := &shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: r.ID, Index: -1 - k}, Attempt: 1},
			User: r.User, Pool: r.Spec.Pool, Machine: id, Epoch: m.Epoch, State: shoal.JobStarting, Placed: g.Now, Release: true}
		if last, err := history.Latest(g.Tx, a.TaskRef); err != nil {
			return err
		} else if last != nil { // the job was tried again since
			a.Attempt = last.Attempt + 1
		}
		g.Put(a)
		g.position[a.TaskRef] = -1
		o, err := p.order(r.Job, *a, -1, 0)
		if err != nil {
			return err
		}
		g.send(id, api.Record{Run: &o})
	}
	return nil
}

// finishRelease ends what ran a release command. How it ended changes nothing about the job.
func (g *Group) finishRelease(a *shoal.Attempt, to shoal.JobState) error {
	a.State = to
	if a.Ended.IsZero() {
		a.Ended = g.Now
	}
	if to == shoal.JobSucceeded {
		return nil
	}
	r, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	g.Event(r, "releaseFailed", "the release command of job %s %s on machine %s: %s", outcome.Title(r.Job), outcome.Ended(to), a.Machine, a.Reason)
	return nil
}
