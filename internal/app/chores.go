package app

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// How long history is kept. The bill's intervals are kept for ever, and so is that a job was and how it ended.
const (
	keepEvents = 200_000
	trimEvery  = 6 * time.Hour
	packEvery  = 15 * time.Second
)

// trim keeps the store from growing without end.
func (a *App) trim(ctx context.Context) error {
	for {
		before := time.Now().Add(-a.opts.KeepHistory)
		_, err := a.store.TrimEvents(ctx, keepEvents, before)
		if err == nil {
			_, err = a.store.TrimHistory(ctx, before)
		}
		if err == nil {
			_, err = a.batch.Prune(ctx, before)
		}
		if err == nil {
			_, err = a.store.TrimScalings(ctx, before)
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("history cannot be trimmed; trying again later", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(trimEvery):
		}
	}
}

// pack keeps the store small while jobs end: a moment after something changed, so that it does not get in
// the way of what is going on, nor of a start.
func (a *App) pack(ctx context.Context) error {
	for {
		changed := a.store.Changed()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(packEvery):
		}
		if _, err := a.store.Pack(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("attempts cannot be packed; trying again later", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// retire keeps the gateway's standing connections to machines from serving logins of users whose keys or
// groups have changed: such a connection still has the rights it was opened with.
func (a *App) retire(ctx context.Context) error {
	since := a.store.Rev()
	for {
		for e, err := range a.store.WatchOthers(ctx, since) {
			if err != nil {
				a.log.Warn("changes of users cannot be followed; trying again", "err", err)
				break
			}
			since = e.Rev
			a.retireFor(ctx, e)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

func (a *App) retireFor(ctx context.Context, e shoal.Event) {
	switch e.Kind {
	case shoal.ObjectUser:
		a.front.Retire(shoal.UserName(e.Name))
		a.pages.Forget(shoal.UserName(e.Name))
	case shoal.ObjectGroup: // who was a member is not known any more
		var users []shoal.User
		err := a.store.View(ctx, func(tx *store.Tx) (err error) {
			users, err = tx.Users().List()
			return err
		})
		if err != nil {
			a.log.Warn("the users of a changed group cannot be read", "group", e.Name, "err", err)
		}
		for _, u := range users {
			a.front.Retire(u.Name)
		}
	}
}
