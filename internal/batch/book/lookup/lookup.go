// Package lookup reads users, groups and pools once for all who ask, as long as none of them changes.
package lookup

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// Tables are what was read so far. They are of one goroutine, and what they return is not to be changed.
type Tables struct {
	tx       *store.Tx
	rev      shoal.Rev // of the catalog
	users    map[shoal.UserName]shoal.User
	pools    map[shoal.PoolName]shoal.Pool
	groups   []shoal.Group
	listed   bool // groups are there
	accounts map[shoal.UserName]shoal.GroupName
	sealed   bool
}

// Of makes Tables of a transaction.
func Of(tx *store.Tx) *Tables {
	return &Tables{tx: tx, users: map[shoal.UserName]shoal.User{}, pools: map[shoal.PoolName]shoal.Pool{}, accounts: map[shoal.UserName]shoal.GroupName{}}
}

// In makes those of an Update, with all that was read if that still holds. t may be nil; it is not used any more.
func (t *Tables) In(tx *store.Tx) *Tables {
	if rev := tx.CatalogRev(); t == nil || t.rev != rev {
		t = Of(tx)
		t.rev = rev
	}
	t.tx = tx
	return t
}

// User returns a user, or KindNotFound.
func (t *Tables) User(name shoal.UserName) (shoal.User, error) {
	if u, ok := t.users[name]; ok {
		return u, nil
	}
	u, err := t.tx.Users().Get(name)
	if err == nil {
		t.users[name] = u
	}
	return u, err
}

// Pool returns a pool, or KindNotFound.
func (t *Tables) Pool(name shoal.PoolName) (shoal.Pool, error) {
	if p, ok := t.pools[name]; ok {
		return p, nil
	}
	p, err := t.tx.Pools().Get(name)
	if err == nil {
		t.pools[name] = p
	}
	return p, err
}

// Named is Pool for one that may be gone, and has only its name then.
func (t *Tables) Named(name shoal.PoolName) (shoal.Pool, error) {
	p, err := t.Pool(name)
	if shoal.KindOf(err) == shoal.KindNotFound {
		return shoal.Pool{Name: name}, nil
	}
	return p, err
}

// Account is the group to which a user's work is charged: her first, by name. Who cannot be read has none.
func (t *Tables) Account(user shoal.UserName) shoal.GroupName {
	if name, ok := t.accounts[user]; ok || t.sealed {
		return name
	}
	u, err := t.User(user)
	if err == nil && !t.listed {
		t.groups, err = t.tx.Groups().List()
		t.listed = err == nil
	}
	if err != nil {
		return ""
	}
	t.accounts[user] = "" // if she is in none
	if in := u.Memberships(t.groups); len(in) > 0 {
		t.accounts[user] = in[0]
	}
	return t.accounts[user]
}

// Seal reads all accounts, so that Account reads no more: who is not there then has none.
func (t *Tables) Seal() error {
	users, err := t.tx.Users().List()
	if err != nil {
		return err
	}
	for _, u := range users {
		t.users[u.Name] = u
		t.Account(u.Name)
	}
	t.sealed = true
	return nil
}
