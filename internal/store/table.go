package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
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
	plain   bool // who changes an object has read it before: its Created and Updated can be trusted
	key     func(*V) K
	meta    func(*V) *shoal.Meta
	values  func(*V) []any // of the columns after body
	// stored, if not nil, keeps other tables true to an object that was written; fresh: it is new.
	stored func(tx *Tx, v *V, fresh bool) error
	// deleted, if not nil, does so for one that was deleted.
	deleted func(tx *Tx, column any) error

	get, list, put, del string
}

func newSchema[K ~string, V any](s schema[K, V], table string, columns ...string) *schema[K, V] {
	s.get = "SELECT body, rev, created_rev FROM " + table + " WHERE key = ?"
	s.list = "SELECT body FROM " + table + " ORDER BY key"
	s.del = "DELETE FROM " + table + " WHERE key = ?"
	columns = append([]string{"key", "rev", "created_rev", "body"}, columns...)
	set := make([]string, 0, len(columns))
	for _, c := range columns[1:] {
		set = append(set, c+" = excluded."+c)
	}
	s.put = fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s) ON CONFLICT (key) DO UPDATE SET %s",
		table, strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1), strings.Join(set, ", "))
	return &s
}

var (
	pools = newSchema(schema[shoal.PoolName, shoal.Pool]{noun: "pool",
		key:  func(p *shoal.Pool) shoal.PoolName { return p.Name },
		meta: func(p *shoal.Pool) *shoal.Meta { return &p.Meta }}, "pools")
	shares = newSchema(schema[shoal.ShareName, shoal.Share]{noun: "share",
		key:  func(s *shoal.Share) shoal.ShareName { return s.Name },
		meta: func(s *shoal.Share) *shoal.Meta { return &s.Meta }}, "shares")
	users = newSchema(schema[shoal.UserName, shoal.User]{noun: "user",
		key:  func(u *shoal.User) shoal.UserName { return u.Name },
		meta: func(u *shoal.User) *shoal.Meta { return &u.Meta }}, "users")
	groups = newSchema(schema[shoal.GroupName, shoal.Group]{noun: "group",
		key:  func(g *shoal.Group) shoal.GroupName { return g.Name },
		meta: func(g *shoal.Group) *shoal.Meta { return &g.Meta }}, "user_groups")
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
			return []any{string(j.Spec.Pool), string(j.User), j.Spec.Name, string(j.State), nanos(j.Ended)}
		},
		stored: (*Tx).jobStored, deleted: (*Tx).jobDeleted},
		"jobs", "pool", "user", "name", "state", "ended")
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
		return t.write(v, shoal.Meta{Created: now()}, 0)
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
	return t.write(v, stored, created)
}

// replace is Put for an object that was read and is still the same: nothing is decoded. It leaves all
// other cases to Put.
func (t Table[K, V]) replace(k K, v V, meta shoal.Meta) (done bool, stored V, err error) {
	column, ok := t.column(k)
	if !ok {
		return false, v, nil
	}
	same, err := json.Marshal(v)
	if err != nil {
		return false, v, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(k), err)
	}
	var rev, created shoal.Rev
	equal := false
	err = t.tx.query(func(rows Rows) error {
		var body sql.RawBytes
		err := rows.Scan(&body, &rev, &created)
		equal = string(body) == string(same)
		return err
	}, t.s.get, column)
	switch {
	case err != nil:
		return false, v, fmt.Errorf("cannot read %s %q: %w", t.s.noun, string(k), err)
	case rev != meta.Rev || rev == 0:
		return false, v, nil
	case equal:
		return true, v, nil
	}
	stored, err = t.write(v, meta, created)
	return true, stored, err
}

// Insert stores a new object, or returns KindConflict if there is one of that key.
func (t Table[K, V]) Insert(v V) (V, error) {
	k := t.s.key(&v)
	_, _, _, found, err := t.load(k)
	if err != nil {
		return v, err
	}
	if found {
		return v, shoal.Errorf(shoal.KindConflict, "%s %q exists already", t.s.noun, string(k))
	}
	return t.write(v, shoal.Meta{Created: now()}, 0)
}

func (t Table[K, V]) write(v V, meta shoal.Meta, created shoal.Rev) (V, error) {
	k := t.s.key(&v)
	column, ok := t.column(k)
	if !ok {
		return v, shoal.Errorf(shoal.KindInvalid, "cannot store a %s of name %q", t.s.noun, string(k))
	}
	meta.Rev, meta.Updated = t.tx.db.Next(), now()
	fresh := created == 0
	if fresh {
		created = meta.Rev
	}
	*t.s.meta(&v) = meta
	body, err := json.Marshal(v)
	if err != nil {
		return v, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(k), err)
	}
	args := []any{column, int64(meta.Rev), int64(created), string(body)}
	if t.s.values != nil {
		args = append(args, t.s.values(&v)...)
	}
	if err := t.tx.exec(t.s.put, args...); err != nil {
		return v, fmt.Errorf("cannot store %s %q: %w", t.s.noun, string(k), err)
	}
	if t.s.stored != nil {
		return v, t.s.stored(t.tx, &v, fresh)
	}
	return v, nil
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
