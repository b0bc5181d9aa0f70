package app

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// How long history is kept. The bill's intervals are kept for ever.
const (
	keepEvents  = 200_000
	keepHistory = 90 * 24 * time.Hour
	trimEvery   = 6 * time.Hour
)

// trim keeps the store from growing without end.
func (a *App) trim(ctx context.Context) error {
	for {
		_, err := a.store.TrimEvents(ctx, keepEvents, time.Now().Add(-keepHistory))
		if err == nil {
			_, err = a.store.TrimHistory(ctx, time.Now().Add(-keepHistory))
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

// retire keeps the gateway's standing connections to machines from serving logins of users whose keys or
// groups have changed: such a connection still has the rights it was opened with.
func (a *App) retire(ctx context.Context) error {
	since := a.store.Rev()
	for {
		for e, err := range a.store.Watch(ctx, since) {
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
