package sched_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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

func with(j sched.PutJob, changes ...func(*sched.PutJob)) sched.PutJob {
	for _, change := range changes {
		change(&j)
	}
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

// A gang is served although there always is somebody of whom nothing runs.
func TestGangIsServed(t *testing.T) {
	t.Parallel()
	s := sched.New()
	s.Apply(machines(1, 1))
	last := 0
	submit := func(user string) {
		last++
		s.Apply(job(last, user, 1, 1))
	}
	for _, user := range []string{"a", "b", "c", "d", "e"} {
		submit(user)
	}
	start(s)
	last++
	s.Apply(with(job(last, "g", 1, 1), nodes(2, 2)))
	gang := fmt.Sprint(last)
	for range 20 {
		running := s.Running()
		for _, task := range running {
			j, _ := s.Job(task.Job)
			s.Apply(sched.End{Task: task}, sched.EndJob{ID: task.Job})
			submit(string(j.User))
			if strings.Contains(" "+start(s), " "+gang+"/0") {
				return
			}
		}
	}
	t.Error("the gang waits for ever")
}
