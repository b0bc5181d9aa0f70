package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// Run does the broker's work until ctx ends: it seats the line, records parts that closed and ends
// sessions that are over. Store errors are waited out.
func (b *Broker) Run(ctx context.Context) error {
	for !b.tries.Do(ctx, "clear stale parts", b.restart) {
		if err := retry.Sleep(ctx, tick); err != nil {
			return err
		}
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { b.tendAll(ctx) })
	for {
		changed := b.cfg.Store.Changed()
		ok := b.tries.Do(ctx, "record closed parts", b.recordClosed)
		ok = b.tries.Do(ctx, "seat the line", b.pass) && ok
		ok = b.tries.Do(ctx, "end sessions", b.sweep) && ok
		if err := b.rest(ctx, changed, ok); err != nil {
			return err
		}
	}
}

// rest waits until there is something to do: at once when poked, soon after a change of the
// store (changes come in crowds), and when a session may end.
func (b *Broker) rest(ctx context.Context, changed <-chan struct{}, ok bool) error {
	waiting, due := b.agenda()
	gap := time.Second // without a line, a change can only mean a machine that went
	var alarm <-chan time.Time
	if waiting {
		gap = 20 * time.Millisecond
	}
	if waiting || !ok {
		alarm = time.After(tick)
	} else if !due.IsZero() {
		alarm = time.After(max(time.Until(due), 100*time.Millisecond))
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.poke:
			return nil
		case <-alarm:
			return nil
		case <-changed:
			changed = nil
			alarm = time.After(gap)
		}
	}
}

// agenda says whether somebody waits, and when the next session may end.
func (b *Broker) agenda() (waiting bool, due time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, at := range b.empty {
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return len(b.line) > 0, due
}

// restart puts on record that the parts of former front ends are gone, and that nobody of theirs
// waits any more. Connections that a former server carries on are seen by the agents; those of gateways of their own
// stay on record until these say what they have.
func (b *Broker) restart(ctx context.Context) error {
	return b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.LiveSessions()
		if err != nil {
			return err
		}
		for _, s := range all {
			was := len(s.Parts)
			s.Parts = slices.DeleteFunc(slices.Clone(s.Parts), func(p shoal.Part) bool { return route.GatewayOf(p.ID) == "" })
			if len(s.Parts) == 0 || len(s.Parts) < was {
				b.carry(s)
			}
			switch {
			case s.State == shoal.SessionWaiting:
				err = finish(tx, s, "the server was restarted while you waited")
			case len(s.Parts) > 0:
				if len(s.Parts) < was {
					_, err = tx.Sessions().Put(s)
				}
			case was > 0 || s.State == shoal.SessionActive:
				err = disconnect(tx, s, "the server was restarted; what lives on the machine is not known yet")
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
