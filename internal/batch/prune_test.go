package batch_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// How long a submission takes while attempts of long ago are packed and then jobs forgotten, beside how long it
// takes while nothing is.
func BenchmarkUpkeep(b *testing.B) {
	const jobs, arrays, each = 4000, 8, 5000
	w := newInstant(b, 0, 1, 0)
	now := time.Now().UTC()
	end := func(n int) {
		storetest.Update(b, w.db, func(tx *store.Tx) error {
			id, err := tx.NextJobID()
			if err != nil {
				return err
			}
			for i := range n {
				a := shoal.Attempt{User: "alice", Pool: "lab", Machine: "m-1", Epoch: 1, State: shoal.JobSucceeded, Cause: shoal.CauseExit, Placed: now, Started: now, Ended: now, StdoutBytes: 9}
				a.Job, a.Index, a.Attempt = id, i, 1
				if err := tx.PutAttempt(a); err != nil {
					return err
				}
			}
			_, err = tx.Jobs().Insert(shoal.Job{ID: id, User: "alice", State: shoal.JobSucceeded, Ended: now, Counts: shoal.Counts{Succeeded: n}, Spec: shoal.JobSpec{Pool: "lab", Command: "true"}})
			return err
		})
	}
	for range jobs {
		end(1)
	}
	for range arrays {
		end(each)
	}
	during := func(name string, work func()) {
		done := make(chan struct{})
		began := time.Now()
		go func() { defer close(done); work() }()
		var all []time.Duration
		for over := false; !over; {
			start := time.Now()
			w.submit(b, shoal.JobSpec{})
			all = append(all, time.Since(start))
			select {
			case <-done:
				over = true
			default:
			}
		}
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms-median-"+name)
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "ms-p99-"+name)
		b.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
	}
	for b.Loop() {
		during("idle", func() { time.Sleep(time.Second) })
		during("pack", func() {
			if _, err := w.db.Pack(context.Background()); err != nil {
				b.Error(err)
			}
		})
		during("prune", func() {
			if _, err := w.Prune(context.Background(), now.Add(time.Second)); err != nil {
				b.Error(err)
			}
		})
	}
}
