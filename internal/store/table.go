package store

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// Table is the objects of one kind within a transaction.
type Table[K ~string, V any] struct {
	tx *Tx
	s  *schema[K, V]
}

// schema says how objects of a kind lie in their table.
type schema[K ~string, V any] struct {
	noun    string
	numeric bool // keys are decimal numbers
	plain   bool // who changes an object has read it before, and changes it: its Meta can be trusted
	key     func(*V) K
	meta    func(*V) *shoal.Meta
	values  func(*V) []any // of the columns after body
	// stored, if not nil, keeps what else there is true to an object that was written; fresh: it is new.
	stored func(tx *Tx, v *V, fresh bool) error
	// deleted, if not nil, does so for one that was deleted.
	deleted func(tx *Tx, column any) error

	get, list, add, put, set, del string
}

func newSchema[K ~string, V any](s schema[K, V], table string, columns ...string) *schema[K, V] {
	s.get = "SELECT body, rev, created_rev FROM " + table + " WHERE key = ?"
	s.list = "SELECT body FROM " + table + " ORDER BY key"
	s.del = "DELETE FROM " + table + " WHERE key = ?"
	s.set = "UPDATE " + table + " SET rev = ?, body = ?"
	for _, c := range columns {
		s.set += ", " + c + " = ?"
	}
	s.set += " WHERE key = ? AND rev = ?"
	columns = append([]string{"key", "rev", "created_rev", "body"}, columns...)
	set := make([]string, 0, len(columns))
	for _, c := range columns[1:] {
		set = append(set, c+" = excluded."+c)
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s) ON CONFLICT (key) DO ", table, strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1))
	s.add = insert + "NOTHING"
	s.put = insert + "UPDATE SET " + strings.Join(set, ", ")
	return &s
}

var (
	pools = newSchema(schema[shoal.PoolName, shoal.Pool]{noun: "pool",
		key:  func(p *shoal.Pool) shoal.PoolName { return p.Name },
		meta: func(p *shoal.Pool) *shoal.Meta { return &p.Meta }, stored: inCatalog[shoal.Pool], deleted: (*Tx).outOfCatalog}, "pools")
	shares = newSchema(schema[shoal.ShareName, shoal.Share]{noun: "share",
		key:  func(s *shoal.Share) shoal.ShareName { return s.Name },
		meta: func(s *shoal.Share) *shoal.Meta { return &s.Meta }}, "shares")
	users = newSchema(schema[shoal.UserName, shoal.User]{noun: "user",
		key:  func(u *shoal.User) shoal.UserName { return u.Name },
		meta: func(u *shoal.User) *shoal.Meta { return &u.Meta }, stored: inCatalog[shoal.User], deleted: (*Tx).outOfCatalog}, "users")
	groups = newSchema(schema[shoal.GroupName, shoal.Group]{noun: "group",
		key:  func(g *shoal.Group) shoal.GroupName { return g.Name },
		meta: func(g *shoal.Group) *shoal.Meta { return &g.Meta }, stored: inCatalog[shoal.Group], deleted: (*Tx).outOfCatalog}, "user_groups")
	machines = newSchema(schema[shoal.MachineID, shoal.Machine]{noun: "machine",
		key:     func(m *shoal.Machine) shoal.MachineID { return m.ID },
		meta:    func(m *shoal.Machine) *shoal.Meta { return &m.Meta },
		values:  func(m *shoal.Machine) []any { return []any{string(m.Pool), string(m.State)} },
		stored:  func(tx *Tx, _ *shoal.Machine, _ bool) error { tx.db.Machines = tx.db.All; return nil },
		deleted: func(tx *Tx, _ any) error { tx.db.Machines = tx.db.All; return nil }},
		"machines", "pool", "state")
	sessions = newSchema(schema[shoal.SessionID, shoal.Session]{noun: "session",
		key:  func(s *shoal.Session) shoal.SessionID { return s.ID },
		meta: func(s *shoal.Session) *shoal.Meta { return &s.Meta },
		values: func(s *shoal.Session) []any {
			return []any{string(s.Pool), string(s.Machine), string(s.User), string(s.State)}
		}},
		"sessions", "pool", "machine", "user", "state")
	apps = newSchema(schema[shoal.AppID, shoal.App]{noun: "app",
		key:  func(a *shoal.App) shoal.AppID { return a.ID },
		meta: func(a *shoal.App) *shoal.Meta { return &a.Meta },
		values: func(a *shoal.App) []any {
			return []any{string(a.Pool), string(a.Machine), string(a.User), string(a.State)}
		}},
		"apps", "pool", "machine", "user", "state")
	jobs = newSchema(schema[shoal.JobID, shoal.Job]{noun: "job", numeric: true, plain: true,
		key:  func(j *shoal.Job) shoal.JobID { return j.ID },
		meta: func(j *shoal.Job) *shoal.Meta { return &j.Meta },
		values: func(j *shoal.Job) []any {
			return []any{string(j.Spec.Pool), string(j.User), j.Spec.Name, string(j.State), pack.Nanos(j.Ended)}
		},
		stored: (*Tx).jobStored, deleted: (*Tx).jobDeleted},
		"jobs", "pool", "user", "name", "state", "ended")
	gateways = newSchema(schema[api.GatewayName, api.Gateway]{noun: "gateway",
		key:  func(g *api.Gateway) api.GatewayName { return g.Name },
		meta: func(g *api.Gateway) *shoal.Meta { return &g.Meta }}, "gateways")
)

// Pools are the pools.
func (tx *Tx) Pools() Table[shoal.PoolName, shoal.Pool] { return of(tx, pools) }

// Shares are the shares.
func (tx *Tx) Shares() Table[shoal.ShareName, shoal.Share] { return of(tx, shares) }

// Users are the users.
func (tx *Tx) Users() Table[shoal.UserName, shoal.User] { return of(tx, users) }

// Groups are the groups.
func (tx *Tx) Groups() Table[shoal.GroupName, shoal.Group] { return of(tx, groups) }

// Machines are all machines, those that are gone included.
func (tx *Tx) Machines() Table[shoal.MachineID, shoal.Machine] { return of(tx, machines) }

// Sessions are all sessions, ended ones included.
func (tx *Tx) Sessions() Table[shoal.SessionID, shoal.Session] { return of(tx, sessions) }

// Apps are all users' apps, ended ones included.
func (tx *Tx) Apps() Table[shoal.AppID, shoal.App] { return of(tx, apps) }

// Jobs are all jobs. Their keys are numbers from NextJobID.
func (tx *Tx) Jobs() Table[shoal.JobID, shoal.Job] { return of(tx, jobs) }

// Gateways are the gateways that are processes of their own.
func (tx *Tx) Gateways() Table[api.GatewayName, api.Gateway] { return of(tx, gateways) }

// inCatalog and outOfCatalog keep CatalogRev true.
func inCatalog[V any](tx *Tx, _ *V, _ bool) error { tx.db.Catalog = tx.db.All; return nil }
func (tx *Tx) outOfCatalog(any) error             { tx.db.Catalog = tx.db.All; return nil }

func of[K ~string, V any](tx *Tx, s *schema[K, V]) Table[K, V] { return Table[K, V]{tx, s} }

// column is a key as its column holds it; false if no object can have it.
func (t Table[K, V]) column(k K) (any, bool) {
	if !t.s.numeric {
		return string(k), k != ""
	}
	n, err := strconv.ParseInt(string(k), 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == string(k)
}

func (t Table[K, V]) missing(k K) error {
	return shoal.Errorf(shoal.KindNotFound, "no %s %q", t.s.noun, string(k))
}

// Get returns an object, or KindNotFound.
func (t Table[K, V]) Get(k K) (V, error) {
	v, _, _, found, err := t.load(k)
	if err == nil && !found {
		err = t.missing(k)
	}
	return v, err
}

// load reads an object with its body as stored and the revision it was created at.
func (t Table[K, V]) load(k K) (v V, body string, created shoal.Rev, found bool, err error) {
	column, ok := t.column(k)
	if !ok {
		return v, "", 0, false, nil
	}
	err = t.tx.query(func(rows Rows) error {
		found = true
		var rev int64
		if err := rows.Scan(&body, &rev, &created); err != nil {
			return err
		}
		return json.Unmarshal([]byte(body), &v)
	}, t.s.get, column)
	if err != nil {
		return v, "", 0, false, fmt.Errorf("cannot read %s %q: %w", t.s.noun, string(k), err)
	}
	return v, body, created, found, nil
}

// List returns all objects by key.
func (t Table[K, V]) List() ([]V, error) { return list[V](t.tx, t.s.list) }

// Put inserts or replaces an object and returns it as stored, with Meta filled in. A Meta.Rev that
// is not zero must be the stored one, else KindConflict. An object that equals the stored one is
// left alone: nothing changes, nobody wakes.
func (t Table[K, V]) Put(v V) (V, error) {
	k, meta := t.s.key(&v), t.s.meta(&v)
	if meta.Rev != 0 && t.s.plain {
		if done, stored, err := t.replace(k, v, *meta); done || err != nil {
			return stored, err
		}
	}
	old, body, created, found, err := t.load(k)
	if err != nil {
		return v, err
	}
	if meta.Rev != 0 && !found {
		return v, shoal.Errorf(shoal.KindConflict, "cannot change %s %q: it was deleted meanwhile", t.s.noun, string(k))
	}
	if !found {
		_, v, err = t.write(t.s.put, v, shoal.Meta{Created: now()}, 0)
		return v, err
	}
	stored := *t.s.meta(&old)
	if meta.Rev != 0 && meta.Rev != stored.Rev {
		return v, shoal.Errorf(shoal.KindConflict, "cannot change %s %q: it was changed meanwhile (revision %d, not %d)",
			t.s.noun, string(k), stored.Rev, meta.Rev).WithHint("read it again and repeat the change")
	}
	*meta = stored
	same, err := json.Marshal(v)
	if err != nil {
		return v, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(k), err)
	}
	if string(same) == body {
		return old, nil
	}
	_, v, err = t.write(t.s.put, v, stored, created)
	return v, err
}

// replace is Put for an object that was read and is still the same: it is not read again. It leaves all other cases
// to Put.
func (t Table[K, V]) replace(k K, v V, meta shoal.Meta) (done bool, stored V, err error) {
	column, ok := t.column(k)
	if !ok {
		return false, v, nil
	}
	stored = v
	body, own, err := t.stamp(&stored, meta)
	if err != nil {
		return false, v, err
	}
	args := append([]any{int64(t.s.meta(&stored).Rev), body}, own...)
	n, err := t.tx.db.Exec(t.s.set, append(args, column, int64(meta.Rev))...)
	if err != nil {
		return false, v, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(k), err)
	}
	if n == 0 {
		return false, v, nil
	}
	return true, stored, t.stored(&stored, false)
}

// Insert stores a new object, or returns KindConflict if there is one of that key.
func (t Table[K, V]) Insert(v V) (V, error) {
	n, v, err := t.write(t.s.add, v, shoal.Meta{Created: now()}, 0)
	if err == nil && n == 0 {
		err = shoal.Errorf(shoal.KindConflict, "%s %q exists already", t.s.noun, string(t.s.key(&v)))
	}
	return v, err
}

// write stores an object with Meta filled in; n is zero if it was not, since there is one. created: the revision that
// made it; zero: this one.
func (t Table[K, V]) write(query string, v V, meta shoal.Meta, created shoal.Rev) (n int64, _ V, err error) {
	k := t.s.key(&v)
	column, ok := t.column(k)
	if !ok {
		return 0, v, shoal.Errorf(shoal.KindInvalid, "cannot store a %s of name %q", t.s.noun, string(k))
	}
	body, own, err := t.stamp(&v, meta)
	if err != nil {
		return 0, v, err
	}
	fresh := created == 0
	if fresh {
		created = t.s.meta(&v).Rev
	}
	args := append([]any{column, int64(t.s.meta(&v).Rev), int64(created), body}, own...)
	if n = 1; query == t.s.add {
		n, err = t.tx.db.Exec(query, args...)
	} else {
		err = t.tx.exec(query, args...)
	}
	if err != nil {
		return 0, v, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(k), err)
	}
	if n > 0 {
		err = t.stored(&v, fresh)
	}
	return n, v, err
}

// stamp gives an object the next revision, and returns its body and what it has in columns of its own.
func (t Table[K, V]) stamp(v *V, meta shoal.Meta) (body string, own []any, err error) {
	meta.Rev, meta.Updated = t.tx.db.Next(), now()
	*t.s.meta(v) = meta
	b, err := json.Marshal(v)
	if err != nil {
		return "", nil, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(t.s.key(v)), err)
	}
	if t.s.values != nil {
		own = t.s.values(v)
	}
	return string(b), own, nil
}

func (t Table[K, V]) stored(v *V, fresh bool) error {
	if t.s.stored == nil {
		return nil
	}
	return t.s.stored(t.tx, v, fresh)
}

// Delete removes an object, or returns KindNotFound.
func (t Table[K, V]) Delete(k K) error {
	column, ok := t.column(k)
	if !ok {
		return t.missing(k)
	}
	n, err := t.tx.change(t.s.del, column)
	if err != nil {
		return fmt.Errorf("cannot delete %s %q: %w", t.s.noun, string(k), err)
	}
	if n == 0 {
		return t.missing(k)
	}
	if t.s.deleted != nil {
		return t.s.deleted(t.tx, column)
	}
	return nil
}
