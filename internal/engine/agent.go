package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/internal/store"
)

// amend changes one machine in a transaction of its own, with what follows from it. A change of its
// state is told to the next pass.
func (e *Engine) amend(ctx context.Context, id shoal.MachineID, change func(*store.Tx, *shoal.Machine) (sentence string, err error)) (shoal.Machine, error) {
	var v verdict
	var m shoal.Machine
	err := e.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		v = verdict{}
		was, err := tx.Machines().Get(id)
		if err != nil {
			return err
		}
		m = was
		sentence, err := change(tx, &m)
		if err != nil {
			return err
		}
		p, err := tx.Pools().Get(m.Pool)
		if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return err
		}
		v.rows = []*row{{Machine: m, was: was}}
		v.follow(was, m, p.Price, sentence)
		if err := v.store(tx); err != nil {
			return err
		}
		m, err = tx.Machines().Get(id)
		return err
	})
	if err != nil {
		return shoal.Machine{}, err
	}
	for _, id := range v.gone {
		e.cfg.Gone(id)
	}
	if len(v.events) > 0 {
		e.Wake()
	}
	return m, nil
}

// starting returns an error unless a machine is in its start of that epoch.
func starting(m *shoal.Machine, epoch int) error {
	switch {
	case m.Epoch != epoch:
		return shoal.Errorf(shoal.KindConflict, "machine %s is in its start %d, not %d", m.ID, m.Epoch, epoch)
	case m.Wanted != shoal.WantRun:
		return shoal.Errorf(shoal.KindConflict, "machine %s is not wanted any more%s", m.ID, because(m.Reason))
	case m.State == shoal.MachineRequested || m.State == shoal.MachineBooting || m.State == shoal.MachineReady:
		return nil
	}
	return shoal.Errorf(shoal.KindConflict, "machine %s is %s", m.ID, m.State)
}

// Joined puts on record that a machine's agent has joined, and the machine's own ssh host key.
// KindConflict if the start is not the current one or the machine is not wanted any more.
func (e *Engine) Joined(ctx context.Context, id shoal.MachineID, epoch int, hostKey string) error {
	_, err := e.amend(ctx, id, func(_ *store.Tx, m *shoal.Machine) (string, error) {
		if err := starting(m, epoch); err != nil {
			return "", err
		}
		fleet.Accepted(m, clock()) // it runs: its provider has accepted it, whatever was heard of that
		m.HostKey = hostKey
		return "", nil
	})
	if err != nil {
		return fmt.Errorf("cannot let machine %s join: %w", id, err)
	}
	return nil
}

// errNoAddress: the provider has not said yet where the machine is.
var errNoAddress = errors.New("its provider has not told its address yet")

// Boot puts on record how far a machine has come. A machine that is ready already stays so, whatever
// is told again. KindConflict if the start is not the current one or the machine is not wanted any
// more; KindUnavailable if it cannot be ready yet because its address is not known.
func (e *Engine) Boot(ctx context.Context, id shoal.MachineID, epoch int, r api.BootReport) error {
	err := e.boot(ctx, id, epoch, r)
	if errors.Is(err, errNoAddress) { // perhaps nobody looked since
		if err = e.lookFor(ctx, id); err == nil {
			err = e.boot(ctx, id, epoch, r)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot take the report of machine %s: %w", id, err)
	}
	return nil
}

func (e *Engine) boot(ctx context.Context, id shoal.MachineID, epoch int, r api.BootReport) error {
	_, err := e.amend(ctx, id, func(_ *store.Tx, m *shoal.Machine) (string, error) {
		if err := starting(m, epoch); err != nil {
			return "", err
		}
		if m.State == shoal.MachineReady {
			return "", nil
		}
		now := clock()
		fleet.Accepted(m, now)
		switch {
		case r.Error != "":
			fleet.Failed(m, lastWords(r), now)
		case r.Ready:
			if m.Address == "" {
				m.Address = e.addressOf(m.Provider, id)
			}
			if m.Address == "" {
				return "", shoal.Errorf(shoal.KindUnavailable, "%w", errNoAddress)
			}
			m.State, m.Since, m.ReadyAt, m.Reason, m.Health = shoal.MachineReady, now, now, "", shoal.HealthUp
			m.IdleAt, m.LastSeen = now, now
		case r.Progress != "":
			m.Reason = r.Progress
		}
		return "", nil
	})
	return err
}

// lastWords is an agent's error with the end of what its setup said.
func lastWords(r api.BootReport) string {
	log := strings.TrimSpace(r.Log)
	if log == "" {
		return r.Error
	}
	const most = 400
	if len(log) > most {
		log = "…" + strings.ToValidUTF8(log[len(log)-most:], "")
	}
	return r.Error + "; the last it said: " + strings.Join(strings.FieldsFunc(log, func(c rune) bool { return c == '\n' || c == '\r' }), " | ")
}

// addressOf is where a provider last showed a machine; empty if it did not.
func (e *Engine) addressOf(name string, id shoal.MachineID) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sights[name].seen; s != nil {
		return s.Machines[id].Address
	}
	return ""
}

// lookFor observes the provider of a machine.
func (e *Engine) lookFor(ctx context.Context, id shoal.MachineID) error {
	var m shoal.Machine
	err := e.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		m, err = tx.Machines().Get(id)
		return err
	})
	if err != nil {
		return err
	}
	if w := e.watchers[m.Provider]; w != nil {
		e.observe(ctx, w)
	}
	return nil
}

// Connected tells that the stream of a machine's agent has opened, or broken.
func (e *Engine) Connected(id shoal.MachineID, up bool) {
	e.mu.Lock()
	l, known := e.links[id]
	if !known || l.up != up {
		l.up, l.since = up, time.Now()
	}
	e.links[id] = l
	e.mu.Unlock()
	if !up {
		// A machine that died is seen by its provider sooner than silence tells.
		for _, w := range e.watchers {
			w.look()
		}
	}
	e.Wake()
}

// Suspect tells that a machine did not answer a front end: until then, who waits for a seat does not wait for one of its.
func (e *Engine) Suspect(id shoal.MachineID, until time.Time) {
	e.mu.Lock()
	e.suspects[id] = until
	e.mu.Unlock()
	e.Wake()
}

// How often agents' reports are stored.
const (
	flushEvery = 20 * time.Second // at most, when a load has changed
	seenEvery  = 10 * time.Minute // otherwise
)

// Seen tells that an agent has reported, and the load of its machine if it said so. It costs nothing;
// the report is stored when it is worth it.
func (e *Engine) Seen(id shoal.MachineID, load *shoal.Load) {
	now := time.Now()
	e.mu.Lock()
	l := e.links[id]
	first := l.seen.Before(l.since) // since it connected: now it may be known who is there
	l.seen = now
	if load != nil {
		l.load = *load
	}
	if l.storedSeen.IsZero() {
		l.storedSeen = now
	}
	e.links[id] = l
	flush := now.Sub(l.storedSeen) >= seenEvery || scalings.Differs(l.load, l.stored)
	if flush = flush && e.flushAt.IsZero(); flush {
		e.flushAt = later(now, e.flushed.Add(flushEvery))
	}
	e.mu.Unlock()
	if first || flush {
		e.Wake()
	}
}
