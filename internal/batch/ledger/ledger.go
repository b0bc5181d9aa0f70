// Package ledger reads what is on record of jobs, for those who may see it: a job with its tasks, and many
// jobs in short. It changes nothing, and knows nothing of what is going on but what the store says.
package ledger

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/store"
)

// ExitOf is the exit code that stands for an attempt that did not succeed.
func ExitOf(a shoal.Attempt) int {
	switch {
	case a.Signal > 0:
		return 128 + a.Signal
	case a.ExitCode > 0:
		return a.ExitCode
	}
	return outcome.ExitOwn
}

// object is a job as access sees it.
func object(tx *store.Tx, j shoal.Job) (access.Object, error) {
	o := access.Object{Kind: shoal.ObjectJob, Name: string(j.ID), Owner: j.User}
	if j.Spec.Share != "group" {
		return o, nil
	}
	u, err := tx.Users().Get(j.User)
	if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
		return o, err
	}
	u.Name = j.User // also of one who is gone: groups may still name her
	groups, err := tx.Groups().List()
	o.Fellows = u.Memberships(groups)
	return o, err
}

// Recall returns a job, or what is left of it if that was long ago.
func Recall(tx *store.Tx, id shoal.JobID) (shoal.Job, error) {
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

// Visible returns a job to which a subject may do something. One she may not see is not there.
func Visible(tx *store.Tx, by access.Subject, a access.Action, id shoal.JobID) (shoal.Job, error) {
	j, err := Recall(tx, id)
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

// ExitCode is that of the lowest index that did not succeed.
func ExitCode(tx *store.Tx, j shoal.Job) (int, error) {
	failures, err := tx.Failures(j.ID, 1)
	if err != nil {
		return outcome.ExitOwn, err
	}
	if len(failures) == 0 {
		if p, found, err := tx.PastJob(j.ID); err != nil || found {
			return p.ExitCode, err
		}
		return outcome.ExitOwn, nil // it was cancelled before anything of it started
	}
	// Tasks that never started come after all that did.
	return ExitOf(failures[0]), nil
}

// The bounds of a page.
const (
	MaxPage = 1000
	maxScan = 10 * MaxPage // rows looked through for one page of those that may be seen
)

// Jobs lists the jobs that a subject may see, newest first. The cursor returned leads to the next page and is
// empty on the last; a page can be short before that.
func Jobs(tx *store.Tx, by access.Subject, f store.JobFilter, cursor string, limit int) (items []shoal.Job, next string, err error) {
	all := access.Everybody(by, shoal.ObjectJob) || f.User == by.User && by.User != ""
	next = cursor
	for scanned := 0; len(items) < limit && scanned < maxScan; scanned += MaxPage {
		page, following, err := tx.JobsPage(f, next, limit-len(items))
		if err != nil {
			return nil, "", err
		}
		for _, j := range page {
			o := access.Object{Kind: shoal.ObjectJob, Name: string(j.ID), Owner: j.User}
			if !all && (j.User != by.User || by.Host) {
				if o, err = object(tx, j); err != nil {
					return nil, "", err
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
	return items, next, nil
}

// Tasks lists the tasks of a job by index, from one on: of each its latest attempt. A task that has no attempt
// on record has attempt 0. One whose latest attempt repeats says will be followed by another is shown as queued.
func Tasks(tx *store.Tx, j shoal.Job, from, limit int, repeats func(shoal.Attempt) bool) ([]shoal.Attempt, error) {
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Attempts(j.ID, max(from, 0), limit)
	if err != nil {
		return nil, err
	}
	var all []shoal.Attempt
	next := array.From(from)
	fill := func(until int) { // with those that have no row
		for ; next < until && len(all) < limit; next++ {
			a := shoal.Attempt{User: j.User, Pool: j.Spec.Pool, State: shoal.JobQueued}
			if j.Cancel || j.State.Ended() || next < j.Next && !after.Gated(j.Spec) {
				a.State, a.Reason = shoal.JobCancelled, j.Reason
			}
			a.TaskRef = shoal.TaskRef{Job: j.ID, Index: array.Index(next)}
			all = append(all, a)
		}
	}
	for _, a := range rows {
		p, _ := array.Position(a.Index)
		if fill(p); len(all) == limit {
			return all, nil
		}
		if !j.State.Ended() && a.State.Ended() && repeats(a) {
			a.State = shoal.JobQueued
		}
		all = append(all, a)
		next = p + 1
	}
	fill(array.Len())
	return all, nil
}
