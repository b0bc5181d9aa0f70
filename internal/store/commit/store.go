package commit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal"
)

// Database makes connections, and knows what its errors mean.
type Database interface {
	// Reader makes a connection for Views.
	Reader(ctx context.Context) (Conn, error)
	// Writer makes the connection for Updates. ErrLost: this process may not write any more.
	Writer(ctx context.Context) (Conn, error)
	// Broken reports whether an error ends the whole transaction rather than one statement.
	Broken(error) bool
	// Explain gives an error a kind and, where something can be done, a hint.
	Explain(error) error
	// Lease is how long nobody else may write after a connection for Updates was last used; zero: for ever.
	Lease() time.Duration
	// Columns is a query for each column of each table of the store: the table's name and its own, in order.
	Columns() string
	Close() error
}

// Explain is what the Explain of every Database has in common: what has a kind already keeps it, and of everything else a
// database knows what it means.
func Explain(err error, says func(error) error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*shoal.Error](err); ok {
		return err
	}
	return says(err)
}

// ErrLost is the error of a process whose place another has taken.
var ErrLost = errors.New("another server has taken over")

// Store is a database, held open. Its methods may be called from any goroutine.
type Store struct {
	db      Database
	readers chan Conn // nil stands for a connection not yet made
	queue   chan *request
	quit    chan struct{} // closed by Close: no more requests
	stopped chan struct{} // closed when the writer has ended
	lost    chan struct{} // closed when another process has taken over
	gaveUp  chan struct{} // closed by giveUp
	giveUp  func()

	revs  atomic.Pointer[Revs] // of what is committed
	used  atomic.Int64         // when the writing connection was last seen to work: nanoseconds after start
	start time.Time

	mu      sync.Mutex // guards the two below, never held while anything else is done
	changed chan struct{}
	closed  bool
}

// maxReaders is how many Views run at once; more wait.
const maxReaders = 8

// Open makes a store of a database whose tables are there, with the connection that may write to it. Both are the
// store's from now on; after an error they are still the caller's.
func Open(db Database, c Conn) (*Store, error) {
	s := &Store{
		db:      db,
		readers: make(chan Conn, maxReaders),
		queue:   make(chan *request, maxGroup),
		quit:    make(chan struct{}),
		stopped: make(chan struct{}),
		lost:    make(chan struct{}),
		gaveUp:  make(chan struct{}),
		changed: make(chan struct{}),
		start:   time.Now(),
	}
	s.giveUp = sync.OnceFunc(func() { close(s.gaveUp) })
	revs, err := readRevs(c)
	if err != nil {
		return nil, db.Explain(err)
	}
	s.revs.Store(&revs)
	for range maxReaders {
		s.readers <- nil
	}
	w := &writer{store: s, conn: c}
	go w.run()
	return s, nil
}

// readRevs reads what the revisions are.
func readRevs(c Conn) (r Revs, err error) {
	err = c.Query(func(rows Rows) error { return rows.Scan(&r.All, &r.Events, &r.Job) },
		"SELECT value, (SELECT coalesce(max(rev), 0) FROM events), (SELECT value FROM counters WHERE name = 'job') FROM counters WHERE name = 'rev'")
	r.Others, r.Machines, r.Catalog = r.Events, r.All, r.All
	return r, err
}

// Close waits for the closures that run, and closes the database. Updates still waiting fail with
// KindUnavailable. Calling it again does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		<-s.stopped
		return nil
	}
	close(s.quit)
	<-s.stopped
	for range maxReaders {
		if c := <-s.readers; c != nil {
			c.Discard()
		}
	}
	return s.db.Close()
}

// ErrClosed is what whoever comes after Close is told.
func ErrClosed() error {
	return shoal.Errorf(shoal.KindUnavailable, "cannot use the store: it is closed")
}

// View runs fn on one snapshot; see DB.View of package store.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	var c Conn
	select {
	case c = <-s.readers:
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "cannot read the store: %w", ctx.Err())
	case <-s.quit:
		return ErrClosed()
	}
	keep := false
	defer func() {
		if c != nil && !keep {
			c.Discard()
			c = nil
		}
		s.readers <- c
	}()
	if err := ctx.Err(); err != nil {
		keep = true
		return shoal.Errorf(shoal.KindCancelled, "cannot read the store: %w", err)
	}
	if c == nil {
		var err error
		if c, err = s.db.Reader(context.WithoutCancel(ctx)); err != nil {
			c = nil // not a nil in an interface
			return s.db.Explain(err)
		}
	}
	if err := c.Begin(false); err != nil {
		return s.db.Explain(err)
	}
	tx := &Tx{s: s, conn: c}
	err := fn(tx)
	tx.done = true
	endErr := c.Rollback()
	keep = tx.broken == nil && endErr == nil
	if err == nil && tx.broken != nil {
		err = tx.broken
	}
	return s.db.Explain(err)
}

// GiveUp has nobody wait any longer to be told whether a commit happened whose answer was lost: this process ends, and with it all that
// would have to know.
func (s *Store) GiveUp() { s.giveUp() }

// Revs are the revisions of the last committed changes.
func (s *Store) Revs() Revs { return *s.revs.Load() }

// Waiting is how many Updates are queued.
func (s *Store) Waiting() int { return len(s.queue) }

// Closing is closed when Close begins.
func (s *Store) Closing() <-chan struct{} { return s.quit }

// Lost is closed when another process has taken over: nothing can be stored any more.
func (s *Store) Lost() <-chan struct{} { return s.lost }

// Leads returns nil while no other process can have taken over, else why that is not certain. It looks at a clock and
// at nothing else.
func (s *Store) Leads() error {
	lease := s.db.Lease()
	if lease == 0 {
		return nil
	}
	select {
	case <-s.lost:
		return s.db.Explain(ErrLost)
	default:
	}
	if silent := time.Since(s.start) - time.Duration(s.used.Load()); silent >= lease {
		return shoal.Errorf(shoal.KindUnavailable, "the database has not answered for %v: another server may have taken over", silent.Round(time.Second))
	}
	return nil
}

// Changed returns a channel that is closed at the next commit that changed something. Take it,
// look at the store, then wait: a change between taking and waiting is not missed.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *Store) announce(r Revs) {
	s.revs.Store(&r)
	s.mu.Lock()
	old := s.changed
	s.changed = make(chan struct{})
	s.mu.Unlock()
	close(old)
}
