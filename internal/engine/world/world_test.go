package world_test

import (
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/world"
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
