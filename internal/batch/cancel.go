package batch

import (
	"context"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// Cancel ends a job: what waits at once, what runs after a signal and a grace. A job that has ended
// stays as it is.
func (b *Batch) Cancel(ctx context.Context, by access.Subject, id shoal.JobID) (shoal.Job, error) {
	if err := b.may(ctx, by, id); err != nil {
		return shoal.Job{}, err
	}
	return b.cancel(ctx, id, "cancelled by "+by.String())
}

// may checks that a subject may end a job.
func (b *Batch) may(ctx context.Context, by access.Subject, id shoal.JobID) error {
	return b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		_, err := visible(tx, by, access.Cancel, id)
		return err
	})
}

// CancelAs ends a job like Cancel, whoever asks: its user may not run anything any more.
func (b *Batch) CancelAs(ctx context.Context, id shoal.JobID) error {
	_, err := b.cancel(ctx, id, "its user was disabled or removed")
	return err
}

func (b *Batch) cancel(ctx context.Context, id shoal.JobID, reason string) (shoal.Job, error) {
	var r *row
	err := b.ask(ctx, func(g *group) (err error) {
		if r, err = g.job(id); err != nil || r.State.Ended() || r.Cancel {
			return err
		}
		return g.cancel(r, reason)
	})
	if err != nil {
		return shoal.Job{}, err
	}
	return r.Job, nil
}

// cancel ends what waits of a job at once, and has what runs stopped.
func (g *group) cancel(r *row, reason string) error {
	g.touch(r)
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
			if a := g.attempt(ref); !a.State.Ended() && !a.Release {
				g.stop(*a, shoal.JobCancelled)
			}
		}
	}
	return nil
}

// cancelAgain records for tasks that were to start again that they will not: their latest attempt
// is the task's state.
func (g *group) cancelAgain(r *row, reason string) error {
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
		all, err := asked(g.tx, r.Job, array)
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
func (g *group) cancelTask(r *row, ref shoal.TaskRef, reason string) error {
	last, err := g.latest(ref)
	if err != nil || last == nil {
		return err
	}
	g.put(&shoal.Attempt{
		AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: following(last)}, User: r.User, Pool: r.Spec.Pool, Failures: last.Failures,
		State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: reason, Ended: g.now, ExitCode: exitOwn})
	return nil
}

// following is the number of the attempt that comes next. One that was asked for has its number already.
func following(last *shoal.Attempt) int {
	switch {
	case last == nil:
		return 1
	case last.State == shoal.JobQueued:
		return last.Attempt
	}
	return last.Attempt + 1
}

// latest is a task's latest attempt as the group sees it; nil if it had none.
func (g *group) latest(ref shoal.TaskRef) (*shoal.Attempt, error) {
	if a := g.attempt(ref); a != nil {
		return a, nil
	}
	if known, ok := g.known[ref.Job]; ok {
		if _, begun := known[ref.Index]; !begun {
			return nil, nil
		}
	}
	return stored(g.tx, ref)
}

// stored is a task's latest attempt on record; nil if it had none.
func stored(tx *store.Tx, ref shoal.TaskRef) (*shoal.Attempt, error) {
	a, err := tx.Attempt(ref)
	switch {
	case shoal.KindOf(err) == shoal.KindNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &a, nil
}

// CancelTasks ends some tasks of a job, given as the indexes of an array. Those that have ended stay
// as they are, and no others are touched.
func (b *Batch) CancelTasks(ctx context.Context, by access.Subject, id shoal.JobID, which string) (shoal.Job, error) {
	if err := b.may(ctx, by, id); err != nil {
		return shoal.Job{}, err
	}
	if which == "" {
		return b.Cancel(ctx, by, id)
	}
	var r *row
	err := b.ask(ctx, func(g *group) (err error) {
		if r, err = g.job(id); err != nil || r.State.Ended() || r.Cancel {
			return err
		}
		return g.cancelSome(r, which, "cancelled by "+by.String())
	})
	if err != nil {
		return shoal.Job{}, err
	}
	return r.Job, nil
}

// maxChosen bounds how many tasks somebody may name at once.
const maxChosen = 100_000

// choose reads which of a job's tasks somebody means, and returns their positions.
func choose(array shoal.Array, which string) ([]int, error) {
	chosen, err := shoal.ParseArray(which)
	if err != nil {
		return nil, err
	}
	if chosen.Len() > maxChosen {
		return nil, shoal.Errorf(shoal.KindInvalid, "%d tasks are too many to be named at once", chosen.Len()).
			WithHint("name at most %d, or all by naming none", maxChosen)
	}
	var all []int
	for i := range chosen.Len() {
		p, ok := array.Position(chosen.Index(i))
		if !ok {
			return nil, shoal.Errorf(shoal.KindNotFound, "the job has no task %d", chosen.Index(i)).
				WithHint("its indexes go from %d to %d", array.Index(0), array.Index(array.Len()-1))
		}
		all = append(all, p)
	}
	return all, nil
}

// cancelSome ends some tasks of a job. Of those that never started, all before the last of them get
// rows of their own, so that the job still has one first task that never started.
func (g *group) cancelSome(r *row, which, reason string) error {
	array, err := shoal.ParseArray(r.Spec.Array)
	if err != nil {
		return err
	}
	chosen, err := choose(array, which)
	if err != nil {
		return err
	}
	g.touch(r)
	var ended []int
	ask := map[int]bool{} // wait for their turn still, now as tasks of their own
	for _, p := range chosen {
		ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
		last, err := g.latest(ref)
		if err != nil {
			return err
		}
		switch {
		case last != nil && (last.State == shoal.JobStarting || last.State == shoal.JobRunning):
			c := g.change(last)
			gang.Decide(c, shoal.CauseCancelled, reason)
			g.stop(*c, shoal.JobCancelled)
		case last != nil && !repeats(r.Job, *last):
		case last == nil && p < r.Next && !after.Gated(r.Spec): // a former retry has left it out
		default:
			for ; last == nil && r.Next <= p && !after.Gated(r.Spec); r.Next++ {
				ask[r.Next] = true
			}
			delete(ask, p)
			g.put(&shoal.Attempt{
				AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: following(last)}, User: r.User, Pool: r.Spec.Pool,
				State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: reason, Ended: g.now, ExitCode: exitOwn})
			r.Counts.Add(shoal.JobQueued, -1)
			r.Counts.Add(shoal.JobCancelled, 1)
			delete(g.later, sched.Task{Job: r.ID, Position: p})
			g.drop = append(g.drop, sched.Task{Job: r.ID, Position: p})
			ended = append(ended, p)
		}
	}
	if len(ask) > maxChosen {
		return shoal.Errorf(shoal.KindInvalid, "those tasks are too far behind the first of job %s that has not started", r.ID).WithHint("cancel the whole job, or earlier tasks first")
	}
	for p := range ask {
		g.put(&shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: r.ID, Index: array.Index(p)}, Attempt: 1}, User: r.User, Pool: r.Spec.Pool, State: shoal.JobQueued})
	}
	g.requeue(r, chosen, ask)
	for _, p := range ended {
		if err := g.followers(r, p, array.Index(p)); err != nil {
			return err
		}
	}
	return nil
}

// requeue tells the scheduler what of a job waits after some tasks of it were taken out.
func (g *group) requeue(r *row, without []int, with map[int]bool) {
	out := map[int]bool{}
	for _, p := range without {
		out[p] = true
	}
	s := g.schedJob(r.Job)
	if j, ok := g.b.sched.Job(r.ID); ok {
		s.Again = slices.DeleteFunc(slices.Clone(j.Again), func(p int) bool { return out[p] })
	}
	for p := range with {
		s.Again = append(s.Again, p)
	}
	slices.Sort(s.Again)
	s.Again = slices.Compact(s.Again)
	g.changes = append(g.changes, sched.PutJob(s))
}

func stopOrder(ref shoal.AttemptRef, state shoal.JobState) api.Record {
	return api.Record{Stop: &api.StopOrder{Ref: ref, State: state}}
}
