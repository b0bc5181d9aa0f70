package route_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
)

func pool(change ...func(*shoal.Pool)) shoal.Pool {
	p := shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive}, Seats: 2, Size: shoal.Size{Max: 4}, Placement: shoal.PlaceSpread}
	for _, c := range change {
		c(&p)
	}
	return p
}

func machine(id shoal.MachineID, change ...func(*shoal.Machine)) shoal.Machine {
	m := shoal.Machine{ID: id, Pool: "lab", State: shoal.MachineReady, Wanted: shoal.WantRun, Health: shoal.HealthUp}
	for _, c := range change {
		c(&m)
	}
	return m
}

func in(s shoal.MachineState) func(*shoal.Machine) { return func(m *shoal.Machine) { m.State = s } }

func draining(m *shoal.Machine) {
	m.Cordons = []shoal.Cordon{{Owner: shoal.CordonOperator, Reason: "new disks"}}
}

func down(m *shoal.Machine) { m.Health = shoal.HealthDown }

func load(percent int) func(*shoal.Machine) {
	return func(m *shoal.Machine) { m.Load.CPUPercent = percent }
}

func session(id shoal.SessionID, u shoal.UserName, m shoal.MachineID, change ...func(*shoal.Session)) shoal.Session {
	s := shoal.Session{ID: id, User: u, Pool: "lab", Machine: m, State: shoal.SessionActive}
	for _, c := range change {
		c(&s)
	}
	return s
}

func all[T any](list ...T) []T { return list }

// placeCase is one request and what becomes of it.
type placeCase struct {
	name    string
	state   route.State
	req     route.Request
	machine shoal.MachineID // "" and no refusal: waits
	session shoal.SessionID
	refused string
	says    string
}

func limit(sessions, connections int) func(*shoal.Pool) {
	return func(p *shoal.Pool) {
		p.Limits.PerUser = shoal.PerUser{Sessions: sessions, Connections: connections}
	}
}

func placed(pl shoal.Placement) func(*shoal.Pool) { return func(p *shoal.Pool) { p.Placement = pl } }

func parts(n int) func(*shoal.Session) {
	return func(s *shoal.Session) { s.Parts = make([]shoal.Part, n) }
}

func two() []shoal.Machine { return all(machine("m-1", load(50)), machine("m-2", load(10))) }

func placements() []placeCase {
	return []placeCase{
		{name: "spread", state: route.State{Pool: pool(), Machines: two(), Sessions: all(session("s-1", "bob", "m-2"))}, machine: "m-1"},
		{name: "spread, equal: the less loaded", state: route.State{Pool: pool(), Machines: two()}, machine: "m-2"},
		{name: "pack", state: route.State{Pool: pool(placed(shoal.PlacePack)), Machines: two(), Sessions: all(session("s-1", "bob", "m-1"))}, machine: "m-1"},
		{name: "pack passes over the full", state: route.State{Pool: pool(placed(shoal.PlacePack)), Machines: two(),
			Sessions: all(session("s-1", "bob", "m-1"), session("s-2", "eve", "m-1"))}, machine: "m-2"},
		{name: "least loaded", state: route.State{Pool: pool(placed(shoal.PlaceLeastLoaded)), Machines: two()}, machine: "m-2"},
		{name: "her session wins", state: route.State{Pool: pool(), Machines: two(), Sessions: all(session("s-1", "alice", "m-1"), session("s-2", "bob", "m-1"))},
			machine: "m-1", session: "s-1"},
		{name: "her session wins while draining", state: route.State{Pool: pool(), Machines: all(machine("m-1", draining), machine("m-2")),
			Sessions: all(session("s-1", "alice", "m-1"))}, machine: "m-1", session: "s-1"},
		{name: "not on a machine that is down", state: route.State{Pool: pool(), Machines: all(machine("m-1", down), machine("m-2")),
			Sessions: all(session("s-1", "alice", "m-1"))}, machine: "m-2"},
		{name: "the connected session before the other", state: route.State{Pool: pool(), Machines: two(),
			Sessions: all(session("s-1", "alice", "m-1"), session("s-2", "alice", "m-2", parts(1)))}, machine: "m-2", session: "s-2"},
		{name: "avoid", state: route.State{Pool: pool(), Machines: two(), Sessions: all(session("s-1", "alice", "m-2"))},
			req: route.Request{Avoid: "m-2"}, machine: "m-1"},
		{name: "avoid, but there is no other", state: route.State{Pool: pool(), Machines: all(machine("m-2"))}, req: route.Request{Avoid: "m-2"}, machine: "m-2"},
		{name: "suspects last", state: route.State{Pool: pool(), Machines: two(), Suspects: map[shoal.MachineID]bool{"m-2": true}}, machine: "m-1"},
		{name: "new", state: route.State{Pool: pool(), Machines: two(), Sessions: all(session("s-1", "alice", "m-2"))},
			req: route.Request{New: true}, machine: "m-1"},
		{name: "new, but there is no other", state: route.State{Pool: pool(), Machines: all(machine("m-2")), Sessions: all(session("s-1", "alice", "m-2"))},
			req: route.Request{New: true}, machine: "m-2", session: "s-1"},
		{name: "her task", state: route.State{Pool: pool(), Machines: two(), Tasks: map[shoal.UserName][]shoal.MachineID{"alice": {"m-1"}}}, machine: "m-1"},
	}
}

func byNameAndLimits() []placeCase {
	return []placeCase{
		{name: "by name", state: route.State{Pool: pool(), Machines: two()}, req: route.Request{Machine: "m-1"}, machine: "m-1"},
		{name: "by name, booting", state: route.State{Pool: pool(), Machines: all(machine("m-1", in(shoal.MachineBooting)), machine("m-2"))},
			req: route.Request{Machine: "m-1"}, says: "waking machine m-1: booting"},
		{name: "by name, unknown", state: route.State{Pool: pool(), Machines: two()}, req: route.Request{Machine: "m-9"}, refused: "noMachine"},
		{name: "by name, draining", state: route.State{Pool: pool(), Machines: all(machine("m-1", draining))},
			req: route.Request{Machine: "m-1"}, refused: "draining", says: "new disks"},
		{name: "by name, full", state: route.State{Pool: pool(), Machines: two(), Sessions: all(session("s-1", "bob", "m-1"), session("s-2", "eve", "m-1"))},
			req: route.Request{Machine: "m-1"}, refused: "full"},
		{name: "by name, hers though draining", state: route.State{Pool: pool(), Machines: all(machine("m-1", draining)),
			Sessions: all(session("s-1", "alice", "m-1"))}, req: route.Request{Machine: "m-1"}, machine: "m-1", session: "s-1"},
		{name: "session limit", state: route.State{Pool: pool(limit(1, 0)), Machines: two(), Sessions: all(session("s-1", "alice", "m-1"))},
			req: route.Request{New: true}, refused: "sessionLimit", says: "shoal session end s-1"},
		{name: "the limit lets her leave a dead machine", state: route.State{Pool: pool(limit(1, 0)), Machines: all(machine("m-1", down), machine("m-2")),
			Sessions: all(session("s-1", "alice", "m-1"))}, machine: "m-2"},
		{name: "connection limit", state: route.State{Pool: pool(limit(0, 2)), Machines: two(), Sessions: all(session("s-1", "alice", "m-1", parts(2)))},
			refused: "connectionLimit"},
	}
}

func waits() []placeCase {
	return []placeCase{
		{name: "jobs only", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Uses = []shoal.Use{shoal.UseBatch} })}, refused: "notInteractive"},
		{name: "max 0", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 0 })}, refused: "noMachines"},
		{name: "a window without machines", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 0 }), Closed: `window "nights" of its schedule holds`}, refused: "noMachines",
			says: `pool lab may have no machines: window "nights" of its schedule holds`},
		{name: "the last one drains", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 0 }), Machines: all(machine("m-1", draining))}, refused: "noMachines"},
		{name: "the last one drains, hers", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 0 }), Machines: all(machine("m-1", draining)),
			Sessions: all(session("s-1", "alice", "m-1"))}, machine: "m-1", session: "s-1"},
		{name: "a hand in a window without machines", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max, p.Fixed = 0, &shoal.FixedSize{Size: 1} })}, says: "one is wanted"},
		{name: "scaled to 0 by hand", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Fixed = &shoal.FixedSize{} })}, refused: "noMachines", says: "until further notice"},
		{name: "scaled to 0, one is left", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Fixed = &shoal.FixedSize{} }), Machines: all(machine("m-1"))}, machine: "m-1"},
		{name: "being deleted", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Deleting = true }), Machines: two()}, refused: "deleting"},
		{name: "being deleted, hers", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Deleting = true }), Machines: two(), Sessions: all(session("s-1", "alice", "m-1"))}, machine: "m-1", session: "s-1"},
		{name: "none", state: route.State{Pool: pool()}, says: "no machine of pool lab runs; one is wanted"},
		{name: "requested", state: route.State{Pool: pool(), Machines: all(machine("m-1", in(shoal.MachineRequested)))}, says: "waking machine m-1 of pool lab: requested"},
		{name: "booting, and it says why", state: route.State{Pool: pool(), Machines: all(machine("m-1", in(shoal.MachineBooting), func(m *shoal.Machine) { m.Reason = "share team does not answer" }))},
			says: "waking machine m-1 of pool lab: booting; share team does not answer"},
		{name: "booting", state: route.State{Pool: pool(), Machines: all(machine("m-1", in(shoal.MachineBooting)))}, says: "waking machine m-1 of pool lab: booting"},
		{name: "several", state: route.State{Pool: pool(), Machines: all(machine("m-1", in(shoal.MachineRequested)), machine("m-2", in(shoal.MachineBooting)))}, says: "waking 2 machines of pool lab: booting"},
		{name: "failed machines do not count", state: route.State{Pool: pool(), Machines: all(machine("m-1", in(shoal.MachineFailed)))}, says: "one is wanted"},
		{name: "full, more to come", state: route.State{Pool: pool(), Machines: all(machine("m-1")), Sessions: all(session("s-1", "bob", "m-1"), session("s-2", "eve", "m-1"))},
			says: "all 2 seats of 1 machine of pool lab are taken; another machine is wanted"},
		{name: "full, no more", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 1 }), Machines: all(machine("m-1")),
			Sessions: all(session("s-1", "bob", "m-1"), session("s-2", "eve", "m-1"))},
			says: "all 2 seats of 1 machine of pool lab are taken; you are 1st in line"},
		{name: "full, and as large as it was told to be", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Fixed = &shoal.FixedSize{Size: 1} }), Machines: all(machine("m-1")),
			Sessions: all(session("s-1", "bob", "m-1"), session("s-2", "eve", "m-1"))},
			says: "all 2 seats of 1 machine of pool lab are taken; its size was set to 1 by hand; you are 1st in line"},
		{name: "the only free seat is a suspect's, and there may be another", state: route.State{Pool: pool(), Machines: all(machine("m-1")), Suspects: map[shoal.MachineID]bool{"m-1": true}},
			says: "1 machine of pool lab: not answering; another machine is wanted"},
		{name: "the only free seat is a suspect's, and another is coming", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 2 }),
			Machines: all(machine("m-1"), machine("m-2", in(shoal.MachineBooting))), Suspects: map[shoal.MachineID]bool{"m-1": true}}, says: "waking machine m-2"},
		{name: "a suspect no longer, and another is coming", state: route.State{Pool: pool(), Machines: all(machine("m-1"), machine("m-2", in(shoal.MachineBooting)))},
			req: route.Request{Avoid: "m-1"}, says: "waking machine m-2"},
		{name: "a suspect no longer, and no other is coming", state: route.State{Pool: pool(), Machines: all(machine("m-1"))}, req: route.Request{Avoid: "m-1"}, machine: "m-1"},
		{name: "the only free seat is a suspect's, and there may be no other", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 1 }), Machines: all(machine("m-1")),
			Suspects: map[shoal.MachineID]bool{"m-1": true}}, machine: "m-1"},
		{name: "all drain", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 1 }), Machines: all(machine("m-1", draining))},
			says: "1 machine of pool lab: draining, and the pool may have no more"},
		{name: "all silent", state: route.State{Pool: pool(func(p *shoal.Pool) { p.Size.Max = 1 }), Machines: all(machine("m-1", down))},
			says: "1 machine of pool lab: not answering, and the pool may have no more"},
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(placements(), byNameAndLimits(), waits()) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.req.User, c.req.Pool = "alice", "lab"
			d, err := route.Place(c.state, c.req)
			r, refused := errors.AsType[*route.Refusal](err)
			if refused != (c.refused != "") || (refused && r.Reason.Code != c.refused) || (err != nil && !refused) {
				t.Fatalf("refused with %v, want %q", err, c.refused)
			}
			sentence := d.Reason.Sentence
			if refused {
				sentence = r.Reason.Sentence
			}
			if d.Machine != c.machine || d.Session != c.session || !strings.Contains(sentence, c.says) {
				t.Errorf("%+v, %v", d, err)
			}
			if d.Machine == "" && !refused && d.Position != 1 {
				t.Errorf("position %d", d.Position)
			}
		})
	}
}

// The least loaded are chosen from the lower half only, and all of it is used.
func TestLeastLoadedSpreads(t *testing.T) {
	t.Parallel()
	s := route.State{Pool: pool(func(p *shoal.Pool) { p.Placement, p.Seats = shoal.PlaceLeastLoaded, 100 })}
	for i := range 6 {
		s.Machines = append(s.Machines, machine(shoal.MachineID(fmt.Sprint("m-", i)), load(90-10*i)))
	}
	hits := map[shoal.MachineID]int{}
	for seed := range uint64(300) {
		s.Seed = seed
		d, err := route.Place(s, route.Request{User: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		hits[d.Machine]++
	}
	if len(hits) != 3 || hits["m-5"] < 50 || hits["m-4"] < 50 || hits["m-3"] < 50 {
		t.Errorf("%v", hits)
	}
}

func TestLineOfOneUser(t *testing.T) {
	t.Parallel()
	s := route.State{Pool: pool(), Machines: all(machine("m-1"), machine("m-2"))}
	out := route.Seat(s, []route.Request{{User: "alice"}, {User: "alice"}, {User: "bob"}, {User: "bob", New: true}})
	if out[0].Machine != out[1].Machine || out[2].Machine == out[3].Machine {
		t.Errorf("%+v", out)
	}
}

func drawState(t *rapid.T) route.State {
	s := route.State{Pool: pool(), Suspects: map[shoal.MachineID]bool{}, Tasks: map[shoal.UserName][]shoal.MachineID{}, Seed: rapid.Uint64().Draw(t, "seed")}
	s.Pool.Seats = rapid.IntRange(0, 3).Draw(t, "seats")
	s.Pool.Size.Max = rapid.IntRange(0, 6).Draw(t, "max")
	s.Pool.Placement = rapid.SampledFrom([]shoal.Placement{"", shoal.PlaceSpread, shoal.PlacePack, shoal.PlaceLeastLoaded}).Draw(t, "placement")
	s.Pool.Limits.PerUser.Sessions = rapid.IntRange(0, 2).Draw(t, "limit")
	states := []shoal.MachineState{shoal.MachineReady, shoal.MachineReady, shoal.MachineReady, shoal.MachineRequested, shoal.MachineBooting,
		shoal.MachineStopping, shoal.MachineStopped, shoal.MachineFailed, shoal.MachineGone}
	for i := range rapid.IntRange(0, 5).Draw(t, "machines") {
		m := machine(shoal.MachineID(fmt.Sprint("m-", i)), in(rapid.SampledFrom(states).Draw(t, "state")), load(rapid.IntRange(0, 100).Draw(t, "load")))
		if rapid.IntRange(0, 3).Draw(t, "cordon") == 0 {
			draining(&m)
		}
		m.Health = rapid.SampledFrom([]shoal.Health{shoal.HealthUp, shoal.HealthUp, shoal.HealthUnknown, shoal.HealthDown}).Draw(t, "health")
		m.Wanted = rapid.SampledFrom([]shoal.MachineWanted{shoal.WantRun, shoal.WantRun, shoal.WantStop}).Draw(t, "wanted")
		s.Suspects[m.ID] = rapid.IntRange(0, 4).Draw(t, "suspect") == 0
		s.Machines = append(s.Machines, m)
	}
	taken := map[string]bool{}
	for i := range rapid.IntRange(0, 8).Draw(t, "sessions") {
		u, m := drawUser(t), shoal.MachineID(fmt.Sprint("m-", rapid.IntRange(0, 5).Draw(t, "on")))
		if taken[string(u)+string(m)] {
			continue
		}
		taken[string(u)+string(m)] = true
		s.Sessions = append(s.Sessions, session(shoal.SessionID(fmt.Sprint("s-", i)), u, m))
	}
	for range rapid.IntRange(0, 3).Draw(t, "tasks") {
		u := drawUser(t)
		s.Tasks[u] = append(s.Tasks[u], shoal.MachineID(fmt.Sprint("m-", rapid.IntRange(0, 5).Draw(t, "task"))))
	}
	return s
}

func drawUser(t *rapid.T) shoal.UserName {
	return shoal.UserName(fmt.Sprint("u", rapid.IntRange(0, 9).Draw(t, "user")))
}

func drawLine(t *rapid.T) []route.Request {
	var line []route.Request
	for range rapid.IntRange(0, 12).Draw(t, "line") {
		r := route.Request{User: drawUser(t), Pool: "lab", Arrived: time.Unix(rapid.Int64Range(0, 20).Draw(t, "arrived"), 0)}
		switch rapid.IntRange(0, 9).Draw(t, "wish") {
		case 0:
			r.New = true
		case 1:
			r.Machine = shoal.MachineID(fmt.Sprint("m-", rapid.IntRange(0, 5).Draw(t, "named")))
		case 2:
			r.Avoid = shoal.MachineID(fmt.Sprint("m-", rapid.IntRange(0, 5).Draw(t, "avoid")))
		}
		line = append(line, r)
	}
	return line
}

// Whatever the pool and the line: seats are kept, nobody is put where nobody may go, whoever has a
// session that answers keeps it, and the order of arrival is kept.
func TestSeatProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, line := drawState(t), drawLine(t)
		out := route.Seat(s, line)
		byID := map[shoal.MachineID]shoal.Machine{}
		for _, m := range s.Machines {
			byID[m.ID] = m
		}
		taken, before := map[shoal.MachineID]map[shoal.UserName]bool{}, map[shoal.MachineID]int{}
		for _, x := range s.Sessions {
			if taken[x.Machine] == nil {
				taken[x.Machine] = map[shoal.UserName]bool{}
			}
			taken[x.Machine][x.User] = true
			before[x.Machine]++
		}
		for i, o := range out {
			req := line[i]
			if o.Refused != nil && (o.Machine != "" || o.Refused.Reason.Sentence == "") || o.Refused == nil && o.Reason.Sentence == "" {
				t.Fatalf("%+v answers %+v", o, req)
			}
			if o.Machine == "" {
				continue
			}
			m := byID[o.Machine]
			hers := slices.ContainsFunc(s.Sessions, func(x shoal.Session) bool { return x.User == req.User && x.Machine == o.Machine })
			if m.State != shoal.MachineReady || (!hers && !m.Accepts()) {
				t.Fatalf("%s was put on %+v", req.User, m)
			}
			if req.Machine != "" && o.Machine != req.Machine {
				t.Fatalf("%+v was put on %s", req, o.Machine)
			}
			if taken[o.Machine] == nil {
				taken[o.Machine] = map[shoal.UserName]bool{}
			}
			taken[o.Machine][req.User] = true
		}
		for id, users := range taken {
			if n := len(users); n > max(s.Pool.Seats, 1) && n > before[id] {
				t.Fatalf("%d sessions on %s with %d seats", n, id, s.Pool.Seats)
			}
		}
		for i := range line { // nobody who waits for any machine sees a later one get a new seat, but on one that did not answer her
			for k := range line {
				plain := line[i].Machine == "" && line[k].Machine == "" && out[i].Refused == nil && out[k].Refused == nil
				later := line[k].Arrived.After(line[i].Arrived)
				fresh := out[k].Session == "" && line[k].User != line[i].User
				joined := slices.ContainsFunc(line, func(r route.Request) bool {
					return r.User == line[k].User && (r.Machine != "" || r.Arrived.Before(line[k].Arrived))
				})
				if plain && later && fresh && !joined && out[i].Machine == "" && out[k].Machine != "" && out[k].Machine != line[i].Avoid {
					t.Fatalf("%+v waits while the later %+v is on %s", line[i], line[k], out[k].Machine)
				}
			}
		}
	})
}

func TestStickiness(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		req := route.Request{User: drawUser(t), Pool: "lab"}
		d, err := route.Place(s, req)
		for _, x := range s.Sessions {
			i := slices.IndexFunc(s.Machines, func(m shoal.Machine) bool { return m.ID == x.Machine })
			if x.User != req.User || i < 0 {
				continue
			}
			if m := s.Machines[i]; m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && m.Health != shoal.HealthDown {
				if err != nil || d.Session == "" {
					t.Fatalf("she has %+v on %+v and got %+v, %v", x, m, d, err)
				}
			}
		}
	})
}

func TestDeterministic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, line := drawState(t), drawLine(t)
		first := route.Seat(s, line)
		slices.Reverse(s.Machines)
		if diff := cmp.Diff(first, route.Seat(s, line)); diff != "" {
			t.Fatalf("the order of machines matters:\n%s", diff)
		}
	})
}

// Azure Virtual Desktop's two load-balancing algorithms, with the numbers of its documentation. Breadth-first ("spread"): three
// users are evenly distributed over two hosts (autoscale-scenarios, scenario 1). Depth-first ("pack"): the host with the
// most sessions that has not reached its limit, there 6 (configure-host-pool-load-balancing). Whoever has a session comes
// back to it, also on a host that drains, and no other goes there; and a limit that is lowered ends nobody's session.
func TestLoadBalancingOfAzureVirtualDesktop(t *testing.T) {
	t.Parallel()
	hosts := func(placement shoal.Placement, hosts, limit, users int) string {
		s := route.State{Pool: pool(func(p *shoal.Pool) { p.Placement, p.Seats, p.Size.Max = placement, limit, hosts })}
		for i := range hosts {
			s.Machines = append(s.Machines, machine(shoal.MachineID(fmt.Sprint("m-", i))))
		}
		count := map[shoal.MachineID]int{}
		for i := range users {
			u := shoal.UserName(fmt.Sprint("u", i))
			d, err := route.Place(s, route.Request{User: u, Pool: "lab"})
			if err != nil {
				t.Fatal(err)
			}
			count[d.Machine]++
			s.Sessions = append(s.Sessions, session(shoal.SessionID(u), u, d.Machine))
		}
		var sizes []int
		for _, n := range count {
			sizes = append(sizes, n)
		}
		slices.Sort(sizes)
		return fmt.Sprint(sizes)
	}
	for _, c := range []struct {
		placement           shoal.Placement
		hosts, limit, users int
		want                string
	}{
		{shoal.PlaceSpread, 2, 5, 3, "[1 2]"},
		{shoal.PlaceSpread, 2, 5, 4, "[2 2]"},
		{shoal.PlaceSpread, 3, 5, 5, "[1 2 2]"},
		{shoal.PlaceSpread, 4, 5, 7, "[1 2 2 2]"},
		{shoal.PlacePack, 3, 6, 6, "[6]"},
		{shoal.PlacePack, 3, 6, 7, "[1 6]"},
		{shoal.PlacePack, 3, 6, 13, "[1 6 6]"},
	} {
		if got := hosts(c.placement, c.hosts, c.limit, c.users); got != c.want {
			t.Errorf("%s, %d users on %d hosts of %d: %s, want %s", c.placement, c.users, c.hosts, c.limit, got, c.want)
		}
	}
	s := route.State{Pool: pool(func(p *shoal.Pool) { p.Seats = 1 }), Machines: all(machine("a", draining), machine("b")), Sessions: all(session("1", "alice", "a"), session("2", "bob", "a"))}
	for user, want := range map[shoal.UserName]shoal.MachineID{"alice": "a", "bob": "a", "carol": "b"} {
		if d, err := route.Place(s, route.Request{User: user, Pool: "lab"}); err != nil || d.Machine != want {
			t.Errorf("%s: %+v, %v", user, d, err)
		}
	}
}
