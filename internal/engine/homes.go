package engine

import (
	"context"
	"path"
	"reflect"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// homes is what is known of the users' directories that a machine's provider mounts one by one.
type homes struct {
	epoch  int                  // of the machine, and
	mounts []provider.HomeMount // what it was to have, when that was last asked for
	err    string               // of the last try
	busy   bool
	next   time.Time // of the next try; zero: none is needed
	fails  int       // in a row
}

// homesTime bounds one call: a file server that does not answer may take a while for each of many users. Between two looks at the store is homesRest.
const (
	homesTime = 5 * time.Minute
	homesRest = 250 * time.Millisecond
)

// homesIn are the mounts that a machine is to have.
type homesIn struct {
	machine shoal.Machine
	mounts  []provider.HomeMount
}

// keepHomes has the directories of users mounted in the machines of pools whose homes are on a share without
// owners. Until hers is there, a machine lets no user in.
func (e *Engine) keepHomes(ctx context.Context) error {
	tries := retry.New(e.cfg.Log, "engine")
	landed := make(chan struct{}, 1)
	for {
		changed := e.cfg.Store.Changed()
		var wanted []homesIn
		tries.Do(ctx, "read whose homes are to be mounted", func(ctx context.Context) error {
			return e.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
				wanted, err = e.homesOf(tx)
				return err
			})
		})
		next := e.mountHomes(ctx, wanted, landed)
		if err := retry.Sleep(ctx, homesRest); err != nil {
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

// homesOf reads which machines are to have which directories.
func (e *Engine) homesOf(tx *store.Tx) ([]homesIn, error) {
	pools, err := tx.Pools().List()
	if err != nil {
		return nil, err
	}
	var all []homesIn
	var users []shoal.User
	for _, p := range pools {
		at := p.HomeMount()
		if _, ok := e.cfg.Providers[p.Provider].(provider.HomeMounter); !ok || at < 0 {
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
		mounts := homeMounts(p, share, users)
		for _, m := range machines {
			if m.Wanted == shoal.WantRun && (m.State == shoal.MachineBooting || m.State == shoal.MachineReady) {
				all = append(all, homesIn{m, mounts})
			}
		}
	}
	return all, nil
}

// homeMounts are the directories of all users who may log in.
func homeMounts(p shoal.Pool, share shoal.Share, users []shoal.User) []provider.HomeMount {
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

// mountHomes asks for what is not there yet and returns when the next try is due.
func (e *Engine) mountHomes(ctx context.Context, wanted []homesIn, landed chan<- struct{}) (next time.Time) {
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range wanted {
		h := e.homes[w.machine.ID]
		asked := h.epoch == w.machine.Epoch && reflect.DeepEqual(h.mounts, w.mounts)
		switch {
		case h.busy, asked && h.next.IsZero():
			continue
		case !e.runs(w.machine):
			next = earliest(next, now.Add(homesRest))
			continue
		case asked && now.Before(h.next):
			next = earliest(next, h.next)
			continue
		}
		h.epoch, h.mounts, h.busy = w.machine.Epoch, w.mounts, true
		e.homes[w.machine.ID] = h
		go func() {
			short, cancel := context.WithTimeout(ctx, homesTime)
			err := e.cfg.Providers[w.machine.Provider].(provider.HomeMounter).MountHomes(short, w.machine.ID, w.mounts)
			cancel()
			e.homesMounted(ctx, w.machine, err)
			select {
			case landed <- struct{}{}:
			default:
			}
		}()
	}
	return next
}

// runs reports whether a machine runs, as its provider was last seen. The mutex is held.
func (e *Engine) runs(m shoal.Machine) bool {
	seen := e.sights[m.Provider].seen
	return seen != nil && seen.Machines[m.ID].Phase == provider.PhaseRunning
}

// homesMounted keeps what became of a call.
func (e *Engine) homesMounted(ctx context.Context, m shoal.Machine, err error) {
	e.mu.Lock()
	h := e.homes[m.ID]
	was := h.err
	h.busy, h.err, h.next = false, "", time.Time{}
	if err != nil {
		h.err, h.next = err.Error(), time.Now().Add(min(retryFirst<<min(h.fails, 10), observeWorst))
		h.fails++
	} else {
		h.fails = 0
	}
	e.homes[m.ID] = h
	e.mu.Unlock()
	if err != nil && ctx.Err() == nil && was != h.err {
		e.cfg.Log.Warn("engine: homes cannot be mounted, trying again", "machine", m.ID, "err", err)
	}
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
