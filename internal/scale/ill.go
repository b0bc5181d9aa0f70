package scale

import (
	"time"

	"github.com/shoal-pool/shoal"
)

// illAfter is how long an endpoint must not answer until its machine is replaced, once nobody is there: what ended
// by itself is started again within seconds.
const illAfter = time.Minute

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
		p.retire(m, "ill", "%s does not answer there, and nobody is on it: %s", m.Ill[0].Endpoint, m.Ill[0].Reason)
	}
}

// ill reports whether a machine that runs has an endpoint that does not answer: it serves those who are there, and its
// place is not counted on.
func (m *Machine) ill() bool { return m.State == shoal.MachineReady && len(m.Ill) > 0 }
