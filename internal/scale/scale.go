package scale

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// State is a pool as it is.
type State struct {
	Pool     shoal.Pool
	Machines []Machine // of the pool; those gone are left out
	Waiting  int       // logins that wait for a seat, each user once
	Queue    []Queue   // tasks that wait, a line for each size
}

// Machine is a machine with who is on it.
type Machine struct {
	shoal.Machine
	Sessions int             // seats taken
	Tasks    int             // running there
	Used     shoal.Resources // by those tasks
	// Known: it is certain who is there. An agent that is not heard from leaves it open.
	Known bool
	// Stale: the machine was requested for a pool that has been changed since.
	Stale bool
}

// counts reports whether the machine is one of the pool's size. One that somebody stopped behind
// Shoal's back is about to be started.
func (m Machine) counts() bool {
	return m.Alive() || m.State == shoal.MachineStopped && m.Wanted == shoal.WantRun
}

func (m Machine) empty() bool { return m.Sessions == 0 && m.Tasks == 0 }

// Queue is a number of waiting tasks that ask for the same.
type Queue struct {
	Resources shoal.Resources
	Tasks     int
	Each      int // at most so many on one machine; 0: as many as fit
}

// Decision is what should become of a pool.
type Decision struct {
	Create int      // so many new machines
	Retire []Change // to be deleted now
	Cordon []Change // to take nobody new, and go when empty
	// Restore are machines whose autoscaler's cordon is taken back.
	Restore []shoal.MachineID
	// Because says why machines are created; Reasons is all there is to say.
	Because shoal.Reason
	Reasons []shoal.Reason
	// Next is when something may be due though nothing changes; zero: never.
	Next time.Time
}

// Change is what should be done to a machine, and why.
type Change struct {
	Machine shoal.MachineID
	Reason  shoal.Reason
}

// The patience of the autoscaler.
const (
	defaultIdle   = 30 * time.Minute
	outdatedAfter = time.Minute      // an outdated machine is replaced when empty for so long
	unneededAfter = 10 * time.Second // a request that nobody needs any more is dropped
	silentAfter   = 5 * time.Minute  // a machine that does not answer and holds nobody is replaced
)

// Decide says what should become of a pool.
func Decide(s State, now time.Time) Decision {
	p := newPlan(s, now)
	p.shrink()
	p.grow()
	p.say()
	return p.Decision
}

// plan is a Decision being made.
type plan struct {
	State
	Decision
	now     time.Time
	limit   int // at most so many machines
	alive   int // that count against the limit
	fixed   bool
	serving []*Machine // take people and tasks, or will
	reserve []*Machine // the autoscaler's own cordon is all that keeps people off
	need    need       // what is short
}

func newPlan(s State, now time.Time) *plan {
	p := &plan{State: s, now: now, limit: s.Pool.Size.Max}
	if f := s.Pool.Fixed; f != nil && (f.Until.IsZero() || now.Before(f.Until)) {
		p.fixed, p.limit = true, min(f.Size, s.Pool.Size.Max)
		p.due(f.Until)
	}
	if s.Pool.Deleting {
		p.fixed, p.limit = true, 0
	}
	p.Machines = slices.Clone(s.Machines)
	slices.SortFunc(p.Machines, func(a, b Machine) int { return cmp.Compare(a.ID, b.ID) })
	for i := range p.Machines {
		m := &p.Machines[i]
		if !m.counts() {
			continue
		}
		p.alive++
		switch {
		case m.Wanted != shoal.WantRun || m.State == shoal.MachineStopping || m.Health == shoal.HealthDown:
		case m.Stale && m.State != shoal.MachineReady:
		case len(m.Cordons) == 0:
			p.serving = append(p.serving, m)
		case m.State == shoal.MachineReady && onlyOurs(m.Cordons):
			p.reserve = append(p.reserve, m)
		}
	}
	return p
}

// onlyOurs reports whether all cordons are the autoscaler's.
func onlyOurs(cordons []shoal.Cordon) bool {
	return !slices.ContainsFunc(cordons, func(c shoal.Cordon) bool { return c.Owner != shoal.CordonAutoscaler })
}

// due keeps the earliest time at which something may change by itself.
func (p *plan) due(t time.Time) {
	if t.After(p.now) && (p.Next.IsZero() || t.Before(p.Next)) {
		p.Next = t
	}
}

// grow turns what is short into machines: cordoned ones are given back and new ones
// made, within the limit.
func (p *plan) grow() {
	p.need = p.short(p.serving)
	more := p.need.machines()
	if p.fixed {
		more = p.limit - len(p.serving)
	}
	if p.Pool.Deleting || more <= 0 {
		return
	}
	for _, m := range p.reserve {
		if more <= 0 {
			return
		}
		if len(p.Restore)+len(p.serving) >= p.limit || p.retired(m.ID) {
			continue
		}
		p.Restore = append(p.Restore, m.ID)
		more--
	}
	p.Create = max(p.Create, min(more, p.limit-p.alive), 0)
}

func (p *plan) retired(id shoal.MachineID) bool {
	return slices.ContainsFunc(p.Retire, func(c Change) bool { return c.Machine == id })
}
