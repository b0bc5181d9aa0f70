package gatehub

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// view is what gateways are to know, shared and never changed.
type view struct {
	mark   store.PeopleMark
	users  map[shoal.UserName]*api.GatewayUser
	pools  []api.GatewayPool
	routes map[shoal.SessionID]api.GatewayRoute
}

const (
	// viewGap is the least time between two looks at the store while changes come in crowds; it is longer where a look costs much. The
	// first change after a quiet time is looked at at once.
	viewGap = 250 * time.Millisecond
	// viewRest is how many times as long as a look took nobody looks again.
	viewRest = 4
	// viewRetry is when a store that does not answer is asked again.
	viewRetry = time.Second
)

// follow makes a new view whenever the store has changed, as long as somebody wants one.
func (h *Hub) follow(ctx context.Context) {
	tries := retry.New(h.cfg.Log, "gateways")
	for ctx.Err() == nil {
		changed, looked := h.cfg.Store.Changed(), time.Now()
		if h.connected() && !tries.Do(ctx, "read who may come in", h.look) {
			changed = nil
		}
		gap := max(viewGap, (1+viewRest)*time.Since(looked))
		if changed == nil {
			gap = viewRetry
		} else {
			select {
			case <-changed:
			case <-h.wanted:
				continue
			case <-ctx.Done():
				return
			}
		}
		_ = retry.Sleep(ctx, time.Until(looked.Add(gap)))
	}
}

func (h *Hub) connected() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.links) > 0
}

// look makes the view what the store says now, and wakes the streams if it is another.
func (h *Hub) look(ctx context.Context) error {
	h.mu.Lock()
	old := h.view
	h.mu.Unlock()
	var v *view
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		v, err = viewOf(tx, old)
		return err
	})
	if err != nil || old != nil && v.mark == old.mark && reflect.DeepEqual(v.routes, old.routes) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.view = v
	close(h.news)
	h.news = make(chan struct{})
	return nil
}

func viewOf(tx *store.Tx, old *view) (*view, error) {
	v := &view{routes: map[shoal.SessionID]api.GatewayRoute{}}
	var err error
	if v.mark, err = tx.PeopleMark(); err != nil {
		return nil, err
	}
	if old != nil && old.mark == v.mark {
		v.users, v.pools = old.users, old.pools
	} else if err := v.people(tx, old); err != nil {
		return nil, err
	}
	machines, err := tx.LiveMachines()
	if err != nil {
		return nil, err
	}
	address := map[shoal.MachineID]string{}
	for _, m := range machines {
		if m.State == shoal.MachineReady {
			address[m.ID] = m.Address
		}
	}
	sessions, err := tx.LiveSessions()
	for _, s := range sessions {
		if at := address[s.Machine]; at != "" {
			v.routes[s.ID] = api.GatewayRoute{Session: s.ID, User: s.User, Pool: s.Pool, Machine: s.Machine, Address: at}
		}
	}
	return v, err
}

// people reads users and pools. Who is as she was keeps her place in memory, by which changes are found.
func (v *view) people(tx *store.Tx, old *view) error {
	users, err := tx.Users().List()
	if err != nil {
		return err
	}
	groups, err := tx.Groups().List()
	if err != nil {
		return err
	}
	pools, err := tx.Pools().List()
	if err != nil {
		return err
	}
	of := usage.GroupsOf(users, groups)
	v.users = make(map[shoal.UserName]*api.GatewayUser, len(users))
	for _, u := range users {
		if u.Disabled {
			continue
		}
		now := &api.GatewayUser{Name: u.Name, UID: u.UID, Shell: u.Shell, Groups: of[u.Name], Keys: u.Keys}
		if old != nil && old.users[u.Name] != nil && reflect.DeepEqual(now, old.users[u.Name]) {
			now = old.users[u.Name]
		}
		v.users[u.Name] = now
	}
	for _, p := range pools {
		if p.Has(shoal.UseInteractive) && !p.Deleting {
			v.pools = append(v.pools, api.GatewayPool{Name: p.Name, Default: p.Default, Secrets: len(p.Secrets) > 0})
		}
	}
	return nil
}

// recordSize is about how many bytes a record is at most: gateways read lines of up to 4 MiB.
const recordSize = 256 << 10

// records are those that tell a change, none of them long.
type records struct {
	all  []api.GatewayRecord
	size int // of the last
}

// room is the record that takes what is about so many bytes long.
func (r *records) room(size int) *api.GatewayRecord {
	if len(r.all) == 0 || r.size+size > recordSize {
		r.all, r.size = append(r.all, api.GatewayRecord{}), 0
	}
	r.size += size
	return &r.all[len(r.all)-1]
}

// The least that a name, and something with several fields, takes.
const (
	nameSize  = 4
	thingSize = 80
)

// since is what has changed in v for somebody who knows old; nil: she knows nothing.
func (v *view) since(old *view) []api.GatewayRecord {
	var all records
	first := old == nil
	if first {
		old = &view{}
		all.room(0).Reset = true
	}
	for name, u := range v.users {
		if old.users[name] != u {
			size := thingSize + len(u.Name) + len(u.Shell)
			for _, g := range u.Groups {
				size += nameSize + len(g)
			}
			for _, key := range u.Keys {
				size += nameSize + len(key)
			}
			r := all.room(size)
			r.Users = append(r.Users, *u)
		}
	}
	for name := range old.users {
		if v.users[name] == nil {
			r := all.room(nameSize + len(name))
			r.NoUsers = append(r.NoUsers, name)
		}
	}
	if !slices.Equal(v.pools, old.pools) {
		all.room(thingSize * len(v.pools)).Pools = v.pools
	}
	for id, to := range v.routes {
		if old.routes[id] != to {
			r := all.room(thingSize + len(to.Session) + len(to.User) + len(to.Pool) + len(to.Machine) + len(to.Address))
			r.Routes = append(r.Routes, to)
		}
	}
	for id := range old.routes {
		if _, stays := v.routes[id]; !stays {
			r := all.room(nameSize + len(id))
			r.NoRoutes = append(r.NoRoutes, id)
		}
	}
	if first {
		all.room(0).Whole = true
	}
	return all.all
}
