// Package storetest opens stores for tests, and holds the suite that every
// store passes.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/file"
)

// empty is the file of a store in which there is nothing, made once: each test would make the same, ten times slower than it
// is copied.
var empty = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "shoal-store-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "store.db")
	db, err := file.Open(context.Background(), path)
	if err != nil {
		return nil, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// Open opens a new store in a directory of the test and closes it when the test ends. Within a
// synctest bubble call it there; the store then lives on the bubble's clock.
func Open(t testing.TB) *store.DB {
	t.Helper()
	return OpenAt(t, filepath.Join(t.TempDir(), "store.db"))
}

// OpenAt opens the store at path like Open.
func OpenAt(t testing.TB, path string) *store.DB {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		text, err := empty()
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
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

// Hide has whatever asks for a table of the store at path fail, until what it returns is called.
func Hide(t testing.TB, path, table string) (show func()) {
	t.Helper()
	db, err := sql.Open("sqlite", file.DataSource(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	rename := func(from, to string) {
		t.Helper()
		if _, err := db.Exec("ALTER TABLE " + from + " RENAME TO " + to); err != nil {
			t.Fatal(err)
		}
	}
	rename(table, "hidden")
	return func() { rename("hidden", table) }
}

// Fill leaves no space in dir, where the store lies on a disk of its own, for another update. What it returns makes space.
func Fill(t testing.TB, db *store.DB, dir string) func() {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	for i := range 10_000 { // what the database has set aside goes, too
		err := db.Update(context.Background(), func(tx *store.Tx) error {
			_, err := tx.Shares().Put(shoal.Share{Name: "ballast", Source: strings.Repeat("x", 1000+i)})
			return err
		})
		if shoal.KindOf(err) == shoal.KindUnavailable {
			return func() {
				t.Helper()
				if err := os.Remove(ballast); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Fatal("the disk does not get full")
	return nil
}
