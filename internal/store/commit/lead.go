package commit

import (
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
	// patience is for how long who changed something waits to be told whether it is stored, when the answer was lost.
	patience = 20 * time.Second
)

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

// resolve finds out what became of a commit whose answer was lost, as soon as the database can be asked: nobody else moves
// the revision. It returns nil if everything is stored.
func (w *writer) resolve(state Revs, unsure error) error {
	w.drop()
	for begun := time.Now(); time.Since(begun) < patience; {
		w.failed = nil
		if err := w.connect(); errors.Is(err, ErrLost) {
			return unsure
		} else if err != nil {
			select {
			case <-w.store.quit:
				return unsure
			case <-time.After(pause):
			}
			continue
		}
		if w.store.Revs().All != state.All {
			return shoal.Errorf(shoal.KindUnavailable, "cannot change the store: the connection to the database broke, and nothing of the change is stored").
				WithHint("repeat it")
		}
		w.store.announce(state)
		return nil
	}
	return unsure
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
