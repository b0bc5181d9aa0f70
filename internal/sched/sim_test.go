package sched_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/sched"
)

// trace plays jobs on machines in the order of time: nothing is lost, and every task is gone by its limit.
type trace struct {
	*sched.State
	t        *rapid.T
	now      time.Time
	machines []sched.Machine
	jobs     map[shoal.JobID]*sched.PutJob
	arrivals []arrival
	took     map[shoal.JobID]time.Duration // how long its tasks really run
	running  map[sched.Task]*player
	started  map[sched.Task]time.Time
	promised map[shoal.JobID]promise
	watch    func()                               // after each plan
	wanted   map[shoal.MachineID]sched.Preempting // tasks were told to go there
}

type arrival struct {
	at  time.Time
	job sched.PutJob
}

// player is a task that runs.
type player struct {
	placement sched.Placement
	ends      time.Time // really
	limit     time.Time
	going     bool
}

// promise is what a job was told of its next task when it was first told, and since.
type promise struct {
	started  int // tasks of the job before
	first    time.Time
	latest   time.Time
	expected time.Time // found without package sched, when it was first told
}

type traceConfig struct {
	exact     bool // tasks run to their limit
	unlimited bool // some tasks have no limit
	low       bool // some are of low priority, and the rest may take their place
	elastic   bool
}

func newTrace(t *rapid.T, c traceConfig) *trace {
	tr := &trace{State: sched.New(), t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), jobs: map[shoal.JobID]*sched.PutJob{},
		took: map[shoal.JobID]time.Duration{}, running: map[sched.Task]*player{}, started: map[sched.Task]time.Time{}, promised: map[shoal.JobID]promise{},
		wanted: map[shoal.MachineID]sched.Preempting{}}
	for i, n := range rapid.SliceOfN(rapid.IntRange(1, 4), 1, 4).Draw(t, "machines") {
		tr.machines = append(tr.machines, sched.Machine{ID: shoal.MachineID(fmt.Sprint("m-", i)), Pool: "lab", Resources: cpus(n), Standing: sched.Open})
	}
	pool := sched.Pool{Name: "lab", Machine: cpus(4), Most: len(tr.machines)}
	pool.Limits.PerUser.CPUs = shoal.MilliCPU(1000 * rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "limit of a user"))
	tr.Apply(sched.PutMachines(tr.machines), sched.PutPools{pool})
	at := tr.now
	for i := range rapid.IntRange(1, 25).Draw(t, "jobs") {
		at = at.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "gap")) * time.Minute)
		j := job(i+1, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "user"), rapid.IntRange(1, 4).Draw(t, "total"), rapid.IntRange(1, 4).Draw(t, "size"))
		j.Group = rapid.SampledFrom([]shoal.GroupName{"", "g"}).Draw(t, "group")
		j.Nodes = shoal.Fixed(rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "nodes"))
		if c.elastic && rapid.Bool().Draw(t, "elastic") {
			j.Nodes.Max++
		}
		j.MaxRunning = rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "maxRunning")
		j.Limit = time.Duration(rapid.IntRange(1, 60).Draw(t, "limit")) * time.Minute
		j.Preemptible = true
		tr.took[j.ID] = j.Limit
		if !c.exact {
			tr.took[j.ID] = time.Duration(rapid.IntRange(1, int(j.Limit/time.Second)).Draw(t, "takes")) * time.Second
		}
		if c.unlimited && rapid.IntRange(0, 3).Draw(t, "unlimited") == 0 {
			j.Limit = 0
		}
		if c.low && rapid.Bool().Draw(t, "low") {
			j.Priority = sched.Low
		}
		if tr.possible(j) {
			tr.arrivals = append(tr.arrivals, arrival{at, j})
		}
	}
	return tr
}

// possible reports whether a job can ever start: no machine comes.
func (tr *trace) possible(j sched.PutJob) bool {
	n := 0
	for _, m := range tr.machines {
		if j.Resources.Fits(m.Resources) {
			n++
		}
	}
	return n >= j.Nodes.Min && j.Resources.CPUs*shoal.MilliCPU(j.Nodes.Min) <= 5000
}

// play goes on until nothing is left to happen.
func (tr *trace) play() {
	for {
		tr.plan()
		next := time.Time{}
		sooner := func(at time.Time) {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
		if len(tr.arrivals) > 0 {
			sooner(tr.arrivals[0].at)
		}
		for _, p := range tr.running {
			sooner(p.ends)
		}
		if at := tr.Next(tr.now); at.After(tr.now) {
			sooner(at)
		} else if !at.IsZero() {
			tr.t.Fatalf("Next says %v at %v", at, tr.now)
		}
		if next.IsZero() {
			break
		}
		tr.now = next
		for _, task := range slices.SortedFunc(maps.Keys(tr.running), compareTasks) {
			if p := tr.running[task]; !p.ends.After(tr.now) {
				delete(tr.running, task)
				tr.Apply(sched.End{Task: task, At: tr.now})
				if p.going {
					tr.Apply(sched.Again{Task: task})
				}
			}
		}
		for len(tr.arrivals) > 0 && !tr.arrivals[0].at.After(tr.now) {
			j := tr.arrivals[0].job
			tr.arrivals = tr.arrivals[1:]
			tr.jobs[j.ID] = &j
			tr.Apply(j)
		}
	}
	for id := range tr.jobs {
		if j, _ := tr.Job(id); j.Next < j.Total || len(j.Again) > 0 {
			e, _ := tr.Explain(id, tr.now)
			tr.t.Fatalf("job %s waits for ever: %+v, %+v", id, j, e)
		}
	}
}

func (tr *trace) plan() {
	for {
		plan := tr.Plan(tr.now, 3)
		for _, p := range plan.Starts {
			tr.start(p)
		}
		for _, p := range plan.Preempt {
			tr.evict(p)
		}
		if len(plan.Starts) == 0 {
			break
		}
	}
	tr.checkPromises()
	for id, by := range tr.wanted {
		e, _ := tr.Explain(by.For, tr.now)
		kept := e.AtLimit // or the place is, for another
		for other, j := range tr.jobs {
			e, _ := tr.Explain(other, tr.now)
			kept = kept || e.Head == other && j.Priority > sched.Low
		}
		if tr.now.After(by.Until) && !kept {
			tr.t.Fatalf("at %v: tasks on %s were told to go for job %s, and nobody started", tr.now, id, by.For)
		}
	}
	if tr.watch != nil {
		tr.watch()
	}
}

func (tr *trace) start(p sched.Placement) {
	j := tr.jobs[p.Job]
	limit := tr.now.Add(j.Limit)
	if j.Limit == 0 {
		limit = time.Time{}
	}
	before, _ := tr.Job(p.Job)
	if told, ok := tr.promised[p.Job]; ok && told.started == waiting(before) {
		if tr.now.After(told.latest) {
			tr.t.Fatalf("%v was promised for %v and starts at %v", p.Task, told.latest, tr.now)
		}
		if !told.expected.IsZero() && !tr.now.Equal(told.expected) {
			tr.t.Fatalf("%v starts at %v, and without backfill it would have at %v", p.Task, tr.now, told.expected)
		}
	}
	maps.DeleteFunc(tr.wanted, func(m shoal.MachineID, by sched.Preempting) bool {
		return by.For == p.Job || j.Priority > sched.Low && slices.Contains(p.Machines, m)
	})
	tr.Apply(sched.Start{Placement: p, At: tr.now})
	tr.running[p.Task] = &player{placement: p, ends: tr.now.Add(tr.took[p.Job]), limit: limit}
	for _, m := range tr.machines {
		var used shoal.Resources
		for task, o := range tr.running {
			if slices.Contains(o.placement.Machines, m.ID) {
				used = used.Add(tr.jobs[task.Job].Resources)
			}
		}
		if !used.Fits(m.Resources) {
			tr.t.Fatalf("%s holds %+v of %+v", m.ID, used, m.Resources)
		}
	}
}

func waiting(j sched.Job) int { return j.Total - j.Next + len(j.Again) }

// evict tells a task to go, which takes half a minute.
func (tr *trace) evict(p sched.Preemption) {
	r, j := tr.running[p.Task], tr.jobs[p.Task.Job]
	if r == nil || r.going || j.Priority != sched.Low {
		tr.t.Fatalf("%+v of %+v", p, j)
	}
	by := tr.now.Add(30 * time.Second)
	r.going = true
	if r.ends.After(by) {
		r.ends = by
	}
	told := sched.Preempting{Task: p.Task, For: p.For, Until: by}
	tr.wanted[p.Machine] = told
	tr.Apply(told)
}

// checkPromises holds what jobs are told now against what they were told before.
func (tr *trace) checkPromises() {
	for id := range tr.jobs {
		e, ok := tr.Explain(id, tr.now)
		j, _ := tr.Job(id)
		if !ok || waiting(j) == 0 || j.Priority == sched.Low { // something more urgent may come
			continue
		}
		told, before := tr.promised[id]
		before = before && told.started == waiting(j)
		switch {
		case e.Promised.IsZero() && before:
			tr.t.Fatalf("at %v job %s has no promise any more: %+v, %+v", tr.now, id, told, e)
		case e.Promised.IsZero():
		case !before:
			tr.promised[id] = promise{started: waiting(j), first: e.Promised, latest: e.Promised}
		case e.Promised.After(told.latest):
			tr.t.Fatalf("at %v job %s is promised %v, and was %v", tr.now, id, e.Promised, told.latest)
		default:
			told.latest = e.Promised
			tr.promised[id] = told
		}
	}
}

// without is when a job would start if nothing passed it and what runs went on to its limit.
func (tr *trace) without(j *sched.PutJob) time.Time {
	var at []time.Time
	for _, m := range tr.machines {
		if !j.Resources.Fits(m.Resources) {
			continue
		}
		left, when := m.Resources, tr.now
		var there []*player
		for task, p := range tr.running {
			if slices.Contains(p.placement.Machines, m.ID) {
				left = left.Sub(tr.jobs[task.Job].Resources)
				there = append(there, p)
			}
		}
		slices.SortFunc(there, func(a, b *player) int { return a.limit.Compare(b.limit) })
		for _, p := range there {
			if j.Resources.Fits(left) {
				break
			}
			left, when = left.Add(tr.jobs[p.placement.Job].Resources), p.limit
		}
		at = append(at, when)
	}
	slices.SortFunc(at, time.Time.Compare)
	return at[j.Nodes.Min-1]
}

// A promise is never put off, and kept; and everything starts in the end.
func TestPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		newTrace(t, traceConfig{elastic: true}).play()
	})
}

// Where tasks run to their limits, the head starts when it would have if nothing had passed it.
func TestHeadIsNotPutOff(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr := newTrace(t, traceConfig{exact: true})
		tr.watch = func() {
			for id, told := range tr.promised {
				if told.expected.IsZero() && told.first.Equal(told.latest) {
					if j, _ := tr.Job(id); waiting(j) != told.started {
						continue
					}
					if told.expected = tr.without(tr.jobs[id]); !told.expected.Equal(told.first) {
						t.Fatalf("job %s is promised %v, and without backfill it would start at %v", id, told.first, told.expected)
					}
					tr.promised[id] = told
				}
			}
		}
		tr.play()
	})
}

// Where some tasks have no limit there may be no promise, but nobody starves.
func TestUnlimited(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		newTrace(t, traceConfig{unlimited: true}).play()
	})
}

// Nobody is told to go in vain: when the last of them has gone, the other or something else of its
// priority starts, or has the place kept.
func TestPreemptionIsOfUse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tr := newTrace(t, traceConfig{low: true, unlimited: rapid.Bool().Draw(t, "unlimited")})
		slices.SortStableFunc(tr.arrivals, func(a, b arrival) int { return cmp.Compare(a.job.Priority, b.job.Priority) })
		for i := range tr.arrivals { // the low ones come first: nothing more urgent comes between
			tr.arrivals[i].at = tr.now
			if tr.arrivals[i].job.Priority != sched.Low {
				tr.arrivals[i].at = tr.now.Add(10 * time.Minute)
			}
		}
		tr.play()
	})
}
