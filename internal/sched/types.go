package sched

import (
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
	Unshiftable bool            // its tasks are placed where there is room, never behind others
	Total       int             // tasks
	Next        int             // no task from this position on was ever started
	Again       []int           // positions that wait although they are before Next, ascending
	Gated       bool            // nothing waits but what Again says, which may then be any position
	Blocked     bool            // nothing of it may start
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

// MachineOf is a machine on record as placement sees it, but for its sessions.
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
	s := Pool{Name: p.Name, Machine: p.Machine, Limits: p.Limits, Interactive: p.Has(shoal.UseInteractive) && p.Seats > 0,
		Seats: p.Seats, Seat: p.Seat, Most: p.Size.Max}
	if p.Fixed != nil {
		s.Most = p.Fixed.Size
	}
	if n := max(p.Seats, 1); s.Seat == (shoal.Resources{}) {
		s.Seat = shoal.Resources{CPUs: p.Machine.CPUs / shoal.MilliCPU(n), Memory: p.Machine.Memory / shoal.Bytes(n)}
	}
	return s
}

// Reserved is what tasks that must not be preempted leave alone of a machine: what all its seats are entitled to.
func (p Pool) Reserved() shoal.Resources {
	if !p.Interactive {
		return shoal.Resources{}
	}
	return times(p.Seat, p.Seats)
}

// Entitled is what sessions of one user on a machine give her a right to, and her own tasks, which use so much, leave of
// it. One that is away has a right to its memory only.
func (p Pool) Entitled(active, away int, used shoal.Resources) shoal.Resources {
	if !p.Interactive {
		return shoal.Resources{}
	}
	sum := times(p.Seat, active)
	sum.Memory += p.Seat.Memory * shoal.Bytes(away)
	return most(sum.Sub(used), shoal.Resources{})
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
	Behind     Task              // there is no room: it gets that one's place when it ends; zero: there is
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

// Change is something that became true. The changes are the types below.
type Change interface{ apply(*State) }

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
		At  time.Time
		Ran time.Duration // for how long; 0: it did not, or nobody knows
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
		At       time.Time
		Until    time.Time
	}
	// Preempting is a task that was told to go, and is gone at a time at the latest.
	Preempting struct {
		Task
		For   shoal.JobID
		Until time.Time
	}
)

// instant is a time in nanoseconds since 1970; the zero time is 0.
type instant int64

// never is later than any time.
const never = instant(1<<63 - 1)

func moment(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(t.UnixNano())
}

// time returns the zero time for 0 and for never.
func (t instant) time() time.Time {
	if t == 0 || t == never {
		return time.Time{}
	}
	return time.Unix(0, int64(t)).UTC()
}

func times(r shoal.Resources, n int) shoal.Resources {
	return shoal.Resources{CPUs: r.CPUs * shoal.MilliCPU(n), Memory: r.Memory * shoal.Bytes(n), GPUs: r.GPUs * n}
}

func least(a, b shoal.Resources) shoal.Resources {
	return shoal.Resources{CPUs: min(a.CPUs, b.CPUs), Memory: min(a.Memory, b.Memory), GPUs: min(a.GPUs, b.GPUs)}
}

func most(a, b shoal.Resources) shoal.Resources {
	return shoal.Resources{CPUs: max(a.CPUs, b.CPUs), Memory: max(a.Memory, b.Memory), GPUs: max(a.GPUs, b.GPUs)}
}
