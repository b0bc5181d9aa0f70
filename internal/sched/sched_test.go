package sched_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

func cpus(n int) shoal.Resources {
	return shoal.Resources{CPUs: shoal.MilliCPU(1000 * n), Memory: shoal.Bytes(n) << 30}
}

func job(id int, user string, total, size int) sched.PutJob {
	return sched.PutJob{ID: shoal.JobID(strconv.Itoa(id)), Number: int64(id), User: shoal.UserName(user), Pool: "lab", Priority: sched.Normal, Resources: cpus(size), Total: total}
}

func with(j sched.PutJob, change func(*sched.PutJob)) sched.PutJob {
	change(&j)
	return j
}

func machines(sizes ...int) sched.PutMachines {
	var all sched.PutMachines
	for i, n := range sizes {
		all = append(all, sched.Machine{ID: shoal.MachineID(fmt.Sprintf("m-%d", i+1)), Pool: "lab", Resources: cpus(n), Standing: sched.Open})
	}
	return all
}

// start plans, carries everything out, and says what was started: "1/0@m-1 …".
func start(s *sched.State) string {
	var all []string
	for {
		plan := s.Plan(time.Time{}, 1000).Starts
		if len(plan) == 0 {
			return strings.Join(all, " ")
		}
		for _, p := range plan {
			s.Apply(sched.Start{Placement: p})
			all = append(all, fmt.Sprintf("%s/%d@%s", p.Job, p.Position, p.Machines[0]))
		}
	}
}

func end(job, position int) sched.End {
	return sched.End{Task: sched.Task{Job: shoal.JobID(strconv.Itoa(job)), Position: position}}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	low := func(j *sched.PutJob) { j.Priority = sched.Low }
	high := func(j *sched.PutJob) { j.Priority = sched.High }
	for _, c := range []struct {
		name    string
		changes []sched.Change
		want    string
	}{
		{"nothing", nil, ""},
		{"one", []sched.Change{machines(1), job(1, "a", 1, 1)}, "1/0@m-1"},
		{"no machine", []sched.Change{job(1, "a", 1, 1)}, ""},
		{"as submitted", []sched.Change{machines(2), job(2, "a", 1, 1), job(1, "a", 1, 1), job(3, "a", 1, 1)}, "1/0@m-1 2/0@m-1"},
		{"priority", []sched.Change{machines(1), with(job(1, "a", 1, 1), low), job(2, "a", 1, 1), with(job(3, "a", 1, 1), high)}, "3/0@m-1"},
		{"users take turns", []sched.Change{machines(6), job(1, "a", 9, 1), job(2, "b", 9, 1), job(3, "c", 1, 1)},
			"1/0@m-1 2/0@m-1 3/0@m-1 1/1@m-1 2/1@m-1 1/2@m-1"},
		{"a user with large tasks waits longer", []sched.Change{machines(6), job(1, "a", 9, 2), job(2, "b", 9, 1)}, "1/0@m-1 2/0@m-1 2/1@m-1 1/1@m-1"},
		{"the fullest machine", []sched.Change{machines(4, 2, 3), job(1, "a", 2, 2)}, "1/0@m-2 1/1@m-3"},
		{"small ones pass a large one, not on its machine", []sched.Change{machines(2, 2), job(1, "a", 2, 1), job(2, "a", 1, 3), job(3, "a", 9, 2)}, "1/0@m-1 1/1@m-1 3/0@m-2"},
		{"to start again first", []sched.Change{machines(1), with(job(1, "a", 5, 1), func(j *sched.PutJob) { j.Next, j.Again = 3, []int{1} })}, "1/1@m-1"},
		{"blocked", []sched.Change{machines(1), with(job(1, "a", 5, 1), func(j *sched.PutJob) { j.Blocked = true })}, ""},
		{"not on machines that do not take tasks", []sched.Change{sched.PutMachines{{ID: "m-1", Pool: "lab", Resources: cpus(4), Standing: sched.Draining}}, job(1, "a", 1, 1)}, ""},
		{"not in another pool", []sched.Change{sched.PutMachines{{ID: "m-1", Pool: "gym", Resources: cpus(4), Standing: sched.Open}}, job(1, "a", 1, 1)}, ""},
		{"GPUs of a user", []sched.Change{sched.PutPools{{Name: "lab", Limits: shoal.Limits{PerUser: shoal.PerUser{GPUs: 1}}}},
			sched.PutMachines{{ID: "m-1", Pool: "lab", Resources: shoal.Resources{CPUs: 8000, GPUs: 4}, Standing: sched.Open}},
			with(job(1, "a", 3, 0), func(j *sched.PutJob) { j.Resources = shoal.Resources{CPUs: 1000, GPUs: 1} }),
			with(job(2, "a", 1, 0), func(j *sched.PutJob) { j.Resources = shoal.Resources{CPUs: 1000} })}, "1/0@m-1 2/0@m-1"},
	} {
		s := sched.New()
		s.Apply(c.changes...)
		if got := start(s); got != c.want {
			t.Errorf("%s: started %q, want %q", c.name, got, c.want)
		}
	}
}

// A large task is not passed by for ever: a machine is kept until it has room for it.
func TestLargeTaskIsServed(t *testing.T) {
	t.Parallel()
	s := sched.New()
	s.Apply(machines(2, 2), job(1, "a", 4, 1))
	start(s)
	s.Apply(job(2, "b", 1, 2), job(3, "c", 1000, 1))
	running := []sched.Task{{Job: "1", Position: 0}, {Job: "1", Position: 1}, {Job: "1", Position: 2}, {Job: "1", Position: 3}}
	for round := range 6 {
		s.Apply(sched.End{Task: running[0]})
		running = running[1:]
		for p := range strings.FieldsSeq(start(s)) {
			if strings.HasPrefix(p, "2/") {
				return
			}
			position, _ := strconv.Atoi(strings.TrimPrefix(p[:strings.Index(p, "@")], "3/"))
			running = append(running, sched.Task{Job: "3", Position: position})
		}
		if e, _ := s.Explain("3", time.Time{}); round == 0 && e.Kept+e.Full != 2 {
			t.Errorf("explained as %+v", e)
		}
	}
	t.Error("the large task waits for ever")
}

// Something more urgent takes the machine that was kept for a large task.
func TestUrgentTakesKept(t *testing.T) {
	t.Parallel()
	s := sched.New()
	s.Apply(machines(2), job(1, "a", 1, 1))
	start(s)
	s.Apply(job(2, "b", 1, 2))
	if got := start(s); got != "" {
		t.Fatalf("started %s", got)
	}
	s.Apply(job(3, "b", 1, 1))
	if got := start(s); got != "" {
		t.Errorf("a small one took the kept machine: %s", got)
	}
	s.Apply(with(job(4, "b", 1, 1), func(j *sched.PutJob) { j.Priority = sched.High }))
	if got := start(s); got != "4/0@m-1" {
		t.Errorf("the urgent one: %q", got)
	}
	s.Apply(end(1, 0), end(4, 0), sched.EndJob{ID: "2"})
	if got := start(s); got != "3/0@m-1" {
		t.Errorf("after the large one was cancelled: %q", got)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	s := sched.New()
	s.Apply(machines(100), job(1, "a", 50, 1))
	if n := len(s.Plan(time.Time{}, 7).Starts); n != 7 {
		t.Errorf("%d placements", n)
	}
	if n := len(s.Plan(time.Time{}, 100).Starts); n != 50 {
		t.Errorf("%d placements", n)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	s := sched.New()
	all := machines(2, 2, 1)
	for i, standing := range []sched.Standing{sched.Draining, sched.Starting, sched.Silent, sched.Leaving} {
		all = append(all, sched.Machine{ID: shoal.MachineID(fmt.Sprintf("x-%d", i)), Pool: "lab", Resources: cpus(4), Standing: standing})
	}
	s.Apply(all, job(1, "a", 1, 1), job(2, "a", 3, 2), job(3, "b", 1, 2), with(job(4, "b", 2, 2), func(j *sched.PutJob) { j.Blocked = true }))
	start(s)
	got, ok := s.Explain("3", time.Time{})
	if !ok || got.Machines != 7 || got.Small != 1 || got.Draining != 1 || got.Starting != 1 || got.Silent != 1 || got.Leaving != 1 || got.Full != 2 {
		t.Errorf("explained as %+v", got)
	}
	if got, _ := s.Explain("4", time.Time{}); !got.Blocked {
		t.Errorf("explained as %+v", got)
	}
	if _, ok := s.Explain("9", time.Time{}); ok {
		t.Error("a job that is not there was explained")
	}
}

// rows is what a store would hold, beside the state that is held against it.
type rows struct {
	*sched.State
	jobs     map[int]*sched.PutJob
	running  map[sched.Task]sched.Start
	machines map[shoal.MachineID]sched.Machine
	known    map[shoal.MachineID]sched.Machine // those that went as well
	last     int
}

func (r *rows) rebuild() *sched.State {
	s := sched.New()
	s.Apply(r.allMachines())
	for _, j := range r.jobs {
		s.Apply(*j)
	}
	for _, started := range r.running {
		s.Apply(started)
	}
	return s
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
	ids := keysOf(r.jobs)
	if len(ids) == 0 {
		return nil
	}
	slices.Sort(ids)
	return r.jobs[rapid.SampledFrom(ids).Draw(t, "job")]
}

func (r *rows) submit(t *rapid.T) {
	r.last++
	j := job(r.last, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "user"), rapid.IntRange(1, 5).Draw(t, "total"), rapid.IntRange(1, 4).Draw(t, "size"))
	j.Pool = rapid.SampledFrom([]shoal.PoolName{"lab", "gym"}).Draw(t, "pool")
	j.Priority = sched.Priority(rapid.IntRange(0, 2).Draw(t, "priority"))
	j.Blocked = rapid.IntRange(0, 9).Draw(t, "blocked") == 0
	r.jobs[r.last] = &j
	r.Apply(j)
}

func (r *rows) unblock(t *rapid.T) {
	if j := r.pickJob(t); j != nil && j.Blocked {
		j.Blocked = false
		r.Apply(*j)
	}
}

func (r *rows) cancel(t *rapid.T) {
	if j := r.pickJob(t); j != nil {
		j.Next, j.Again = j.Total, nil
		r.Apply(*j)
	}
}

func (r *rows) machine(t *rapid.T) {
	id := shoal.MachineID(fmt.Sprintf("m-%d", rapid.IntRange(1, 4).Draw(t, "machine")))
	m := r.known[id] // a machine that went and comes back is as it was
	if m.ID == "" {
		m = sched.Machine{ID: id, Pool: rapid.SampledFrom([]shoal.PoolName{"lab", "gym"}).Draw(t, "pool"), Resources: cpus(rapid.IntRange(1, 6).Draw(t, "size"))}
	}
	m.Standing = rapid.SampledFrom([]sched.Standing{sched.Open, sched.Open, sched.Draining, "gone"}).Draw(t, "standing")
	r.known[id] = m
	if delete(r.machines, id); m.Standing != "gone" {
		r.machines[id] = m
	}
	r.Apply(r.allMachines())
}

func (r *rows) end(t *rapid.T) {
	tasks := keysOf(r.running)
	if len(tasks) == 0 {
		return
	}
	slices.SortFunc(tasks, func(a, b sched.Task) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	task := rapid.SampledFrom(tasks).Draw(t, "task")
	delete(r.running, task)
	r.Apply(sched.End{Task: task})
	j := r.jobOf(task)
	if rapid.Bool().Draw(t, "again") {
		j.Again = append(j.Again, task.Position)
		slices.Sort(j.Again)
		r.Apply(sched.Again{Task: task})
	}
	busy := slices.ContainsFunc(tasks, func(o sched.Task) bool { return o != task && o.Job == task.Job })
	if !busy && j.Next == j.Total && len(j.Again) == 0 {
		delete(r.jobs, int(j.Number))
		r.Apply(sched.EndJob{ID: task.Job})
	}
}

func (r *rows) plan(t *rapid.T) {
	for _, p := range r.Plan(time.Time{}, rapid.IntRange(1, 10).Draw(t, "budget")).Starts {
		j, m := r.jobOf(p.Task), r.machines[p.Machines[0]]
		if j == nil || j.Blocked || m.Standing != sched.Open || m.Pool != j.Pool {
			t.Fatalf("placed %+v: job %+v, machine %+v", p, j, m)
		}
		if i := slices.Index(j.Again, p.Position); i >= 0 {
			j.Again = slices.Delete(slices.Clone(j.Again), i, i+1)
		} else if p.Position == j.Next && j.Next < j.Total {
			j.Next++
		} else {
			t.Fatalf("placed %+v, which does not wait: %+v", p, j)
		}
		r.running[p.Task] = sched.Start{Placement: p}
		r.Apply(r.running[p.Task])
		used := shoal.Resources{}
		for task, started := range r.running {
			if started.Machines[0] == p.Machines[0] {
				used = used.Add(r.jobOf(task).Resources)
			}
		}
		if !used.Fits(m.Resources) {
			t.Fatalf("%s holds %+v of %+v", p.Machines[0], used, m.Resources)
		}
	}
}

// Whatever happens in whatever order: the state equals one made from the rows; no machine holds
// more than it has of what the plan put there; no task is started that runs or has ended; and
// what fits on an open machine that is kept for nobody does not wait.
func TestProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := &rows{State: sched.New(), jobs: map[int]*sched.PutJob{}, running: map[sched.Task]sched.Start{},
			machines: map[shoal.MachineID]sched.Machine{}, known: map[shoal.MachineID]sched.Machine{}}
		t.Repeat(map[string]func(*rapid.T){
			"submit": r.submit, "unblock": r.unblock, "cancel": r.cancel, "machine": r.machine, "end": r.end, "plan": r.plan,
			"": func(t *rapid.T) {
				if diff := cmp.Diff(r.rebuild().Dump(), r.Dump()); diff != "" {
					t.Fatal(diff)
				}
			},
		})
		start(r.State)
		for id, j := range r.jobs {
			e, _ := r.Explain(j.ID, time.Time{})
			now, _ := r.Job(j.ID)
			if !j.Blocked && len(now.Again)+now.Total-now.Next > 0 && e.Room > 0 {
				t.Fatalf("job %d waits although there is room: %+v", id, e)
			}
		}
	})
}

func keysOf[K comparable, V any](m map[K]V) []K {
	var all []K
	for k := range m {
		all = append(all, k)
	}
	return all
}

// With tasks that end, everything that fits on some machine starts in the end, however many small
// ones arrive meanwhile.
func TestNobodyStarves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := sched.New()
		s.Apply(machines(rapid.SliceOfN(rapid.IntRange(2, 6), 1, 4).Draw(t, "machines")...))
		s.Apply(job(1, "big", 1, 2))
		last := 1
		var running []sched.Task
		for round := range 400 {
			for range rapid.IntRange(0, 3).Draw(t, "arrivals") {
				last++
				s.Apply(job(last, rapid.SampledFrom([]string{"big", "a", "b"}).Draw(t, "user"), rapid.IntRange(1, 3).Draw(t, "total"), 1))
			}
			for _, p := range s.Plan(time.Time{}, 100).Starts {
				if p.Job == "1" {
					return
				}
				s.Apply(sched.Start{Placement: p})
				running = append(running, p.Task)
			}
			if len(running) > 0 && round > 0 {
				i := rapid.IntRange(0, len(running)-1).Draw(t, "ends")
				s.Apply(sched.End{Task: running[i]})
				running = slices.Delete(running, i, i+1)
			}
		}
		t.Fatal("the large task never started")
	})
}
