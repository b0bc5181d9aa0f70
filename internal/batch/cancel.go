package batch

import (
	"context"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
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
	var r *book.Row
	err := b.book.Do(ctx, func(g *book.Group) (err error) {
		if r, err = g.Job(id); err != nil || r.State.Ended() || r.Cancel {
			return err
		}
		return g.Cancel(r, reason)
	})
	if err != nil {
		return shoal.Job{}, err
	}
	return r.Job, nil
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
	var r *book.Row
	err := b.book.Do(ctx, func(g *book.Group) (err error) {
		if r, err = g.Job(id); err != nil {
			return err
		}
		array, err := shoal.ParseArray(r.Spec.Array)
		if err != nil {
			return err
		}
		chosen, err := choose(array, which)
		if err != nil || r.State.Ended() || r.Cancel {
			return err
		}
		return cancelSome(g, r, array, chosen, "cancelled by "+by.String())
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
func cancelSome(g *book.Group, r *book.Row, array shoal.Array, chosen []int, reason string) error {
	if !after.Gated(r.Spec) && chosen[len(chosen)-1]-r.Next > maxChosen { // nothing is changed yet
		return shoal.Errorf(shoal.KindInvalid, "those tasks are too far behind the first of job %s that has not started", r.ID).WithHint("cancel the whole job, or earlier tasks first")
	}
	g.Touch(r)
	var ended []int
	ask := map[int]bool{} // wait for their turn still, now as tasks of their own
	for _, p := range chosen {
		ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
		last, err := g.Latest(ref)
		if err != nil {
			return err
		}
		switch {
		case last != nil && (last.State == shoal.JobStarting || last.State == shoal.JobRunning):
			c := g.Change(last)
			gang.Decide(c, shoal.CauseCancelled, reason)
			g.Stop(*c, shoal.JobCancelled)
		case last != nil && !outcome.Repeats(r.Job, *last):
		case last == nil && p < r.Next && !after.Gated(r.Spec): // a former retry has left it out
		default:
			for ; last == nil && r.Next <= p && !after.Gated(r.Spec); r.Next++ {
				ask[r.Next] = true
			}
			delete(ask, p)
			g.Put(&shoal.Attempt{
				AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: outcome.Following(last)}, User: r.User, Pool: r.Spec.Pool,
				State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: reason, Ended: g.Now, ExitCode: outcome.ExitOwn})
			r.Counts.Add(shoal.JobQueued, -1)
			r.Counts.Add(shoal.JobCancelled, 1)
			ended = append(ended, p)
		}
	}
	var rest []int
	for p := range ask {
		rest = append(rest, p)
		g.Put(&shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: r.ID, Index: array.Index(p)}, Attempt: 1}, User: r.User, Pool: r.Spec.Pool, State: shoal.JobQueued})
	}
	g.Requeue(r, chosen, rest)
	for _, p := range ended {
		if err := g.Followers(r, p, array.Index(p)); err != nil {
			return err
		}
	}
	return nil
}
