package app

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
)

// shareSecret is the value of the credentials of a share: a secret that the host has set. The read is on record.
func (a *App) shareSecret(ctx context.Context, share shoal.ShareName, name string) ([]byte, error) {
	return a.secrets.ForShare(ctx, share, shoal.SecretName(name))
}

// renewShares has shares mounted anew whose secret was changed, also while no server ran.
func (a *App) renewShares(ctx context.Context) error {
	if a.images == nil {
		<-ctx.Done()
		return nil
	}
	since := a.store.Rev()
	for {
		all, err := a.secrets.List(ctx, access.Subject{Host: true})
		if err != nil && ctx.Err() == nil {
			a.log.Warn("secrets of shares cannot be followed; trying again", "err", err)
		}
		for _, s := range all {
			if s.Owner == "" {
				a.images.RenewSecret(string(s.Name), s.Updated)
			}
		}
		for e, err := range a.store.WatchOthers(ctx, since) {
			if err != nil {
				break
			}
			since = e.Rev
			if e.Kind == shoal.ObjectSecret && e.Code == "secretSet" && e.User == "" {
				a.images.RenewSecret(e.Name, time.Now())
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
