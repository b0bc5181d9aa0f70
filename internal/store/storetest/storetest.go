// Package storetest opens stores for tests, and holds the suite that every
// store passes.
package storetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
)

// Open opens a new store in a directory of the test and closes it when the test ends. Within a
// synctest bubble call it there; the store then lives on the bubble's clock.
func Open(t testing.TB) *store.DB {
	t.Helper()
	return OpenAt(t, filepath.Join(t.TempDir(), "store.db"))
}

// OpenAt opens the store at path like Open.
func OpenAt(t testing.TB, path string) *store.DB {
	t.Helper()
	db, err := file.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("cannot close the store: %v", err)
		}
	})
	return db
}

// Update runs an Update that must succeed.
func Update(t testing.TB, db *store.DB, fn func(*store.Tx) error) {
	t.Helper()
	if err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// View runs a View that must succeed.
func View(t testing.TB, db *store.DB, fn func(*store.Tx) error) {
	t.Helper()
	if err := db.View(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}
