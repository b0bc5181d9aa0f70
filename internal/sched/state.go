package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Priority orders jobs before everything else; a higher one goes first.
type Priority int

// The priorities.
const (
	Low Priority = iota
	Normal
	High
	priorities
)

// PriorityOf reads a job's priority; what is no such word is normal.
func PriorityOf(word string) Priority {
	switch word {
	case "low":
		return Low
	case "high":
		return High
	}
	return Normal
}

// Job is what placement needs to know of a job.
type Job struct {
	ID          shoal.JobID
	Number      int64 // the order of submission
	User        shoal.UserName
	Group       shoal.GroupName // whose fair share it is charged to, within it the user's; may be empty
	Pool        shoal.PoolName
	Priority    Priority
	Resources   shoal.Resources // of each task, on each of its nodes
	Nodes       shoal.Nodes     // of each task
	Limit       time.Duration   // after its start a task is gone at the latest, grace included; 0: the pool's default
	MaxRunning  int             // tasks at a time; 0: no limit
	Preemptible bool            // may be told to go: for logins, and if its priority is low for what is more urgent
	Total       int             // tasks
	Next        int             // no task from this position on was ever started
	Again       []int           // positions that wait although they are before Next, ascending
	Gated       bool            // nothing waits but what Again says, which may then be any position
	Blocked     bool            // nothing of it may start
}

// waiting is how many tasks of the job could start.
func (j *Job) waiting() int {
	if j.Blocked {
		return 0
	}
	if j.Gated {
		return len(j.Again)
	}
	return len(j.Again) + j.Total - j.Next
}

// position is that of the i-th waiting task.
func (j *Job) position(i int) int {
	if i < len(j.Again) {
		return j.Again[i]
	}
	return j.Next + i - len(j.Again)
}

// Standing is how far a machine is from taking tasks.
type Standing string

// The standings.
const (
	Open     Standing = "open"
	Starting Standing = "starting"
	Draining Standing = "draining"
	Silent   Standing = "silent" // its agent does not answer
	Leaving  Standing = "leaving"
)

// Machine is what placement needs to know of a machine.
type Machine struct {
	ID        shoal.MachineID
	Pool      shoal.PoolName
	Resources shoal.Resources
	Standing  Standing
	Sessions  []Sitting // who is logged in there
}

// Sitting is a session on a machine.
type Sitting struct {
	User   shoal.UserName
	Active bool // connected; a session that is not is entitled to its memory only
}

// MachineOf is a machine on record as placement sees it.
func MachineOf(m shoal.Machine) Machine {
	s := Leaving
	switch {
	case m.Accepts():
		s = Open
	case m.Wanted == shoal.WantRun && (m.State == shoal.MachineRequested || m.State == shoal.MachineBooting):
		s = Starting
	case m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && m.Health == shoal.HealthDown:
		s = Silent
	case m.State == shoal.MachineReady && m.Wanted == shoal.WantRun:
		s = Draining
	}
	return Machine{ID: m.ID, Pool: m.Pool, Resources: m.Resources, Standing: s}
}

// Pool is what placement needs to know of a pool.
type Pool struct {
	Name        shoal.PoolName
	Machine     shoal.Resources // of each of its machines: what a machine-second is measured by
	Interactive bool            // logins go before tasks, as far as their seats go
	Seats       int             // sessions on a machine
	Seat        shoal.Resources // what a session is entitled to
	Limits      shoal.Limits
	Most        int           // machines at most
	Room        int           // machines that may still come, beside those that are starting
	Boot        time.Duration // how long a machine takes to come, seldom longer; 0: five minutes
}

// PoolOf is a pool on record as placement sees it, but for its room to grow.
func PoolOf(p shoal.Pool) Pool {
	s := Pool{Name: p.Name, Machine: p.Machine, Limits: p.Limits, Interactive: p.Has(shoal.UseInteractive) && p.Seats > 0, Seats: p.Seats, Seat: p.Seat, Most: p.Size.Max}
	if p.Fixed != nil {
		s.Most = p.Fixed.Size
	}
	if n := shoal.Bytes(max(p.Seats, 1)); s.Seat == (shoal.Resources{}) {
		s.Seat = shoal.Resources{CPUs: p.Machine.CPUs / shoal.MilliCPU(n), Memory: p.Machine.Memory / n}
	}
	return s
}

// Task is one task of a job by its position.
type Task struct {
	Job      shoal.JobID
	Position int
}

// Placement is a task and where it is to start.
type Placement struct {
	Task
	Machines   []shoal.MachineID // by rank, no two the same
	Memory     shoal.Bytes       // on each, if not what its job says
	Backfilled bool              // it passes one that goes before it, and may be called back for that
}

// Preemption is a task that is to be told to go.
type Preemption struct {
	Task
	For     shoal.JobID      // whose task takes the place; empty: logins do
	Users   []shoal.UserName // the logins'
	Machine shoal.MachineID
	Reason  string
}

// Plan is what is to be done now.
type Plan struct {
	Starts  []Placement
	Preempt []Preemption
}

// UserUsage is what a user used in a pool, on account of a group.
type UserUsage struct {
	Pool    shoal.PoolName
	Group   shoal.GroupName
	User    shoal.UserName
	Settled float64 // machine-seconds of what has ended, worth half after each week: what PutUsage takes
	Usage   float64 // the same with what runs
	Tasks   int     // that run
	Using   shoal.Resources
}

// State is the queue and what runs. Its zero value is not usable; see New. It is not safe for use
// by several goroutines at once.
type State struct {
	pools map[shoal.PoolName]*pool
	jobs  map[shoal.JobID]*job
	tasks map[Task]running
}

// New returns the state in which nothing exists.
func New() *State {
	return &State{pools: map[shoal.PoolName]*pool{}, jobs: map[shoal.JobID]*job{}, tasks: map[Task]running{}}
}

type job struct {
	Job
	queued bool // it is in its bucket
}

// running is what a task that was started takes up. It outlives its machine's record.
type running struct {
	pool      shoal.PoolName
	machines  []shoal.MachineID
	user      shoal.UserName
	resources shoal.Resources
}

type pool struct {
	Pool
	machines map[shoal.MachineID]Machine
	used     map[shoal.MachineID]shoal.Resources // by what was started, also on machines not known
	use      map[shoal.UserName]shoal.Resources
	queues   [priorities]map[shoal.UserName]map[shoal.Resources]*bucket
	keep     *keep
	dirty    bool // something changed since a pass found nothing to start
}

// keep is a machine set aside for a shape.
type keep struct {
	machine  shoal.MachineID
	shape    shoal.Resources
	priority Priority
}

func (s *State) pool(name shoal.PoolName) *pool {
	p := s.pools[name]
	if p == nil {
		p = &pool{Pool: Pool{Name: name}, machines: map[shoal.MachineID]Machine{},
			used: map[shoal.MachineID]shoal.Resources{}, use: map[shoal.UserName]shoal.Resources{}}
		s.pools[name] = p
	}
	return p
}

// Change is something that became true. The changes are the types below.
type Change interface{ apply(*State) }

// Apply makes changes part of the state, in order.
func (s *State) Apply(changes ...Change) {
	for _, c := range changes {
		c.apply(s)
	}
}

type (
	// PutJob is a job that is new or changed; what runs of it goes on.
	PutJob Job
	// EndJob is a job of which nothing waits or runs any more.
	EndJob struct{ ID shoal.JobID }
	// PutMachines are all machines there are.
	PutMachines []Machine
	// PutPools are all pools there are.
	PutPools []Pool
	// PutGroups are the weights of all groups there are; one that is not there weighs 1.
	PutGroups map[shoal.GroupName]float64
	// PutUsage is what a user used until a time, as Usage told it: read when the state is made.
	PutUsage struct {
		Pool  shoal.PoolName
		Group shoal.GroupName
		User  shoal.UserName
		At    time.Time
		Usage float64
	}
	// Start is a task that was started: the next of its job, or one of its Again.
	Start struct {
		Placement
		At time.Time
	}
	// Began says that a task that was started begins only now: its time limit counts from here.
	Began struct {
		Task
		At time.Time
	}
	// End is a task that was started and takes up nothing any more.
	End struct {
		Task
		At time.Time
	}
	// Again is a task that was started before and must start again, or one of a gated job that may.
	Again struct {
		Task
		Memory shoal.Bytes // on each node, if not what its job says
	}
	// Hold keeps places for a task that must start again, until it does: a gang that lost a member.
	Hold struct {
		Task
		Machines []shoal.MachineID
		Until    time.Time
	}
	// Preempting is a task that was told to go, and is gone at a time at the latest.
	Preempting struct {
		Task
		For   shoal.JobID
		Until time.Time
	}
)

func (PutGroups) apply(*State)  {}
func (PutUsage) apply(*State)   {}
func (Began) apply(*State)      {}
func (Hold) apply(*State)       {}
func (Preempting) apply(*State) {}

func (c PutJob) apply(s *State) {
	s.dequeue(c.ID)
	j := &job{Job: Job(c)}
	j.Again = slices.Clone(j.Again)
	if old := s.jobs[c.ID]; old != nil { // share what repeats in a hundred thousand jobs
		j.User, j.Pool = old.User, old.Pool
	}
	s.jobs[c.ID] = j
	s.enqueue(j)
}

func (c EndJob) apply(s *State) {
	s.dequeue(c.ID)
	delete(s.jobs, c.ID)
}

func (c PutMachines) apply(s *State) {
	all := make(map[shoal.MachineID]Machine, len(c))
	for _, m := range c {
		all[m.ID] = m
		p := s.pool(m.Pool)
		if old := p.machines[m.ID]; old.Resources != m.Resources || old.Standing != m.Standing {
			p.machines[m.ID] = m
			p.dirty = true
		}
	}
	for _, p := range s.pools {
		for id := range p.machines {
			if m, ok := all[id]; !ok || m.Pool != p.Name {
				delete(p.machines, id)
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
		p.dirty = p.dirty || p.Pool != now
		p.Pool = now
	}
}

func (c Start) apply(s *State) {
	j := s.jobs[c.Job]
	if _, runs := s.tasks[c.Task]; j == nil || runs {
		return
	}
	s.dequeue(c.Job)
	if c.Position >= j.Next {
		j.Next = c.Position + 1
	}
	if i, ok := slices.BinarySearch(j.Again, c.Position); ok {
		j.Again = slices.Delete(j.Again, i, i+1)
	}
	s.enqueue(j)
	p := s.pool(j.Pool)
	s.tasks[c.Task] = running{p.Name, c.Machines, j.User, j.Resources}
	for _, m := range c.Machines {
		p.used[m] = p.used[m].Add(j.Resources)
	}
	p.use[j.User] = p.use[j.User].Add(j.Resources)
	if p.keep != nil && p.keep.shape == j.Resources {
		p.keep = nil
	}
}

func (c End) apply(s *State) {
	r, ok := s.tasks[c.Task]
	if !ok {
		return
	}
	delete(s.tasks, c.Task)
	p := s.pool(r.pool)
	for _, m := range r.machines {
		less(p.used, m, r.resources)
	}
	less(p.use, r.user, r.resources)
	p.dirty = true
}

// less takes resources out of a sum and forgets a sum that is none.
func less[K comparable](sums map[K]shoal.Resources, k K, r shoal.Resources) {
	sum := sums[k].Sub(r)
	if sum == (shoal.Resources{}) {
		delete(sums, k)
	} else {
		sums[k] = sum
	}
}

func (c Again) apply(s *State) {
	j := s.jobs[c.Job]
	if j == nil || c.Position >= j.Next && !j.Gated {
		return
	}
	if i, found := slices.BinarySearch(j.Again, c.Position); !found {
		s.dequeue(c.Job)
		j.Again = slices.Insert(j.Again, i, c.Position)
		s.enqueue(j)
	}
}

// enqueue puts a job with waiting tasks into its bucket.
func (s *State) enqueue(j *job) {
	if j.waiting() == 0 {
		return
	}
	p := s.pool(j.Pool)
	j.Pool = p.Name
	users := p.queues[j.Priority]
	if users == nil {
		users = map[shoal.UserName]map[shoal.Resources]*bucket{}
		p.queues[j.Priority] = users
	}
	shapes := users[j.User]
	if shapes == nil {
		shapes = map[shoal.Resources]*bucket{}
		users[j.User] = shapes
	}
	b := shapes[j.Resources]
	if b == nil {
		b = &bucket{user: j.User}
		shapes[j.Resources] = b
	}
	j.User = b.user
	b.insert(j)
	j.queued = true
	p.dirty = true
}

func (s *State) dequeue(id shoal.JobID) {
	j := s.jobs[id]
	if j == nil || !j.queued {
		return
	}
	p := s.pool(j.Pool)
	p.dirty = true
	j.queued = false
	shapes := p.queues[j.Priority][j.User]
	b := shapes[j.Resources]
	b.remove(j.Number)
	if b.live > 0 {
		return
	}
	delete(shapes, j.Resources)
	if len(shapes) == 0 {
		delete(p.queues[j.Priority], j.User)
	}
}

// bucket is the jobs of one user, priority and shape that have waiting tasks, by number. A job that
// is taken out leaves a hole, so that neither end nor middle costs a move of all that follow.
type bucket struct {
	user    shoal.UserName // the one copy of the name
	entries []entry
	live    int // entries that are no holes
}

type entry struct {
	number int64
	job    *job // nil: a hole
}

func (b *bucket) find(number int64) (int, bool) {
	return slices.BinarySearchFunc(b.entries, number, func(e entry, n int64) int { return cmp.Compare(e.number, n) })
}

func (b *bucket) insert(j *job) {
	b.live++
	i, found := b.find(j.Number)
	if found {
		b.entries[i].job = j
		return
	}
	b.entries = slices.Insert(b.entries, i, entry{j.Number, j})
}

func (b *bucket) remove(number int64) {
	i, found := b.find(number)
	if !found || b.entries[i].job == nil {
		return
	}
	b.entries[i].job = nil
	b.live--
	if b.live < len(b.entries)/2 {
		b.entries = slices.DeleteFunc(b.entries, func(e entry) bool { return e.job == nil })
	}
}

// Job returns what is known of a job; its Again is not the caller's to change.
func (s *State) Job(id shoal.JobID) (Job, bool) {
	j := s.jobs[id]
	if j == nil {
		return Job{}, false
	}
	return j.Job, true
}

// Jobs returns the jobs of pools for which want is true.
func (s *State) Jobs(want func(shoal.PoolName) bool) []shoal.JobID {
	var all []shoal.JobID
	for id, j := range s.jobs {
		if want(j.Pool) {
			all = append(all, id)
		}
	}
	return all
}

// Empty reports whether there is no job that has not ended.
func (s *State) Empty() bool { return len(s.jobs) == 0 }
