package sched

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// What was used counts half after a halfLife. What is in use counts as if it went on for lookahead:
// so that users take turns when a pool fills up, instead of the first getting all of it.
const (
	halfLife  = 7 * 24 * time.Hour
	lookahead = time.Hour
)

// unit is in how many parts the rate of a machine is counted: sums of whole numbers come out the same in any order.
const unit = 1_000_000

// account is a user's within a group: what was used on it, and what waits.
//
// Usage is kept as it was worth at the state's reference time: a charge at t counts
// 2^((t-reference)/halfLife). So time passes for all alike without a change to any, and nobody's
// order depends on when somebody looked.
type account struct {
	person  *person
	party   *party
	settled float64 // seconds of a machine, by what has ended
	since   float64 // sum of rate · weight of its start, over what runs
	rate    int64   // of what runs, in units
	planned int64   // of what the present pass would start
	queues  [priorities]queue
	brief   map[needs]int // how many tasks in a row were brief; memory of Plan
}

// person is a user in a pool, whatever the account.
type person struct {
	name  shoal.UserName
	tasks int
	using shoal.Resources
	seats []*machine // where she is logged in
}

// party is a group in a pool.
type party struct {
	name     shoal.GroupName
	accounts []*account
	tasks    int
	using    shoal.Resources
}

func (p *pool) account(group shoal.GroupName, user shoal.UserName) *account {
	if a := p.accounts[[2]string{string(group), string(user)}]; a != nil {
		return a
	}
	g := p.parties[group]
	if g == nil {
		g = &party{name: group}
		p.parties[group] = g
	}
	a := &account{person: p.person(user), party: g}
	p.accounts[[2]string{string(group), string(user)}] = a
	g.accounts = append(g.accounts, a)
	return a
}

func (p *pool) person(name shoal.UserName) *person {
	u := p.people[name]
	if u == nil {
		u = &person{name: name}
		p.people[name] = u
	}
	return u
}

// waits reports whether something of a priority waits.
func (a *account) waits(priority Priority) bool { return len(a.queues[priority].list) > 0 }

// rate is the part of a machine that so much takes, by the resource of which it takes most.
func (p *pool) rate(r shoal.Resources, nodes int) int64 {
	m := p.Machine
	if m == (shoal.Resources{}) {
		m = shoal.Resources{CPUs: 1000, Memory: 4 << 30, GPUs: 1}
	}
	part := func(a, of float64) float64 {
		if of <= 0 {
			return 0
		}
		return a / of
	}
	f := max(part(float64(r.CPUs), float64(m.CPUs)), part(float64(r.Memory), float64(m.Memory)), part(float64(r.GPUs), float64(m.GPUs)))
	return max(1, int64(math.Ceil(f*unit))) * int64(max(nodes, 1))
}

// weight is what a second at t counts beside one at the reference time.
func (s *State) weight(t instant) float64 {
	return math.Exp2(float64(t-s.reference) / float64(halfLife))
}

// integral turns a difference of weights into seconds: what runs is charged continuously.
const integral = float64(halfLife/time.Second) / math.Ln2

// rebase moves the reference time long before weights overflow.
func (s *State) rebase(now instant) {
	if s.reference == 0 {
		s.reference = now
	}
	if time.Duration(now-s.reference) < 100*halfLife {
		return
	}
	f := 1 / s.weight(now)
	s.reference = now
	for _, p := range s.pools {
		for _, g := range p.parties {
			for _, a := range g.accounts {
				a.settled, a.since = a.settled*f, a.since*f
			}
		}
	}
}

// charge begins to count what a task takes.
func (s *State) charge(r *run) {
	r.account.rate += r.rate
	r.account.since += float64(r.rate) * s.weight(r.placed)
}

// settle ends that.
func (s *State) settle(r *run, at instant) {
	a := r.account
	begun := s.weight(r.placed)
	a.rate -= r.rate
	a.since -= float64(r.rate) * begun
	if a.rate == 0 {
		a.since = 0
	}
	if at > r.placed {
		a.settled += integral * float64(r.rate) / unit * (s.weight(at) - begun)
	}
}

// usage is what an account used, as it counts when seconds have a weight.
func (a *account) usage(weight float64) float64 {
	if weight == 0 {
		return 0
	}
	return (a.settled + integral/unit*max(0, float64(a.rate)*weight-a.since)) / weight
}

// claim is what puts an account into its place in line: the less the earlier.
func (a *account) claim(weight float64) float64 {
	return a.usage(weight) + float64(a.rate+a.planned)*(lookahead.Seconds()/unit)
}

// claim is that of all its users, by the group's weight.
func (g *party) claim(weight, share float64) float64 {
	sum := 0.0
	for _, a := range g.accounts {
		sum += a.claim(weight)
	}
	return sum / share
}

// shareOf is a group's weight.
func (s *State) shareOf(g shoal.GroupName) float64 {
	if w := s.shares[g]; w > 0 {
		return w
	}
	return 1
}

// Usage is what users used, by pool, group and name.
func (s *State) Usage(now time.Time) []UserUsage {
	at := moment(now)
	s.rebase(at)
	weight := s.weight(at)
	var all []UserUsage
	for _, p := range s.pools {
		for _, g := range p.parties {
			for _, a := range g.accounts {
				u := UserUsage{Pool: p.Name, Group: g.name, User: a.person.name, Usage: a.usage(weight), Tasks: a.person.tasks, Using: a.person.using}
				if weight > 0 {
					u.Settled = a.settled / weight
				}
				if u.Usage > 0 || a.rate > 0 {
					all = append(all, u)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b UserUsage) int {
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Group, b.Group), cmp.Compare(a.User, b.User))
	})
	return all
}

func (c PutGroups) apply(s *State) {
	s.shares = map[shoal.GroupName]float64(c)
	for _, p := range s.pools {
		p.dirty = true
	}
}

func (c PutUsage) apply(s *State) {
	at := moment(c.At)
	s.rebase(at)
	a := s.pool(c.Pool).account(c.Group, c.User)
	a.settled = c.Usage * s.weight(at)
}
