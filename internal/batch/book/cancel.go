package book

import (
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/book/history"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
)

// Cancel ends what waits of a job at once, and has what runs stopped.
func (g *Group) Cancel(r *Row, reason string) error {
	g.Touch(r)
	r.Cancel, r.Reason, r.Blocked = true, reason, false
	queued := r.Counts.Queued
	r.Counts.Add(shoal.JobQueued, -queued)
	r.Counts.Add(shoal.JobCancelled, queued)
	if again := queued - (r.Total() - r.Next); again > 0 || after.Gated(r.Spec) {
		if err := g.cancelAgain(r, reason); err != nil {
			return err
		}
	}
	g.changes = append(g.changes, sched.PutJob(g.schedJob(r.Job)))
	for ref := range g.b.live {
		if ref.Job == r.ID {
			if a := g.Attempt(ref); !a.State.Ended() && !a.Release {
				g.Stop(*a, shoal.JobCancelled)
			}
		}
	}
	return nil
}

// cancelAgain records for tasks that were to start again that they will not: their latest attempt
// is the task's state.
func (g *Group) cancelAgain(r *Row, reason string) error {
	array, err := shoal.ParseArray(r.Spec.Array)
	if err != nil {
		return err
	}
	positions := slices.Clone(g.again[r.ID])
	if j, ok := g.b.sched.Job(r.ID); ok {
		positions = append(positions, j.Again...)
	}
	for t := range g.b.later {
		if t.Job == r.ID {
			positions = append(positions, t.Position)
		}
	}
	if after.Gated(r.Spec) { // some may wait for others, to start again after them
		all, err := history.Waiting(g.Tx, r.Job, array)
		if err != nil {
			return err
		}
		positions = append(positions, all...)
	}
	slices.Sort(positions)
	for _, p := range slices.Compact(positions) {
		delete(g.later, sched.Task{Job: r.ID, Position: p})
		if err := g.cancelTask(r, shoal.TaskRef{Job: r.ID, Index: array.Index(p)}, reason); err != nil {
			return err
		}
	}
	return nil
}

// cancelTask puts on record that a task that waits will not start, if it has had an attempt or was
// asked for again.
func (g *Group) cancelTask(r *Row, ref shoal.TaskRef, reason string) error {
	last, err := g.Latest(ref)
	if err != nil || last == nil {
		return err
	}
	g.Put(&shoal.Attempt{
		AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: outcome.Following(last)}, User: r.User, Pool: r.Spec.Pool, Failures: last.Failures,
		State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: reason, Ended: g.Now, ExitCode: outcome.ExitOwn})
	return nil
}

// Latest is a task's latest attempt as the group sees it; nil if it had none.
func (g *Group) Latest(ref shoal.TaskRef) (*shoal.Attempt, error) {
	if a := g.Attempt(ref); a != nil {
		return a, nil
	}
	if known, ok := g.known[ref.Job]; ok {
		if _, begun := known[ref.Index]; !begun {
			return nil, nil
		}
	}
	return history.Latest(g.Tx, ref)
}

// Requeue tells the scheduler what of a job waits after some tasks of it were taken out, and some that
// never started, or had ended, wait by themselves.
func (g *Group) Requeue(r *Row, without, with []int) {
	r.queued = true
	out := map[int]bool{}
	for _, p := range without {
		out[p] = true
		task := sched.Task{Job: r.ID, Position: p}
		delete(g.later, task)
		g.drop = append(g.drop, task)
	}
	s := g.schedJob(r.Job)
	if j, ok := g.b.sched.Job(r.ID); ok {
		s.Again = slices.DeleteFunc(slices.Clone(j.Again), func(p int) bool { return out[p] })
	}
	s.Again = slices.Compact(slices.Sorted(slices.Values(append(s.Again, with...))))
	g.changes = append(g.changes, sched.PutJob(s))
}
