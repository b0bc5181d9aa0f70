package main

import (
	"context"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agent"
	"github.com/shoal-pool/shoal/internal/host/tasks"
	"github.com/shoal-pool/shoal/internal/host/vault"
)

// readyApps starts apps when the homes of their users are back, and with the secrets of their sessions.
type readyApps struct {
	agent.Apps
	vault   *vault.Vault
	lookup  func(shoal.UserName) (tasks.Person, bool)
	notices notices
	log     logger

	mu      sync.Mutex
	waiting map[shoal.AppID]bool
}

type logger interface{ Warn(msg string, args ...any) }

func (r *readyApps) Start(o api.AppOrder) {
	r.heard(o.User)
	homes := readRoster()
	if _, ok := homes.Homes[o.User]; !ok && len(r.vault.Wanted()) == 0 {
		r.Apps.Start(o)
		return
	}
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = map[shoal.AppID]bool{}
	}
	r.waiting[o.ID] = true
	r.mu.Unlock()
	go func() {
		r.bring(homes, o.User, bringTime)
		o = r.withSecrets(o)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.waiting[o.ID] { // nobody has stopped it meanwhile
			delete(r.waiting, o.ID)
			r.Apps.Start(o)
		}
	}()
}

func (r *readyApps) Stop(id shoal.AppID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
	r.Apps.Stop(id)
}

// Want is all that there should be. Those of homes that are not back yet begin a little later.
func (r *readyApps) Want(orders []api.AppOrder, doors []string) {
	homes := readRoster()
	users := map[shoal.UserName]bool{}
	for _, o := range orders {
		users[o.User] = true
		r.heard(o.User)
	}
	var all sync.WaitGroup
	for name := range users {
		all.Go(func() { r.bring(homes, name, lockTime) }) // who called us has other things to do
	}
	for i, o := range orders {
		if o.Command != "" { // else it runs already
			all.Go(func() { orders[i] = r.withSecrets(o) })
		}
	}
	all.Wait()
	r.Apps.Want(orders, doors)
}

// heard lets a user's pages ask what she is told.
func (r *readyApps) heard(user shoal.UserName) {
	p, ok := r.lookup(user)
	if !ok {
		return
	}
	if err := r.notices.open(p.UID, p.GID); err != nil {
		r.log.Warn("pages of notebooks do not show warnings", "user", user, "error", err)
	}
}

func (r *readyApps) bring(homes roster, name shoal.UserName, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, err := homes.do(ctx, "restore", name); err != nil {
		r.log.Warn("a home is not brought back", "user", name, "error", err)
	}
}

// startTime is how long an app may take from its order to its first process, which keeps its user's secrets in place.
const startTime = time.Minute

// withSecrets adds to an order what its user's sessions get. Without an answer the app starts without.
func (r *readyApps) withSecrets(o api.AppOrder) api.AppOrder {
	p, ok := r.lookup(o.User)
	if !ok || len(r.vault.Wanted()) == 0 {
		return o
	}
	if err := r.vault.Came(o.User, os.Getpid()); err != nil {
		r.log.Warn("an app has no secrets", "app", o.ID, "user", o.User, "error", err)
		return o
	}
	time.AfterFunc(startTime, func() { r.vault.Went(o.User, os.Getpid()) })
	got, err := confide(context.Background(), r.vault, vault.Owner{User: o.User, UID: p.UID, GID: p.GID})
	if err != nil {
		r.log.Warn("an app has no secrets", "app", o.ID, "user", o.User, "error", err)
	}
	o.Env = maps.Clone(o.Env)
	if o.Env == nil {
		o.Env = map[string]string{}
	}
	for variable, value := range got.Values {
		o.Env[variable+"_FILE"] = api.SessionSecretFile(o.User, variable)
		if !strings.Contains(string(value), "\x00") { // no variable can hold one
			o.Env[variable] = string(value)
		}
	}
	return o
}
