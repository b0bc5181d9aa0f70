package batch

import (
	"context"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/ledger"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/batch/why"
	"github.com/shoal-pool/shoal/internal/store"
)

// visible returns a job to which a subject may do something. One she may not see is not there.
func visible(tx *store.Tx, by access.Subject, a access.Action, id shoal.JobID) (shoal.Job, error) {
	return ledger.Visible(tx, by, a, id)
}

// Job returns a job. One that waits is given the reason.
func (b *Batch) Job(ctx context.Context, by access.Subject, id shoal.JobID) (j shoal.Job, err error) {
	var waiting []why.Question
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if j, err = visible(tx, by, access.View, id); err != nil {
			return err
		}
		waiting, err = questions(tx, []shoal.Job{j})
		return err
	})
	for _, q := range waiting {
		j.Reason, j.Promised = b.explain(q)
	}
	return j, err
}

// questions are those of the jobs that wait without a reason on record.
func questions(tx *store.Tx, jobs []shoal.Job) (all []why.Question, err error) {
	for _, j := range jobs {
		if !unexplained(j) {
			continue
		}
		q, err := question(tx, j)
		if err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

// Jobs lists the jobs that a subject may see, newest first; those that wait are given the reason. The
// cursor returned leads to the next page and is empty on the last; a page can be short before that.
func (b *Batch) Jobs(ctx context.Context, by access.Subject, f store.JobFilter, cursor string, limit int) (items []shoal.Job, next string, err error) {
	if limit <= 0 || limit > ledger.MaxPage {
		limit = ledger.MaxPage
	}
	var waiting []why.Question
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if items, next, err = ledger.Jobs(tx, by, f, cursor, limit); err != nil {
			return err
		}
		waiting, err = questions(tx, items)
		return err
	})
	at := map[shoal.JobID]int{}
	for i := range items {
		at[items[i].ID] = i
	}
	for _, q := range waiting {
		j := &items[at[q.Job.ID]]
		j.Reason, j.Promised = b.explain(q)
	}
	return items, next, err
}

// Tasks lists the tasks of a job by index, from one on: of each its latest attempt. A task that
// waits, or was cancelled before it ever started, has attempt 0; one that is to start again is
// shown as queued, with the attempt that ended and its reason.
func (b *Batch) Tasks(ctx context.Context, by access.Subject, id shoal.JobID, from, limit int) (all []shoal.Attempt, err error) {
	if limit <= 0 || limit > ledger.MaxPage {
		limit = ledger.MaxPage
	}
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := visible(tx, by, access.View, id)
		if err != nil {
			return err
		}
		all, err = ledger.Tasks(tx, j, from, limit, func(a shoal.Attempt) bool { return outcome.Repeats(j, a) })
		return err
	})
	return all, err
}

// Attempts lists all attempts of a task that are kept, oldest first. An index of -1 means the only task of a job that has one.
func (b *Batch) Attempts(ctx context.Context, by access.Subject, ref shoal.TaskRef) (all []shoal.Attempt, err error) {
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := visible(tx, by, access.View, ref.Job)
		if err != nil {
			return err
		}
		if ref, err = taskOf(j, ref); err != nil {
			return err
		}
		all, err = tx.History(ref)
		return err
	})
	return all, err
}

// Wait returns a job once it has ended, with the exit code that stands for it.
func (b *Batch) Wait(ctx context.Context, by access.Subject, id shoal.JobID) (api.Wait, error) {
	j, err := b.Job(ctx, by, id)
	for err == nil && !j.State.Ended() {
		if j, err = b.waitOnce(ctx, by, id); err != nil {
			return api.Wait{Job: j}, err
		}
	}
	if err != nil || j.State == shoal.JobSucceeded {
		return api.Wait{Job: j}, err
	}
	w := api.Wait{Job: j}
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		w.ExitCode, err = ledger.ExitCode(tx, j)
		return err
	})
	return w, err
}

// waitOnce returns a job when it has ended or is worth another look.
func (b *Batch) waitOnce(ctx context.Context, by access.Subject, id shoal.JobID) (shoal.Job, error) {
	rung, done := b.book.ListenJob(id)
	defer done()
	j, err := b.Job(ctx, by, id)
	if err != nil || j.State.Ended() {
		return j, err
	}
	select {
	case <-rung:
		return b.Job(ctx, by, id)
	case <-ctx.Done():
		return j, shoal.Errorf(shoal.KindCancelled, "job %s has not ended: %w", id, context.Cause(ctx))
	case <-b.book.Stopped():
		return j, book.ErrStopped()
	}
}
