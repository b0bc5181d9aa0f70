package engine

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
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

// What is to be asked of a provider again in a moment is, also when the clock was put back meanwhile, and passes are not made in
// a hurry until then.
func TestClockPutBack(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(10 * time.Second)
	m := shoal.Machine{ID: "m-1", Pool: "lab", Provider: "fake", State: shoal.MachineRequested, Wanted: shoal.WantRun}
	gone := shoal.Machine{ID: "m-2", Pool: "lab", Provider: "fake", State: shoal.MachineStopping, Wanted: shoal.WantDelete}
	mem := newMemory()
	mem.sights["fake"] = sight{seen: &fleet.Seen{Began: time.Now(), Complete: true, Machines: map[shoal.MachineID]provider.Observed{"m-2": {ID: "m-2"}}}}
	mem.tracks["m-2"] = track{provider: "fake", Track: fleet.Track{Verb: fleet.Delete, Ended: time.Now().Add(-time.Second), Error: "not now", Next: soon}}
	mem.holds["lab"] = hold{Hold: fleet.Hold{Until: soon, Reason: "full"}}
	mem.flushAt = soon
	e := New(Config{Providers: map[string]provider.Provider{"fake": fake.New(fake.Config{})}})
	for _, jump := range []time.Duration{0, -3 * time.Hour, 3 * time.Hour} {
		now := clock().Add(jump)
		m.Since, gone.Since = now, now
		j := newJudging(e, &world.World{Demand: &world.Demand{}, Pools: []shoal.Pool{{Name: "lab"}}, Machines: []shoal.Machine{m, gone}}, mem, now)
		h, held := j.holdOf(shoal.Pool{Name: "lab"}, fleet.Failures{})
		j.holds["lab"] = h
		actions, next := fleet.Plan(j.fleetOf("fake"), now)
		j.flush()
		for what, at := range map[string]time.Time{"a hold": h.Until, "a call": next, "loads": j.next} {
			if wait := at.Sub(now); !held || wait <= 0 || wait > 11*time.Second {
				t.Errorf("the clock set by %s: %s waits for %s", jump, what, wait)
			}
		}
		for _, a := range actions {
			if a.Verb.Effect() {
				t.Errorf("the clock set by %s: %+v at once", jump, a)
			}
		}
	}
}
