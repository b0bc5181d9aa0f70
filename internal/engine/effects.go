package engine

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

// effect is something to be asked of a provider.
type effect struct {
	verb     fleet.Verb
	machine  shoal.MachineID
	pool     shoal.PoolName
	provider string
	spec     provider.MachineSpec // of Create and Start
}

// Limits of effects.
const (
	effectTime  = time.Minute // for one call: none waits for an outcome
	retryFirst  = time.Second
	retryLast   = time.Minute
	holdFirst   = 15 * time.Second
	holdLast    = 2 * time.Minute
	slotsNoEnd  = 1 << 20
	overdueTime = 5 * time.Second // beyond effectTime, for a call that does not heed its context
)

// launch begins an effect. One at a time is made for a machine.
func (e *Engine) launch(ctx context.Context, fx effect) {
	e.mu.Lock()
	t := e.tracks[fx.machine]
	if t.Busy {
		e.mu.Unlock()
		return
	}
	t.Busy, t.stuck, t.Verb, t.provider, t.Fatal = true, false, fx.verb, fx.provider, ""
	e.tracks[fx.machine] = t
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, effectTime)
	late := time.AfterFunc(effectTime+overdueTime, func() { e.overdue(fx) })
	go func() {
		err := e.call(ctx, fx)
		cancel()
		late.Stop()
		e.landing(fx, err)
	}()
}

func (e *Engine) call(ctx context.Context, fx effect) error {
	p := e.cfg.Providers[fx.provider]
	switch fx.verb {
	case fleet.Create:
		return p.Create(ctx, fx.spec)
	case fleet.Start:
		return p.Start(ctx, fx.spec)
	case fleet.Stop:
		return p.Stop(ctx, fx.machine)
	}
	return p.Delete(ctx, fx.machine)
}

// overdue frees the place of a call that does not come back. Its machine stays as it is until it does.
func (e *Engine) overdue(fx effect) {
	e.mu.Lock()
	t := e.tracks[fx.machine]
	t.stuck = t.Busy
	e.tracks[fx.machine] = t
	e.mu.Unlock()
	e.cfg.Log.Error("engine: a provider does not come back from a call", "provider", fx.provider, "call", fx.verb, "machine", fx.machine)
	e.Wake()
}

// landing keeps what became of an effect, for the next pass.
func (e *Engine) landing(fx effect, err error) {
	now := time.Now()
	var typed *provider.Error
	code := provider.Transient
	if errors.As(err, &typed) {
		code = typed.Code
	}
	if code == provider.NotFound && fx.verb == fleet.Delete {
		err = nil
	}
	e.mu.Lock()
	t := e.tracks[fx.machine]
	t.Busy, t.stuck, t.Ended, t.Error, t.Next = false, false, now, "", time.Time{}
	making := fx.verb == fleet.Create || fx.verb == fleet.Start
	switch {
	case err == nil:
		t.fails = 0
		t.Accepted = t.Accepted || fx.verb == fleet.Create
		if making {
			delete(e.holds, fx.pool)
		}
	case making && (code == provider.NoCapacity || code == provider.Quota):
		h := e.holds[fx.pool]
		until := now.Add(min(holdFirst<<min(h.fails, 10), holdLast))
		if typed.Until.After(now) {
			until = typed.Until
		}
		e.holds[fx.pool] = hold{fleet.Hold{Until: until, Reason: err.Error()}, h.fails + 1}
		t.Next = until
	case making && (code == provider.Denied || code == provider.Invalid):
		t.Fatal = err.Error()
	default:
		t.Error = err.Error()
		t.Next = now.Add(min(retryFirst<<min(t.fails, 10), retryLast))
		t.fails++
	}
	e.tracks[fx.machine] = t
	e.landed = now
	e.mu.Unlock()
	if err != nil {
		e.cfg.Log.Warn("engine: a provider refused a call", "provider", fx.provider, "call", fx.verb, "machine", fx.machine, "err", err)
	}
	if w := e.watchers[fx.provider]; w != nil {
		w.look()
	}
	e.Wake()
}

// slots is how many Creates and Starts a provider may be given now.
func (e *Engine) slots(m memory, name string) int {
	most := e.cfg.Providers[name].Capabilities().Parallel
	if most <= 0 {
		return slotsNoEnd
	}
	for _, t := range m.tracks {
		if t.Busy && !t.stuck && t.provider == name && (t.Verb == fleet.Create || t.Verb == fleet.Start) {
			most--
		}
	}
	return max(most, 0)
}

// flying reports whether effects are under way.
func (e *Engine) flying() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.tracks {
		if t.Busy && !t.stuck {
			return true
		}
	}
	return false
}

// land waits for effects under way, for a time.
func (e *Engine) land(limit time.Duration) {
	for until := time.Now().Add(limit); e.flying() && time.Now().Before(until); {
		time.Sleep(5 * time.Millisecond)
	}
}
