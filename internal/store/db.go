package store

import (
	"context"
	"embed"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// DB is the store. Its methods may be called from any goroutine.
type DB struct {
	in     *commit.Store
	bearer bearers
}

//go:embed migrations/*.sql
var migrations embed.FS

// New makes the store of a database that has its tables. Package file and package postgres open such.
func New(in *commit.Store) *DB { return &DB{in: in} }

// Schema is how the tables came to be as they are.
func Schema() commit.Schema {
	return commit.Schema{Files: migrations, Also: func(t *commit.Tx, version int) error {
		if version == 4 { // its queue is what SQL cannot write
			return fillQueue(&Tx{db: t})
		}
		return nil
	}}
}

// Close waits for the closures that run, and closes the file. Updates still waiting fail with
// KindUnavailable. Calling it again does nothing.
func (db *DB) Close() error { return db.in.Close() }

// View runs fn on one snapshot of the store: nothing changes for it while it reads. It may run
// beside Updates and other Views. fn must not keep tx, and must not start a View of its own.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	return db.in.View(ctx, func(t *commit.Tx) error { return fn(&Tx{db: t}) })
}

// Update runs fn and stores what it changed, all of it or nothing: nil means that the changes are
// on disk. An error of fn takes back what fn did and is returned as it is; a panic in it becomes
// an error of kind internal.
//
// fn may run twice and must have no other effects. It must not keep tx, nor call Update.
// Once fn waits in line, the end of ctx no longer stops it. Where the connection to the database breaks as the
// changes are committed, Update returns once the database has told what became of them: a wrong word would leave what
// others have in memory different from what is stored. GiveUp ends that wait.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	return db.in.Update(ctx, func(t *commit.Tx) error { return fn(&Tx{db: t}) })
}

// GiveUp ends the wait for a database that has not told what became of a commit. It is called when the process ends.
func (db *DB) GiveUp() { db.in.GiveUp() }

// Broken reports whether an error is of the store rather than of what was asked.
func Broken(err error) bool {
	switch shoal.KindOf(err) {
	case shoal.KindInternal, shoal.KindUnavailable, shoal.KindCancelled:
		return true
	}
	return false
}

// Rev is the revision of the last committed change.
func (db *DB) Rev() shoal.Rev { return db.in.Revs().All }

// MachinesRev is the revision of the last change of a machine: while it stays, what was read of machines holds. It
// costs nothing.
func (db *DB) MachinesRev() shoal.Rev { return db.in.Revs().Machines }

// CatalogRev is MachinesRev for users, groups, pools and tokens.
func (db *DB) CatalogRev() shoal.Rev { return db.in.Revs().Catalog }

// Changed returns a channel that is closed at the next commit that changed something. Take it,
// look at the store, then wait: a change between taking and waiting is not missed.
func (db *DB) Changed() <-chan struct{} { return db.in.Changed() }
