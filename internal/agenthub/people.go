package agenthub

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// people are the accounts of a pool's machines. They are shared and never changed.
type people struct {
	api.Accounts
	names  map[shoal.UserName]bool
	probes []api.EndpointProbe // which a Snapshot tells, as what follows
	idle   shoal.Idle
}

const defaultShell = "/bin/bash"

// refresh makes the accounts of all pools what the store says now. Where nothing has changed, which is
// nearly always, it costs next to nothing.
func (h *Hub) refresh(ctx context.Context) error {
	select {
	case h.turn <- struct{}{}:
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "cannot read the accounts: %w", context.Cause(ctx))
	}
	defer func() { <-h.turn }()
	h.mu.Lock()
	mark, old := h.mark, h.pools
	caKeys, upTo := h.caKeys, h.upTo
	h.mu.Unlock()
	keys := trimmed(h.cfg.CAKeys())
	var pools map[shoal.PoolName]*people
	var rev shoal.Rev
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		if rev, err = tx.Rev(); err != nil {
			return err
		}
		was := mark
		if mark, err = tx.PeopleMark(); err != nil {
			return err
		}
		if was == mark && upTo != 0 && slices.Equal(keys, caKeys) {
			return nil
		}
		pools, err = peopleOf(tx, keys, max(rev, 1))
		return err
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if pools != nil {
		for name, p := range pools {
			switch was := old[name]; {
			case was == nil:
			case !slices.Equal(was.probes, p.probes) || was.idle != p.idle:
				p.Rev = max(p.Rev, was.Rev+1)
				h.outdate(name)
			case same(was.Accounts, p.Accounts):
				pools[name] = was
			default: // the keys can change without a change of the store
				p.Rev = max(p.Rev, was.Rev+1)
			}
		}
		h.pools, h.mark, h.caKeys = pools, mark, keys
		for _, l := range h.links {
			if l.people != nil && l.people != h.pools[l.pool] {
				wake(l.wake)
			}
		}
	}
	if rev := max(rev, 1); rev != h.upTo {
		h.upTo = rev
		h.announce()
	}
	return nil
}

// outdate has the machines of a pool get a Snapshot. The caller holds mu.
func (h *Hub) outdate(pool shoal.PoolName) {
	for _, l := range h.links {
		if l.pool == pool {
			l.queue, l.stale = nil, true
			wake(l.wake)
		}
	}
}

func trimmed(keys []string) []string {
	keys = slices.Clone(keys)
	for i := range keys {
		keys[i] = strings.TrimSpace(keys[i])
	}
	return keys
}

// same reports whether two accounts differ in nothing but their revision.
func same(a, b api.Accounts) bool {
	a.Rev = b.Rev
	return reflect.DeepEqual(a, b)
}

// peopleOf makes the accounts of all pools. All users may use all pools.
func peopleOf(tx *store.Tx, caKeys []string, rev shoal.Rev) (map[shoal.PoolName]*people, error) {
	users, err := tx.Users().List()
	if err != nil {
		return nil, err
	}
	groups, err := tx.Groups().List()
	if err != nil {
		return nil, err
	}
	pools, err := tx.Pools().List()
	if err != nil {
		return nil, err
	}
	// No number means root's to those who do not know better.
	users = slices.DeleteFunc(users, func(u shoal.User) bool { return u.UID <= 0 })
	groups = slices.DeleteFunc(groups, func(g shoal.Group) bool { return g.GID <= 0 })
	names := make(map[shoal.UserName]bool, len(users))
	for _, u := range users {
		names[u.Name] = true
	}
	members := map[shoal.GroupName][]shoal.UserName{}
	of := usage.GroupsOf(users, groups)
	for _, u := range users { // in order, so that the same groups are told in the same words
		for _, g := range of[u.Name] {
			members[g] = append(members[g], u.Name)
		}
	}
	wire := make([]api.Group, len(groups))
	for i, g := range groups {
		wire[i] = api.Group{Name: g.Name, GID: g.GID, Members: append([]shoal.UserName{}, members[g.Name]...)}
	}
	all := make(map[shoal.PoolName]*people, len(pools))
	for _, p := range pools {
		accounts := make([]api.Account, len(users))
		for i, u := range users {
			accounts[i] = account(p, u)
		}
		all[p.Name] = &people{Accounts: api.Accounts{Rev: rev, Users: accounts, Groups: wire, CAKeys: caKeys, Secrets: slices.Sorted(maps.Keys(p.Secrets))}, names: names, probes: probesOf(p), idle: p.Scale.Idle}
	}
	return all, nil
}

func account(p shoal.Pool, u shoal.User) api.Account {
	a := api.Account{Name: u.Name, UID: u.UID, GID: u.UID, Home: p.HomeOf(u.Name), Shell: u.Shell, Disabled: u.Disabled,
		Principal: route.Principal(u.Name, p.Name)}
	if a.Shell == "" {
		a.Shell = defaultShell
	}
	return a
}

// mountsOf are a pool's mounts as agents see them. A share's group directories are made where it is
// mounted first.
func mountsOf(tx *store.Tx, p shoal.Pool) ([]api.AgentMount, error) {
	mounts := make([]api.AgentMount, len(p.Mounts))
	seen := map[shoal.ShareName]bool{}
	for i, m := range p.Mounts {
		home, links := i == p.HomeMount(), p.Home.Layout == shoal.LayoutDSVM
		mounts[i] = api.AgentMount{Path: m.Path, ReadOnly: m.ReadOnly, Homes: home && !links}
		if home && links {
			mounts[i].Links, mounts[i].Share = true, m.Share
		}
		s, err := tx.Shares().Get(m.Share)
		if shoal.KindOf(err) == shoal.KindNotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		mounts[i].Unowned = !s.Owned()
		if m.ReadOnly || seen[m.Share] {
			continue
		}
		seen[m.Share] = true
		mounts[i].GroupDirs = s.GroupDirs
	}
	return mounts, nil
}
