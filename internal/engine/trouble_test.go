package engine_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
)

// A machine whose share does not answer takes nobody, says why, and stays; when the share answers it takes people again.
func TestShareInTrouble(t *testing.T) {
	in(t, fake.Config{}, lab(min1, func(p *shoal.Pool) { p.Size.Max = 1 }), func(t *testing.T, w *world) {
		later(5 * time.Second)
		id := w.machines()[0].ID
		const why = "cannot reach share team (nfs://files/team): its server does not answer within 20s"
		w.cloud.Trouble(why)
		later(2 * time.Minute)
		if m := w.get(id); m.Accepts() || m.Shown() != "draining" || len(m.Cordons) != 1 || m.Cordons[0].Reason != why || m.Cordons[0].Owner != shoal.CordonProvider {
			t.Fatalf("with a share in trouble: %+v", m)
		}
		machine, err := w.engine.Load().WhyMachine(t.Context(), id)
		if err != nil || !strings.Contains(fmt.Sprint(machine), why) {
			t.Errorf("why the machine: %+v, %v", machine, err)
		}
		pool, err := w.engine.Load().WhyPool(t.Context(), "lab")
		if err != nil || !strings.Contains(fmt.Sprint(pool.Reasons), why) {
			t.Errorf("why the pool: %+v, %v", pool, err)
		}
		later(2 * time.Hour)
		if m := w.get(id); m.State != shoal.MachineReady {
			t.Errorf("after two hours: %+v", m)
		}
		w.cloud.Trouble("")
		later(2 * time.Minute)
		if m := w.get(id); !m.Accepts() {
			t.Errorf("healed: %+v", m)
		}
		w.bill()
	})
}

// A machine whose host does not answer its provider is left to its agent. If that is silent, too, the machine is down at once; it is not taken
// for ended.
func TestMissedByTheProvider(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		const why = "its node n1 does not answer"
		w.cloud.Miss(id, why)
		later(time.Hour)
		if m := w.get(id); m.State != shoal.MachineReady || m.Health != shoal.HealthUp || m.Accepts() || len(m.Cordons) != 1 || m.Cordons[0].Reason != why {
			t.Errorf("its agent speaks: %+v", m)
		}
		w.engine.Load().Connected(id, false)
		later(time.Minute)
		if m := w.get(id); m.State != shoal.MachineReady || m.Health != shoal.HealthDown || len(w.events("machineDown")) != 1 {
			t.Errorf("its agent is silent: %+v", m)
		}
		later(30 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineReady {
			t.Errorf("somebody is perhaps there: %+v", m)
		}
		w.cloud.Miss(id, "")
		w.engine.Load().Connected(id, true)
		later(2 * time.Minute)
		if m := w.get(id); m.Health != shoal.HealthUp || len(m.Cordons) > 0 {
			t.Errorf("it is back: %+v", m)
		}
	})
}

// A machine whose host is to be freed takes nobody new, has another in its place, and goes when nobody is on it.
func TestHostToBeFreed(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		const why = "its node n1 takes no pods: somebody has cordoned it"
		w.cloud.Trouble(why)
		w.cloud.Outdate(why)
		later(10 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineReady || m.Accepts() {
			t.Errorf("while alice is there: %+v", m)
		}
		w.want("ready", w.is("ready"), 1) // another
		w.leave()
		later(5 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineGone {
			t.Errorf("when she has left: %+v", m)
		}
		w.want("ready", w.is("ready"), 1)
	})
}
