package sched

import (
	"maps"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// State is the queue and what runs. Its zero value is not usable; see New. It is not safe for use
// by several goroutines at once.
type State struct {
	pools     map[shoal.PoolName]*pool
	jobs      map[shoal.JobID]*job
	tasks     map[Task]*run // what was started and has not ended
	holds     map[Task]*run // places kept for what must start again
	shares    map[shoal.GroupName]float64
	reference instant // of usage
}

// New returns the state in which nothing exists.
func New() *State {
	return &State{pools: map[shoal.PoolName]*pool{}, jobs: map[shoal.JobID]*job{}, tasks: map[Task]*run{}, holds: map[Task]*run{}}
}

type pool struct {
	Pool
	machines map[shoal.MachineID]*machine // also those not known any more that tasks are said to run on
	classes  [classes]places
	whole    index                 // those that take tasks, by what they have when empty
	seated   map[*machine]struct{} // with sessions
	resting  map[*machine]instant  // a login took back what was lent: until then a seat more is kept free there
	starting map[*machine]struct{}
	soft     map[*machine]struct{} // with tasks that more urgent ones may take the place of
	leaving  map[*machine]struct{} // with tasks that were told to go
	people   map[shoal.UserName]*person
	parties  map[shoal.GroupName]*party
	accounts map[[2]string]*account // by group and user
	shapes   map[needs]*shape

	// What follows is memory of Plan, and no part of what Apply builds.
	head     *head
	version  int      // counts changes of machines
	outlooks outlooks // until the next of them
	favoured bool     // the latest head became it as a beginner
	dirty    bool     // something changed since a pass found nothing to do
	wake     instant  // then a pass may find something all the same; 0: never
	passes   int
	allowed  float64 // preemptions now, for what is more urgent
	refilled instant // when that was counted
}

func (s *State) pool(name shoal.PoolName) *pool {
	p := s.pools[name]
	if p == nil {
		p = &pool{Pool: Pool{Name: name}, machines: map[shoal.MachineID]*machine{}, seated: map[*machine]struct{}{}, resting: map[*machine]instant{},
			starting: map[*machine]struct{}{}, soft: map[*machine]struct{}{}, leaving: map[*machine]struct{}{},
			people: map[shoal.UserName]*person{}, parties: map[shoal.GroupName]*party{}, accounts: map[[2]string]*account{}, shapes: map[needs]*shape{}}
		s.pools[name] = p
	}
	return p
}

// Apply makes changes part of the state, in order.
func (s *State) Apply(changes ...Change) {
	for _, c := range changes {
		c.apply(s)
	}
}

func (c PutJob) apply(s *State) {
	p := s.pool(c.Pool)
	j, id, running := s.jobs[c.ID], c.ID, 0
	if j == nil {
		j = &job{}
	} else {
		id, running = j.id, j.running
		j.forget()
	}
	nodes := c.Nodes
	nodes.Min = max(nodes.Min, 1)
	nodes.Max = max(nodes.Max, nodes.Min)
	*j = job{id: id, number: c.Number, pool: p, account: p.account(c.Group, c.User), priority: c.Priority, total: c.Total, next: c.Next,
		maxRunning: c.MaxRunning, running: running, unshiftable: c.Unshiftable, gated: c.Gated, blocked: c.Blocked}
	j.part = part{job: j, again: slices.Clone(c.Again),
		shape: p.shape(needs{resources: c.Resources, nodes: nodes, limit: c.Limit, preemptible: c.Preemptible})}
	s.jobs[c.ID] = j
	j.queue()
}

func (c EndJob) apply(s *State) {
	j := s.jobs[c.ID]
	if j == nil {
		return
	}
	j.forget()
	delete(s.jobs, c.ID)
	for t := range s.holds {
		if t.Job == c.ID {
			s.release(t, 0)
		}
	}
}

func (c PutMachines) apply(s *State) {
	all := make(map[shoal.MachineID]shoal.PoolName, len(c))
	for _, m := range c {
		all[m.ID] = m.Pool
		p := s.pool(m.Pool)
		old := p.machine(m.ID)
		if old.known && old.Resources == m.Resources && old.Standing == m.Standing && slices.Equal(old.Sessions, m.Sessions) {
			continue
		}
		p.sit(old, m.Sessions)
		p.stand(old, m.Standing)
		old.Machine, old.known = m, true
		old.Sessions = slices.Clone(m.Sessions)
		p.reindex(old)
		p.dirty = true
	}
	for _, p := range s.pools {
		for id, m := range p.machines {
			if m.known && all[id] != p.Name {
				p.sit(m, nil)
				p.stand(m, "")
				m.Machine, m.known = Machine{ID: id, Pool: p.Name}, false
				p.reindex(m)
				p.tidy(m)
				p.dirty = true
			}
		}
	}
}

func (c PutPools) apply(s *State) {
	settings := make(map[shoal.PoolName]Pool, len(c))
	for _, p := range c {
		settings[p.Name] = p
		s.pool(p.Name)
	}
	for name, p := range s.pools {
		now := settings[name] // a pool without a row has no limits, and no machines for long
		now.Name = name
		if p.Pool == now {
			continue
		}
		p.Pool, p.dirty = now, true
		for _, m := range p.machines {
			slices.SortStableFunc(m.runs, compareEnds)
			p.reindex(m)
		}
	}
}

func (c Start) apply(s *State) {
	j := s.jobs[c.Job]
	if _, runs := s.tasks[c.Task]; j == nil || runs {
		return
	}
	at := moment(c.At)
	s.rebase(at)
	s.release(c.Task, at)
	sh := j.take(c.Position, c.Memory)
	if h := j.pool.head; h != nil && h.job() == j && h.shape == sh {
		j.pool.served()
	}
	r := j.run(c.Position, sh, c.Machines)
	r.backfilled = c.Backfilled
	s.tasks[c.Task] = r
	if r.behind(s.tasks[c.Behind]); r.before == nil {
		s.begin(r, at)
	}
	j.queue()
	j.pool.dirty = true
}

// begin has a task take up its place.
func (s *State) begin(r *run, at instant) {
	r.placed, r.begun = at, at
	s.charge(r)
	r.reach()
	r.occupy()
}

func (c Began) apply(s *State) {
	if r := s.tasks[c.Task]; r != nil {
		r.change(func() { r.begun = moment(c.At) })
	}
}

func (c Preempting) apply(s *State) {
	if r := s.tasks[c.Task]; r != nil {
		r.change(func() { r.going, r.until = true, moment(c.Until) })
	}
}

func (c End) apply(s *State) {
	r := s.tasks[c.Task]
	if r == nil {
		return
	}
	delete(s.tasks, c.Task)
	waited := r.before != nil
	next := r.leave()
	if !waited {
		s.settle(r, moment(c.At))
		r.vacate()
		r.account.ran(r.shape.needs, c.Ran)
	}
	if next != nil {
		s.begin(next, moment(c.At))
	}
	r.pool.dirty = true
	if j := s.jobs[c.Job]; j != nil {
		j.queue()
	}
}

func (c Again) apply(s *State) {
	j := s.jobs[c.Job]
	if j == nil || c.Position >= j.next && !j.gated || c.Position >= j.total || c.Position < 0 {
		return
	}
	j.repeat(c.Position, c.Memory)
	j.queue()
}

func (c Hold) apply(s *State) {
	j := s.jobs[c.Job]
	if j == nil || len(c.Machines) == 0 {
		return
	}
	s.release(c.Task, 0)
	r := j.run(c.Position, j.shape, c.Machines)
	r.hold, r.placed, r.until = true, moment(c.At), moment(c.Until)
	s.holds[c.Task] = r
	if r.placed > 0 {
		s.charge(r)
	}
	r.occupy()
	r.pool.dirty = true
}

// release gives up the places that are kept for a task.
func (s *State) release(t Task, at instant) {
	if r := s.holds[t]; r != nil {
		delete(s.holds, t)
		if r.placed > 0 {
			s.settle(r, at)
		}
		r.vacate()
		r.pool.dirty = true
	}
}

// Job returns what is known of a job; its Again is not the caller's to change.
func (s *State) Job(id shoal.JobID) (Job, bool) {
	j := s.jobs[id]
	if j == nil {
		return Job{}, false
	}
	n := j.shape.needs
	again := j.again
	for _, g := range j.grown {
		again = slices.Sorted(slices.Values(slices.Concat(again, g.again)))
	}
	return Job{ID: j.id, Number: j.number, User: j.account.person.name, Group: j.account.party.name, Pool: j.pool.Name, Priority: j.priority,
		Resources: n.resources, Nodes: n.nodes, Limit: n.limit, MaxRunning: j.maxRunning, Preemptible: n.preemptible, Unshiftable: j.unshiftable,
		Total: j.total, Next: j.next, Again: again, Gated: j.gated, Blocked: j.blocked}, true
}

// Jobs returns the jobs of pools for which want is true.
func (s *State) Jobs(want func(shoal.PoolName) bool) []shoal.JobID {
	var all []shoal.JobID
	for id, j := range s.jobs {
		if want(j.pool.Name) {
			all = append(all, id)
		}
	}
	return all
}

// Empty reports whether there is no job that has not ended.
func (s *State) Empty() bool { return len(s.jobs) == 0 }

// Next is when Plan may answer something else although nothing was applied; zero: never.
func (s *State) Next(time.Time) time.Time {
	next := never
	for _, p := range s.pools {
		if p.wake > 0 {
			next = min(next, p.wake)
		}
	}
	for _, r := range s.holds {
		next = min(next, r.until)
	}
	return next.time()
}

// names returns the pools in one order.
func (s *State) names() []shoal.PoolName { return slices.Sorted(maps.Keys(s.pools)) }
