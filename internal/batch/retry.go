package batch

import (
	"context"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/book/history"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
)

// Retry starts tasks of a job anew that did not succeed: all of them, or those named. The job goes on
// as the same job: what succeeded stays, and each task counts its own failures from the beginning. Jobs
// that were cancelled because they waited for this one stay so.
func (b *Batch) Retry(ctx context.Context, by access.Subject, id shoal.JobID, q api.RetryRequest) (shoal.Job, error) {
	if err := b.may(ctx, by, id); err != nil {
		return shoal.Job{}, err
	}
	var r *book.Row
	err := b.book.Do(ctx, func(g *book.Group) (err error) {
		if r, err = g.Job(id); err != nil {
			return err
		}
		return retry(g, r, by, q)
	})
	if err != nil {
		return shoal.Job{}, err
	}
	return r.Job, nil
}

func retry(g *book.Group, r *book.Row, by access.Subject, q api.RetryRequest) error {
	refuse := func(format string, args ...any) *shoal.Error {
		return shoal.Errorf(shoal.KindConflict, "cannot retry job %s: %s", outcome.Title(r.Job), fmt.Sprintf(format, args...))
	}
	if !r.State.Ended() {
		return refuse("it has not ended").WithHint("wait for its end, or cancel it first")
	}
	if g.Running(r.ID) {
		return refuse("some of it is still being ended")
	}
	if u, err := g.Tx.Users().Get(r.User); err != nil || u.Disabled {
		return refuse("its user is disabled or removed")
	}
	if p, err := g.Tx.Pools().Get(r.Spec.Pool); err != nil || p.Deleting {
		return refuse("pool %s is deleted", r.Spec.Pool)
	}
	array, err := shoal.ParseArray(r.Spec.Array)
	if err != nil {
		return err
	}
	named := map[int]bool{}
	if q.Tasks != "" {
		chosen, err := choose(array, q.Tasks)
		if err != nil {
			return err
		}
		for _, p := range chosen {
			named[p] = true
		}
	}
	if r.Counts.Succeeded == r.Total() {
		return refuse("all its tasks succeeded")
	}
	return retryTasks(g, r, by, array, named)
}

// retryTasks has tasks wait again: those named, or if there are none all that did not succeed.
func retryTasks(g *book.Group, r *book.Row, by access.Subject, array shoal.Array, named map[int]bool) error {
	reason, err := g.Blockers(r.Spec.After)
	if err != nil {
		return err
	}
	all := len(named) == 0
	j := r.Job
	j.Cancel = false // what had retries left goes on as well
	t := retrying{Group: g, row: r, array: array, gated: after.Gated(r.Spec), begun: make([]bool, array.Len()), never: r.Counts.Cancelled}
	var again []shoal.Attempt
	err = history.Each(g.Tx, r.ID, func(a shoal.Attempt) {
		p, ok := array.Position(a.Index)
		if !ok {
			return
		}
		t.begun[p] = true
		if a.State == shoal.JobCancelled {
			t.never--
		}
		if a.State != shoal.JobSucceeded && (all || named[p] || outcome.Repeats(j, a)) {
			again = append(again, a)
		}
	})
	if err == nil && len(again) == 0 && !t.fresh(named) {
		err = shoal.Errorf(shoal.KindConflict, "cannot retry job %s: those tasks succeeded", outcome.Title(r.Job))
	}
	if err == nil {
		err = g.Admits(r.User, r.Spec)
	}
	if err != nil {
		return err
	}
	r.Cancel = false
	for _, a := range again {
		p, _ := array.Position(a.Index)
		t.ask(p, a.Attempt+1)
		r.Counts.Add(a.State, -1)
	}
	t.rest(named)
	r.Counts.Add(shoal.JobQueued, t.n)
	r.State, r.Reason, r.Blocked, r.Since, r.Ended = shoal.JobQueued, reason, reason != "", g.Now, time.Time{}
	g.Touch(r)
	if !t.gated {
		g.Requeue(r, nil, t.chosen)
	}
	g.Event(r, "jobRetried", "%s has %s of job %s tried again", by, outcome.Tasks(t.n), outcome.Title(r.Job))
	return g.Enter(r)
}

// retrying is a job of which tasks are tried again.
type retrying struct {
	*book.Group
	row    *book.Row
	array  shoal.Array
	gated  bool
	begun  []bool // those that have a row, by position
	never  int    // tasks that were cancelled without ever having one
	n      int
	chosen []int
}

// fresh reports whether tasks are meant that never had an attempt. Nothing named means all.
func (t *retrying) fresh(named map[int]bool) bool {
	for p := range named {
		if !t.begun[p] {
			return true
		}
	}
	return len(named) == 0 && t.never > 0
}

// ask puts on record that a task is to have an attempt.
func (t *retrying) ask(p, attempt int) {
	t.Put(t.attempt(p, attempt, shoal.JobQueued))
	t.chosen = append(t.chosen, p)
	t.n++
}

func (t *retrying) attempt(p, number int, s shoal.JobState) *shoal.Attempt {
	ref := shoal.TaskRef{Job: t.row.ID, Index: t.array.Index(p)}
	return &shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: number}, User: t.row.User, Pool: t.row.Spec.Pool, State: s}
}

// rest has tasks wait that never had an attempt. If all are meant they are as they were before the job
// was cancelled; else those that are named get rows of their own, and the others stay cancelled.
func (t *retrying) rest(named map[int]bool) {
	r := t.row
	if t.never == 0 {
		return
	}
	if len(named) == 0 && (t.gated || r.Next < t.array.Len()) {
		t.n += t.never
		r.Counts.Add(shoal.JobCancelled, -t.never)
		return
	}
	for p, begun := range t.begun {
		switch {
		case begun:
		case len(named) == 0 || named[p]:
			t.ask(p, 1)
			r.Counts.Add(shoal.JobCancelled, -1)
		case t.gated: // without a row it would wait
			a := t.attempt(p, 1, shoal.JobCancelled)
			a.Cause, a.Reason, a.Ended, a.ExitCode = shoal.CauseCancelled, "it was cancelled before it started", t.Now, outcome.ExitOwn
			t.Put(a)
		}
	}
	if !t.gated {
		r.Next = t.array.Len()
	}
}
