package scale

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/calendar"
)

// State is a pool as it is.
type State struct {
	Pool     shoal.Pool
	Machines []Machine // of the pool; those gone are left out
	Waiting  int       // logins that wait for a seat, each user once
	Queue    []Queue   // tasks that wait, a line for each size
	// Reserved is what firm tasks leave alone of a machine.
	Reserved shoal.Resources
	Samples  []Sample  // what was measured before, oldest first, for as long as Longest says
	Changed  time.Time // when a rule last changed the pool
	// Held: the provider has no room for more machines until then, and why.
	Held    Hold
	Rollout Rollout
	// Spent is what the pool's machines have cost since the day and the month began, where its clock is.
	Spent shoal.Ceiling
}

// Hold is how long a provider has no room.
type Hold struct {
	Until  time.Time
	Reason string
}

// Machine is a machine with who is on it.
type Machine struct {
	shoal.Machine
	Sessions int             // seats taken
	Tasks    int             // running there
	Used     shoal.Resources // by those tasks
	Firm     shoal.Resources // by firm ones of those tasks
	// Seats is what is there for nobody but a user: what her sessions entitle her to beside her own tasks.
	Seats map[shoal.UserName]shoal.Resources
	// Known: it is certain who is there. An agent that is not heard from leaves it open.
	Known bool
	// Suspect: somebody was to have a seat there, and it did not answer. Who waits does not wait for its seats.
	Suspect bool
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
	Each      int            // at most so many on one machine; 0: as many as fit
	Firm      bool           // they are never told to go, and have only what is not reserved
	User      shoal.UserName // whose they are, if she has a seat on a machine
}

// Decision is what should become of a pool.
type Decision struct {
	Create int      // so many new machines
	Retire []Change // to be deleted now
	Cordon []Change // to take nobody new, and go when empty
	Roll   []Change // the same, because they are old: the rollout's cordon
	Force  []Change // to be deleted now with whoever is there, as the pool's deadline says
	// Restore are machines whose cordons of the autoscaler's and the rollout's are taken back.
	Restore []shoal.MachineID
	// Await are empty machines whose idle time begins anew: people who are sent away from others come back.
	Await []shoal.MachineID
	// Rule is what a rule found, if it is by one that the pool grows or shrinks.
	Rule string
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

// OutdatedAfter is for how long an outdated machine is empty until it is replaced; that of the pool, if that is shorter.
const OutdatedAfter = time.Minute

// The patience of the autoscaler.
const (
	defaultIdle   = 30 * time.Minute
	unneededAfter = 10 * time.Second // a request that nobody needs any more is dropped
	silentAfter   = 5 * time.Minute  // a machine that does not answer and holds nobody is replaced
)

// Decide says what should become of a pool.
func Decide(s State, now time.Time) Decision {
	p := newPlan(s, now)
	p.shrink()
	p.grow()
	p.clear()
	p.stayOpen()
	p.say()
	return p.Decision
}

// plan is a Decision being made.
type plan struct {
	State
	Decision
	now     time.Time
	bounds  Bounds
	limit   int // at most so many machines
	atFirst int // served before anything was decided
	alive   int // that count against the limit
	fixed   bool
	serving []*Machine // take people and tasks, or will
	reserve []*Machine // cordons of our own are all that keeps people off
	need    need       // what is short
	missing int        // machines that are wanted, and not made for now
}

func newPlan(s State, now time.Time) *plan {
	p := &plan{State: s, now: now, bounds: BoundsOf(s.Pool, now)}
	p.Pool.Size, p.limit = p.bounds.Size, p.bounds.Max
	p.due(p.bounds.Next)
	if f := s.Pool.Fixed; f != nil && (f.Until.IsZero() || now.Before(f.Until)) {
		p.fixed, p.limit = true, min(f.Size, s.Pool.Size.Max) // a hand may do what a schedule does not
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
		case m.Stale && m.State != shoal.MachineReady, m.ill():
		case len(m.Cordons) == 0 || !m.Old() && onlyOf(m.Cordons, shoal.CordonRollout):
			p.serving = append(p.serving, m)
		case m.State == shoal.MachineReady && onlyOurs(m.Cordons):
			p.reserve = append(p.reserve, m)
		}
	}
	p.atFirst = len(p.serving)
	return p
}

// onlyOurs reports whether all cordons are the autoscaler's and the rollout's.
func onlyOurs(cordons []shoal.Cordon) bool {
	return onlyOf(cordons, shoal.CordonAutoscaler, shoal.CordonRollout)
}

func onlyOf(cordons []shoal.Cordon, owners ...shoal.CordonOwner) bool {
	return !slices.ContainsFunc(cordons, func(c shoal.Cordon) bool { return !slices.Contains(owners, c.Owner) })
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
	p.need.rules = p.byRules()
	more := p.need.machines()
	if p.fixed {
		more = p.limit - len(p.serving)
	}
	if p.broken() > 0 { // for what does not work there are new ones little by little, unless somebody waits
		more = min(more, max(p.need.seats, p.need.tasks, p.need.rules, p.repairs(), len(p.reserve)))
	}
	if p.Pool.Deleting || more <= 0 {
		return
	}
	for _, m := range p.back() {
		if more <= 0 {
			return
		}
		p.Restore = append(p.Restore, m.ID)
		more--
	}
	p.Create = p.affordable(max(p.Create, min(more, p.limit-p.alive), 0))
	p.takeBack()
	if p.need.rule != "" && p.Rule == "" {
		p.Rule = p.need.rule
	}
}

// affordable is how many of some new machines there can be now: none beyond what the pool may cost, and one at a
// time while the provider has no room.
func (p *plan) affordable(n int) int {
	p.missing = n
	if over, until := p.overspent(); over != "" {
		p.due(until)
		n = 0
	}
	if p.now.Before(p.Held.Until) {
		p.due(p.Held.Until)
		asked := slices.ContainsFunc(p.Machines, func(m Machine) bool {
			return m.State == shoal.MachineRequested && m.Wanted == shoal.WantRun && !p.retired(m.ID)
		})
		if n = min(n, 1); asked {
			n = 0
		}
	}
	p.missing -= n
	return n
}

// overspent says which ceiling is reached, and until when it holds.
func (p *plan) overspent() (what string, until time.Time) {
	c := p.Pool.Scale.Cost
	at := p.now.In(p.Pool.Scale.Zone())
	y, m, d := at.Date()
	switch {
	case c.PerMonth > 0 && p.Spent.PerMonth >= c.PerMonth:
		return "month", time.Date(y, m+1, 1, 0, 0, 0, 0, at.Location())
	case c.PerDay > 0 && p.Spent.PerDay >= c.PerDay:
		return "day", calendar.Moment(calendar.Date{Year: y, Month: m, Day: d}.Plus(1), 0, at.Location())
	}
	return "", time.Time{}
}

// stayOpen takes a machine's cordon back, or does not give it one, where else none would take people while machines run: whoever
// logs in finds one. What an operator or a schedule wants without machines is left alone.
func (p *plan) stayOpen() {
	if p.limit == 0 || p.Pool.Deleting {
		return
	}
	open := func(m *Machine) bool {
		then := *m
		if slices.Contains(p.Restore, m.ID) {
			then.Cordons = nil
		}
		return then.Accepts() && !p.retired(m.ID)
	}
	if slices.ContainsFunc(p.serving, open) || slices.ContainsFunc(p.reserve, open) {
		return
	}
	best := slices.DeleteFunc(slices.Clone(p.reserve), func(m *Machine) bool { return m.Wanted != shoal.WantRun || m.Health == shoal.HealthDown })
	slices.SortStableFunc(best, func(a, b *Machine) int { return compareBool(a.rolled(), b.rolled()) })
	if len(best) > 0 {
		p.Restore = append(p.Restore, best[0].ID)
		return
	}
	takes := func(c Change) bool {
		return slices.ContainsFunc(p.Machines, func(m Machine) bool { return m.ID == c.Machine && m.Accepts() })
	}
	for _, given := range []*[]Change{&p.Cordon, &p.Roll} {
		if i := slices.IndexFunc(*given, takes); i >= 0 {
			*given = slices.Delete(*given, i, i+1)
			return
		}
	}
}

func (p *plan) retired(id shoal.MachineID) bool {
	return slices.ContainsFunc(p.Retire, func(c Change) bool { return c.Machine == id })
}
