package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// BenchmarkPass is what a look at an installation costs in which there is nothing to do: a hundred machines
// with two sessions each, and so many jobs that wait for others.
func BenchmarkPass(b *testing.B) {
	for _, jobs := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			db := storetest.Open(b)
			cloud := fake.New(fake.Config{BootTime: -1})
			defer cloud.Close()
			fill(b, db, jobs)
			e := engine.New(engine.Config{Store: db, Providers: map[string]provider.Provider{"fake": cloud}})
			if err := e.Settle(b.Context()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := e.Settle(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func fill(b *testing.B, db *store.DB, jobs int) {
	storetest.Update(b, db, func(tx *store.Tx) error {
		if _, err := tx.Pools().Put(lab(func(p *shoal.Pool) { p.Size = shoal.Size{Min: 100, Max: 100} })); err != nil {
			return err
		}
		for range jobs {
			id, err := tx.NextJobID()
			if err != nil {
				return err
			}
			_, err = tx.Jobs().Put(shoal.Job{ID: id, User: "u", State: shoal.JobQueued, Counts: shoal.Counts{Queued: 1}, Blocked: true,
				Spec: shoal.JobSpec{Pool: "lab", Name: "sweep", Command: "python3 train.py --fold $SHOAL_ARRAY_INDEX", Resources: shoal.Resources{CPUs: 500}}})
			if err != nil {
				return err
			}
		}
		for i := range 200 {
			s := shoal.Session{ID: shoal.SessionID(fmt.Sprint("s-", i)), User: shoal.UserName(fmt.Sprint("u", i)), Pool: "lab", Machine: "m-x", State: shoal.SessionActive, Since: time.Now(),
				Parts: []shoal.Part{{ID: "a", Kind: "ssh", Source: "10.0.0.1:4711", Since: time.Now()}}}
			if _, err := tx.Sessions().Put(s); err != nil {
				return err
			}
		}
		return nil
	})
}
