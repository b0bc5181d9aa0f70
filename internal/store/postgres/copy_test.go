package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/postgres"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// some puts a bit of everything into a store.
func some(t *testing.T, db *store.DB) {
	t.Helper()
	if err := rig.Fill(t.Context(), db, "lab", 10_000, func(n int) shoal.UserName { return "alice" }); err != nil {
		t.Fatal(err)
	}
	storetest.Update(t, db, func(tx *store.Tx) error {
		id, err := tx.NextJobID()
		if err != nil {
			return err
		}
		j := shoal.Job{ID: id, User: "älice", State: shoal.JobQueued, Spec: shoal.JobSpec{Pool: "lab", Command: "true", ExternalID: "x", Labels: map[string]string{"a": "b"}}}
		j.Spec.Name = "it's \"?\" $1 -- ü"
		a := shoal.Attempt{User: "u", Machine: "m-1", State: shoal.JobRunning}
		a.Job, a.Index, a.Attempt = id, 0, 1
		now := time.Now()
		_, err = tx.Jobs().Insert(j)
		_, err2 := tx.Users().Insert(shoal.User{Name: "alice", UID: 20001})
		_, err3 := tx.Machines().Insert(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady})
		tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: "lab", Code: "made", Sentence: "nul \x00 and more"})
		return errors.Join(err, err2, err3, tx.PutAttempt(a), tx.PutItems(id, []shoal.Item{shoal.Item("1"), shoal.Item(`"two"`)}),
			tx.PutSecret(shoal.Secret{Owner: "alice", Name: "key"}, []byte{0, 1, 2, 255}), tx.SetSetting("a", "b"),
			tx.PutToken("hash", store.TokenRow{Subject: "alice", Kind: "api", Created: now}),
			tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: "m-1", Start: now, Pool: "lab", Price: shoal.Price{PerHour: 0.1, Currency: "EUR"}}))
	})
}

// dump is all rows of a file.
func dump(t *testing.T, path string) map[string][]string {
	t.Helper()
	db, err := sql.Open("sqlite", file.DataSource(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	each := func(query string, f func(*sql.Rows) error) {
		t.Helper()
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := f(rows); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := map[string][]string{}
	each("SELECT name FROM sqlite_master WHERE type = 'table'", func(r *sql.Rows) error {
		var name string
		err := r.Scan(&name)
		all[name] = []string{}
		return err
	})
	for name := range all {
		where := ""
		if name == "counters" {
			where = " WHERE name NOT IN ('rev', 'epoch')"
		}
		each("SELECT * FROM "+name+where, func(r *sql.Rows) error {
			columns, err := r.Columns()
			if err != nil {
				return err
			}
			row, to := make([]any, len(columns)), make([]any, len(columns))
			for i := range row {
				to[i] = &row[i]
			}
			err = r.Scan(to...)
			all[name] = append(all[name], fmt.Sprintf("%#v", row))
			return err
		})
		slices.Sort(all[name])
	}
	return all
}

// What goes from SQLite to PostgreSQL and back is the same, and nothing is ever given out twice.
func TestCopy(t *testing.T) {
	dir := t.TempDir()
	first := storetest.OpenAt(t, filepath.Join(dir, "first.db"))
	some(t, first)
	there := open(t)
	if err := store.Copy(t.Context(), first, there); err != nil {
		t.Fatal(err)
	}
	back := storetest.OpenAt(t, filepath.Join(dir, "back.db"))
	if err := store.Copy(t.Context(), there, back); err != nil {
		t.Fatal(err)
	}
	want := dump(t, filepath.Join(dir, "first.db"))
	if diff := cmp.Diff(want, dump(t, filepath.Join(dir, "back.db"))); diff != "" {
		t.Error(diff)
	}
	filled := 0
	for _, rows := range want {
		filled += min(len(rows), 1)
	}
	if filled < 15 {
		t.Errorf("only %d tables had anything in them", filled)
	}
	if there.Rev() <= first.Rev() || back.Rev() <= there.Rev() {
		t.Errorf("revisions %d, %d, %d do not rise", first.Rev(), there.Rev(), back.Rev())
	}
	for _, db := range []*store.DB{first, there, back} {
		storetest.Update(t, db, func(tx *store.Tx) error {
			id, err := tx.NextJobID()
			if id != "5" || err != nil {
				t.Errorf("next job %s, %v", id, err)
			}
			return nil
		})
	}
	few := storetest.OpenAt(t, filepath.Join(dir, "few.db"))
	storetest.Update(t, few, func(tx *store.Tx) error { _, err := tx.Users().Insert(shoal.User{Name: "hers-alone"}); return err })
	for _, to := range []*store.DB{there, few} {
		if err := store.Copy(t.Context(), first, to); shoal.KindOf(err) != shoal.KindConflict {
			t.Errorf("into a store that is in use: %v", err)
		}
	}
}

// A copy that is made while much is written is one moment of it: what was stored before is there, and of each Update all or nothing.
func TestCopyUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	a := address(t)
	for name, c := range map[string]struct {
		db   *store.DB
		peek func() (*store.DB, error)
	}{
		"sqlite":   {storetest.OpenAt(t, path), func() (*store.DB, error) { return file.Peek(t.Context(), path) }},
		"postgres": {openAt(t, a), func() (*store.DB, error) { return postgres.Peek(t.Context(), a) }},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var mu sync.Mutex
			stored := map[string]bool{}
			var writers sync.WaitGroup
			for w := range 4 {
				writers.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						name := fmt.Sprintf("w%d-%d", w, i)
						err := c.db.Update(context.Background(), func(tx *store.Tx) error {
							_, err := tx.Users().Insert(shoal.User{Name: shoal.UserName(name)})
							_, err2 := tx.Groups().Insert(shoal.Group{Name: shoal.GroupName(name)})
							return errors.Join(err, err2)
						})
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						stored[name] = true
						mu.Unlock()
					}
				})
			}
			until(t, "there is something", func() bool { mu.Lock(); defer mu.Unlock(); return len(stored) > 200 })
			for i := range 3 {
				mu.Lock()
				before := len(stored)
				names := map[string]bool{}
				for n := range stored {
					names[n] = true
				}
				mu.Unlock()
				from, err := c.peek()
				if err != nil {
					t.Fatal(err)
				}
				to := storetest.OpenAt(t, filepath.Join(t.TempDir(), fmt.Sprint(i)))
				if err := store.Copy(t.Context(), from, to); err != nil {
					t.Fatal(err)
				}
				there := users(t, to)
				groups := 0
				storetest.View(t, to, func(tx *store.Tx) error {
					all, err := tx.Groups().List()
					groups = len(all)
					return err
				})
				if len(there) < before || groups != len(there) {
					t.Errorf("%d users and %d groups are in a copy, %d were stored before", len(there), groups, before)
				}
				for n := range names {
					if !there[n] {
						t.Errorf("%s was stored before, and is not in the copy", n)
					}
				}
				if err := from.Update(t.Context(), func(tx *store.Tx) error { return tx.SetSetting("a", "b") }); err == nil {
					t.Error("what is only looked at was changed")
				}
				if err := from.Close(); err != nil {
					t.Error(err)
				}
			}
			stop()
			writers.Wait()
		})
	}
}
