package sim

import (
	"errors"
	"math"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

// Cloud is how a cloud behaves.
type Cloud struct {
	Boot      time.Duration // of a machine, in the middle
	Spread    float64       // by so large a part boots differ, most of them
	Stop      time.Duration // of a machine that is deleted
	CallFails float64       // so many calls of all fail
	BootFails float64       // so many machines never come up
	Evictions float64       // of machines, in a day
	Silences  float64       // of machines' agents, in a day: ten minutes each
	QuotaCuts int           // in the whole time: for two hours there is room for so many machines as there are
}

// cloud is one at work. It keeps a ledger: from when to when it had which machine.
type cloud struct {
	w      *world
	has    map[shoal.MachineID]*instance
	ledger time.Duration // of machines that are gone
	quota  int           // -1: none
}

type instance struct {
	phase provider.Phase
	since time.Time // it was accepted
}

var (
	errNoRoom = errors.New("there is no capacity for such machines now")
	errFlaky  = errors.New("the service is not available")
)

func (c *cloud) open(w *world) {
	c.w, c.has, c.quota = w, map[shoal.MachineID]*instance{}, -1
	for range w.Cloud.QuotaCuts {
		at := w.Start.Add(time.Duration(w.rng.Int64N(int64(w.Length))))
		w.plan(at, func() { c.quota = len(c.has) })
		w.plan(at.Add(2*time.Hour), func() { c.quota = -1 })
	}
}

// observe lists what there is, whole and true.
func (c *cloud) observe() *fleet.Seen {
	s := &fleet.Seen{Began: c.w.now, Complete: true, Machines: map[shoal.MachineID]provider.Observed{}}
	for id, i := range c.has {
		s.Machines[id] = provider.Observed{ID: id, Phase: i.phase, Address: "10.0.0.1:22", ProviderID: string(id)}
	}
	return s
}

// call carries out a call at once, or fails.
func (c *cloud) call(verb fleet.Verb, id shoal.MachineID) error {
	w := c.w
	if w.rng.Float64() < w.Cloud.CallFails {
		return errFlaky
	}
	switch verb {
	case fleet.Create, fleet.Start:
		if c.has[id] != nil {
			return nil
		}
		if c.quota >= 0 && len(c.has) >= c.quota {
			return errNoRoom
		}
		c.has[id] = &instance{phase: provider.PhaseCreating, since: w.now}
		c.begin(id)
	case fleet.Delete, fleet.Stop:
		if i := c.has[id]; i != nil && i.phase != provider.PhaseStopping {
			i.phase = provider.PhaseStopping
			w.plan(w.now.Add(w.Cloud.Stop), func() { c.lose(id) })
		}
	}
	return nil
}

// begin boots a machine, and plans what befalls it.
func (c *cloud) begin(id shoal.MachineID) {
	w := c.w
	boot := time.Duration(float64(w.Cloud.Boot) * math.Exp(w.rng.NormFloat64()*w.Cloud.Spread)).Round(time.Second)
	if w.rng.Float64() < w.Cloud.BootFails {
		w.plan(w.now.Add(boot), func() {
			if i := c.has[id]; i != nil && i.phase == provider.PhaseCreating {
				i.phase = provider.PhaseFailed
			}
		})
		return
	}
	w.out.boots = append(w.out.boots, boot)
	w.plan(w.now.Add(boot), func() { c.ready(id) })
	days := w.end.Sub(w.now).Hours() / 24
	if at := w.rng.ExpFloat64() / max(w.Cloud.Evictions, 1e-9); at < days {
		w.plan(w.now.Add(boot+time.Duration(at*24*float64(time.Hour))).Round(time.Second), func() {
			if i := c.has[id]; i != nil && i.phase == provider.PhaseRunning {
				w.out.Evictions++
				c.lose(id)
			}
		})
	}
	if at := w.rng.ExpFloat64() / max(w.Cloud.Silences, 1e-9); at < days {
		w.plan(w.now.Add(boot+time.Duration(at*24*float64(time.Hour))).Round(time.Second), func() {
			if m := w.machines[id]; m != nil {
				m.silent = w.now.Add(10 * time.Minute)
			}
		})
	}
}

// ready is an agent that says that its machine is ready.
func (c *cloud) ready(id shoal.MachineID) {
	i, m := c.has[id], c.w.machines[id]
	if i == nil || i.phase != provider.PhaseCreating {
		return
	}
	i.phase = provider.PhaseRunning
	if m == nil || m.Wanted != shoal.WantRun || m.State != shoal.MachineBooting {
		return
	}
	now := c.w.now
	m.State, m.Since, m.ReadyAt, m.IdleAt, m.Health, m.Reason, m.Address = shoal.MachineReady, now, now, now, shoal.HealthUp, "", "10.0.0.1:22"
}

// lose ends a machine, and its line in the ledger.
func (c *cloud) lose(id shoal.MachineID) {
	if i := c.has[id]; i != nil {
		c.ledger += c.w.now.Sub(i.since)
		delete(c.has, id)
	}
}

// total is the ledger's sum up to now.
func (c *cloud) total() time.Duration {
	sum := c.ledger
	for _, i := range c.has {
		sum += c.w.now.Sub(i.since)
	}
	return sum
}
