package commit

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/shoal-pool/shoal"
)

const (
	// beats is how often in the time of a lease the connection for Updates is used at least.
	beats = 5
	// pause is for how long after a failure no new connection is tried for.
	pause = 500 * time.Millisecond
)

// doubt is a group of whose commit nobody knows whether it happened. Who asked for it waits on: an answer that may be wrong would leave
// what others have in memory different from what is stored.
type doubt struct {
	group []*request
	errs  []error // of the closures
	state Revs    // if it is stored
	why   error
}

// connect makes a connection for Updates where there is none, and takes over what a commit has left of which nobody
// knew whether it happened.
func (w *writer) connect() (err error) {
	if w.conn != nil {
		return nil
	}
	s := w.store
	if w.failed != nil && time.Now().Before(w.again) {
		return w.failed
	}
	defer func() {
		if w.failed = err; err != nil {
			w.again = time.Now().Add(pause)
		}
	}()
	select {
	case <-s.lost:
		return ErrLost
	default:
	}
	c, err := s.db.Writer(context.Background())
	if errors.Is(err, ErrLost) {
		w.lose()
	}
	if err != nil {
		return err
	}
	revs, err := readRevs(c)
	if err != nil {
		c.Discard()
		return err
	}
	w.conn = c
	s.seen()
	if revs.All != s.Revs().All {
		s.announce(revs)
	}
	return nil
}

// resolve tells those of a group in doubt what became of it, as soon as the database can be asked: nobody else moves the revision.
func (w *writer) resolve() {
	d := w.doubt
	if d == nil {
		return
	}
	err := w.connect()
	switch {
	case errors.Is(err, ErrLost):
		err = d.why
	case err != nil:
		return
	case w.store.Revs().All != d.state.All:
		err = shoal.Errorf(shoal.KindUnavailable, "cannot change the store: the connection to the database broke, and nothing of the change is stored").
			WithHint("repeat it")
	default:
		w.store.announce(d.state)
	}
	w.doubt = nil
	for i, r := range d.group {
		r.result <- cmp.Or(d.errs[i], err)
	}
}

// drop closes the connection for Updates.
func (w *writer) drop() {
	if w.conn != nil {
		w.conn.Discard()
		w.conn = nil
	}
}

// renew uses the connection, so that the database knows that this process lives.
func (w *writer) renew() {
	w.resolve()
	if w.connect() != nil {
		return // Leads tells
	}
	began := time.Since(w.store.start)
	if _, err := w.conn.Exec("SELECT 1"); err != nil {
		w.drop()
		return
	}
	w.store.used.Store(int64(began))
}

// seen notes that the connection for Updates has just been made.
func (s *Store) seen() { s.used.Store(int64(time.Since(s.start))) }

func (w *writer) lose() {
	select {
	case <-w.store.lost:
	default:
		close(w.store.lost)
	}
}

// Led is a Database that several servers may use, one at a time.
type Led interface {
	// Epoch is that of this process, since it leads.
	Epoch() int64
}

// Epoch counts who leads; 0 where only one process can.
func (s *Store) Epoch() int64 {
	if d, ok := s.db.(Led); ok {
		return d.Epoch()
	}
	return 0
}
