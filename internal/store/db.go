package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/shoal-pool/shoal"
)

// DB is the store. Its methods may be called from any goroutine.
type DB struct {
	sql     *sql.DB
	lock    *os.File
	readers chan *conn // nil stands for a connection not yet made
	queue   chan *request
	quit    chan struct{} // closed by Close: no more requests
	stopped chan struct{} // closed when the writer has ended

	rev       atomic.Int64 // last committed revision
	lastEvent atomic.Int64 // revision of the last committed event
	machines  atomic.Int64 // revision of the last committed change of a machine, or that of the start

	mu      sync.Mutex // guards the two below, never held while anything else is done
	changed chan struct{}
	closed  bool
}

// maxReaders is how many Views run at once; more wait.
const maxReaders = 8

// Open opens the store at path, makes it if there is none, and brings its schema up to date.
// The file belongs to one process at a time; a second Open is a KindConflict. The caller closes
// the store after its last use.
func Open(ctx context.Context, path string) (*DB, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	db := &DB{
		lock:    lock,
		readers: make(chan *conn, maxReaders),
		queue:   make(chan *request, maxGroup),
		quit:    make(chan struct{}),
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	if err := db.open(ctx, path); err != nil {
		if db.sql != nil {
			_ = db.sql.Close()
		}
		_ = lock.Close()
		return nil, shoal.Errorf(shoal.KindOf(err), "cannot open the store %s: %w", path, err)
	}
	return db, nil
}

func (db *DB) open(ctx context.Context, path string) (err error) {
	if err := secure(path); err != nil {
		return shoal.Errorf(shoal.KindUnavailable, "%w", err)
	}
	if db.sql, err = sql.Open("sqlite", dataSource(path)); err != nil {
		return err
	}
	c, err := newConn(ctx, db.sql)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.discard()
		}
	}()
	if err := migrate(ctx, c); err != nil {
		return err
	}
	var rev, lastEvent int64
	const counters = "SELECT value, (SELECT coalesce(max(rev), 0) FROM events) FROM counters WHERE name = 'rev'"
	if err := c.QueryRowContext(ctx, counters).Scan(&rev, &lastEvent); err != nil {
		return explain(err)
	}
	db.rev.Store(rev)
	db.lastEvent.Store(lastEvent)
	db.machines.Store(rev)
	for range maxReaders {
		db.readers <- nil
	}
	w := &writer{db: db, conn: c}
	go w.run()
	return nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot open the store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, shoal.Errorf(shoal.KindConflict, "cannot open the store: %s is held by another process", path).
			WithHint("is `shoal serve` already running on this data directory?")
	}
	return f, nil
}

// Close waits for the closures that run, and closes the file. Updates still waiting fail with
// KindUnavailable. Calling it again does nothing.
func (db *DB) Close() error {
	db.mu.Lock()
	was := db.closed
	db.closed = true
	db.mu.Unlock()
	if was {
		<-db.stopped
		return nil
	}
	close(db.quit)
	<-db.stopped
	for range maxReaders {
		if c := <-db.readers; c != nil {
			c.discard()
		}
	}
	err := db.sql.Close()
	return errors.Join(explain(err), db.lock.Close())
}

func errClosed() error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot use the store: it is closed")
}

// View runs fn on one snapshot of the store: nothing changes for it while it reads. It may run
// beside Updates and other Views. fn must not keep tx, and must not start a View of its own.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	var c *conn
	select {
	case c = <-db.readers:
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "cannot read the store: %w", ctx.Err())
	case <-db.quit:
		return errClosed()
	}
	keep := false
	defer func() {
		if c != nil && !keep {
			c.discard()
			c = nil
		}
		db.readers <- c
	}()
	if err := ctx.Err(); err != nil {
		keep = true
		return shoal.Errorf(shoal.KindCancelled, "cannot read the store: %w", err)
	}
	if c == nil {
		var err error
		if c, err = newConn(context.WithoutCancel(ctx), db.sql); err != nil {
			return err
		}
	}
	if _, err := c.exec("BEGIN"); err != nil {
		return explain(err)
	}
	tx := &Tx{conn: c}
	err := fn(tx)
	tx.done = true
	_, endErr := c.exec("ROLLBACK")
	keep = tx.broken == nil && endErr == nil
	if err == nil && tx.broken != nil {
		err = tx.broken
	}
	return explain(err)
}

// Rev is the revision of the last committed change.
func (db *DB) Rev() shoal.Rev { return shoal.Rev(db.rev.Load()) }

// Changed returns a channel that is closed at the next commit that changed something. Take it,
// look at the store, then wait: a change between taking and waiting is not missed.
func (db *DB) Changed() <-chan struct{} {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.changed
}

// MachinesRev is the revision of the last change of a machine: while it stays, what was read of machines holds. It
// costs nothing.
func (db *DB) MachinesRev() shoal.Rev { return shoal.Rev(db.machines.Load()) }

func (db *DB) announce(s txState) {
	db.machines.Store(int64(s.machines))
	db.rev.Store(int64(s.rev))
	db.lastEvent.Store(int64(s.lastEvent))
	db.mu.Lock()
	old := db.changed
	db.changed = make(chan struct{})
	db.mu.Unlock()
	close(old)
}
