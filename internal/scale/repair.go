package scale

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// illAfter is how long an endpoint must not answer until its machine is replaced, once nobody is there: what ended
// by itself is started again within seconds.
const illAfter = time.Minute

// endsWithin is how long a machine that goes is taken to be on its way: one that its provider cannot delete holds up no other.
const endsWithin = 5 * time.Minute

// repair replaces machines that do not work and hold nobody, as many at a time as the pool says: what is wrong with many
// at once is rather wrong with what they share, and then new ones do not become ready either.
func (p *plan) repair() {
	p.dropSilent()
	p.dropIll()
}

// repairs is how many more machines may be replaced now because they do not work.
func (p *plan) repairs() int {
	n := p.Pool.AtOnce(p.alive)
	for _, m := range p.Machines {
		held := m.State == shoal.MachineRequested && p.now.Before(p.Held.Until) // perhaps for the place of one that is silent
		switch {
		case m.Wanted == shoal.WantRun && m.pending() && !m.Stale && !held,
			m.Wanted == shoal.WantDelete && m.State != shoal.MachineRequested && p.now.Sub(m.Since) < endsWithin,
			p.retired(m.ID):
			n--
		}
	}
	return n
}

// broken counts machines that run and do not work.
func (p *plan) broken() (n int) {
	for i := range p.Machines {
		if m := &p.Machines[i]; m.State == shoal.MachineReady && (m.Health == shoal.HealthDown || m.ill()) {
			n++
		}
	}
	return n
}

// dropSilent replaces machines that have not answered for long and that hold nobody.
func (p *plan) dropSilent() {
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.State != shoal.MachineReady || m.Wanted != shoal.WantRun || m.Health != shoal.HealthDown || !m.empty() || p.retired(m.ID) {
			continue
		}
		down := slices.IndexFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonHealth })
		if down < 0 || m.held() {
			continue
		}
		if at := m.Cordons[down].Since.Add(silentAfter); p.now.Before(at) {
			p.due(at)
			continue
		}
		if p.repairs() <= 0 {
			continue
		}
		p.retire(m, "silent", "it does not answer, and nobody is on it")
	}
}

// dropIll replaces machines of which an endpoint does not answer and that hold nobody.
func (p *plan) dropIll() {
	for i := range p.Machines {
		m := &p.Machines[i]
		if len(m.Ill) == 0 || !m.mayGo() || p.retired(m.ID) {
			continue
		}
		since := m.Ill[0].Since
		for _, x := range m.Ill {
			if x.Since.Before(since) {
				since = x.Since
			}
		}
		at := since.Add(illAfter)
		if idle := m.IdleAt.Add(illAfter); m.IdleAt.IsZero() || idle.After(at) {
			at = idle
		}
		if m.IdleAt.IsZero() || p.now.Before(at) {
			p.due(at)
			continue
		}
		if p.repairs() <= 0 {
			continue
		}
		p.retire(m, "ill", "%s does not answer there, and nobody is on it: %s", m.Ill[0].Endpoint, m.Ill[0].Reason)
	}
}

// ill reports whether a machine that runs has an endpoint that does not answer: it serves those who are there, and its
// place is not counted on.
func (m *Machine) ill() bool { return m.State == shoal.MachineReady && len(m.Ill) > 0 }
