package engine_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
)

// An idle machine goes only after its agent has looked once more; one that does not answer stays, and is asked again.
func TestStopIsConfirmed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab(min1))
		later(5 * time.Minute)
		w.blind.Store(true)
		w.put(lab())
		later(40 * time.Minute)
		if w.is("ready") != 1 || w.looks.Load() < 2 || w.looks.Load() > 60 {
			t.Fatalf("%+v, asked %d times", w.machines(), w.looks.Load())
		}
		w.blind.Store(false)
		later(time.Minute)
		if len(w.machines()) != 0 {
			t.Errorf("it has answered, and stays: %+v", w.machines())
		}
	})
}

// What a pool's probe says keeps a machine, also one that is too many.
func TestProbeKeepsMachine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab(min1))
		later(5 * time.Minute)
		id := w.machines()[0].ID
		w.engine.Load().Seen(id, &shoal.Load{Held: "a licence is in use"})
		w.put(lab())
		later(2 * time.Hour)
		if w.is("ready") != 1 || !w.get(id).IdleAt.IsZero() {
			t.Fatalf("%+v", w.machines())
		}
		why, err := w.engine.Load().WhyMachine(t.Context(), id)
		if err != nil || !strings.Contains(why.Reasons[0].Sentence, "a licence is in use") {
			t.Errorf("%+v %v", why, err)
		}
		w.put(lab(func(p *shoal.Pool) { p.Fixed = &shoal.FixedSize{Size: 0} }))
		later(time.Hour)
		if w.is("draining") != 1 {
			t.Errorf("%+v", w.machines())
		}
		w.engine.Load().Seen(id, &shoal.Load{})
		later(time.Minute)
		if len(w.machines()) != 0 {
			t.Errorf("%+v", w.machines())
		}
	})
}
