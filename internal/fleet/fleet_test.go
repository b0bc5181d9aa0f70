package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

func start() time.Time { return time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC) }

func machine(state shoal.MachineState, wanted shoal.MachineWanted) shoal.Machine {
	m := shoal.Machine{ID: "m-1", Pool: "lab", State: state, Wanted: wanted, Since: start(), Epoch: 1}
	if state != shoal.MachineRequested {
		m.Started = start()
	}
	if state == shoal.MachineReady {
		m.ReadyAt = start()
	}
	return m
}

// seen is a complete observation made now.
func seen(list ...provider.Observed) *fleet.Seen {
	s := &fleet.Seen{Began: start(), Complete: true, Machines: map[shoal.MachineID]provider.Observed{}}
	for _, o := range list {
		s.Machines[o.ID] = o
	}
	return s
}

func partly(s *fleet.Seen) *fleet.Seen { s.Complete = false; return s }

func phase(p provider.Phase) provider.Observed { return provider.Observed{ID: "m-1", Phase: p} }

type planCase struct {
	name  string
	m     shoal.Machine
	seen  *fleet.Seen
	track fleet.Track
	hold  fleet.Hold
	full  bool // no slots
	after time.Duration
	verb  fleet.Verb
	says  string
}

func making() []planCase {
	run, del := shoal.WantRun, shoal.WantDelete
	requested := machine(shoal.MachineRequested, run)
	minute := start().Add(time.Minute)
	return []planCase{
		{name: "requested", m: requested, verb: fleet.Create},
		{name: "requested, under way", m: requested, track: fleet.Track{Busy: true}},
		{name: "requested, no slot", m: requested, full: true},
		{name: "requested, not yet again", m: requested, track: fleet.Track{Next: minute, Error: "no luck"}, verb: fleet.Note, says: "no luck"},
		{name: "requested, again", m: requested, after: time.Minute, track: fleet.Track{Next: minute, Error: "no luck"}, verb: fleet.Create},
		{name: "requested, never accepted", m: requested, after: time.Hour, track: fleet.Track{Next: minute, Error: "no luck"}, verb: fleet.Fail, says: "no luck"},
		{name: "requested, refused", m: requested, track: fleet.Track{Fatal: "no such image"}, verb: fleet.Fail, says: "no such image"},
		{name: "requested, accepted", m: requested, track: fleet.Track{Accepted: true}, verb: fleet.Accept},
		{name: "requested, half made", m: requested, seen: seen(phase(provider.PhaseCreating)), verb: fleet.Create},
		{name: "requested, made before a crash", m: requested, seen: seen(phase(provider.PhaseRunning)), verb: fleet.Accept},
		{name: "requested, on hold", m: requested, hold: fleet.Hold{Until: minute, Reason: "full"}, verb: fleet.Note, says: "full"},
		{name: "requested, the hold is over", m: requested, after: time.Minute, hold: fleet.Hold{Until: minute, Reason: "full"}, verb: fleet.Create},
		{name: "requested, not wanted any more", m: machine(shoal.MachineRequested, del), seen: seen(), verb: fleet.Gone},
		{name: "requested, not wanted any more, and accepted meanwhile", m: machine(shoal.MachineRequested, del), track: fleet.Track{Accepted: true}, verb: fleet.Accept},
		{name: "requested, not wanted, nothing known", m: machine(shoal.MachineRequested, del), verb: fleet.Delete},
		{name: "booting", m: machine(shoal.MachineBooting, run), seen: seen(phase(provider.PhaseRunning))},
		{name: "booting, failed", m: machine(shoal.MachineBooting, run), seen: seen(provider.Observed{ID: "m-1", Phase: provider.PhaseFailed, Reason: "no disk"}), verb: fleet.Fail, says: "no disk"},
		{name: "booting, too long", m: machine(shoal.MachineBooting, run), after: time.Hour, seen: seen(phase(provider.PhaseRunning)), verb: fleet.Fail, says: "not ready after 5m"},
		{name: "booting, gone", m: machine(shoal.MachineBooting, run), seen: seen(), verb: fleet.Gone},
		{name: "booting, started again", m: machine(shoal.MachineBooting, run), seen: seen(phase(provider.PhaseStopped)), verb: fleet.Start},
		{name: "booting, not wanted", m: machine(shoal.MachineBooting, del), seen: seen(phase(provider.PhaseRunning)), verb: fleet.Empty},
		{name: "booting, not wanted, though the provider has news", m: machine(shoal.MachineBooting, del),
			seen: seen(provider.Observed{ID: "m-1", Phase: provider.PhaseCreating, Reason: "fetching the image"}), verb: fleet.Empty},
		{name: "news of the provider", m: machine(shoal.MachineBooting, run), seen: seen(provider.Observed{ID: "m-1", Phase: provider.PhaseCreating, Reason: "fetching the image"}), verb: fleet.Note, says: "fetching"},
	}
}

func ending() []planCase {
	run, del, stop := shoal.WantRun, shoal.WantDelete, shoal.WantStop
	late := fleet.Track{Verb: fleet.Delete, Ended: start().Add(time.Second)} // after the observation
	early := fleet.Track{Verb: fleet.Delete, Ended: start().Add(-time.Second)}
	speaks := machine(shoal.MachineReady, run)
	speaks.Health = shoal.HealthUp
	noted, leaves := speaks, speaks
	noted.Reason, leaves.Wanted = "its provider does not list it, and its agent answers: nothing is concluded from that", del
	asked, made := early, early
	asked.Verb, made.Verb = fleet.Stop, fleet.Create
	return []planCase{
		{name: "ready", m: machine(shoal.MachineReady, run), seen: seen(phase(provider.PhaseRunning))},
		{name: "ready, failed", m: machine(shoal.MachineReady, run), seen: seen(phase(provider.PhaseFailed)), verb: fleet.Fail},
		{name: "ready, gone", m: machine(shoal.MachineReady, run), seen: seen(), verb: fleet.Gone},
		{name: "ready, and its agent speaks, though the list lacks it", m: speaks, seen: seen(), verb: fleet.Note, says: "nothing is concluded"},
		{name: "the same, noted", m: noted, seen: seen()},
		{name: "the same, and it is listed again", m: noted, seen: seen(phase(provider.PhaseRunning)), verb: fleet.Note},
		{name: "ready, and its agent speaks, though it is said to have failed", m: speaks, seen: seen(phase(provider.PhaseFailed)), verb: fleet.Note, says: "failed"},
		{name: "ready, and its agent speaks, though it is said to be stopped", m: speaks, seen: seen(phase(provider.PhaseStopped)), verb: fleet.Note, says: "stopped"},
		{name: "ready, its agent speaks, and it is to go", m: leaves, seen: seen(), verb: fleet.Gone},
		{name: "ready, list with holes", m: machine(shoal.MachineReady, run), seen: partly(seen())},
		{name: "ready, never observed", m: machine(shoal.MachineReady, run)},
		{name: "ready, observed before the last effect", m: machine(shoal.MachineReady, run), seen: seen(), track: late},
		{name: "ready, stopped by somebody", m: machine(shoal.MachineReady, run), seen: seen(phase(provider.PhaseStopped)), verb: fleet.Empty, says: "somebody else"},
		{name: "and so it is stopped", m: machine(shoal.MachineStopping, run), seen: seen(phase(provider.PhaseStopped)), verb: fleet.Halted},
		{name: "and starts again", m: machine(shoal.MachineStopped, run), seen: seen(phase(provider.PhaseStopped)), verb: fleet.Restart},
		{name: "stopping", m: machine(shoal.MachineStopping, stop), seen: seen(phase(provider.PhaseRunning)), verb: fleet.Stop},
		{name: "stopping, asked", m: machine(shoal.MachineStopping, stop), seen: seen(phase(provider.PhaseStopping)), track: asked},
		{name: "stopping, stopped", m: machine(shoal.MachineStopping, stop), seen: seen(phase(provider.PhaseStopped)), verb: fleet.Halted},
		{name: "stopped", m: machine(shoal.MachineStopped, stop), seen: seen(phase(provider.PhaseStopped))},
		{name: "stopped, to be deleted", m: machine(shoal.MachineStopped, del), seen: seen(phase(provider.PhaseStopped)), verb: fleet.Delete},
		{name: "to be deleted", m: machine(shoal.MachineReady, del), seen: seen(phase(provider.PhaseRunning)), verb: fleet.Empty},
		{name: "deleting", m: machine(shoal.MachineStopping, del), seen: seen(phase(provider.PhaseRunning)), verb: fleet.Delete},
		{name: "deleting, just made", m: machine(shoal.MachineStopping, del), seen: seen(phase(provider.PhaseRunning)), track: made, verb: fleet.Delete},
		{name: "deleting, asked", m: machine(shoal.MachineStopping, del), seen: seen(phase(provider.PhaseStopping)), track: early},
		{name: "deleting, asked long ago", m: machine(shoal.MachineStopping, del), after: time.Hour, seen: seen(phase(provider.PhaseStopping)), track: early, verb: fleet.Delete},
		{name: "deleting, done", m: machine(shoal.MachineStopping, del), seen: seen(), track: early, verb: fleet.Gone},
		{name: "deleting, the list is older", m: machine(shoal.MachineStopping, del), seen: seen(), track: late},
		{name: "deleting, the list has holes", m: machine(shoal.MachineStopping, del), seen: partly(seen()), track: early},
		{name: "failed", m: machine(shoal.MachineFailed, del), seen: seen(phase(provider.PhaseFailed)), verb: fleet.Delete},
		{name: "failed, gone", m: machine(shoal.MachineFailed, del), seen: seen(), verb: fleet.Gone},
		{name: "a stranger", m: shoal.Machine{ID: "m-2", State: shoal.MachineRequested, Wanted: run}, full: true, seen: seen(phase(provider.PhaseRunning)), verb: fleet.Delete, says: "no such machine"},
		{name: "a stranger in a list with holes", m: shoal.Machine{ID: "m-2", State: shoal.MachineRequested, Wanted: run}, full: true, seen: partly(seen(phase(provider.PhaseRunning))), verb: fleet.Delete},
		{name: "a stranger on its way out", m: shoal.Machine{ID: "m-2", State: shoal.MachineRequested, Wanted: run}, full: true, seen: seen(phase(provider.PhaseStopping))},
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, c := range append(making(), ending()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := fleet.World{Machines: []shoal.Machine{c.m}, Seen: c.seen, Track: map[shoal.MachineID]fleet.Track{"m-1": c.track}, Slots: 1}
			if c.full {
				w.Slots = 0
			}
			if !c.hold.Until.IsZero() {
				w.Holds = map[shoal.PoolName]fleet.Hold{"lab": c.hold}
			}
			actions, next := fleet.Plan(w, start().Add(c.after))
			switch {
			case c.verb == "" && len(actions) == 0:
			case len(actions) != 1 || actions[0].Verb != c.verb || !strings.Contains(actions[0].Reason, c.says):
				t.Errorf("%+v", actions)
			}
			if !next.IsZero() && !next.After(start().Add(c.after)) {
				t.Errorf("next is past: %s", next)
			}
		})
	}
}

// Carried out, actions lead somewhere: whatever a machine is and whatever its provider shows, what is
// put on record follows the table of transitions and comes to rest.
func TestRecordsComeToRest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		states := []shoal.MachineState{shoal.MachineRequested, shoal.MachineBooting, shoal.MachineReady, shoal.MachineStopping, shoal.MachineStopped, shoal.MachineFailed}
		m := machine(rapid.SampledFrom(states).Draw(t, "state"), rapid.SampledFrom([]shoal.MachineWanted{shoal.WantRun, shoal.WantStop, shoal.WantDelete}).Draw(t, "wanted"))
		if m.State == shoal.MachineFailed {
			m.Wanted = shoal.WantDelete
		}
		s := seen()
		if rapid.Bool().Draw(t, "there") {
			phases := []provider.Phase{provider.PhaseCreating, provider.PhaseRunning, provider.PhaseStopping, provider.PhaseStopped, provider.PhaseFailed}
			s = seen(provider.Observed{ID: "m-1", Phase: rapid.SampledFrom(phases).Draw(t, "phase"), Address: "a:22", Reason: rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason")})
		}
		s.Complete = rapid.Bool().Draw(t, "complete")
		track := fleet.Track{Busy: rapid.IntRange(0, 4).Draw(t, "busy") == 0, Accepted: rapid.Bool().Draw(t, "accepted")}
		now := start().Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "after")) * time.Second)
		was := m
		for step := range 10 {
			w := fleet.World{Machines: []shoal.Machine{m}, Seen: s, Track: map[shoal.MachineID]fleet.Track{"m-1": track}, Slots: 1}
			if m.State == shoal.MachineGone {
				w.Machines = nil
			}
			actions, _ := fleet.Plan(w, now)
			if len(actions) == 0 || actions[0].Verb.Effect() {
				break
			}
			next := fleet.Apply(m, actions[0], now)
			if next.State != m.State && !m.State.CanMove(next.State) {
				t.Fatalf("%s → %s by %+v", m.State, next.State, actions[0])
			}
			if m = next; step == 9 {
				t.Fatalf("it does not come to rest: %+v", actions)
			}
		}
		if m.State == shoal.MachineGone && (len(s.Machines) > 0 || !s.Complete || track.Busy) {
			t.Fatalf("%+v was taken for gone: %+v", was, s)
		}
		// One that failed is billed until its provider has it no more.
		if ended := m.State == shoal.MachineGone || m.State == shoal.MachineStopped; ended && m.State != was.State && !m.Started.IsZero() && m.Stopped.IsZero() {
			t.Fatalf("its time is still billed: %+v", m)
		}
	})
}

func failed(id int, at time.Duration, ready time.Duration) shoal.Machine {
	m := shoal.Machine{ID: shoal.MachineID(fmt.Sprint("m-", id)), State: shoal.MachineBooting, Wanted: shoal.WantRun, Started: start()}
	if ready >= 0 {
		m.State, m.ReadyAt = shoal.MachineReady, start().Add(ready)
	}
	if at >= 0 {
		fleet.Failed(&m, "broken", start().Add(at))
		m = fleet.Apply(m, fleet.Action{Verb: fleet.Gone, Reason: m.Reason}, start().Add(at+time.Second))
	}
	return m
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	sec := time.Second
	for _, c := range []struct {
		name   string
		recent []shoal.Machine
		until  time.Duration // after the last failure; negative: no hold
		single bool
	}{
		{"none", nil, -1, false},
		{"one works", []shoal.Machine{failed(1, -1, sec)}, -1, false},
		{"one failed", []shoal.Machine{failed(1, 10*sec, -1)}, sec, false},
		{"three failed", []shoal.Machine{failed(1, 10*sec, -1), failed(2, 20*sec, -1), failed(3, 5*sec, -1)}, 15 * sec, true},
		{"many failed", []shoal.Machine{failed(1, sec, -1), failed(2, sec, -1), failed(3, sec, -1), failed(4, sec, -1), failed(5, sec, -1), failed(6, sec, -1), failed(7, sec, -1)}, 2 * time.Minute, true},
		{"too many failed", []shoal.Machine{failed(1, sec, -1), failed(2, sec, -1), failed(3, sec, -1), failed(4, sec, -1), failed(5, sec, -1), failed(6, sec, -1), failed(7, sec, -1), failed(8, sec, -1)}, 30 * time.Minute, true},
		{"one worked since", []shoal.Machine{failed(1, 10*sec, -1), failed(2, 20*sec, -1), failed(3, -1, 30*sec)}, -1, false},
		{"one worked before", []shoal.Machine{failed(1, 10*sec, -1), failed(3, -1, 5*sec)}, sec, false},
		{"ready and at once dead", []shoal.Machine{failed(1, 10*sec, 5*sec), failed(2, 20*sec, 15*sec)}, 5 * sec, true},
		{"the clock was put back since", []shoal.Machine{failed(1, 3*time.Hour, -1), failed(2, -1, 3*time.Hour)}, -1, false},
		{"worked for long, then failed", []shoal.Machine{failed(1, time.Hour, 5*sec)}, -1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, ok := fleet.FailuresOf(c.recent, start().Add(2*time.Hour)).Backoff(8)
			var last time.Time
			for _, m := range c.recent {
				for _, x := range m.Cordons {
					if x.Since.After(last) {
						last = x.Since
					}
				}
			}
			if ok != (c.until >= 0) || ok && (h.Until.Sub(last) != c.until || h.Single != c.single || !strings.Contains(h.Reason, "broken")) {
				t.Errorf("%+v %v", h, ok)
			}
		})
	}
}

// With a hold that lets one machine try, one tries, however many are requested.
func TestSingle(t *testing.T) {
	t.Parallel()
	w := fleet.World{Slots: 10, Track: map[shoal.MachineID]fleet.Track{}, Holds: map[shoal.PoolName]fleet.Hold{"lab": {Until: start(), Reason: "broken", Single: true}}}
	for i := range 5 {
		m := machine(shoal.MachineRequested, shoal.WantRun)
		m.ID = shoal.MachineID(fmt.Sprint("m-", i))
		w.Machines = append(w.Machines, m)
	}
	creates := 0
	actions, _ := fleet.Plan(w, start())
	for _, a := range actions {
		if a.Verb == fleet.Create {
			creates++
		}
	}
	if creates != 1 {
		t.Errorf("%d machines try: %+v", creates, actions)
	}
}

// A machine that nobody needed any more is not taken for one that could not start.
func TestPeacefulEnd(t *testing.T) {
	t.Parallel()
	m := machine(shoal.MachineRequested, shoal.WantDelete)
	m.Reason = "nobody needs it any more"
	m = fleet.Apply(m, fleet.Action{Verb: fleet.Gone, Reason: m.Reason}, start())
	if m.Reason != "" || fleet.HasFailed(m) {
		t.Errorf("%+v", m)
	}
}

// A clock that is put back leaves nothing that lies in the future but what is billed.
func TestSettle(t *testing.T) {
	t.Parallel()
	m := machine(shoal.MachineReady, shoal.WantRun)
	m.IdleAt = start().Add(time.Minute)
	m.Cordons = []shoal.Cordon{{Owner: shoal.CordonHealth, Since: start()}, {Owner: shoal.CordonOperator, Since: start().Add(-2 * time.Hour), Deadline: start().Add(time.Hour)}}
	was := m.Cordons
	if got := fleet.Settle(m, start().Add(time.Hour)); got.IdleAt != m.IdleAt || got.Since != m.Since {
		t.Errorf("what is past has changed: %+v", got)
	}
	back := start().Add(-time.Hour)
	got := fleet.Settle(m, back)
	if got.Since != back || got.IdleAt != back || got.ReadyAt != back || got.Cordons[0].Since != back || got.Cordons[1] != was[1] || got.Started != m.Started {
		t.Errorf("%+v", got)
	}
	if was[0].Since != start() {
		t.Error("the machine that was handed in has changed")
	}
}
