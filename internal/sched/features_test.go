package sched_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// clock is a state and a time that the test moves.
type clock struct {
	*sched.State
	t   *testing.T
	now time.Time
}

func at(t *testing.T, changes ...sched.Change) *clock {
	c := &clock{sched.New(), t, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	c.Apply(changes...)
	return c
}

// run plans until nothing starts, carries out what is to start, and says it: "1/0@m-1+m-2 …"; a star marks backfill.
func (c *clock) run() string {
	var all []string
	for {
		plan := c.Plan(c.now, 100)
		for _, p := range plan.Starts {
			c.Apply(sched.Start{Placement: p, At: c.now})
			var on []string
			for _, m := range p.Machines {
				on = append(on, string(m))
			}
			s := fmt.Sprintf("%s/%d@%s", p.Job, p.Position, strings.Join(on, "+"))
			if p.Backfilled {
				s += "*"
			}
			all = append(all, s)
		}
		if len(plan.Starts) == 0 {
			return strings.Join(all, " ")
		}
	}
}

func (c *clock) want(want string) {
	c.t.Helper()
	if got := c.run(); got != want {
		c.t.Errorf("started %q, want %q", got, want)
	}
}

// told plans, and says who is told to go for whom: "1/0>7", and "1/0>alice" for a login.
func (c *clock) told() string {
	var all []string
	for _, p := range c.Plan(c.now, 100).Preempt {
		by := string(p.For)
		for _, u := range p.Users {
			by += string(u)
		}
		all = append(all, fmt.Sprintf("%s/%d>%s", p.Job, p.Position, by))
		c.Apply(sched.Preempting{Task: p.Task, For: p.For, Until: c.now.Add(30 * time.Second)})
	}
	return strings.Join(all, " ")
}

func (c *clock) wantTold(want string) {
	c.t.Helper()
	if got := c.told(); got != want {
		c.t.Errorf("told to go: %q, want %q", got, want)
	}
}

func (c *clock) end(job, position int) {
	e := end(job, position)
	e.At = c.now
	c.Apply(e)
}

func (c *clock) explain(job string) sched.Explanation {
	c.t.Helper()
	e, ok := c.Explain(shoal.JobID(job), c.now)
	if !ok {
		c.t.Errorf("nothing is known of job %s", job)
	}
	return e
}

func (c *clock) wait(d time.Duration) { c.now = c.now.Add(d) }

func lab(change func(*sched.Pool)) sched.PutPools {
	p := sched.Pool{Name: "lab", Machine: cpus(4), Most: 100}
	change(&p)
	return sched.PutPools{p}
}

func group(g string) func(*sched.PutJob) {
	return func(j *sched.PutJob) { j.Group = shoal.GroupName(g) }
}

func nodes(least, most int) func(*sched.PutJob) {
	return func(j *sched.PutJob) { j.Nodes = shoal.Nodes{Min: least, Max: most} }
}

func limit(d time.Duration) func(*sched.PutJob) { return func(j *sched.PutJob) { j.Limit = d } }

func low(j *sched.PutJob) { j.Priority, j.Preemptible = sched.Low, true }

func TestFairShare(t *testing.T) {
	t.Parallel()
	used := func(c *clock, user, group string, hours float64) {
		c.Apply(sched.PutUsage{Pool: "lab", Group: shoal.GroupName(group), User: shoal.UserName(user), At: c.now, Usage: hours * 3600})
	}
	t.Run("who used less goes first", func(t *testing.T) {
		c := at(t, lab(func(*sched.Pool) {}), machines(2), job(1, "a", 9, 1), job(2, "b", 9, 1))
		used(c, "a", "", 30)
		used(c, "b", "", 10)
		c.wait(24 * time.Hour)    // changes nobody's order
		c.want("2/0@m-1 1/0@m-1") // one each, as nothing of them runs
		c.end(2, 0)
		c.end(1, 0)
		c.Apply(machines(6))
		c.want("2/1@m-1 1/1@m-1 2/2@m-1 2/3@m-1 2/4@m-1 2/5@m-1")
	})
	t.Run("a short test does not wait behind an array", func(t *testing.T) {
		c := at(t, lab(func(*sched.Pool) {}), machines(3), job(1, "a", 5000, 1))
		used(c, "b", "", 1000)
		c.run()
		c.Apply(job(2, "b", 3, 1))
		c.end(1, 0)
		c.want("1/3@m-1") // that had been promised
		c.end(1, 1)
		c.want("2/0@m-1")
		c.end(1, 2)
		c.want("1/4@m-1") // her second has to wait for her turn
	})
	t.Run("groups first, by weight, then their users", func(t *testing.T) {
		c := at(t, lab(func(*sched.Pool) {}), machines(4, 4, 4), sched.PutGroups{"big": 3},
			with(job(1, "a", 50, 1), group("big")), with(job(2, "b", 50, 1), group("big")),
			with(job(3, "c", 50, 1), group("small")), with(job(4, "d", 50, 1), group("small")))
		started := strings.Fields(c.run())
		of := map[string]int{}
		for _, s := range started {
			of[s[:1]]++
		}
		if of["1"]+of["2"] != 9 || of["3"]+of["4"] != 3 {
			t.Errorf("%v: %v", of, started)
		}
	})
	t.Run("a group's members do not hurt another's", func(t *testing.T) {
		c := at(t, lab(func(*sched.Pool) {}), machines(1), with(job(1, "a", 1, 1), group("g")), with(job(2, "b", 1, 1), group("h")), with(job(3, "c", 1, 1), group("g")))
		used(c, "a", "g", 50)
		used(c, "b", "h", 20)
		if e := c.explain("3"); e.Turn != 2 { // c used nothing, but her group more
			t.Errorf("%+v", e)
		}
		c.want("2/0@m-1")
	})
}

func TestUsage(t *testing.T) {
	t.Parallel()
	c := at(t, lab(func(*sched.Pool) {}), machines(4), job(1, "a", 2, 2))
	usage := func() sched.UserUsage {
		all := c.Usage(c.now)
		if len(all) != 1 {
			t.Fatalf("%+v", all)
		}
		return all[0]
	}
	near := func(got, want float64) {
		t.Helper()
		if math.Abs(got-want) > want/100 {
			t.Errorf("%v seconds, want %v", got, want)
		}
	}
	c.want("1/0@m-1 1/1@m-1")
	c.wait(time.Hour)
	near(usage().Usage, 3600)
	if u := usage(); u.Settled != 0 || u.Tasks != 2 || u.Using != cpus(4) {
		t.Errorf("%+v", u)
	}
	c.end(1, 0)
	near(usage().Settled, 1800)
	c.end(1, 1)
	c.wait(7 * 24 * time.Hour)
	near(usage().Usage, 1800) // half
	c.wait(3 * 365 * 24 * time.Hour)
	c.Apply(sched.PutUsage{Pool: "lab", User: "a", At: c.now, Usage: 500})
	c.Plan(c.now, 1)
	near(usage().Usage, 500)
	c.wait(7 * 24 * time.Hour)
	near(usage().Usage, 250)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, l := range []struct {
		name   string
		limits shoal.Limits
		job    sched.PutJob
		want   string
		which  string
	}{
		{"tasks of a user", shoal.Limits{PerUser: shoal.PerUser{Tasks: 2}}, job(1, "a", 9, 1), "1/0@m-1 1/1@m-1", "userTasks"},
		{"processors of a user", shoal.Limits{PerUser: shoal.PerUser{CPUs: 5000}}, job(1, "a", 9, 2), "1/0@m-1 1/1@m-1", "userCPUs"},
		{"memory of a user", shoal.Limits{PerUser: shoal.PerUser{Memory: 5 << 30}}, job(1, "a", 9, 2), "1/0@m-1 1/1@m-1", "userMemory"},
		{"tasks of a group", shoal.Limits{PerGroup: shoal.PerGroup{Tasks: 1}}, job(1, "a", 9, 2), "1/0@m-1", "groupTasks"},
		{"processors of a group", shoal.Limits{PerGroup: shoal.PerGroup{CPUs: 3000}}, job(1, "a", 9, 2), "1/0@m-1", "groupCPUs"},
		{"tasks of a job", shoal.Limits{}, with(job(1, "a", 9, 1), func(j *sched.PutJob) { j.MaxRunning = 1 }), "1/0@m-1", "maxRunning"},
		{"nodes within them", shoal.Limits{PerUser: shoal.PerUser{CPUs: 2000}}, with(job(1, "a", 9, 1), nodes(1, 3)), "1/0@m-1+m-2", "userCPUs"},
	} {
		c := at(t, lab(func(p *sched.Pool) { p.Limits = l.limits }), machines(8, 8, 8), l.job)
		c.want(l.want)
		if e := c.explain("1"); !e.AtLimit || e.Limit != l.which || !e.Promised.IsZero() {
			t.Errorf("%s: %+v", l.name, e)
		}
		c.Apply(job(2, "b", 1, 1)) // another user, and no group limit that holds her back, but for groups
		if got := c.run(); (got == "") != strings.HasPrefix(l.which, "groupT") && l.which != "groupCPUs" {
			t.Errorf("%s: then %q", l.name, got)
		}
		c.end(1, 0)
		if got := c.run(); got == "" {
			t.Errorf("%s: nothing more starts", l.name)
		}
	}
}

func TestGangs(t *testing.T) {
	t.Parallel()
	for _, g := range []struct {
		name    string
		changes []sched.Change
		want    string
	}{
		{"one on each machine", []sched.Change{machines(4, 4), with(job(1, "a", 2, 1), nodes(2, 2))}, "1/0@m-1+m-2 1/1@m-1+m-2"},
		{"all or nothing", []sched.Change{machines(4), with(job(1, "a", 1, 1), nodes(2, 2))}, ""},
		{"fragments are not places", []sched.Change{machines(3, 3, 3), with(job(1, "a", 1, 2), nodes(4, 4))}, ""},
		{"no two hold half each", []sched.Change{machines(1, 1, 1), with(job(1, "a", 1, 1), nodes(2, 2)), with(job(2, "b", 1, 1), nodes(2, 2))}, "1/0@m-1+m-2"},
		{"as many as there are", []sched.Change{machines(1, 1, 1), with(job(1, "a", 1, 1), nodes(2, 5))}, "1/0@m-1+m-2+m-3"},
		{"not more than asked for", []sched.Change{machines(1, 1, 1), with(job(1, "a", 1, 1), nodes(1, 2))}, "1/0@m-1+m-2"},
	} {
		c := at(t, g.changes...)
		if got := c.run(); got != g.want {
			t.Errorf("%s: started %q, want %q", g.name, got, g.want)
		}
	}
}

// A gang that lost a machine keeps the others for a while, whoever else would go first.
func TestRefill(t *testing.T) {
	t.Parallel()
	lost := func() *clock {
		c := at(t, machines(1, 1), with(job(1, "a", 1, 1), nodes(2, 2)))
		c.want("1/0@m-1+m-2")
		c.end(1, 0)
		gang := sched.Task{Job: "1"}
		c.Apply(machines(1), job(2, "b", 1, 1), sched.Hold{Task: gang, Machines: []shoal.MachineID{"m-1"}, At: c.now, Until: c.now.Add(10 * time.Minute)}, sched.Again{Task: gang})
		c.want("")
		return c
	}
	c := lost()
	c.Apply(machines(1, 1))
	c.want("1/0@m-1+m-2")

	c = lost()
	if next := c.Next(c.now); !next.Equal(c.now.Add(10 * time.Minute)) {
		t.Errorf("next at %v", next)
	}
	c.wait(10 * time.Minute)
	c.want("2/0@m-1")

	c = lost()
	c.Apply(sched.EndJob{ID: "1"})
	c.want("2/0@m-1")
}

func TestBackfill(t *testing.T) {
	t.Parallel()
	c := at(t, machines(2, 2), with(job(1, "a", 1, 1), limit(2*time.Hour)), with(job(2, "a", 1, 2), limit(time.Hour)))
	c.want("1/0@m-1 2/0@m-2")
	start := c.now
	c.Apply(with(job(3, "b", 1, 2), nodes(2, 2), limit(time.Hour)))
	c.want("")
	c.Apply(with(job(4, "c", 1, 1), limit(3*time.Hour)), // too long
		with(job(5, "c", 1, 1), limit(2*time.Hour)),       // gone just in time
		with(job(6, "d", 1, 1), func(j *sched.PutJob) {})) // without a limit
	c.want("5/0@m-1*")
	if e := c.explain("3"); !e.Promised.Equal(start.Add(2*time.Hour)) || e.Head != "3" {
		t.Errorf("%+v", e)
	}
	c.wait(time.Hour)
	c.end(2, 0)
	c.want("")
	if e := c.explain("4"); e.Kept != 1 || e.Full != 1 || e.Head != "3" || !e.Promised.IsZero() {
		t.Errorf("%+v", e)
	}
	c.wait(10 * time.Minute)
	c.end(1, 0)
	c.end(5, 0)
	c.want("3/0@m-1+m-2")
	c.wait(time.Hour)
	c.end(3, 0)
	c.want("6/0@m-1 4/0@m-1")

	c = at(t, lab(func(p *sched.Pool) { p.Limits.DefaultTimeLimit = shoal.Duration(time.Hour) }), machines(1), job(1, "a", 2, 1))
	c.want("1/0@m-1")
	if e := c.explain("1"); !e.Promised.Equal(c.now.Add(time.Hour)) || !e.Free.Equal(e.Promised) {
		t.Errorf("with the pool's limit: %+v", e)
	}
	c.wait(10 * time.Minute)
	c.Apply(sched.Began{Task: sched.Task{Job: "1"}, At: c.now}) // it took so long to prepare
	c.want("")
	if e := c.explain("1"); !e.Promised.Equal(c.now.Add(time.Hour)) {
		t.Errorf("when it began later: %+v", e)
	}
}

// A head behind work without limits keeps the machines where there is the least of it.
func TestDrain(t *testing.T) {
	t.Parallel()
	c := at(t, machines(4, 4, 4), job(1, "a", 1, 3), job(2, "a", 1, 1), job(3, "a", 1, 2))
	c.want("1/0@m-1 2/0@m-1 3/0@m-2")
	c.Apply(with(job(4, "b", 1, 4), nodes(2, 2)))
	c.want("")
	c.Apply(job(5, "c", 9, 1))
	c.want("") // m-1 is full, the others are kept
	c.end(1, 0)
	c.run()
	if e := c.explain("5"); e.Kept != 2 || e.Head != "4" {
		t.Errorf("%+v", e)
	}
	if e := c.explain("4"); !e.Promised.IsZero() || !e.Free.IsZero() {
		t.Errorf("%+v", e)
	}
	c.end(3, 0)
	c.want("4/0@m-2+m-3")
}

// Machines that come for a gang are not taken by small tasks before all have come.
func TestGrowing(t *testing.T) {
	t.Parallel()
	grow := lab(func(p *sched.Pool) { p.Room = 2; p.Boot = time.Minute })
	c := at(t, grow, machines(4), job(1, "a", 1, 4), with(job(2, "b", 1, 4), nodes(2, 2)))
	c.want("1/0@m-1")
	c.Apply(with(job(3, "c", 4, 1), limit(time.Hour)))
	c.Apply(machines(4, 4))
	c.want("")
	if e := c.explain("3"); e.Kept != 1 || e.Head != "2" {
		t.Errorf("%+v", e)
	}
	c.Apply(machines(4, 4, 4))
	c.want("2/0@m-2+m-3")

	bigger := func() *clock {
		c := at(t, grow, machines(4), job(1, "a", 1, 4), with(job(2, "b", 1, 4), nodes(3, 3)))
		c.want("1/0@m-1")
		c.Apply(with(job(3, "c", 4, 1), limit(time.Hour)))
		c.Apply(machines(4, 4))
		c.want("")
		return c
	}
	c = bigger()
	c.Apply(lab(func(p *sched.Pool) {})) // no more will come: it can never start
	c.want("3/0@m-2 3/1@m-2 3/2@m-2 3/3@m-2")

	c = bigger()
	c.wait(c.Next(c.now).Sub(c.now)) // more should have come by now
	c.want("3/0@m-2 3/1@m-2 3/2@m-2 3/3@m-2")
	c.Apply(job(4, "c", 4, 1), machines(4, 4, 4))
	c.want("") // so somebody does make machines
}

func TestPriorityPreempts(t *testing.T) {
	t.Parallel()
	full := func() *clock {
		c := at(t, machines(2, 2), with(job(1, "a", 2, 1), low))
		c.want("1/0@m-1 1/1@m-1")
		c.wait(30 * time.Second)
		c.Apply(with(job(2, "a", 1, 1), low), with(job(3, "a", 1, 1), low, func(j *sched.PutJob) { j.Preemptible = false }))
		c.want("2/0@m-2 3/0@m-2")
		return c
	}
	c := full()
	c.Apply(job(4, "b", 1, 1))
	c.want("")
	c.wantTold("") // they have their first minute
	if next := c.Next(c.now); !next.Equal(c.now.Add(30 * time.Second)) {
		t.Errorf("next at %v", next)
	}
	c.wait(30 * time.Second)
	c.wantTold("1/1>4") // the youngest of those that may
	c.wantTold("")
	c.wait(time.Minute)
	c.wantTold("") // its place will do
	c.end(1, 1)
	c.Apply(sched.Again{Task: sched.Task{Job: "1", Position: 1}})
	c.want("4/0@m-1")
	c.Apply(job(5, "b", 1, 2))
	c.want("")
	c.wantTold("") // of no use: nowhere would there be two
	c.Apply(with(job(6, "b", 1, 1), func(j *sched.PutJob) { j.Priority = sched.High }))
	c.wantTold("2/0>6")

	c = at(t, machines(100), with(job(1, "a", 100, 1), low))
	c.run()
	c.wait(time.Hour)
	c.Apply(job(2, "b", 100, 1))
	if n := len(strings.Fields(c.told())); n != 30 {
		t.Errorf("%d told to go at once", n)
	}
	c.wantTold("")
	if next := c.Next(c.now); next.IsZero() || next.After(c.now.Add(10*time.Second)) {
		t.Errorf("next at %v", next)
	}
	c.wait(time.Minute)
	if n := len(strings.Fields(c.told())); n != 30 {
		t.Errorf("%d told to go a minute later", n)
	}
}

// A gang has all of its places made at once, or none.
func TestGangPreempts(t *testing.T) {
	t.Parallel()
	c := at(t, machines(2, 2, 2), with(job(1, "a", 2, 2), low), job(2, "a", 1, 2))
	c.run()
	c.wait(time.Hour)
	c.Apply(with(job(3, "b", 1, 2), nodes(3, 3)))
	c.wantTold("")
	c.Apply(sched.EndJob{ID: "3"}, with(job(4, "b", 1, 2), nodes(2, 2)))
	if told := strings.Fields(c.told()); len(told) != 2 || told[0][3:] != ">4" {
		t.Errorf("told to go: %v", told)
	}
	c.end(1, 0)
	c.want("")
	c.end(1, 1)
	if got := c.run(); !strings.HasPrefix(got, "4/0@") {
		t.Errorf("started %q", got)
	}
}

// What was let past the head can be called back by it.
func TestRecall(t *testing.T) {
	t.Parallel()
	c := at(t, machines(1, 1), with(job(1, "a", 1, 1), limit(time.Hour)))
	c.want("1/0@m-1")
	c.Apply(with(job(2, "b", 1, 1), low, nodes(2, 2)))
	c.want("")
	c.Apply(with(job(3, "c", 1, 1), low, limit(time.Hour)))
	c.want("3/0@m-2*")
	c.wait(10 * time.Second)
	c.wantTold("")
	c.end(1, 0) // earlier than anybody knew
	c.wantTold("3/0>2")
	c.end(3, 0)
	c.want("2/0@m-1+m-2")
}

func sitting(m sched.PutMachines, who ...string) sched.PutMachines {
	m = slices.Clone(m)
	m[0].Sessions = nil
	for _, w := range who {
		user, away := strings.CutSuffix(w, " (away)")
		m[0].Sessions = append(m[0].Sessions, sched.Sitting{User: shoal.UserName(user), Active: !away})
	}
	return m
}

func TestBorrowedSeats(t *testing.T) {
	t.Parallel()
	desk := lab(func(p *sched.Pool) { p.Interactive, p.Seats, p.Seat = true, 3, cpus(1) })
	loan := func(j *sched.PutJob) { j.Preemptible = true }
	c := at(t, desk, machines(4), with(job(1, "b", 6, 1), loan), job(2, "b", 3, 1))
	c.run() // all of it, while nobody is there
	if e := c.explain("2"); e.Full != 1 {
		t.Errorf("%+v", e)
	}
	c.Apply(sitting(machines(4), "alice"))
	c.wantTold("1/3>alice") // at once, and one is enough
	c.wantTold("")
	c.end(1, 3)
	c.want("")
	if e := c.explain("1"); e.Seated != 1 || e.Room != 0 {
		t.Errorf("%+v", e)
	}
	c.Apply(with(job(3, "alice", 2, 1), loan))
	c.want("3/0@m-1") // on her own seat
	c.wantTold("")
	c.Apply(sitting(machines(4), "alice", "bea (away)"))
	c.wantTold("1/2>") // bea's memory is hers, and she is not there to be told of it
	c = at(t, desk, machines(4), job(2, "b", 3, 1), with(job(3, "b", 6, 1), loan))
	c.want("2/0@m-1 3/0@m-1* 3/1@m-1*") // what is not preemptible has what no seat is entitled to: one of four
	c.Apply(sitting(machines(4), "x", "y", "z"))
	c.wantTold("3/1>xyz 3/0>xyz")
	if e := c.explain("2"); e.Room != 0 || e.Full+e.Seated != 1 {
		t.Errorf("%+v", e)
	}
}

// A task for which a machine is kept starts on its own user's seat there.
func TestOwnSeatOfTheHead(t *testing.T) {
	t.Parallel()
	desk := lab(func(p *sched.Pool) {
		p.Interactive, p.Seats, p.Seat = true, 8, shoal.Resources{CPUs: 125, Memory: 128 << 20}
	})
	loan := func(j *sched.PutJob) { j.Preemptible = true }
	c := at(t, desk, sitting(machines(1), "bob"), with(job(1, "alice", 1, 1), loan))
	c.want("") // bob has a part of the only machine
	c.Apply(sitting(machines(1), "alice"))
	c.want("1/0@m-1")
}

// Who comes and goes does not have the same task told to go each time: her seat is not lent again at once.
func TestSeatRests(t *testing.T) {
	t.Parallel()
	desk := lab(func(p *sched.Pool) { p.Interactive, p.Seats, p.Seat = true, 2, cpus(1) })
	loan := func(j *sched.PutJob) { j.Preemptible = true }
	c := at(t, desk, machines(4), with(job(1, "b", 1, 4), loan))
	c.want("1/0@m-1")
	c.Apply(sitting(machines(4), "alice"))
	c.wantTold("1/0>alice")
	c.end(1, 0)
	c.Apply(machines(4), sched.Again{Task: sched.Task{Job: "1", Position: 0}})
	c.want("")
	if e := c.explain("1"); e.Seated != 1 || e.Room != 0 || e.Free.IsZero() {
		t.Errorf("%+v", e)
	}
	c.wait(119 * time.Second)
	c.want("")
	c.wait(time.Second)
	c.want("1/0@m-1")
	c.Apply(sitting(machines(4), "alice"))
	c.wantTold("1/0>alice")
	c.end(1, 0)
	c.Apply(machines(4), with(job(2, "b", 1, 3), loan))
	c.want("2/0@m-1") // beside a seat there is room
}

// The nodes of a task use the seats of its user like any other task.
func TestGangOnOwnSeat(t *testing.T) {
	t.Parallel()
	desk := lab(func(p *sched.Pool) { p.Interactive, p.Seats, p.Seat = true, 2, cpus(1) })
	loan := func(j *sched.PutJob) { j.Preemptible = true }
	whole := func(id int, user string) sched.PutJob { return with(job(id, user, 1, 4), nodes(2, 2), loan) }
	at(t, desk, sitting(machines(4, 4), "alice"), whole(1, "bob")).want("")
	at(t, desk, sitting(machines(4, 4), "alice"), whole(1, "alice")).want("1/0@m-1+m-2")
}

// A session that is not connected is entitled to its memory only.
func TestDisconnectedSeat(t *testing.T) {
	t.Parallel()
	desk := lab(func(p *sched.Pool) { p.Interactive, p.Seats, p.Seat = true, 2, cpus(1) })
	task := with(job(1, "b", 9, 1), func(j *sched.PutJob) { j.Preemptible, j.Resources.Memory = true, 1<<29 })
	c := at(t, desk, sitting(machines(4), "alice (away)"), task)
	if n := len(strings.Fields(c.run())); n != 4 {
		t.Errorf("%d run beside a session that is not connected", n)
	}
	c.Apply(sitting(machines(4), "alice"))
	c.wantTold("1/3>alice")
}

func TestAgainWithMoreMemory(t *testing.T) {
	t.Parallel()
	c := at(t, machines(4), job(1, "a", 3, 1))
	c.want("1/0@m-1 1/1@m-1 1/2@m-1")
	c.end(1, 1)
	c.Apply(sched.Again{Task: sched.Task{Job: "1", Position: 1}, Memory: 3 << 30})
	c.want("")
	if e := c.explain("1"); e.Full != 1 {
		t.Errorf("%+v", e)
	}
	c.end(1, 0)
	plan := c.Plan(c.now, 9)
	if len(plan.Starts) != 1 || plan.Starts[0].Position != 1 || plan.Starts[0].Memory != 3<<30 {
		t.Fatalf("%+v", plan)
	}
	c.Apply(sched.Start{Placement: plan.Starts[0], At: c.now}, job(2, "b", 1, 1))
	c.want("") // 1 of 3 GiB and 1 of 1 GiB: the memory is given away
}

func TestGated(t *testing.T) {
	t.Parallel()
	c := at(t, machines(4), with(job(1, "a", 5, 1), func(j *sched.PutJob) { j.Gated = true }))
	c.want("")
	c.Apply(sched.Again{Task: sched.Task{Job: "1", Position: 3}})
	c.want("1/3@m-1")
	c.Apply(sched.Again{Task: sched.Task{Job: "1", Position: 0}}, sched.Again{Task: sched.Task{Job: "1", Position: 9}})
	c.want("1/0@m-1")
	if j, _ := c.Job("1"); j.Next != 4 {
		t.Errorf("%+v", j)
	}
}

func TestPoolOf(t *testing.T) {
	t.Parallel()
	p := sched.PoolOf(shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Machine: cpus(4), Seats: 4, Size: shoal.Size{Max: 3},
		Limits: shoal.Limits{PerUser: shoal.PerUser{CPUs: 8000}, PerGroup: shoal.PerGroup{Memory: 10 << 30}}})
	if !p.Interactive || p.Seat != cpus(1) || p.Most != 3 {
		t.Errorf("%+v", p)
	}
}

func TestMachineOf(t *testing.T) {
	t.Parallel()
	for _, m := range []struct {
		machine shoal.Machine
		want    sched.Standing
	}{
		{shoal.Machine{State: shoal.MachineReady, Wanted: shoal.WantRun}, sched.Open},
		{shoal.Machine{State: shoal.MachineBooting, Wanted: shoal.WantRun}, sched.Starting},
		{shoal.Machine{State: shoal.MachineReady, Wanted: shoal.WantRun, Health: shoal.HealthDown}, sched.Silent},
		{shoal.Machine{State: shoal.MachineReady, Wanted: shoal.WantRun, Cordons: []shoal.Cordon{{}}}, sched.Draining},
		{shoal.Machine{State: shoal.MachineStopped}, sched.Leaving},
	} {
		if got := sched.MachineOf(m.machine).Standing; got != m.want {
			t.Errorf("%+v is %s, want %s", m.machine, got, m.want)
		}
	}
}
