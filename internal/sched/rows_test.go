package sched_test

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// rows is what a store would hold, beside the state that is held against it.
type rows struct {
	*sched.State
	jobs     map[int]*sched.PutJob
	grown    map[sched.Task]shoal.Bytes // those of a job's Again that need other memory
	running  map[sched.Task]sched.Start
	began    map[sched.Task]time.Time
	going    map[sched.Task]sched.Preempting
	holds    map[sched.Task]sched.Hold
	machines map[shoal.MachineID]sched.Machine
	known    map[shoal.MachineID]sched.Machine // those that went as well
	pools    sched.PutPools
	now      time.Time
	last     int
}

func newRows() *rows {
	return &rows{State: sched.New(), jobs: map[int]*sched.PutJob{}, grown: map[sched.Task]shoal.Bytes{}, running: map[sched.Task]sched.Start{},
		began: map[sched.Task]time.Time{}, going: map[sched.Task]sched.Preempting{}, holds: map[sched.Task]sched.Hold{},
		machines: map[shoal.MachineID]sched.Machine{}, known: map[shoal.MachineID]sched.Machine{},
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

func (r *rows) rebuild() *sched.State {
	s := sched.New()
	s.Apply(r.pools, r.allMachines())
	for _, u := range r.Usage(r.now) {
		s.Apply(sched.PutUsage{Pool: u.Pool, Group: u.Group, User: u.User, At: r.now, Usage: u.Settled})
	}
	for _, j := range r.jobs {
		s.Apply(r.rowOf(j)...)
	}
	for t, started := range r.running {
		s.Apply(started)
		if at, ok := r.began[t]; ok {
			s.Apply(sched.Began{Task: t, At: at})
		}
		if p, ok := r.going[t]; ok {
			s.Apply(p)
		}
	}
	for _, h := range r.holds {
		s.Apply(h)
	}
	return s
}

// rowOf are a job and its tasks that need other memory.
func (r *rows) rowOf(j *sched.PutJob) []sched.Change {
	again := slices.DeleteFunc(slices.Clone(j.Again), func(p int) bool { _, grown := r.grown[sched.Task{Job: j.ID, Position: p}]; return grown })
	plain := *j
	plain.Again = again
	changes := []sched.Change{plain}
	for t, memory := range r.grown {
		if t.Job == j.ID {
			changes = append(changes, sched.Again{Task: t, Memory: memory})
		}
	}
	return changes
}

func (r *rows) allMachines() (all sched.PutMachines) {
	for _, m := range r.machines {
		all = append(all, m)
	}
	return all
}

func (r *rows) jobOf(t sched.Task) *sched.PutJob {
	n, _ := strconv.Atoi(string(t.Job))
	return r.jobs[n]
}

// pickJob draws a job; nil if there is none.
func (r *rows) pickJob(t *rapid.T) *sched.PutJob {
	if len(r.jobs) == 0 {
		return nil
	}
	return r.jobs[rapid.SampledFrom(slices.Sorted(maps.Keys(r.jobs))).Draw(t, "job")]
}

// pickTask draws a task that runs.
func (r *rows) pickTask(t *rapid.T) (sched.Task, bool) {
	if len(r.running) == 0 {
		return sched.Task{}, false
	}
	return rapid.SampledFrom(slices.SortedFunc(maps.Keys(r.running), compareTasks)).Draw(t, "task"), true
}

func compareTasks(a, b sched.Task) int {
	return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Position, b.Position))
}

func (r *rows) submit(t *rapid.T) {
	r.last++
	j := job(r.last, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "user"), rapid.IntRange(1, 5).Draw(t, "total"), rapid.IntRange(1, 4).Draw(t, "size"))
	j.Group = rapid.SampledFrom([]shoal.GroupName{"", "g"}).Draw(t, "group")
	j.Pool = rapid.SampledFrom([]shoal.PoolName{"lab", "gym"}).Draw(t, "pool")
	j.Priority = sched.Priority(rapid.IntRange(0, 2).Draw(t, "priority"))
	j.Blocked = rapid.IntRange(0, 9).Draw(t, "blocked") == 0
	j.Preemptible = rapid.IntRange(0, 3).Draw(t, "preemptible") > 0
	j.Limit = time.Duration(rapid.IntRange(0, 3).Draw(t, "limit")) * time.Hour
	j.MaxRunning = rapid.IntRange(0, 2).Draw(t, "maxRunning")
	if rapid.IntRange(0, 3).Draw(t, "gang") == 0 {
		j.Nodes.Min = rapid.IntRange(1, 3).Draw(t, "min")
		j.Nodes.Max = j.Nodes.Min + rapid.IntRange(0, 1).Draw(t, "more")
	}
	if j.Gated = rapid.IntRange(0, 7).Draw(t, "gated") == 0; j.Gated {
		for p := range j.Total {
			if rapid.Bool().Draw(t, "ready") {
				j.Again = append(j.Again, p)
			}
		}
	}
	r.jobs[r.last] = &j
	r.Apply(j)
}

func (r *rows) unblock(t *rapid.T) {
	if j := r.pickJob(t); j != nil && j.Blocked {
		j.Blocked = false
		r.Apply(r.rowOf(j)...)
	}
}

func (r *rows) cancel(t *rapid.T) {
	if j := r.pickJob(t); j != nil {
		j.Next, j.Again = j.Total, nil
		maps.DeleteFunc(r.grown, func(t sched.Task, _ shoal.Bytes) bool { return t.Job == j.ID })
		r.Apply(*j)
	}
}

func (r *rows) machine(t *rapid.T) {
	id := shoal.MachineID(fmt.Sprintf("m-%d", rapid.IntRange(1, 4).Draw(t, "machine")))
	m := r.known[id] // a machine that went and comes back is as it was
	if m.ID == "" {
		m = sched.Machine{ID: id, Pool: rapid.SampledFrom([]shoal.PoolName{"lab", "gym"}).Draw(t, "pool"), Resources: cpus(rapid.IntRange(1, 6).Draw(t, "size"))}
	}
	m.Standing = rapid.SampledFrom([]sched.Standing{sched.Open, sched.Open, sched.Draining, sched.Starting, "gone"}).Draw(t, "standing")
	m.Sessions = nil
	for range rapid.IntRange(0, 2).Draw(t, "sessions") {
		m.Sessions = append(m.Sessions, sched.Sitting{User: shoal.UserName(rapid.SampledFrom([]string{"a", "b", "x"}).Draw(t, "who")), Active: rapid.Bool().Draw(t, "active")})
	}
	r.known[id] = m
	if delete(r.machines, id); m.Standing != "gone" {
		r.machines[id] = m
	}
	r.Apply(r.allMachines())
}

func (r *rows) pool(t *rapid.T) {
	p := sched.Pool{Name: "gym", Most: 4, Room: rapid.IntRange(0, 1).Draw(t, "room"), Interactive: rapid.Bool().Draw(t, "interactive"), Seats: 2, Seat: cpus(1)}
	p.Limits.PerUser.Tasks = rapid.IntRange(0, 2).Draw(t, "user tasks")
	p.Limits.PerGroup.CPUs = shoal.MilliCPU(1000 * rapid.SampledFrom([]int{0, 3, 6}).Draw(t, "group cpus"))
	p.Limits.DefaultTimeLimit = shoal.Duration(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(t, "default"))
	r.pools = sched.PutPools{p}
	r.Apply(r.pools)
}

func (r *rows) end(t *rapid.T) {
	task, ok := r.pickTask(t)
	if !ok {
		return
	}
	started := r.running[task]
	delete(r.running, task)
	delete(r.began, task)
	delete(r.going, task)
	r.Apply(sched.End{Task: task, At: r.now})
	j := r.jobOf(task)
	if rapid.Bool().Draw(t, "again") {
		again := sched.Again{Task: task, Memory: shoal.Bytes(rapid.SampledFrom([]int{0, 0, 3, 4}).Draw(t, "memory")) << 30}
		if rapid.Bool().Draw(t, "hold") && started.Memory == 0 {
			r.holds[task] = sched.Hold{Task: task, Machines: started.Machines[1:], At: r.now, Until: r.now.Add(10 * time.Minute)}
			if len(started.Machines) == 1 {
				delete(r.holds, task)
			} else {
				r.Apply(r.holds[task])
			}
		}
		j.Again = append(slices.Clone(j.Again), task.Position)
		slices.Sort(j.Again)
		if again.Memory != 0 && again.Memory != j.Resources.Memory {
			r.grown[task] = again.Memory
		}
		r.Apply(again)
	}
	busy := false
	for o := range r.running {
		busy = busy || o.Job == task.Job
	}
	if !busy && (j.Next == j.Total || j.Gated) && len(j.Again) == 0 {
		delete(r.jobs, int(j.Number))
		maps.DeleteFunc(r.holds, func(t sched.Task, _ sched.Hold) bool { return t.Job == j.ID })
		r.Apply(sched.EndJob{ID: task.Job})
	}
}

func (r *rows) begin(t *rapid.T) {
	if task, ok := r.pickTask(t); ok {
		r.began[task] = r.now
		r.Apply(sched.Began{Task: task, At: r.now})
	}
}

// needs is what a task that was started has on each of its machines.
func (r *rows) needs(started sched.Start) shoal.Resources {
	n := r.jobOf(started.Task).Resources
	if started.Memory != 0 {
		n.Memory = started.Memory
	}
	return n
}

func (r *rows) plan(t *rapid.T) {
	r.now = r.now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "minutes")) * time.Minute)
	held := len(r.holds)
	maps.DeleteFunc(r.holds, func(_ sched.Task, h sched.Hold) bool { return !r.now.Before(h.Until) })
	before := r.Dump()
	plan := r.Plan(r.now, rapid.IntRange(1, 10).Draw(t, "budget"))
	for _, p := range plan.Starts {
		r.start(t, p)
	}
	for _, p := range plan.Preempt {
		j, started := r.jobOf(p.Task), r.running[p.Task]
		if started.At.IsZero() || !j.Preemptible || r.going[p.Task].Job != "" || !slices.Contains(started.Machines, p.Machine) {
			t.Fatalf("preempted %+v of %+v", p, j)
		}
		if by := r.jobOf(sched.Task{Job: p.For}); p.For != "" && (j.Priority != sched.Low || by.Priority == sched.Low && !started.Backfilled) {
			t.Fatalf("preempted %+v of %+v for %+v", p, j, by)
		}
		r.going[p.Task] = sched.Preempting{Task: p.Task, For: p.For, Until: r.now.Add(time.Minute)}
		r.Apply(r.going[p.Task])
	}
	if len(plan.Starts)+len(plan.Preempt) == 0 && held == len(r.holds) {
		if d := diff.Diff(before, r.Dump()); d != "" {
			t.Fatalf("Plan changed the state:\n%s", d)
		}
	}
}

// start carries out a placement after a look at whether it is right.
func (r *rows) start(t *rapid.T, p sched.Placement) {
	j := r.jobOf(p.Task)
	if j == nil || j.Blocked {
		t.Fatalf("placed %+v of %+v", p, j)
	}
	if i := slices.Index(j.Again, p.Position); i >= 0 {
		j.Again = slices.Delete(slices.Clone(j.Again), i, i+1)
	} else if p.Position != j.Next || j.Next >= j.Total || j.Gated {
		t.Fatalf("placed %+v, which does not wait: %+v", p, j)
	}
	if p.Memory != r.grown[p.Task] {
		t.Fatalf("placed %+v, which needs %v", p, r.grown[p.Task])
	}
	if n := len(p.Machines); n < max(1, j.Nodes.Min) || n > max(1, j.Nodes.Min, j.Nodes.Max) {
		t.Fatalf("placed %+v of %+v", p, j)
	}
	delete(r.grown, p.Task)
	delete(r.holds, p.Task)
	j.Next = max(j.Next, p.Position+1)
	started := sched.Start{Placement: p, At: r.now}
	r.running[p.Task] = started
	r.Apply(started)
	for i, id := range p.Machines {
		m := r.machines[id]
		if slices.Contains(p.Machines[:i], id) || m.Standing != sched.Open || m.Pool != j.Pool {
			t.Fatalf("placed %+v of %+v on %+v", p, j, m)
		}
		used := shoal.Resources{}
		for _, o := range r.running {
			if slices.Contains(o.Machines, id) {
				used = used.Add(r.needs(o))
			}
		}
		for _, h := range r.holds {
			if slices.Contains(h.Machines, id) {
				used = used.Add(r.jobOf(h.Task).Resources)
			}
		}
		if !used.Fits(m.Resources) {
			t.Fatalf("%s holds %+v of %+v", id, used, m.Resources)
		}
	}
	r.checkLimits(t, j)
}

func (r *rows) checkLimits(t *rapid.T, j *sched.PutJob) {
	if len(r.pools) == 0 || r.pools[0].Name != j.Pool {
		return
	}
	limits := r.pools[0].Limits
	tasks, ofJob, cpus := 0, 0, shoal.MilliCPU(0)
	for _, o := range r.running {
		other := r.jobOf(o.Task)
		if other == j {
			ofJob++
		}
		if other.Pool == j.Pool && other.User == j.User {
			tasks++
		}
		if other.Pool == j.Pool && other.Group == j.Group {
			cpus += other.Resources.CPUs * shoal.MilliCPU(len(o.Machines))
		}
	}
	if most := limits.PerUser.Tasks; most > 0 && tasks > most {
		t.Fatalf("%s runs %d tasks of %d", j.User, tasks, most)
	}
	if most := limits.PerGroup.CPUs; most > 0 && cpus > most {
		t.Fatalf("group %q has %v processors of %v", j.Group, cpus, most)
	}
	if j.MaxRunning > 0 && ofJob > j.MaxRunning {
		t.Fatalf("%d tasks of %+v run", ofJob, j)
	}
}

// Whatever happens in whatever order: the state equals one made from the rows; no machine holds more
// than it has of what the plan put there; the nodes of a task are different machines, as many as it
// needs; no limit is exceeded; no task is started that runs or has ended; only what may be preempted
// is; and what fits on an open machine that is kept for nobody does not wait.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := newRows()
		t.Repeat(map[string]func(*rapid.T){
			"submit": r.submit, "unblock": r.unblock, "cancel": r.cancel, "machine": r.machine, "pool": r.pool, "end": r.end, "begin": r.begin, "plan": r.plan,
			"": func(t *rapid.T) {
				now := r.rebuild()
				if d := diff.Diff(now.Dump(), r.Dump()); d != "" {
					t.Fatal(d)
				}
				compareUsage(t, now.Usage(r.now), r.Usage(r.now))
			},
		})
		for {
			plan := r.Plan(r.now, 1000)
			for _, p := range plan.Starts {
				r.start(t, p)
			}
			if len(plan.Starts) == 0 {
				break
			}
		}
		before := r.Dump()
		for id, j := range r.jobs {
			e, _ := r.Explain(j.ID, r.now)
			ready := len(j.Again) > 0 || !j.Gated && j.Next < j.Total
			if !j.Blocked && ready && !e.AtLimit && len(r.grown) == 0 && e.Room >= max(1, j.Nodes.Min) {
				t.Fatalf("job %d waits although there is room: %+v", id, e)
			}
		}
		if d := diff.Diff(before, r.Dump()); d != "" {
			t.Fatalf("Explain changed the state:\n%s", d)
		}
	})
}

func compareUsage(t *rapid.T, a, b []sched.UserUsage) {
	a = slices.DeleteFunc(a, func(u sched.UserUsage) bool { return u.Usage < 1e-6 })
	b = slices.DeleteFunc(b, func(u sched.UserUsage) bool { return u.Usage < 1e-6 })
	same := slices.EqualFunc(a, b, func(a, b sched.UserUsage) bool {
		near := math.Abs(a.Usage-b.Usage) < 1e-3 && math.Abs(a.Settled-b.Settled) < 1e-3
		a.Usage, a.Settled, b.Usage, b.Settled = 0, 0, 0, 0
		return near && a == b
	})
	if !same {
		t.Fatalf("usage differs:\n%+v\n%+v", a, b)
	}
}
