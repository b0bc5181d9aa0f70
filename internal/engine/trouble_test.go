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
