package scale_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

// The worked examples that Azure Virtual Desktop's documentation has, with all of its numbers:
//
//	scenarios  "Autoscale scaling plans and example scenarios" (autoscale-scenarios, 1 November 2023), scenarios 1 to 4
//	plan       "Create and assign an autoscale scaling plan" (autoscale-create-assign-scaling-plan, 29 April 2025)
//
// A capacity threshold is with us a rule for above and one for below it, of the percentage of seats that are taken; a
// minimum percentage of hosts is size.min; an exclusion tag is an operator's cordon. Where both load-balancing algorithms
// are explained, see package route.

// hostPool is one of theirs: so many hosts in all, of so many sessions each.
type hostPool struct {
	hosts, limit      int
	threshold, minPct float64
}

func (h hostPool) least() int { return int(math.Ceil(h.minPct * float64(h.hosts) / 100)) }

func (h hostPool) pool() shoal.Pool {
	return pool(rules(above(shoal.MetricSeats, h.threshold), below(shoal.MetricSeats, h.threshold)), sized(h.least(), h.hosts, 0), func(p *shoal.Pool) {
		p.Seats, p.Uses = h.limit, []shoal.Use{shoal.UseInteractive}
	})
}

// available are hosts that are turned on, with so many sessions each.
func available(users ...int) []scale.Machine {
	var list []scale.Machine
	for i, n := range users {
		m := machine(fmt.Sprint("m-", i))
		if n > 0 {
			sessions(n)(&m)
		}
		list = append(list, m)
	}
	return list
}

func TestWorkedExamplesOfAzureVirtualDesktop(t *testing.T) {
	t.Parallel()
	ramp, peak := hostPool{6, 5, 30, 30}, hostPool{6, 5, 30, 30}
	down := hostPool{6, 5, 75, 10}
	if ramp.least() != 2 || down.least() != 1 || (hostPool{7, 20, 75, 10}).least() != 1 || (hostPool{10, 5, 60, 10}).least() != 1 {
		t.Error("scenarios: 30 % of six hosts are two, 10 % one; plan: 10 % of seven hosts are one, and of ten one")
	}
	for _, c := range []struct {
		name   string
		is     hostPool
		users  []int // on each host
		create int
		retire string
		cordon string
	}{
		{"scenario 1: at the beginning two are turned on", ramp, nil, 2, "", ""},
		{"scenario 1: nobody, 0 %", ramp, []int{0, 0}, 0, "", ""},
		{"scenario 1: 3 sessions, 30 %", ramp, []int{2, 1}, 0, "", ""},
		{"scenario 1: 4 sessions, 40 %", ramp, []int{2, 2}, 1, "", ""},
		{"scenario 1: 4 sessions, 27 %", ramp, []int{2, 2, 0}, 0, "", ""},
		{"scenario 1: 5 sessions, 33 %", ramp, []int{2, 2, 1}, 1, "", ""},
		{"scenario 1: 5 sessions, 25 %", ramp, []int{2, 2, 1, 0}, 0, "", ""},
		{"scenario 1: 6 sessions, 30 %", ramp, []int{2, 2, 1, 1}, 0, "", ""},
		{"scenario 1: 7 sessions, 35 %", ramp, []int{2, 2, 2, 1}, 1, "", ""},
		{"scenario 1: 7 sessions, 28 %", ramp, []int{2, 2, 2, 1, 0}, 0, "", ""},

		{"scenario 2: 7 sessions, 28 %, which would be 35 %", peak, []int{2, 2, 1, 1, 1}, 0, "", ""},
		{"scenario 2: 5 sessions, 20 %, which becomes 25 %: one without sessions is turned off", peak, []int{2, 1, 1, 1, 0}, 0, "m-4", ""},
		{"scenario 2: 5 sessions, 25 %, which would be 33 %", peak, []int{2, 1, 1, 1}, 0, "", ""},
		{"scenario 2: 4 sessions, 20 %, which would be 27 %: the one with the fewest drains", peak, []int{1, 1, 1, 1}, 0, "", "m-0"},

		// Nobody is ever signed out to make a pool of ours smaller: instead of "force logoff" hosts drain, one after another.
		{"scenario 3: 4 sessions, 20 %", down, []int{1, 1, 1, 1}, 0, "", "m-0"},
		{"scenario 3: 4 sessions on three", down, []int{2, 1, 1}, 0, "", "m-1"},
		{"scenario 3: 2 sessions, 20 %", down, []int{1, 1}, 0, "", "m-0"},
		{"scenario 3: 4 sessions, 40 %, which would be 80 %", down, []int{2, 2}, 0, "", ""},
		{"scenario 3: 3 sessions, 30 %, which becomes 60 %", down, []int{2, 1}, 0, "", "m-1"},
		{"scenario 3: 2 sessions, 40 %: the last stays", down, []int{2}, 0, "", ""},
		{"scenario 3: 3 sessions, 60 %: the last stays", down, []int{3}, 0, "", ""},

		{"plan: two hosts of 20, 75 %, 30 sessions", hostPool{7, 20, 75, 10}, []int{15, 15}, 0, "", ""},
		{"plan: more than 30 turn on a third", hostPool{7, 20, 75, 10}, []int{16, 15}, 1, "", ""},
		{"plan: then there is room for 60", hostPool{7, 20, 75, 10}, []int{16, 15, 0}, 0, "", ""},
		{"plan: a capacity of 100, 60 %, 60 sessions", hostPool{20, 10, 60, 10}, []int{6, 6, 6, 6, 6, 6, 6, 6, 6, 6}, 0, "", ""},
		{"plan: more than 60", hostPool{20, 10, 60, 10}, []int{7, 6, 6, 6, 6, 6, 6, 6, 6, 6}, 1, "", ""},
	} {
		d := scale.Decide(scale.State{Pool: c.is.pool(), Machines: available(c.users...)}, start())
		if d.Create != c.create || ids(d.Retire) != c.retire || ids(d.Cordon) != c.cordon {
			t.Errorf("%s: %+v", c.name, d)
		}
		if len(c.users) > 0 && d.Create+len(d.Retire)+len(d.Cordon) > 0 && d.Rule == "" {
			t.Errorf("%s: no rule is named: %+v", c.name, d)
		}
	}
	// Scenario 2: "If at any point the used host pool capacity gets to a point where autoscale can no longer turn off the session
	// host, it will take the session host out of drain mode."
	s := scale.State{Pool: peak.pool(), Machines: all(machine("a", sessions(1), by(shoal.CordonAutoscaler)), machine("b", sessions(2)), machine("c", sessions(2)), machine("d", sessions(2)))}
	if d := scale.Decide(s, start()); !slices.Equal(d.Restore, []shoal.MachineID{"a"}) || d.Create != 0 {
		t.Errorf("scenario 2: it is not taken back: %+v", d)
	}
}

// Scenario 3: of four hosts with a session each two can be turned off without going over 75 %, and no third.
func TestTwoOfFourHostsDrain(t *testing.T) {
	t.Parallel()
	s := scale.State{Pool: hostPool{6, 5, 75, 10}.pool(), Machines: available(1, 1, 1, 1)}
	for range 10 {
		for _, c := range scale.Decide(s, start()).Cordon {
			i := slices.IndexFunc(s.Machines, func(m scale.Machine) bool { return m.ID == c.Machine })
			by(shoal.CordonAutoscaler)(&s.Machines[i])
		}
	}
	draining := slices.DeleteFunc(slices.Clone(s.Machines), func(m scale.Machine) bool { return len(m.Cordons) == 0 })
	if len(draining) != 2 {
		t.Errorf("%d of four drain: %+v", len(draining), s.Machines)
	}
}

// Scenario 4: what is excluded is left alone, and nothing takes its place.
func TestExcludedHosts(t *testing.T) {
	t.Parallel()
	off := hostPool{6, 5, 75, 10}
	s := scale.State{Pool: off.pool(), Machines: all(machine("a", sessions(3)))}
	for i := range 5 {
		s.Machines = append(s.Machines, machine(fmt.Sprint("x-", i), by(shoal.CordonOperator), idleFor(24*time.Hour)))
	}
	none := func(what string) {
		t.Helper()
		d := scale.Decide(s, start())
		if d.Create+len(d.Retire)+len(d.Cordon)+len(d.Restore) > 0 {
			t.Errorf("%s: %+v", what, d)
		}
	}
	none("3 sessions, 60 %")
	sessions(4)(&s.Machines[0])
	none("4 sessions, 80 %")
	s.Machines[0] = machine("a", idleFor(24*time.Hour))
	none("nobody, and 10 % of six is one")
	by(shoal.CordonOperator)(&s.Machines[0])
	s.Waiting = 1
	none("all are excluded: there are no resources for another user")
	// The tags of two are removed: one is enough.
	s.Waiting, s.Machines[1].Cordons, s.Machines[2].Cordons = 0, nil, nil
	if d := scale.Decide(s, start()); ids(d.Retire) != "x-0" || d.Create+len(d.Cordon) > 0 {
		t.Errorf("two are no longer excluded: %+v", d)
	}
	s = scale.State{Pool: off.pool()}
	if d := scale.Decide(s, start()); d.Create != 1 {
		t.Errorf("10 %% of six that are turned off: %+v", d)
	}
}

// The schedules of "plan": ramp-up at 6:30, peak at 8:30, ramp-down at 16:00 and off-peak at 22:45, from Monday to Friday,
// breadth-first and depth-first in turn. Ramp-up has 5 hosts at least and 10 at most, ramp-down 1 and 5, with 20 % of the least
// active; peak goes on as ramp-up, and off-peak as ramp-down, also over days without a schedule.
func TestScalingPlanOfAzureVirtualDesktop(t *testing.T) {
	t.Parallel()
	week := []string{"mon-fri"}
	p := pool(sized(1, 5, 0), func(p *shoal.Pool) {
		p.Placement = shoal.PlacePack
		p.Scale.Schedule = []shoal.Window{
			{Name: "ramp-up", Days: week, From: "06:30", To: "08:30", Min: ptr(1), Max: ptr(10), Placement: shoal.PlaceSpread},
			{Name: "peak", Days: week, From: "08:30", To: "16:00", Min: ptr(1), Max: ptr(10), Placement: shoal.PlacePack},
			{Name: "ramp-down", Days: week, From: "16:00", To: "22:45", Min: ptr(1), Max: ptr(5), Placement: shoal.PlaceSpread},
		}
	})
	if least := (hostPool{hosts: 5, minPct: 20}).least(); least != 1 {
		t.Errorf("20 %% of 5 are %d", least)
	}
	at := func(day int, clock string) time.Time {
		c, err := time.Parse("15:04", clock)
		if err != nil {
			t.Fatal(err)
		}
		return time.Date(2026, 5, 4+day, c.Hour(), c.Minute(), 0, 0, time.UTC) // 4 May 2026 is a Monday
	}
	for _, c := range []struct {
		day    int
		clock  string
		window string
		most   int
		place  shoal.Placement
	}{
		{0, "06:29", "", 5, shoal.PlacePack},
		{0, "06:30", "ramp-up", 10, shoal.PlaceSpread},
		{0, "08:29", "ramp-up", 10, shoal.PlaceSpread},
		{0, "08:30", "peak", 10, shoal.PlacePack},
		{4, "15:59", "peak", 10, shoal.PlacePack},
		{4, "16:00", "ramp-down", 5, shoal.PlaceSpread},
		{4, "22:45", "", 5, shoal.PlacePack},
		{5, "12:00", "", 5, shoal.PlacePack},
		{6, "12:00", "", 5, shoal.PlacePack},
		{7, "06:30", "ramp-up", 10, shoal.PlaceSpread},
	} {
		b := scale.BoundsOf(p, at(c.day, c.clock))
		if b.Window != c.window || b.Min != 1 || b.Max != c.most || b.Placement != c.place {
			t.Errorf("day %d, %s: %+v", c.day, c.clock, b)
		}
	}
}
