package scale_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

func ptr[T any](v T) *T { return &v }

func rules(all ...shoal.Rule) func(*shoal.Pool) { return func(p *shoal.Pool) { p.Scale.Rules = all } }

func above(m shoal.Metric, f float64) shoal.Rule {
	return shoal.Rule{Metric: m, Above: &f, By: shoal.Step{Machines: 1}}
}
func below(m shoal.Metric, f float64) shoal.Rule {
	return shoal.Rule{Metric: m, Below: &f, By: shoal.Step{Machines: 1}}
}

func loaded(percent int) func(*scale.Machine) {
	return func(m *scale.Machine) { m.Load.CPUPercent = percent }
}

// measured is an hour in which the processors of two machines were as busy.
func measured(percent int) []scale.Sample {
	var samples []scale.Sample
	for i := range 60 {
		samples = append(samples, scale.Sample{At: start().Add(time.Duration(i-60) * time.Minute), Machines: 2, CPU: 2 * percent})
	}
	return samples
}

func over5m(r shoal.Rule) shoal.Rule {
	r.Window, r.Cooldown, r.Aggregate = shoal.Duration(5*time.Minute), shoal.Duration(10*time.Minute), "average"
	return r
}

func TestRules(t *testing.T) {
	t.Parallel()
	hot, cold := over5m(above(shoal.MetricCPU, 70)), over5m(below(shoal.MetricCPU, 30))
	half := hot
	half.By = shoal.Step{Percent: 50}
	exact := hot
	exact.To, exact.By = ptr(5), shoal.Step{}
	busy := all(machine("a", sessions(3), loaded(90)), machine("b", sessions(3), loaded(90)))
	lazy := all(machine("a", sessions(3), loaded(5)), machine("b", sessions(2), loaded(5)))
	for _, c := range []decideCase{
		{name: "hot", state: scale.State{Pool: pool(rules(hot, cold)), Machines: busy, Samples: measured(90)}, create: 1, says: "rule"},
		{name: "by half", state: scale.State{Pool: pool(rules(half)), Machines: busy, Samples: measured(90)}, create: 1, says: "rule"},
		{name: "to 5", state: scale.State{Pool: pool(rules(exact)), Machines: busy, Samples: measured(90)}, create: 3, says: "rule"},
		{name: "the largest wish counts", state: scale.State{Pool: pool(rules(hot, exact)), Machines: busy, Samples: measured(90)}, create: 3},
		{name: "at its most", state: scale.State{Pool: pool(rules(exact), sized(0, 3, 0)), Machines: busy, Samples: measured(90)}, create: 1, says: "max"},
		{name: "one is on its way, which will do", state: scale.State{Pool: pool(rules(hot)), Machines: append(slices.Clone(busy), machine("c", in(shoal.MachineBooting))), Samples: measured(90)}},
		{name: "just now only", state: scale.State{Pool: pool(rules(hot)), Machines: busy, Samples: measured(50)}},
		{name: "cooling down", state: scale.State{Pool: pool(rules(hot)), Machines: busy, Samples: measured(90), Changed: start().Add(-time.Minute)}},
		{name: "cold", state: scale.State{Pool: pool(rules(hot, cold)), Machines: lazy, Samples: measured(5)}, cordon: "b", says: "rule"},
		{name: "cold, and one is empty", state: scale.State{Pool: pool(rules(hot, cold)), Machines: all(machine("a", sessions(1)), machine("b")), Samples: measured(5)}, retire: "b"},
		{name: "the last stays open", state: scale.State{Pool: pool(rules(cold)), Machines: all(machine("a", sessions(1))), Samples: measured(5)}},
		{name: "not all agree", state: scale.State{Pool: pool(rules(cold, below(shoal.MetricSessions, 1))), Machines: lazy, Samples: measured(5)}},
		{name: "fewer would be too hot", state: scale.State{Pool: pool(rules(hot, over5m(below(shoal.MetricCPU, 60)))), Machines: lazy, Samples: measured(45)}},
		{name: "not known: nothing", state: scale.State{Pool: pool(rules(hot, cold)), Machines: busy}},
		{name: "not known: no less than the default", state: scale.State{Pool: pool(rules(hot, cold), func(p *shoal.Pool) { p.Size.Default = 3 }), Machines: busy}, create: 1, says: "default"},
		{name: "not known: the idle stay", state: scale.State{Pool: pool(rules(hot)), Machines: all(machine("a", idleFor(2*time.Hour)))}},
		{name: "what a rule wants is not idle", state: scale.State{Pool: pool(rules(hot)), Machines: append(slices.Clone(busy), machine("c", idleFor(2*time.Hour))), Samples: measured(90)}},
		{name: "nothing to measure from zero", state: scale.State{Pool: pool(rules(hot, cold)), Samples: measured(0)}},
		{name: "a queue that is long", state: scale.State{Pool: pool(rules(above(shoal.MetricQueue, 3))), Queue: queue(4, cpu(1))}, create: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := scale.Decide(c.state, start())
			says := slices.ContainsFunc(append(d.Reasons, d.Because), func(r shoal.Reason) bool { return r.Code == c.says })
			if d.Create != c.create || ids(d.Retire) != c.retire || ids(d.Cordon) != c.cordon || c.says != "" && !says {
				t.Errorf("%+v", d)
			}
		})
	}
}

func TestScheduleAndLimits(t *testing.T) {
	t.Parallel()
	week := func(p *shoal.Pool) {
		p.Scale.TimeZone = "Europe/Berlin" // start is 11:00 there, on a Monday
		p.Scale.Schedule = []shoal.Window{
			{Name: "weekend", Days: []string{"sat", "sun"}, Max: ptr(0)},
			{Name: "holiday", Dates: []string{"2026-05-05"}, Min: ptr(0)},
			{Name: "day", Days: []string{"mon-fri"}, From: "08:00", To: "18:00", Min: ptr(2), Spare: ptr(12), Placement: shoal.PlacePack},
		}
	}
	monday, tuesday, night, sunday := start(), start().AddDate(0, 0, 1), start().Add(12*time.Hour), start().AddDate(0, 0, 6)
	no := scale.Hold{Until: start().Add(time.Minute), Reason: "quota"}
	price := func(p *shoal.Pool) { p.Scale.Cost = shoal.Ceiling{PerDay: 10, PerMonth: 100} }
	old := idleFor(24 * time.Hour)
	for _, c := range []struct {
		name   string
		state  scale.State
		now    time.Time
		create int
		retire string
		says   string
		next   time.Time
	}{
		{"by day", scale.State{Pool: pool(week)}, monday, 2, "", "schedule", start().Add(7 * time.Hour)},
		{"on a holiday", scale.State{Pool: pool(week)}, tuesday, 0, "", "schedule", time.Date(2026, 5, 5, 16, 0, 0, 0, time.UTC)},
		{"at night", scale.State{Pool: pool(week), Machines: all(machine("a", old), machine("b", old))}, night, 0, "a b", "", time.Time{}},
		{"closed on Sundays", scale.State{Pool: pool(week), Waiting: 3}, sunday, 0, "", "max", time.Time{}},
		{"no room", scale.State{Pool: pool(), Waiting: 30, Held: no}, monday, 1, "", "capacity", no.Until},
		{"no room, and asked already", scale.State{Pool: pool(), Waiting: 30, Held: no, Machines: all(machine("a", in(shoal.MachineRequested)))}, monday, 0, "", "capacity", no.Until},
		{"room again", scale.State{Pool: pool(), Waiting: 30, Held: no}, no.Until, 4, "", "waiting", time.Time{}},
		{"too dear today", scale.State{Pool: pool(price), Waiting: 3, Spent: shoal.Ceiling{PerDay: 10, PerMonth: 20}}, monday, 0, "", "cost", time.Date(2026, 5, 5, 0, 0, 0, 0, time.UTC)},
		{"too dear this month", scale.State{Pool: pool(price), Waiting: 3, Spent: shoal.Ceiling{PerDay: 1, PerMonth: 100}}, monday, 0, "", "cost", time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)},
		{"within", scale.State{Pool: pool(price), Waiting: 3, Spent: shoal.Ceiling{PerDay: 9.99, PerMonth: 99}}, monday, 1, "", "waiting", time.Time{}},
		{"who is there stays", scale.State{Pool: pool(price), Machines: all(machine("a", sessions(3))), Spent: shoal.Ceiling{PerDay: 11}}, monday, 0, "", "", time.Time{}},
	} {
		d := scale.Decide(c.state, c.now)
		says := slices.ContainsFunc(append(d.Reasons, d.Because), func(r shoal.Reason) bool { return r.Code == c.says })
		if d.Create != c.create || ids(d.Retire) != c.retire || c.says != "" && !says || !c.next.IsZero() && !d.Next.Equal(c.next) {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
	if p := scale.At(pool(week), monday); p.Placement != shoal.PlacePack || p.Size.Spare != 12 {
		t.Errorf("by day: %+v", p)
	}
}

// drawElastic is a pool with rules, a schedule and samples too.
func drawElastic(t *rapid.T) scale.State {
	s := draw(t)
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		r := shoal.Rule{Metric: rapid.SampledFrom([]shoal.Metric{shoal.MetricSessions, shoal.MetricSeats, shoal.MetricCPU, shoal.MetricQueue}).Draw(t, "metric"),
			By: shoal.Step{Machines: rapid.IntRange(1, 3).Draw(t, "by")}, Aggregate: "average"}
		f := float64(rapid.IntRange(0, 100).Draw(t, "bound"))
		if rapid.Bool().Draw(t, "above") {
			r.Above = &f
		} else {
			r.Below = &f
		}
		s.Pool.Scale.Rules = append(s.Pool.Scale.Rules, r)
	}
	if rapid.Bool().Draw(t, "scheduled") {
		s.Pool.Scale.Schedule = []shoal.Window{{Days: []string{"mon-sun"}, Max: ptr(rapid.IntRange(0, 8).Draw(t, "most"))}}
	}
	return s
}

// carryOut makes a state of what was decided for it.
func carryOut(s scale.State, d scale.Decision) scale.State {
	s.Machines = slices.Clone(s.Machines)
	for i := range s.Machines {
		m := &s.Machines[i]
		m.Cordons = slices.Clone(m.Cordons)
		at := func(c scale.Change) bool { return c.Machine == m.ID }
		switch {
		case slices.ContainsFunc(d.Retire, at), slices.ContainsFunc(d.Force, at):
			m.Wanted, m.State = shoal.WantDelete, shoal.MachineStopping
		case slices.ContainsFunc(d.Cordon, at):
			by(shoal.CordonAutoscaler)(m)
		case slices.ContainsFunc(d.Roll, at):
			by(shoal.CordonRollout)(m)
		case slices.Contains(d.Restore, m.ID):
			m.Cordons = nil
		}
	}
	for i := range d.Create {
		s.Machines = append(s.Machines, machine(fmt.Sprint("z-", len(s.Machines), "-", i), in(shoal.MachineBooting)))
	}
	return s
}

// If any machine of a pool could take people, at least one does, unless an operator or a schedule wants none.
func TestStaysOpen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawElastic(t)
		limit := scale.At(s.Pool, start()).Size.Max
		if s.Pool.Fixed != nil {
			limit = min(s.Pool.Size.Max, s.Pool.Fixed.Size)
		}
		d := scale.Decide(s, start())
		after := carryOut(s, d)
		could, does := false, false
		for _, m := range after.Machines {
			ours := !slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool {
				return c.Owner != shoal.CordonAutoscaler && c.Owner != shoal.CordonRollout
			})
			could = could || m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && m.Health != shoal.HealthDown && ours
			does = does || m.Accepts()
		}
		if could && !does && limit > 0 && !s.Pool.Deleting {
			t.Fatalf("machines run, and none takes anybody: %+v\n%+v", d, s)
		}
	})
}

// What was taken is not wanted back at once, though nothing was asked for meanwhile.
func TestNoFlapping(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawElastic(t)
		d := scale.Decide(s, start())
		own := func(c scale.Change) bool {
			return c.Reason.Code == "idle" || c.Reason.Code == "rule" || c.Reason.Code == "unneeded"
		}
		if !slices.ContainsFunc(d.Retire, own) && !slices.ContainsFunc(d.Cordon, own) || slices.ContainsFunc(d.Retire, func(c scale.Change) bool { return !own(c) }) {
			return
		}
		if d.Create > 0 && d.Because.Code != "outdated" {
			t.Fatalf("it takes machines and makes some: %+v\n%+v", d, s)
		}
		again := scale.Decide(carryOut(s, d), start().Add(time.Second))
		if len(again.Restore) > 0 || again.Create > 0 && again.Because.Code != "outdated" && d.Because.Code != "outdated" {
			t.Fatalf("%+v\nand then %+v\n%+v", d, again, s)
		}
	})
}

// Whoever else waits, there are no fewer machines for it.
func TestMoreDemandIsNeverLess(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := draw(t)
		s.Pool.Deleting, s.Pool.Fixed = false, nil
		left := func(d scale.Decision) int {
			return d.Create + len(d.Restore) - len(d.Retire) - len(d.Cordon) - len(d.Roll) - len(d.Force)
		}
		before := left(scale.Decide(s, start()))
		s.Waiting += rapid.IntRange(1, 9).Draw(t, "more")
		if after := left(scale.Decide(s, start())); after < before {
			t.Fatalf("%d more waiting, and %d machines instead of %d: %+v", s.Waiting, after, before, s)
		}
	})
}
