package lookup_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/book/lookup"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func TestTables(t *testing.T) {
	db := storetest.Open(t)
	storetest.Update(t, db, func(tx *store.Tx) error {
		for _, u := range []shoal.User{{Name: "alice", Groups: []shoal.GroupName{"research"}}, {Name: "bob"}, {Name: "carol"}} {
			if _, err := tx.Users().Put(u); err != nil {
				return err
			}
		}
		for _, g := range []shoal.Group{{Name: "zebra", Members: []shoal.UserName{"alice"}}, {Name: "ants", Members: []shoal.UserName{"bob"}}} {
			if _, err := tx.Groups().Put(g); err != nil {
				return err
			}
		}
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab"})
		return err
	})
	var tables *lookup.Tables
	look := func(want map[shoal.UserName]shoal.GroupName, disabled bool) {
		t.Helper()
		storetest.Update(t, db, func(tx *store.Tx) error {
			tables = tables.In(tx)
			for name, group := range want {
				if got := tables.Account(name); got != group {
					t.Errorf("the work of %s is charged to %q, not %q", name, got, group)
				}
			}
			u, err := tables.User("bob")
			if err != nil || u.Disabled != disabled {
				t.Errorf("bob is %+v, %v", u, err)
			}
			if _, err := tables.Pool("nowhere"); shoal.KindOf(err) != shoal.KindNotFound {
				t.Errorf("of a pool that is not there: %v", err)
			}
			return tx.SetSetting("x", strconv.FormatBool(disabled)) // which is none of its affairs
		})
	}
	before := map[shoal.UserName]shoal.GroupName{"alice": "research", "bob": "ants", "carol": "", "nobody": ""}
	look(before, false)
	first := tables
	look(before, false)
	if tables != first {
		t.Error("it was read again though nothing has changed")
	}
	storetest.Update(t, db, func(tx *store.Tx) error {
		u, err := tx.Users().Get("bob")
		if u.Disabled = true; err == nil {
			_, err = tx.Users().Put(u)
		}
		return err
	})
	look(before, true)
	storetest.Update(t, db, func(tx *store.Tx) error { return tx.Groups().Delete("ants") })
	look(map[shoal.UserName]shoal.GroupName{"bob": ""}, true)
}

func TestRows(t *testing.T) {
	rows := lookup.Rows{}
	kept := func(id shoal.JobID) bool { _, ok := rows[id]; return ok }
	rows.Keep(shoal.Job{ID: "1", State: shoal.JobQueued})
	rows.Keep(shoal.Job{ID: "2", State: shoal.JobQueued, Spec: shoal.JobSpec{Command: strings.Repeat("x", 1<<20)}})
	rows.Keep(shoal.Job{ID: "3", State: shoal.JobQueued, Spec: shoal.JobSpec{Tasks: make([]shoal.TaskSpec, 10)}})
	if !kept("1") || kept("2") || kept("3") {
		t.Error("small ones are to be kept, large ones are not")
	}
	rows.Keep(shoal.Job{ID: "1", State: shoal.JobSucceeded})
	if kept("1") {
		t.Error("one that has ended is kept")
	}
	for i := range 5000 {
		rows.Keep(shoal.Job{ID: shoal.JobID(strconv.Itoa(i)), State: shoal.JobRunning})
	}
	if len(rows) > 1024 || !kept("4999") {
		t.Errorf("%d are kept", len(rows))
	}
}
