// Package fake is a provider whose machines exist in memory only. It keeps every
// promise of the seam, and breaks on request in the ways that real ones break:
// it runs full, errs for a while, is slow, sees only half, loses machines. Its
// clock is package time, so in a synctest bubble its machines boot on fake time.
package fake

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Config is how a fake behaves while nothing is broken. The zero value is a provider
// without bounds whose machines run a second after they are accepted.
type Config struct {
	BootTime time.Duration // from Create or Start to running; zero: 1 s, negative: at once
	StopTime time.Duration // from Stop or Delete to stopped or gone; zero: at once
	Capacity int           // machines that run or are about to; zero: no bound
	// Booted is called on a goroutine of its own whenever a machine has come to run: the place for a
	// fake agent. Its context ends when the machine stops, dies or is deleted; it must return then.
	Booted       func(ctx context.Context, spec provider.MachineSpec)
	Capabilities provider.Capabilities // zero: mounts by the provider, user slices, stop
}

// Provider is a fake. It implements provider.Provider; all methods may be called concurrently.
type Provider struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	hooks  sync.WaitGroup

	mu       sync.Mutex
	machines map[shoal.MachineID]*machine
	faults   faults
	calls    []Call
	made     int // counts machines, for their addresses
}

var _ provider.Provider = (*Provider)(nil)

// machine is a machine in memory.
type machine struct {
	spec     provider.MachineSpec
	phase    provider.Phase
	reason   string
	outdated string
	trouble  string
	address  string
	stuck    bool // its Create failed half-way: it never comes to run
	doomed   bool // it goes when it has stopped
	timer    *time.Timer
	power    context.CancelFunc // ends the hook; nil unless it runs
}

// New makes a fake without machines.
func New(cfg Config) *Provider {
	if cfg.BootTime == 0 {
		cfg.BootTime = time.Second
	}
	if cfg.Capabilities == (provider.Capabilities{}) {
		cfg.Capabilities = provider.Capabilities{Mounts: provider.MountsByProvider, UserSlices: true, Stop: true}
	}
	p := &Provider{cfg: cfg, machines: map[shoal.MachineID]*machine{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends every machine and waits for the hooks to return.
func (p *Provider) Close() {
	p.cancel()
	p.mu.Lock()
	for _, m := range p.machines {
		m.halt()
	}
	p.mu.Unlock()
	p.hooks.Wait()
}

// Capabilities implements provider.Provider.
func (p *Provider) Capabilities() provider.Capabilities { return p.cfg.Capabilities }

// Create implements provider.Provider.
func (p *Provider) Create(ctx context.Context, spec provider.MachineSpec) error {
	if err := p.enter(ctx, OpCreate, spec.ID); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if spec.ID == "" || spec.Token == "" {
		return provider.Errorf(provider.Invalid, "cannot create machine %q: it needs an id and a token", spec.ID)
	}
	if m := p.machines[spec.ID]; m != nil {
		if m.doomed {
			return provider.Errorf(provider.Transient, "cannot create machine %s: the one of that name is being deleted", spec.ID)
		}
		if m.spec.Token == spec.Token {
			if m.stuck {
				m.stuck = false // tried again, and now it works
				p.boot(m)
			}
			return nil
		}
		return provider.Errorf(provider.Invalid, "cannot create machine %s: there is one already, made with another token", spec.ID)
	}
	if err := p.room(spec.ID); err != nil {
		return err
	}
	p.made++
	m := &machine{spec: spec, address: fmt.Sprintf("198.18.%d.%d:22", p.made>>8&0xff, p.made&0xff)}
	p.machines[spec.ID] = m
	if p.faults.halfway > 0 {
		p.faults.halfway--
		m.phase, m.stuck, m.reason = provider.PhaseCreating, true, "half made"
		return provider.Errorf(provider.Transient, "cannot create machine %s: it broke off half-way", spec.ID)
	}
	p.boot(m)
	return nil
}

// Start implements provider.Provider.
func (p *Provider) Start(ctx context.Context, spec provider.MachineSpec) error {
	if err := p.enter(ctx, OpStart, spec.ID); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[spec.ID]
	switch {
	case m == nil:
		return notFound("start", spec.ID)
	case m.doomed:
		return provider.Errorf(provider.Invalid, "cannot start machine %s: it is being deleted", spec.ID)
	case m.phase == provider.PhaseRunning || m.phase == provider.PhaseCreating:
		return nil
	}
	if m.phase != provider.PhaseStopping { // that one still counts
		if err := p.room(spec.ID); err != nil {
			return err
		}
	}
	spec.Token = m.spec.Token // of the Create
	m.spec = spec
	p.boot(m)
	return nil
}

// Stop implements provider.Provider.
func (p *Provider) Stop(ctx context.Context, id shoal.MachineID) error {
	if err := p.enter(ctx, OpStop, id); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	if m == nil {
		return notFound("stop", id)
	}
	if m.phase != provider.PhaseStopped && m.phase != provider.PhaseStopping {
		p.stop(m)
	}
	return nil
}

// Delete implements provider.Provider.
func (p *Provider) Delete(ctx context.Context, id shoal.MachineID) error {
	if err := p.enter(ctx, OpDelete, id); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	if m == nil || m.doomed {
		return nil
	}
	m.doomed = true
	if m.phase != provider.PhaseStopping {
		p.stop(m)
	}
	return nil
}

// Observe implements provider.Provider. Machines come in the order of their ids.
func (p *Provider) Observe(ctx context.Context) (provider.Observation, error) {
	if err := p.enter(ctx, OpObserve, ""); err != nil {
		return provider.Observation{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := provider.Observation{Complete: !p.faults.partial, At: time.Now()}
	ids := make([]shoal.MachineID, 0, len(p.machines))
	for id := range p.machines {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for i, id := range ids {
		if p.faults.partial && i%2 == 0 {
			continue
		}
		m := p.machines[id]
		seen := provider.Observed{ID: id, Pool: m.spec.Pool, ProviderID: "fake/" + string(id), Phase: m.phase,
			Reason: m.reason, Outdated: m.outdated}
		if m.phase == provider.PhaseRunning || m.phase == provider.PhaseUnknown {
			seen.Address, seen.Trouble = m.address, m.trouble
		}
		o.Machines = append(o.Machines, seen)
	}
	return o, nil
}

func notFound(verb string, id shoal.MachineID) error {
	return provider.Errorf(provider.NotFound, "cannot %s machine %s: there is no such machine", verb, id)
}

// room refuses a machine beyond the capacity. The mutex is held, as in all that follow.
func (p *Provider) room(id shoal.MachineID) error {
	have := 0
	for _, m := range p.machines {
		if m.phase != provider.PhaseStopped && m.phase != provider.PhaseFailed {
			have++
		}
	}
	if p.cfg.Capacity > 0 && have >= p.cfg.Capacity {
		return provider.Errorf(provider.NoCapacity, "cannot make machine %s: all %d are in use", id, p.cfg.Capacity)
	}
	return nil
}

// boot lets a machine come to run after its time.
func (p *Provider) boot(m *machine) {
	m.halt()
	m.phase, m.reason = provider.PhaseCreating, ""
	m.after(p, p.cfg.BootTime+p.faults.slow, func() {
		m.phase = provider.PhaseRunning
		if p.cfg.Booted == nil || p.ctx.Err() != nil {
			return
		}
		ctx, cancel := context.WithCancel(p.ctx)
		m.power = cancel
		spec := m.spec
		p.hooks.Go(func() { p.cfg.Booted(ctx, spec) })
	})
}

// stop lets a machine come to rest after its time.
func (p *Provider) stop(m *machine) {
	m.halt()
	m.phase, m.reason = provider.PhaseStopping, ""
	m.after(p, p.cfg.StopTime, func() {
		m.phase = provider.PhaseStopped
		if m.doomed {
			delete(p.machines, m.spec.ID)
		}
	})
}

// halt takes away a machine's power and whatever was going to happen to it.
func (m *machine) halt() {
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
	if m.power != nil {
		m.power()
		m.power = nil
	}
}

// after calls fn with the mutex held when d has passed, unless something else happens to the machine before.
func (m *machine) after(p *Provider, d time.Duration, fn func()) {
	if d <= 0 {
		fn()
		return
	}
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if m.timer == t {
			m.timer = nil
			fn()
		}
	})
	m.timer = t
}
