// Package homes has the directories of users mounted in the machines of pools whose homes are on a share without
// owners. Until hers is there, a machine lets no user in.
package homes

import (
	"context"
	"log/slog"
	"path"
	"reflect"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// Config is what a Keeper needs.
type Config struct {
	Store     *store.DB
	Providers map[string]provider.Provider
	Runs      func(shoal.Machine) bool // as its provider was last seen
	Log       *slog.Logger
}

// Keeper asks providers for homes. Its methods may be called from any goroutine.
type Keeper struct {
	cfg    Config
	mu     sync.Mutex // guards states; never held while waiting or in the store
	states map[shoal.MachineID]state
}

// New makes a Keeper. Run makes it work.
func New(cfg Config) *Keeper {
	return &Keeper{cfg: cfg, states: map[shoal.MachineID]state{}}
}

// state is what is known of the directories in one machine.
type state struct {
	epoch  int                  // of the machine, and
	mounts []provider.HomeMount // what it was to have, when that was last asked for
	err    string               // of the last try
	busy   bool
	next   time.Time // of the next try; zero: none is needed
	fails  int       // in a row
}

// A file server that does not answer may take a while for each of many users: callTime bounds one call.
const (
	callTime   = 5 * time.Minute
	rest       = 250 * time.Millisecond // between two looks at the store
	retryFirst = time.Second
	retryLast  = 30 * time.Second
)

// wish is what a machine is to have.
type wish struct {
	machine shoal.Machine
	mounts  []provider.HomeMount
}

// Run works until ctx ends. Errors of the store and of providers are waited out.
func (k *Keeper) Run(ctx context.Context) error {
	tries := retry.New(k.cfg.Log, "engine")
	landed := make(chan struct{}, 1)
	for {
		changed := k.cfg.Store.Changed()
		var wanted []wish
		if !tries.Do(ctx, "read whose homes are to be mounted", func(ctx context.Context) error {
			return k.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
				wanted, err = k.wishes(tx)
				return err
			})
		}) {
			if err := retry.Sleep(ctx, retryFirst); err != nil {
				return err
			}
			continue
		}
		next := k.mount(ctx, wanted, landed)
		if err := retry.Sleep(ctx, rest); err != nil {
			return err
		}
		var alarm <-chan time.Time
		if !next.IsZero() {
			alarm = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-landed:
		case <-alarm:
		}
	}
}

// Trouble is why the homes of a machine could not be mounted when that was last tried; empty: they could.
func (k *Keeper) Trouble(id shoal.MachineID) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.states[id].err
}

// Forget drops what is known of machines that are no more.
func (k *Keeper) Forget(live map[shoal.MachineID]bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, s := range k.states {
		if !live[id] && !s.busy {
			delete(k.states, id)
		}
	}
}

// wishes reads which machines are to have which directories.
func (k *Keeper) wishes(tx *store.Tx) ([]wish, error) {
	pools, err := tx.Pools().List()
	if err != nil {
		return nil, err
	}
	var all []wish
	var users []shoal.User
	for _, p := range pools {
		at := p.HomeMount()
		if _, ok := k.cfg.Providers[p.Provider].(provider.HomeMounter); !ok || at < 0 {
			continue
		}
		share, err := tx.Shares().Get(p.Mounts[at].Share)
		if shoal.KindOf(err) == shoal.KindNotFound || err == nil && share.Owned() {
			continue
		}
		if err != nil {
			return nil, err
		}
		if users == nil {
			if users, err = tx.Users().List(); err != nil {
				return nil, err
			}
		}
		machines, err := tx.LiveMachinesIn(p.Name)
		if err != nil {
			return nil, err
		}
		mounts := mountsOf(p, share, users)
		for _, m := range machines {
			if m.Wanted == shoal.WantRun && (m.State == shoal.MachineBooting || m.State == shoal.MachineReady) {
				all = append(all, wish{m, mounts})
			}
		}
	}
	return all, nil
}

// mountsOf are the directories of all users who may log in.
func mountsOf(p shoal.Pool, share shoal.Share, users []shoal.User) []provider.HomeMount {
	at := p.Mounts[p.HomeMount()]
	share.Meta = shoal.Meta{}
	var mounts []provider.HomeMount
	for _, u := range users {
		if u.UID > 0 && !u.Disabled {
			sub := p.HomeSub(u.Name)
			mounts = append(mounts, provider.HomeMount{Mount: provider.Mount{Share: share, Path: path.Join(at.Path, sub)}, Sub: sub, UID: u.UID, GID: u.UID})
		}
	}
	return mounts
}

// mount asks for what is not there yet and returns when the next try is due.
func (k *Keeper) mount(ctx context.Context, wanted []wish, landed chan<- struct{}) (next time.Time) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range wanted {
		h := k.states[w.machine.ID]
		asked := h.epoch == w.machine.Epoch && reflect.DeepEqual(h.mounts, w.mounts)
		switch {
		case h.busy, asked && h.next.IsZero():
			continue
		case !k.cfg.Runs(w.machine):
			next = earliest(next, now.Add(rest))
			continue
		case asked && now.Before(h.next):
			next = earliest(next, h.next)
			continue
		}
		h.epoch, h.mounts, h.busy = w.machine.Epoch, w.mounts, true
		k.states[w.machine.ID] = h
		go func() {
			short, cancel := context.WithTimeout(ctx, callTime)
			err := k.cfg.Providers[w.machine.Provider].(provider.HomeMounter).MountHomes(short, w.machine.ID, w.mounts)
			cancel()
			k.landed(ctx, w.machine, err)
			select {
			case landed <- struct{}{}:
			default:
			}
		}()
	}
	return next
}

// landed keeps what became of a call.
func (k *Keeper) landed(ctx context.Context, m shoal.Machine, err error) {
	k.mu.Lock()
	h := k.states[m.ID]
	was := h.err
	h.busy, h.err, h.next = false, "", time.Time{}
	if err != nil {
		h.err, h.next = err.Error(), time.Now().Add(min(retryFirst<<min(h.fails, 10), retryLast))
		h.fails++
	} else {
		h.fails = 0
	}
	k.states[m.ID] = h
	k.mu.Unlock()
	if err != nil && ctx.Err() == nil && was != h.err {
		k.cfg.Log.Warn("engine: homes cannot be mounted, trying again", "machine", m.ID, "err", err)
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
