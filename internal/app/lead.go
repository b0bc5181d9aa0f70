package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/providers/local"
	"github.com/shoal-pool/shoal/internal/providers/program"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/postgres"
	"github.com/shoal-pool/shoal/provider"
)

// openStore opens the store. With a database that other servers use too it waits until none of them leads.
func (a *App) openStore(ctx context.Context) (*store.DB, error) {
	if a.opts.Database == "" {
		return file.Open(ctx, a.opts.path("shoal.db"))
	}
	return postgres.Open(ctx, a.opts.Database, postgres.Options{Standby: func() {
		a.log.Info("another server leads; this one stands by until it may take over", "data", a.opts.Data)
	}})
}

// sameKeys refuses to lead with other keys than those of the servers before: users' and machines' keys and secrets would be
// good for nothing.
func (a *App) sameKeys(ctx context.Context) error {
	if a.store.Epoch() == 0 {
		return nil
	}
	const setting = "keys"
	sum := sha256.New()
	for _, key := range [][]byte{a.keys.gatewayHost.PublicKey().Marshal(), a.keys.userCA.PublicKey().Marshal(), a.keys.hostCA.PublicKey().Marshal(),
		a.keys.agents, []byte(a.keys.secrets)} {
		part := sha256.Sum256(key)
		sum.Write(part[:])
	}
	mine := hex.EncodeToString(sum.Sum(nil))
	return a.store.Update(ctx, func(tx *store.Tx) error {
		known, err := tx.Setting(setting)
		if err != nil || known == mine {
			return err
		}
		if known != "" {
			return shoal.Errorf(shoal.KindConflict, "cannot serve: the keys in %s are not those that the database was used with", a.opts.path("keys")).
				WithHint("copy the directories keys and tls of the server that used it before")
		}
		return tx.SetSetting(setting, mine)
	})
}

// lead returns once another server leads. What this one still does is of no effect, so it ends without taking anything down.
func (a *App) lead(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.store.Lost():
		a.superseded.Store(true)
		return shoal.Errorf(shoal.KindConflict, "another server has taken over").
			WithHint("start this one again: it will stand by; a service manager does that by itself")
	}
}

// beat is how often agents hear of this server, where another may take over.
func (a *App) beat() time.Duration {
	if a.store.Epoch() == 0 {
		return 0
	}
	return 2 * time.Second
}

// ledAgents has agents know who leads: they refuse whoever led before, and tell him so.
func (a *App) ledAgents(h http.Handler) http.Handler {
	epoch := a.store.Epoch()
	if epoch == 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.LeadHeader, strconv.FormatInt(epoch, 10))
		if known, err := strconv.ParseInt(r.Header.Get(api.LeadHeader), 10, 64); err == nil && known > epoch {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(api.Problem{Type: "about:blank", Title: "Service Unavailable", Status: http.StatusServiceUnavailable,
				Kind: shoal.KindUnavailable, Detail: "another server leads"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

// led has providers do nothing when another server may lead. What they see they may tell at any time.
func (a *App) led(all map[string]provider.Provider) map[string]provider.Provider {
	if a.store.Epoch() == 0 {
		return all
	}
	led := map[string]provider.Provider{}
	for name, p := range all {
		e := effects{p, a.store.Leads}
		switch p := p.(type) {
		case *local.Provider:
			led[name] = ledLocal{localProvider{p}, e}
		case *program.Provider:
			led[name] = ledProgram{programProvider{p}, e}
		default:
			led[name] = ledOther{otherProvider{p}, e}
		}
	}
	return led
}

// A provider with its own methods, but those of effects in place of what changes something.
type (
	localProvider   struct{ *local.Provider }
	programProvider struct{ *program.Provider }
	otherProvider   struct{ provider.Provider }
	ledLocal        struct {
		localProvider
		effects
	}
	ledProgram struct {
		programProvider
		effects
	}
	ledOther struct {
		otherProvider
		effects
	}
)

// effects are the methods of a provider that change something.
type effects struct {
	of    provider.Provider
	leads func() error
}

// Create is of provider.Provider, as those that follow.
func (e effects) Create(ctx context.Context, spec provider.MachineSpec) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Create(ctx, spec)
}

// Start starts a machine.
func (e effects) Start(ctx context.Context, spec provider.MachineSpec) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Start(ctx, spec)
}

// Stop stops a machine.
func (e effects) Stop(ctx context.Context, id shoal.MachineID) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Stop(ctx, id)
}

// Delete removes a machine.
func (e effects) Delete(ctx context.Context, id shoal.MachineID) error {
	if err := e.leads(); err != nil {
		return err
	}
	return e.of.Delete(ctx, id)
}
