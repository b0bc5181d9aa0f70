package engine

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/fleet"
)

// A clock that is put forward makes nobody silent for longer, and one that is put back leaves nothing in the future.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	since := time.Now().Add(-3 * time.Second)
	at := clock().Add(-time.Hour)
	m := shoal.Machine{ID: "m-1", Pool: "lab", Provider: "fake", State: shoal.MachineReady, Wanted: shoal.WantRun, Health: shoal.HealthUp, Since: at, ReadyAt: at, IdleAt: at}
	mem := newMemory()
	mem.links["m-1"] = link{since: since}
	mem.sights["fake"] = sight{seen: &fleet.Seen{Began: time.Now(), Complete: true}}
	for _, jump := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		now := clock().Add(jump)
		w := &world.World{Demand: &world.Demand{}, Pools: []shoal.Pool{{Name: "lab"}}, Machines: []shoal.Machine{m},
			People: map[shoal.MachineID]world.Crowd{"m-1": {Sessions: 1}}}
		j := newJudging(New(Config{}), w, mem, now)
		for range 3 {
			j.attend(j.rows[0])
		}
		if r := j.rows[0]; r.State != shoal.MachineReady || r.Health != shoal.HealthUnknown || r.Since.After(now) || r.ReadyAt.After(now) {
			t.Errorf("after a jump of %s: %+v", jump, r.Machine)
		}
	}
}
