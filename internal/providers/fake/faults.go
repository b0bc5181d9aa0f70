package fake

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Op is one of the seam's operations.
type Op string

// The operations.
const (
	OpObserve Op = "observe"
	OpCreate  Op = "create"
	OpStart   Op = "start"
	OpStop    Op = "stop"
	OpDelete  Op = "delete"
)

// Call is one operation that was asked for, whether or not it succeeded.
type Call struct {
	Op Op
	ID shoal.MachineID // empty for Observe
	At time.Time
}

// faults is what is broken now.
type faults struct {
	next    map[Op]*failure
	delay   map[Op]time.Duration
	slow    time.Duration
	halfway int
	partial bool
}

// failure makes an operation fail for a number of times; a negative number is for ever.
type failure struct {
	times int
	err   error
}

// Fail lets the next calls of an operation fail with err, all of them if times is negative, none if it is zero.
// Nothing is done by a call that fails.
func (p *Provider) Fail(op Op, times int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults.next == nil {
		p.faults.next = map[Op]*failure{}
	}
	p.faults.next[op] = &failure{times, err}
}

// FailHalfway lets the next Creates make something and then fail: the machine is listed and never runs
// until the Create is repeated.
func (p *Provider) FailHalfway(times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.halfway = times
}

// Delay lets every call of an operation take time, or end with its context.
func (p *Provider) Delay(op Op, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.faults.delay == nil {
		p.faults.delay = map[Op]time.Duration{}
	}
	p.faults.delay[op] = d
}

// Slow adds to the boot time of machines made or started from now on.
func (p *Provider) Slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.slow = d
}

// Partial lets Observe see only every second machine, and say that it is not complete.
func (p *Provider) Partial(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults.partial = on
}

// SetCapacity changes how many machines there can be; zero means no bound. Those that are stay.
func (p *Provider) SetCapacity(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Capacity = n
}

// Kill lets a machine fail by itself, for a reason. It reports whether the machine was there.
func (p *Provider) Kill(id shoal.MachineID, reason string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	if m == nil || m.doomed {
		return false
	}
	m.halt()
	m.phase, m.reason = provider.PhaseFailed, reason
	return true
}

// Miss makes the host of a machine one that does not answer, for a reason; empty: it answers again. What runs there runs on.
func (p *Provider) Miss(id shoal.MachineID, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	m.phase, m.reason, m.trouble = provider.PhaseUnknown, reason, reason
	if reason == "" {
		m.phase = provider.PhaseRunning
	}
}

// Vanish lets a machine disappear, as one that somebody deleted behind the control plane's back.
func (p *Provider) Vanish(id shoal.MachineID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	if m == nil {
		return false
	}
	m.halt()
	delete(p.machines, id)
	return true
}

// Appear makes a running machine that nobody asked for, as a lost database would leave one.
func (p *Provider) Appear(spec provider.MachineSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.machines[spec.ID] = &machine{spec: spec, phase: provider.PhaseRunning, address: "198.18.255.1:22"}
}

// Trouble says of all machines that there are now what is wrong with their shares; empty: nothing.
func (p *Provider) Trouble(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.machines {
		m.trouble = why
	}
}

// Outdate says of all machines that there are now why their image is no longer current.
func (p *Provider) Outdate(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.machines {
		m.outdated = why
	}
}

// Calls lists what was asked for so far, Observes left out.
func (p *Provider) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// Spec returns what a machine was last made or started with.
func (p *Provider) Spec(id shoal.MachineID) (provider.MachineSpec, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.machines[id]
	if m == nil {
		return provider.MachineSpec{}, false
	}
	return m.spec, true
}

// Address returns where a machine's sshd would be, host:port; empty if there is no such machine.
func (p *Provider) Address(id shoal.MachineID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.machines[id]; m != nil {
		return m.address
	}
	return ""
}

// enter records a call and lets it suffer the faults that are set.
func (p *Provider) enter(ctx context.Context, op Op, id shoal.MachineID) error {
	p.mu.Lock()
	if op != OpObserve {
		p.calls = append(p.calls, Call{op, id, time.Now()})
	}
	delay := p.faults.delay[op]
	p.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return provider.Errorf(provider.Transient, "cannot %s: %w", op, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.faults.next[op]
	if f == nil || f.times == 0 {
		return nil
	}
	if f.times > 0 {
		f.times--
	}
	return f.err
}
