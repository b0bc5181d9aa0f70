package storetest

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// Place is where a store is kept, and nobody has one open.
type Place struct {
	Open, Peek func() (*store.DB, error)
	// Make makes an empty store of a schema of the past.
	Make func(version int) error
	// Mark has it say that it is of a schema.
	Mark func(version int) error
	// State is all that is kept there, to be compared.
	State func() string
}

// RunVersions checks what becomes of stores of other versions. at returns a new, empty place that ends with the test.
func RunVersions(t *testing.T, at func(testing.TB) Place) {
	all, err := store.Schema().Steps(0)
	if err != nil {
		t.Fatal(err)
	}
	newest := len(all)
	t.Run("newer", func(t *testing.T) {
		p := at(t)
		insert(t, p, "alice")
		if err := p.Mark(newest + 1); err != nil {
			t.Fatal(err)
		}
		before := p.State()
		for what, open := range map[string]func() (*store.DB, error){"open": p.Open, "peek": p.Peek} {
			refused(t, what, open, "newer version of shoal")
		}
		if after := p.State(); after != before {
			t.Errorf("what was refused has changed from\n%s\nto\n%s", before, after)
		}
		if err := p.Mark(newest); err != nil {
			t.Fatal(err)
		}
		insert(t, p, "bob")
	})
	t.Run("older", func(t *testing.T) {
		p := at(t)
		if err := p.Make(newest - 1); err != nil {
			t.Fatal(err)
		}
		before := p.State()
		refused(t, "peek", p.Peek, "older version of shoal")
		if after := p.State(); after != before {
			t.Errorf("a look has changed it from\n%s\nto\n%s", before, after)
		}
		insert(t, p, "alice")
	})
	for version := 1; version < newest; version++ {
		p := at(t)
		if err := p.Make(version); err != nil {
			t.Fatal(err)
		}
		insert(t, p, "alice")
	}
}

// insert opens the store and puts a user into it.
func insert(t *testing.T, p Place, name shoal.UserName) {
	t.Helper()
	db, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	Update(t, db, func(tx *store.Tx) error { _, err := tx.Users().Insert(shoal.User{Name: name}); return err })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// refused opens a store in vain: why is told, and what to do.
func refused(t *testing.T, what string, open func() (*store.DB, error), why string) {
	t.Helper()
	db, err := open()
	if err == nil {
		_ = db.Close()
	}
	if shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), why) || shoal.HintOf(err) == "" {
		t.Errorf("%s: %v (hint %q)", what, err, shoal.HintOf(err))
	}
}
