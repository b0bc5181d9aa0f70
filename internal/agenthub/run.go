package agenthub

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal/internal/retry"
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
	tries := retry.New(h.cfg.Log, "agents")
	for {
		changed := h.cfg.Store.Changed()
		looked := time.Now()
		err := h.refresh(ctx)
		gap := max(refreshGap, (1+refreshRest)*time.Since(looked))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !tries.Done(ctx, "read the accounts", err) {
			gap, changed = refreshRetry, nil
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
