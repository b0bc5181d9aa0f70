package sched_test

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// crowd is a pool of many machines, all full, with many tasks waiting.
type crowd struct {
	machines, jobs, tasks, shapes, users int
	hopeless                             bool // all shapes but the last are larger than any machine
	limits                               bool
	nodes                                int
	low                                  bool // what runs may be told to go
	each                                 bool // each user has tasks of all shapes, or of most
}

func (c crowd) String() string {
	s := fmt.Sprintf("machines=%d,jobs=%d,tasks=%d,shapes=%d,users=%d", c.machines, c.jobs, c.tasks, c.shapes, c.users)
	if c.hopeless {
		s += ",hopeless"
	}
	if c.limits {
		s += ",limits"
	}
	if c.nodes > 0 {
		s += fmt.Sprintf(",nodes=%d", c.nodes)
	}
	if c.low {
		s += ",low"
	}
	if c.each {
		s += ",each"
	}
	return s
}

// fill makes the state: four tasks run on each machine, and nothing but the last shape fits if one of them ends.
func (c crowd) fill(now time.Time) *sched.State {
	s := sched.New()
	sizes := make([]int, c.machines)
	for i := range sizes {
		sizes[i] = 4
	}
	s.Apply(machines(sizes...), sched.PutPools{{Name: "lab", Machine: cpus(4), Most: c.machines, Limits: shoal.Limits{DefaultTimeLimit: shoal.Duration(time.Hour)}}})
	filler := job(1_000_000, "filler", 4*c.machines, 1)
	filler.Preemptible = true
	if c.low {
		filler.Priority = sched.Low
	}
	s.Apply(filler)
	for n := 1; n > 0; {
		starts := s.Plan(now, 1000).Starts
		n = len(starts)
		for i, p := range starts {
			s.Apply(sched.Start{Placement: p, At: now.Add(-time.Duration(i%50) * time.Minute)})
		}
	}
	for i := range c.jobs {
		j := job(i+1, fmt.Sprint("u", i%c.users), c.tasks, 1)
		shape := i % c.shapes
		if c.each {
			shape = i / c.users % c.shapes
		}
		if shape == c.shapes-1 {
			j.Total = max(j.Total, 1000) // enough of those that fit
		}
		j.Resources.Memory = 1<<30 - shoal.Bytes(shape)
		if shape < c.shapes-1 {
			j.Resources.CPUs = 2000 // more than one end makes free
		}
		if c.hopeless && shape < c.shapes-1 {
			j.Resources.CPUs = 5000
		}
		if c.limits {
			j.Limit = time.Duration(1+shape) * time.Minute
		}
		if c.nodes > 0 && shape < c.shapes-1 {
			j.Nodes = shoal.Fixed(c.nodes)
		}
		s.Apply(j)
	}
	return s
}

// threadTime is the processor time that this thread has used: what a pass costs, whoever else is busy.
func threadTime(b *testing.B) time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A pass over 10,000 machines and 100,000 tasks, of few shapes or many, takes less than 50 ms.
func BenchmarkPass(b *testing.B) {
	for _, c := range []crowd{
		{machines: 10_000, jobs: 1, tasks: 100_000, shapes: 1, users: 1},
		{machines: 10_000, jobs: 100_000, tasks: 1, shapes: 1, users: 50},
		{machines: 10_000, jobs: 100_000, tasks: 1, shapes: 5000, users: 1},
		{machines: 10_000, jobs: 100_000, tasks: 1, shapes: 5000, users: 1, hopeless: true},
		{machines: 10_000, jobs: 100_000, tasks: 1, shapes: 5000, users: 50},
		{machines: 10_000, jobs: 100_000, tasks: 1, shapes: 5000, users: 50, nodes: 16},
		{machines: 10_000, jobs: 100_000, tasks: 1, shapes: 5000, users: 50, low: true},
		{machines: 10_000, jobs: 250_000, tasks: 1, shapes: 5000, users: 50, limits: true, each: true},
	} {
		b.Run(c.String(), func(b *testing.B) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			s := c.fill(now)
			s.Plan(now, 1000)
			running := s.Running()
			var passes, cpu []time.Duration
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			starts := 0
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				now = now.Add(10 * time.Millisecond)
				t := running[i%len(running)]
				s.Apply(sched.End{Task: t, At: now})
				begin, used := time.Now(), threadTime(b)
				plan := s.Plan(now, 1000)
				passes, cpu = append(passes, time.Since(begin)), append(cpu, threadTime(b)-used)
				for _, p := range plan.Starts {
					s.Apply(sched.Start{Placement: p, At: now})
					running[i%len(running)] = p.Task
					starts++
				}
				if len(plan.Starts) == 0 { // its place is kept; somebody else has it
					running = slices.Delete(running, i%len(running), i%len(running)+1)
				}
			}
			report := func(name string, d []time.Duration, part int) {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)*part/100].Microseconds())/1000, name)
			}
			report("p50-ms", passes, 50)
			report("p99-ms", passes, 99)
			report("p50-cpu-ms", cpu, 50)
			report("p99-cpu-ms", cpu, 99)
			b.ReportMetric(float64(starts)/float64(len(passes)), "starts/pass")
		})
	}
}

// A million tasks, 200,000 of them jobs of their own, take well under 300 MB.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		s := sched.New()
		for i := range 200_000 {
			s.Apply(job(i+1, fmt.Sprint("u", i%50), 1, 1+i%4))
		}
		for i := range 800 {
			s.Apply(job(200_001+i, fmt.Sprint("u", i%50), 1000, 1))
		}
		b.ReportMetric(float64(heap()-before)/(1<<20), "MB")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What is done for each task costs little, however many wait.
func BenchmarkApply(b *testing.B) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := crowd{machines: 10_000, jobs: 200_000, tasks: 1, shapes: 100, users: 50}.fill(now)
	for i := 0; b.Loop(); i++ {
		j := job(2_000_000+i, fmt.Sprint("u", i%50), 1, 1)
		t := sched.Task{Job: j.ID}
		s.Apply(j, sched.Start{Placement: sched.Placement{Task: t, Machines: []shoal.MachineID{shoal.MachineID(fmt.Sprintf("m-%d", 1+i%10_000))}}, At: now},
			sched.End{Task: t, At: now}, sched.Again{Task: t}, sched.EndJob{ID: j.ID})
	}
}
