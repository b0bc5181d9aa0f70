package file

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

// File is the file, held open. Its methods may be called from any goroutine.
type File struct {
	sql     *sql.DB
	lock    *os.File
	readers chan *conn // nil stands for a connection not yet made
	queue   chan *request
	quit    chan struct{} // closed by Close: no more requests
	stopped chan struct{} // closed when the writer has ended

	all, events, machines atomic.Int64 // Revs of what is committed

	mu      sync.Mutex // guards the two below, never held while anything else is done
	changed chan struct{}
	closed  bool
}

// maxReaders is how many Views run at once; more wait.
const maxReaders = 8

// Open opens the file at path, makes it if there is none, and brings it to the newest schema.
// The file belongs to one process at a time; a second Open is a KindConflict. The caller closes
// it after its last use.
func Open(ctx context.Context, path string, schema Schema) (*File, error) {
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	f := &File{
		lock:    lock,
		readers: make(chan *conn, maxReaders),
		queue:   make(chan *request, maxGroup),
		quit:    make(chan struct{}),
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	if err := f.open(ctx, path, schema); err != nil {
		if f.sql != nil {
			_ = f.sql.Close()
		}
		_ = lock.Close()
		return nil, shoal.Errorf(shoal.KindOf(err), "cannot open the store %s: %w", path, err)
	}
	return f, nil
}

func (f *File) open(ctx context.Context, path string, schema Schema) (err error) {
	if err := secure(path); err != nil {
		return shoal.Errorf(shoal.KindUnavailable, "%w", err)
	}
	if f.sql, err = sql.Open("sqlite", DataSource(path)); err != nil {
		return err
	}
	c, err := newConn(ctx, f.sql)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.discard()
		}
	}()
	if err := migrate(ctx, c, schema); err != nil {
		return err
	}
	var rev, lastEvent int64
	const counters = "SELECT value, (SELECT coalesce(max(rev), 0) FROM events) FROM counters WHERE name = 'rev'"
	if err := c.QueryRowContext(ctx, counters).Scan(&rev, &lastEvent); err != nil {
		return explain(err)
	}
	f.keep(Revs{All: shoal.Rev(rev), Events: shoal.Rev(lastEvent), Machines: shoal.Rev(rev)})
	for range maxReaders {
		f.readers <- nil
	}
	w := &writer{file: f, conn: c}
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
func (f *File) Close() error {
	f.mu.Lock()
	was := f.closed
	f.closed = true
	f.mu.Unlock()
	if was {
		<-f.stopped
		return nil
	}
	close(f.quit)
	<-f.stopped
	for range maxReaders {
		if c := <-f.readers; c != nil {
			c.discard()
		}
	}
	err := f.sql.Close()
	return errors.Join(explain(err), f.lock.Close())
}

// ErrClosed is what whoever comes after Close is told.
func ErrClosed() error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot use the store: it is closed")
}

// View runs fn on one snapshot; see DB.View of package store.
func (f *File) View(ctx context.Context, fn func(*Tx) error) error {
	var c *conn
	select {
	case c = <-f.readers:
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "cannot read the store: %w", ctx.Err())
	case <-f.quit:
		return ErrClosed()
	}
	keep := false
	defer func() {
		if c != nil && !keep {
			c.discard()
			c = nil
		}
		f.readers <- c
	}()
	if err := ctx.Err(); err != nil {
		keep = true
		return shoal.Errorf(shoal.KindCancelled, "cannot read the store: %w", err)
	}
	if c == nil {
		var err error
		if c, err = newConn(context.WithoutCancel(ctx), f.sql); err != nil {
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

// Revs are the revisions of the last committed changes.
func (f *File) Revs() Revs {
	return Revs{All: shoal.Rev(f.all.Load()), Events: shoal.Rev(f.events.Load()), Machines: shoal.Rev(f.machines.Load())}
}

func (f *File) keep(r Revs) {
	f.machines.Store(int64(r.Machines))
	f.all.Store(int64(r.All))
	f.events.Store(int64(r.Events))
}

// Waiting is how many Updates are queued.
func (f *File) Waiting() int { return len(f.queue) }

// Closing is closed when Close begins.
func (f *File) Closing() <-chan struct{} { return f.quit }

// Changed returns a channel that is closed at the next commit that changed something. Take it,
// look at the store, then wait: a change between taking and waiting is not missed.
func (f *File) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *File) announce(r Revs) {
	f.keep(r)
	f.mu.Lock()
	old := f.changed
	f.changed = make(chan struct{})
	f.mu.Unlock()
	close(old)
}
