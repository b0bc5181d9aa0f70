package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// Broker gives seats; package broker does.
type Broker interface {
	Login(ctx context.Context, req route.Request, partID string, progress func(string)) (route.Target, error)
	Closed(session shoal.SessionID, partID string)
}

// Config is what Apps needs.
type Config struct {
	Store  *store.DB
	Broker Broker
	// Send tells a machine's agent. False: it will not be told, and gets all in its next Snapshot.
	Send func(shoal.MachineID, api.Record) bool
	// URL is where browsers find the gateway, without a slash at its end; empty: nowhere. Nil: the same.
	URL func() string
	// Keep returns once what is on record fits the clock, which may have been set; without that nothing is ended. May be nil.
	Keep func(context.Context) error
	Log  *slog.Logger
}

// Apps keeps the apps. Its methods may be called from any goroutine; apps get on only while Run runs.
type Apps struct {
	cfg Config

	mu      sync.Mutex // guards what follows; never held while waiting or in the store
	known   map[shoal.AppID]shoal.App
	over    map[shoal.AppID]time.Time // when those ended of which an older word may still come
	live    map[key]shoal.AppID
	at      map[string]shoal.AppID             // by address
	lives   map[shoal.AppID]context.CancelFunc // ends the wait for a seat
	used    map[shoal.AppID]time.Time          // not yet stored
	counted map[shoal.AppID]time.Time          // when kernels and terminals were told last
	warned  map[shoal.AppID]time.Time          // of which end users were told
	began   time.Time                          // when Run did
	changed chan struct{}                      // closed when an app changes
	ctx     context.Context                    // of Run; nil: it does not run
	parts   sync.WaitGroup
}

// key is what an app is one of.
type key struct {
	user           shoal.UserName
	pool           shoal.PoolName
	endpoint, name string
}

func keyOf(p shoal.App) key { return key{p.User, p.Pool, p.Endpoint, p.Name} }

// New makes Apps. Run makes them get on.
func New(cfg Config) *Apps {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Send == nil {
		cfg.Send = func(shoal.MachineID, api.Record) bool { return false }
	}
	if cfg.Keep == nil {
		cfg.Keep = func(context.Context) error { return nil }
	}
	if cfg.URL == nil {
		cfg.URL = func() string { return "" }
	}
	return &Apps{cfg: cfg, known: map[shoal.AppID]shoal.App{}, over: map[shoal.AppID]time.Time{}, live: map[key]shoal.AppID{}, at: map[string]shoal.AppID{}, lives: map[shoal.AppID]context.CancelFunc{},
		used: map[shoal.AppID]time.Time{}, counted: map[shoal.AppID]time.Time{}, warned: map[shoal.AppID]time.Time{}, changed: make(chan struct{})}
}

// change is what an update has made of apps.
type change struct {
	tx   *store.Tx
	apps []shoal.App
}

// put stores an app.
func (c *change) put(p shoal.App) (shoal.App, error) {
	p, err := c.tx.Apps().Put(p)
	if err == nil {
		c.apps = append(c.apps, p)
	}
	return p, err
}

// update changes apps, and has those who wait for it know.
func (a *Apps) update(ctx context.Context, f func(*change) error) error {
	var c change
	err := a.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		c = change{tx: tx}
		return f(&c)
	})
	if err == nil {
		a.note(c.apps...)
	}
	return err
}

// note keeps what is known of apps that live. An older word than the one that is known counts for nothing: those who change
// an app at the same time come here in any order.
func (a *Apps) note(apps ...shoal.App) {
	if len(apps) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range apps {
		if _, over := a.over[p.ID]; over || a.known[p.ID].Rev >= p.Rev {
			continue
		}
		k := keyOf(p)
		if was := a.known[p.ID].Address; a.at[was] == p.ID {
			delete(a.at, was)
		}
		if p.Live() && p.Address != "" {
			a.at[p.Address] = p.ID
		}
		if p.Live() {
			a.known[p.ID] = p
		} else {
			a.over[p.ID] = time.Now()
			delete(a.known, p.ID)
			delete(a.used, p.ID)
			delete(a.counted, p.ID)
			delete(a.warned, p.ID)
		}
		switch {
		case p.Live() && !p.Stopping:
			a.live[k] = p.ID
		case a.live[k] == p.ID:
			delete(a.live, k)
		}
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// news is closed when an app changes.
func (a *Apps) news() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// Find returns the app of a user, pool, endpoint and name that lives and is not about to end. It costs no look into
// the store.
func (a *Apps) Find(_ context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, ok := a.live[key{user, pool, endpoint, name}]
	if !ok {
		return shoal.App{}, false
	}
	p := a.known[id]
	if at := a.used[id]; at.After(p.LastActivity) {
		p.LastActivity = at
	}
	return p, true
}

// At returns the running app of a user that is reached at an address. It costs no look into the store.
func (a *Apps) At(user shoal.UserName, address string) (shoal.AppID, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known[a.at[address]]
	return p.ID, p.ID != "" && p.User == user && p.State == shoal.AppRunning
}

// On returns the machine of the live app that is reached at an address.
func (a *Apps) On(address string) (shoal.MachineID, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known[a.at[address]]
	return p.Machine, p.ID != ""
}

// Get returns an app, or KindNotFound.
func (a *Apps) Get(ctx context.Context, id shoal.AppID) (p shoal.App, err error) {
	err = a.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if p, err = tx.Apps().Get(id); err != nil {
			return err
		}
		p.Unknown, err = unknown(tx, p)
		return err
	})
	return a.reached(p), err
}

// reached is an app with where a browser finds it.
func (a *Apps) reached(p shoal.App) shoal.App {
	if at := a.cfg.URL(); at != "" && p.BaseURL != "" {
		p.URL = at + p.BaseURL
	}
	return p
}

// unknown reports whether nothing is known of an app now.
func unknown(tx *store.Tx, p shoal.App) (bool, error) {
	if !p.Live() || p.Machine == "" {
		return false, nil
	}
	m, err := tx.Machines().Get(p.Machine)
	if shoal.KindOf(err) == shoal.KindNotFound {
		return false, nil
	}
	return m.Health == shoal.HealthUnknown || m.Health == shoal.HealthDown, err
}

// List lists apps, newest first, with the cursor of the next page.
func (a *Apps) List(ctx context.Context, f store.AppFilter, cursor string, limit int) (all []shoal.App, next string, err error) {
	err = a.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if all, next, err = tx.AppsPage(f, cursor, limit); err != nil {
			return err
		}
		for i := range all {
			if all[i].Unknown, err = unknown(tx, all[i]); err != nil {
				return err
			}
			all[i] = a.reached(all[i])
		}
		return nil
	})
	return all, next, err
}

// Of lists the apps of a user that live and those that ended lately, newest first.
func (a *Apps) Of(ctx context.Context, user shoal.UserName) ([]shoal.App, error) {
	const lately = 50
	all, _, err := a.List(ctx, store.AppFilter{User: user, Ended: true}, "", lately)
	return all, err
}

// longest is how long Wait waits.
const longest = 30 * time.Second

// Wait returns an app once its revision is above rev, once it has ended, or as it is after half a minute.
func (a *Apps) Wait(ctx context.Context, id shoal.AppID, rev shoal.Rev) (shoal.App, error) {
	enough := time.NewTimer(longest)
	defer enough.Stop()
	for {
		news := a.news()
		p, err := a.Get(ctx, id)
		if err != nil || p.Rev > rev || !p.Live() {
			return p, err
		}
		select {
		case <-news:
		case <-enough.C:
			return a.Get(ctx, id)
		case <-ctx.Done():
			return p, shoal.Errorf(shoal.KindCancelled, "cannot wait for app %s: %w", id, context.Cause(ctx))
		}
	}
}

// Used notes that somebody uses an app. It is stored within a minute.
func (a *Apps) Used(id shoal.AppID, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, ok := a.known[id]; ok && at.After(p.LastActivity) && at.After(a.used[id]) {
		a.used[id] = at
	}
}

// Activity takes the word of who knows how an app is used. Kernels and terminals count for a quarter of an hour, unless
// they are told again.
func (a *Apps) Activity(ctx context.Context, id shoal.AppID, r api.AppActivity) (p shoal.App, err error) {
	const most = 10_000
	if r.Kernels < 0 || r.Kernels > most || r.Terminals < 0 || r.Terminals > most {
		return p, shoal.Errorf(shoal.KindInvalid, "cannot take the activity of app %s: kernels and terminals are between 0 and %d", id, most)
	}
	err = a.update(ctx, func(c *change) error {
		if p, err = c.tx.Apps().Get(id); err != nil {
			return err
		}
		if !p.Live() {
			return shoal.Errorf(shoal.KindConflict, "app %s is %s", id, p.State)
		}
		p.Kernels, p.Terminals = r.Kernels, r.Terminals
		p, err = touch(c, p, r.LastActivity)
		return err
	})
	p = a.reached(p)
	if err == nil {
		a.mu.Lock()
		a.counted[id] = time.Now()
		a.mu.Unlock()
	}
	return p, err
}

// touch stores when an app was used last, with its session, which is the user's presence as a whole.
func touch(c *change, p shoal.App, at time.Time) (shoal.App, error) {
	now := time.Now()
	if at.After(now) { // clocks differ
		at = now
	}
	at = at.UTC().Round(0)
	if at.After(p.LastActivity) {
		p.LastActivity = at
	}
	p, err := c.put(p)
	if err != nil || p.Session == "" {
		return p, err
	}
	s, err := c.tx.Sessions().Get(p.Session)
	if shoal.KindOf(err) == shoal.KindNotFound || err == nil && (!s.Live() || !at.After(s.LastInput)) {
		return p, nil
	}
	if err == nil {
		s.LastInput = at
		_, err = c.tx.Sessions().Put(s)
	}
	return p, err
}

func event(tx *store.Tx, p shoal.App, code, format string, args ...any) {
	tx.Event(shoal.Event{Kind: shoal.ObjectApp, Name: string(p.ID), Pool: p.Pool, User: p.User, Code: code, Sentence: fmt.Sprintf(format, args...)})
}

// errStays is what an update returns that found nothing to do.
var errStays = errors.New("nothing to do")
