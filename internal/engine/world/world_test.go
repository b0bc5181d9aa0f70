package world_test

import (
	"maps"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// Jobs of which nothing more starts ask for no machines.
func TestHeldJobsAskForNothing(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t)
	storetest.Update(t, db, func(tx *store.Tx) error {
		for id, user := range map[shoal.JobID]shoal.UserName{"1": "alice", "2": "bob"} {
			spec := shoal.JobSpec{Pool: "lab", Command: "true", Resources: shoal.Resources{CPUs: 1000}}
			if _, err := tx.Jobs().Put(shoal.Job{ID: id, User: user, Spec: spec, State: shoal.JobQueued, Counts: shoal.Counts{Queued: 3}}); err != nil {
				return err
			}
		}
		return nil
	})
	reader := world.Reader{Held: func(user shoal.UserName) string {
		if user == "alice" {
			return "she has spent all"
		}
		return ""
	}}
	storetest.View(t, db, func(tx *store.Tx) error {
		w, err := reader.Read(tx)
		if err == nil && (len(w.Queues["lab"]) != 1 || w.Queues["lab"][0].Tasks != 3 || w.Jobs["lab"] != 2) {
			t.Errorf("%+v, %v", w.Queues, w.Jobs)
		}
		return err
	})
}

// What people are entitled to and do not use is no room for others' tasks.
func TestSeats(t *testing.T) {
	t.Parallel()
	pool := shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Seats: 4, Machine: shoal.Resources{CPUs: 4000, Memory: 4 << 30}}
	placed := func(user shoal.UserName, job shoal.JobID) shoal.Attempt {
		return shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: job}, Attempt: 1}, User: user, Machine: "m-1", State: shoal.JobRunning}
	}
	db := storetest.Open(t)
	storetest.Update(t, db, func(tx *store.Tx) error {
		for id, user := range map[shoal.JobID]shoal.UserName{"1": "alice", "2": "bob"} {
			gives := user == "alice"
			spec := shoal.JobSpec{Pool: "lab", Command: "true", Preemptible: &gives, Resources: shoal.Resources{CPUs: 500, Memory: 2 << 30}}
			if _, err := tx.Jobs().Put(shoal.Job{ID: id, User: user, Spec: spec, State: shoal.JobRunning, Counts: shoal.Counts{Running: 1}}); err != nil {
				return err
			}
			if err := tx.PutAttempt(placed(user, id)); err != nil {
				return err
			}
		}
		for id, user := range map[shoal.SessionID]shoal.UserName{"s-1": "alice", "s-2": "carol"} {
			state := shoal.SessionActive
			if user == "carol" {
				state = shoal.SessionDisconnected
			}
			if _, err := tx.Sessions().Put(shoal.Session{ID: id, User: user, Pool: "lab", Machine: "m-1", State: state}); err != nil {
				return err
			}
		}
		return nil
	})
	storetest.View(t, db, func(tx *store.Tx) error {
		w, err := new(world.Reader).Read(tx)
		if err != nil {
			return err
		}
		crowd := w.People["m-1"]
		// Alice's own task uses half of her processor and all of her memory; Carol, who is away, has her memory.
		want := map[shoal.UserName]shoal.Resources{"alice": {CPUs: 500}, "carol": {Memory: 1 << 30}}
		if got := crowd.Seats(sched.PoolOf(pool)); !maps.Equal(got, want) {
			t.Errorf("seats are %+v, want %+v", got, want)
		}
		if want := (shoal.Resources{CPUs: 500, Memory: 2 << 30}); crowd.Firm != want {
			t.Errorf("bob's task alone is firm, and that is not %+v", crowd.Firm)
		}
		return nil
	})
}
