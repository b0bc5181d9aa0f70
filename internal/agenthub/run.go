package agenthub

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
)

const (
	// refreshGap is how often changes of the store are looked at while they come in crowds: most are not
	// about users. The first after a quiet time is looked at at once, and so is one that somebody waits for.
	refreshGap = 100 * time.Millisecond
	// refreshRest is how many times as long as a look took nobody looks again: of ten thousand users each
	// change is work.
	refreshRest = 4
	// refreshRetry is when a store that does not answer is asked again.
	refreshRetry = time.Second
)

// Run follows the store until ctx ends, and has changed accounts sent to all machines they concern.
func (h *Hub) Run(ctx context.Context) error {
	said := "" // the same trouble is logged once
	for {
		changed := h.cfg.Store.Changed()
		looked := time.Now()
		err := h.refresh(ctx)
		gap := max(refreshGap, (1+refreshRest)*time.Since(looked))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			said = ""
		default:
			gap = refreshRetry
			if said != err.Error() {
				said = err.Error()
				h.cfg.Log.Log(ctx, shoal.KindOf(err).Meaning().Level, "agents: cannot read the accounts, trying again", "err", err)
			}
			changed = nil
		}
		if changed != nil {
			select {
			case <-changed:
			case <-h.poke:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		rest := time.NewTimer(time.Until(looked.Add(gap)))
		select {
		case <-rest.C:
		case <-h.poke:
		case <-ctx.Done():
		}
		rest.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
