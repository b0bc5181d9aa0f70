package engine_test

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/providers/fake"
)

// What held when the time began that is gone through is part of it, and what the processors did is on record of pools without rules, too.
func TestRehearse(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		e := w.engine.Load()
		rehearse := func(since time.Duration) api.Rehearsal {
			t.Helper()
			r, err := e.Rehearse(t.Context(), host(), "lab", api.RehearsalRequest{Since: shoal.Duration(since)})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := rehearse(time.Hour); !r.From.IsZero() {
			t.Errorf("of nothing: %+v", r)
		}
		began := time.Now()
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		later(3 * time.Hour)
		r := rehearse(time.Hour)
		if !r.From.Equal(time.Now().Add(-time.Hour)) || r.Was < 0.99 || r.Was > 1.01 || r.MachineHours < 0.99 || r.Waits != 0 || r.WasMade != 0 || r.WasWaits != 0 || r.Metric.Most != 1 {
			t.Errorf("of the last hour: %+v", r)
		}
		if r = rehearse(0); r.From.Before(began) || r.WasMade != 1 || r.WasWaits != 1 || r.WasWaited == 0 {
			t.Errorf("of all: %+v", r)
		}
		id := w.machines()[0].ID
		for range 20 {
			e.Seen(id, &shoal.Load{CPUPercent: 100})
			later(time.Minute)
		}
		if r = rehearse(0); r.Metric.Most != 3 || r.Most != 1 {
			t.Errorf("with a busy processor: %+v", r)
		}
	})
}
