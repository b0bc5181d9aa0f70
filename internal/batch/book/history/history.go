// Package history reads how the tasks of a job went.
package history

import (
	"errors"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/store"
)

// Latest is a task's latest attempt on record; nil if it had none.
func Latest(tx *store.Tx, ref shoal.TaskRef) (*shoal.Attempt, error) {
	a, err := tx.Attempt(ref)
	switch {
	case shoal.KindOf(err) == shoal.KindNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &a, nil
}

// Each hands over the latest attempt of each task of a job that had one.
func Each(tx *store.Tx, id shoal.JobID, fn func(shoal.Attempt)) error {
	const page = 1000
	for from := 0; ; {
		attempts, err := tx.Attempts(id, from, page)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			fn(a)
		}
		if len(attempts) < page {
			return nil
		}
		from = attempts[len(attempts)-1].Index + 1
	}
}

// Waiting are the positions of a job's tasks that were asked for again or must start again.
func Waiting(tx *store.Tx, j shoal.Job, array shoal.Array) (all []int, err error) {
	j.Cancel = false
	err = Each(tx, j.ID, func(a shoal.Attempt) {
		if p, ok := array.Position(a.Index); ok && outcome.Repeats(j, a) {
			all = append(all, p)
		}
	})
	return all, err
}

// Placed hands over all attempts of a job's tasks that were on a machine.
func Placed(tx *store.Tx, id shoal.JobID, fn func(shoal.Attempt)) error {
	var failed error
	err := Each(tx, id, func(a shoal.Attempt) {
		all := []shoal.Attempt{a}
		if a.Attempt > 1 && failed == nil {
			all, failed = tx.History(a.TaskRef)
		}
		for _, h := range all {
			if h.Machine != "" {
				fn(h)
			}
		}
	})
	return errors.Join(err, failed)
}
