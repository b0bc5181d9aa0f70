package scale

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// shrink chooses the machines that go, or should.
func (p *plan) shrink() {
	p.dropUseless()
	p.dropExcess()
	p.repair()
	p.roll()
	p.followRules()
	p.await()
	p.dropIdle()
}

func (p *plan) retire(m *Machine, code, format string, args ...any) {
	p.Retire = append(p.Retire, Change{m.ID, shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)}})
	p.serving = slices.DeleteFunc(p.serving, func(x *Machine) bool { return x == m })
	p.reserve = slices.DeleteFunc(p.reserve, func(x *Machine) bool { return x == m })
}

// mayGo reports whether a machine is the autoscaler's to take: it runs, it is certain that nobody
// is there, and nobody else put a cordon on it.
func (m *Machine) mayGo() bool {
	return m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && m.empty() && m.Known && onlyOurs(m.Cordons)
}

// held reports whether an operator keeps the machine from everybody.
func (m *Machine) held() bool {
	return slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonOperator })
}

// pending reports whether a machine does not run yet.
func (m *Machine) pending() bool {
	return m.State == shoal.MachineRequested || m.State == shoal.MachineBooting || m.State == shoal.MachineStopped
}

// dropUseless takes back requests that were made for a pool as it was, and requests that the
// provider has not accepted and that nobody needs any more.
func (p *plan) dropUseless() {
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.Wanted == shoal.WantRun && m.pending() && m.Stale && m.empty() && !m.held() {
			p.retire(m, "changed", "the pool was changed while the machine was on its way")
		}
	}
	for _, m := range slices.Clone(p.serving) {
		if m.State != shoal.MachineRequested || !m.Started.IsZero() || p.fixed || !p.enoughWithout(m) {
			continue
		}
		if at := m.Since.Add(unneededAfter); p.now.Before(at) {
			p.due(at)
			continue
		}
		p.retire(m, "unneeded", "nobody needs it any more")
	}
}

// enoughWithout reports whether nothing is short without a machine.
func (p *plan) enoughWithout(m *Machine) bool {
	rest := slices.DeleteFunc(slices.Clone(p.serving), func(x *Machine) bool { return x == m })
	return p.enough(rest)
}

// thereWithout are the machines that serve, but one and those on their way: until they are there that one may be needed.
func (p *plan) thereWithout(m *Machine) []*Machine {
	return slices.DeleteFunc(slices.Clone(p.serving), func(x *Machine) bool { return x == m || x.pending() })
}

// enough reports whether nothing is short with so many machines, and no rule would want more.
func (p *plan) enough(on []*Machine) bool {
	return p.lacks(on) <= 0 && !p.wanted(len(on))
}

// dropExcess brings a pool down to its limit: what is not there yet goes first, then what is empty;
// the rest is cordoned and goes when it is empty.
func (p *plan) dropExcess() {
	code, sentence := "max", fmt.Sprintf("the pool may have %s at most", count(p.limit, "machine"))
	switch {
	case p.Pool.Deleting:
		code, sentence = "deleting", "the pool is being deleted"
	case p.fixed:
		code, sentence = "fixed", fmt.Sprintf("the size of the pool was set to %d", p.Pool.Fixed.Size)
	}
	// What is silent or held by an operator serves nobody and is left out: else none might serve.
	members := slices.Concat(p.serving, p.reserve)
	for i := range p.Machines {
		m := &p.Machines[i]
		if p.Pool.Deleting && m.counts() && m.Wanted == shoal.WantRun && m.State != shoal.MachineStopping && !p.retired(m.ID) && !slices.Contains(members, m) {
			members = append(members, m)
		}
	}
	excess := len(members) - p.limit - p.surging(members)
	slices.SortStableFunc(members, byWorth)
	for _, m := range members {
		ours := m.State == shoal.MachineReady && len(m.Cordons) > 0 && onlyOurs(m.Cordons)
		switch {
		case excess <= 0 && (!ours || m.rolled() || p.fixed || !m.mayGo() || !p.enoughWithout(m)):
			continue
		case m.pending() && m.empty() || m.mayGo() || p.Pool.Deleting && m.Known && m.empty():
			p.retire(m, code, "%s", sentence)
		case len(m.Cordons) == 0:
			p.Cordon = append(p.Cordon, Change{m.ID, shoal.Reason{Code: code, Sentence: sentence}})
			p.serving = slices.DeleteFunc(p.serving, func(x *Machine) bool { return x == m })
		}
		excess--
	}
}

// surging is how many machines there may be above the limit: those that have come for old ones.
func (p *plan) surging(members []*Machine) int {
	fresh := 0
	for _, m := range members {
		if !m.Old() {
			fresh++
		}
	}
	if fresh == len(members) || p.Pool.Deleting {
		return 0
	}
	return min(fresh, p.Pool.Surge())
}

// byWorth orders machines by how little is lost with them.
func byWorth(a, b *Machine) int {
	return cmp.Or(
		compareBool(a.Health != shoal.HealthDown, b.Health != shoal.HealthDown),
		compareBool(!a.pending(), !b.pending()),
		compareBool(!a.mayGo(), !b.mayGo()),
		compareBool(len(a.Cordons) == 0, len(b.Cordons) == 0),
		compareBool(!a.Old(), !b.Old()),
		cmp.Compare(a.Sessions, b.Sessions),
		cmp.Compare(a.Tasks, b.Tasks),
		a.IdleAt.Compare(b.IdleAt),
		cmp.Compare(a.ID, b.ID),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (p *plan) idleTime() time.Duration {
	if d := time.Duration(p.Pool.Scale.Idle.After); d > 0 {
		return d
	}
	return defaultIdle
}

// await keeps empty machines while people are sent away from others, at a deadline: they are about to come back.
func (p *plan) await() {
	sent := func(m Machine) bool {
		return m.Sessions > 0 && (m.Wanted != shoal.WantRun || slices.ContainsFunc(p.Force, func(c Change) bool { return c.Machine == m.ID }))
	}
	if !slices.ContainsFunc(p.Machines, sent) {
		return
	}
	for _, m := range p.serving {
		if m.mayGo() && !m.IdleAt.IsZero() && p.now.Sub(m.IdleAt) > time.Minute {
			p.Await = append(p.Await, m.ID)
			m.IdleAt = p.now
		}
	}
}

// dropIdle lets go what has been empty for the pool's idle time, longest first, as long as the rest
// is enough.
func (p *plan) dropIdle() {
	if p.fixed {
		return
	}
	var idle []*Machine
	for _, m := range p.serving {
		if m.mayGo() && !m.IdleAt.IsZero() {
			idle = append(idle, m)
		}
	}
	slices.SortStableFunc(idle, func(a, b *Machine) int {
		return cmp.Or(compareBool(!a.Old(), !b.Old()), a.IdleAt.Compare(b.IdleAt))
	})
	for _, m := range idle {
		rest := p.thereWithout(m)
		if !p.enough(rest) || len(p.reserve) > 0 && len(rest) == 0 {
			continue // what others drain for stays open
		}
		if at := m.IdleAt.Add(p.idleTime()); p.now.Before(at) {
			p.due(at)
			continue
		}
		p.retire(m, "idle", "nobody has been on it for %s", shoal.Duration(p.idleTime()))
	}
}
