package batch_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// While a user is held what runs of her goes on, and nothing more starts, also after a restart; others go on; then it
// goes on where it was.
func TestHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broke atomic.Bool
		w := newWorld(t, storetest.Open(t), t.TempDir(), shoal.Pool{Size: shoal.Size{Max: 4}}, func(c *batch.Config) {
			c.Held = func(user shoal.UserName) string {
				if user == "alice" && broke.Load() {
					return "user alice has spent all"
				}
				return ""
			}
		})
		w.play = failing("1/2#1")
		w.machine("m-1")
		w.machine("m-2")
		j := w.submit(shoal.JobSpec{Array: "1-6", Retries: 1})
		settle(30 * time.Second)
		broke.Store(true)
		w.Reconsider()
		other, err := w.Submit(w.ctx, bob, shoal.JobSpec{Command: "true"}, "")
		if err != nil {
			t.Fatal(err)
		}
		settle(5 * time.Minute)
		if got := w.states(j.ID); got != "1:succeeded 2:queued 3:queued 4:queued 5:queued 6:queued" {
			t.Errorf("while she is held: %s", got)
		}
		if end, err := w.Job(w.ctx, bob, other.ID); err != nil || end.State != shoal.JobSucceeded {
			t.Errorf("another's: %+v, %v", end, err)
		}
		if why, err := w.WhyJob(w.ctx, alice, j.ID); err != nil || why.Sentence != "0 of 6 tasks run, 1 has ended, 5 wait: user alice has spent all" {
			t.Errorf("why: %q, %v", why.Sentence, err)
		}
		w.restart(time.Second)
		settle(time.Minute)
		if got := w.states(j.ID); got != "1:succeeded 2:queued 3:queued 4:queued 5:queued 6:queued" {
			t.Errorf("after a restart: %s", got)
		}
		broke.Store(false)
		w.Reconsider()
		if end := w.ended(j.ID); end.Job.State != shoal.JobSucceeded {
			t.Errorf("at last: %+v", end)
		}
	})
}
