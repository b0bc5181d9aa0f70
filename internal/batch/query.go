package batch

import (
	"context"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/store"
)

// object is a job as access sees it.
func object(tx *store.Tx, j shoal.Job) (access.Object, error) {
	o := access.Object{Kind: shoal.ObjectJob, Name: string(j.ID), Owner: j.User}
	if j.Spec.Share != "group" {
		return o, nil
	}
	if u, err := tx.Users().Get(j.User); err == nil {
		o.Fellows = u.Groups
	} else if shoal.KindOf(err) != shoal.KindNotFound {
		return o, err
	}
	groups, err := tx.Groups().List()
	if err != nil {
		return o, err
	}
	for _, g := range groups {
		if slices.Contains(g.Members, j.User) {
			o.Fellows = append(o.Fellows, g.Name)
		}
	}
	return o, nil
}

// recall returns a job, or what is left of it if that was long ago.
func recall(tx *store.Tx, id shoal.JobID) (shoal.Job, error) {
	j, err := tx.Jobs().Get(id)
	if shoal.KindOf(err) != shoal.KindNotFound {
		return j, err
	}
	p, found, pastErr := tx.PastJob(id)
	if pastErr != nil {
		return j, pastErr
	}
	if !found {
		return j, err
	}
	return p.Job(), nil
}

// visible returns a job to which a subject may do something. One she may not see is not there.
func visible(tx *store.Tx, by access.Subject, a access.Action, id shoal.JobID) (shoal.Job, error) {
	j, err := recall(tx, id)
	if shoal.KindOf(err) == shoal.KindNotFound {
		return j, access.Missing(access.Object{Kind: shoal.ObjectJob, Name: string(id)})
	}
	if err != nil {
		return j, err
	}
	o, err := object(tx, j)
	if err != nil {
		return shoal.Job{}, err
	}
	if err := access.Check(by, a, o); err != nil {
		return shoal.Job{}, err
	}
	return j, nil
}

// Job returns a job. One that waits is given the reason.
func (b *Batch) Job(ctx context.Context, by access.Subject, id shoal.JobID) (j shoal.Job, err error) {
	var waiting []question
	err = b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if j, err = visible(tx, by, access.View, id); err != nil {
			return err
		}
		waiting, err = questions(tx, []shoal.Job{j})
		return err
	})
	for _, q := range waiting {
		j.Reason = join(b.waits(q))
	}
	return j, err
}

// questions are those of the jobs that wait without a reason on record.
func questions(tx *store.Tx, jobs []shoal.Job) (all []question, err error) {
	for _, j := range jobs {
		if !unexplained(j) {
			continue
		}
		q := question{job: j}
		if err := q.look(tx); err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

// The bounds of a page.
const (
	maxPage = 1000
	maxScan = 10 * maxPage // rows looked through for one page of those that may be seen
)

// Jobs lists the jobs that a subject may see, newest first; those that wait are given the reason. The
// cursor returned leads to the next page and is empty on the last; a page can be short before that.
func (b *Batch) Jobs(ctx context.Context, by access.Subject, f store.JobFilter, cursor string, limit int) ([]shoal.Job, string, error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	var items []shoal.Job
	var waiting []question
	next := cursor
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		items, next = nil, cursor
		all := access.Everybody(by, shoal.ObjectJob) || f.User == by.User && by.User != ""
		for scanned := 0; len(items) < limit && scanned < maxScan; scanned += maxPage {
			page, following, err := tx.JobsPage(f, next, limit-len(items))
			if err != nil {
				return err
			}
			for _, j := range page {
				o := access.Object{Kind: shoal.ObjectJob, Name: string(j.ID), Owner: j.User}
				if !all && (j.User != by.User || by.Host) {
					if o, err = object(tx, j); err != nil {
						return err
					}
				}
				if all || access.Decide(by, access.View, o).Allowed {
					items = append(items, j)
				}
			}
			if next = following; next == "" {
				break
			}
		}
		var err error
		waiting, err = questions(tx, items)
		return err
	})
	reasons := map[shoal.JobID]string{}
	for _, q := range waiting {
		reasons[q.job.ID] = join(b.waits(q))
	}
	for i := range items {
		if r, ok := reasons[items[i].ID]; ok {
			items[i].Reason = r
		}
	}
	return items, next, err
}

// Tasks lists the tasks of a job by index, from one on: of each its latest attempt. A task that
// waits, or was cancelled before it ever started, has attempt 0; one that is to start again is
// shown as queued, with the attempt that ended and its reason.
func (b *Batch) Tasks(ctx context.Context, by access.Subject, id shoal.JobID, from, limit int) ([]shoal.Attempt, error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	var all []shoal.Attempt
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := visible(tx, by, access.View, id)
		if err != nil {
			return err
		}
		array, err := shoal.ParseArray(j.Spec.Array)
		if err != nil {
			return err
		}
		rows, err := tx.Attempts(id, max(from, 0), limit)
		if err != nil {
			return err
		}
		all = nil
		next := array.From(from)
		fill := func(until int) { // with those that have no row
			for ; next < until && len(all) < limit; next++ {
				a := shoal.Attempt{User: j.User, Pool: j.Spec.Pool, State: shoal.JobQueued}
				if j.Cancel || j.State.Ended() || next < j.Next && !after.Gated(j.Spec) {
					a.State, a.Reason = shoal.JobCancelled, j.Reason
				}
				a.TaskRef = shoal.TaskRef{Job: id, Index: array.Index(next)}
				all = append(all, a)
			}
		}
		for _, a := range rows {
			p, _ := array.Position(a.Index)
			if fill(p); len(all) == limit {
				return nil
			}
			if !j.State.Ended() && a.State.Ended() && repeats(j, a) {
				a.State = shoal.JobQueued
			}
			all = append(all, a)
			next = p + 1
		}
		fill(array.Len())
		return nil
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
		w.ExitCode, err = exitCode(tx, j)
		return err
	})
	return w, err
}

// waitOnce returns a job when it has ended or is worth another look.
func (b *Batch) waitOnce(ctx context.Context, by access.Subject, id shoal.JobID) (shoal.Job, error) {
	rung, done := listen(&b.mu, b.ends, id)
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
	case <-b.stopped:
		return j, errStopped()
	}
}

// exitCode is that of the lowest index that did not succeed.
func exitCode(tx *store.Tx, j shoal.Job) (int, error) {
	failures, err := tx.Failures(j.ID, 1)
	if err != nil {
		return exitOwn, err
	}
	if len(failures) == 0 {
		if p, found, err := tx.PastJob(j.ID); err != nil || found {
			return p.ExitCode, err
		}
		return exitOwn, nil // it was cancelled before anything of it started
	}
	// Tasks that never started come after all that did.
	return exitOf(failures[0]), nil
}
