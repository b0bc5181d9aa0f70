package commit

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// maxGroup is how many closures share a transaction at most. It bounds how long the first of
// them waits for the last.
const maxGroup = 256

// request is one Update in the writer's hands. The closure itself runs on its caller's goroutine,
// in turn: the writer hands over the transaction and waits until it comes back.
type request struct {
	turn   chan *Tx      // writer → caller: run it now
	ran    chan error    // caller → writer: the closure's error
	result chan error    // writer → caller: it is on disk, or why not
	unsure chan struct{} // closed by the writer when the answer may take a while: whether it is on disk cannot be found out now
	gone   chan struct{} // closed when the caller's goroutine ended within the closure
}

// Update runs fn and stores what it changed, together with other Updates; see DB.Update of package store.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return shoal.Errorf(shoal.KindCancelled, "cannot change the store: %w", err)
	}
	r := &request{turn: make(chan *Tx), ran: make(chan error), result: make(chan error, 1), unsure: make(chan struct{}), gone: make(chan struct{})}
	select {
	case <-s.quit:
		return ErrClosed()
	default:
	}
	select {
	case s.queue <- r:
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "cannot change the store: %w", ctx.Err())
	case <-s.stopped:
		return ErrClosed()
	}
	unsure := r.unsure
	var gone <-chan struct{}
	for {
		select {
		case tx := <-r.turn:
			r.play(fn, tx)
		case <-unsure:
			unsure, gone = nil, s.gaveUp
		case <-gone:
			return shoal.Errorf(shoal.KindUnavailable, "cannot tell whether the store was changed: the server ends: %w", ErrUnsure)
		case err := <-r.result:
			return err
		case <-s.stopped:
			select {
			case err := <-r.result:
				return err
			default:
				return ErrClosed()
			}
		}
	}
}

// play runs fn and gives the transaction back whatever fn does, runtime.Goexit included.
func (r *request) play(fn func(*Tx) error, tx *Tx) {
	var result error
	returned := false
	defer func() {
		if returned {
			r.ran <- result
		} else if p := recover(); p != nil {
			r.ran <- shoal.Errorf(shoal.KindInternal, "cannot change the store: the update panicked: %w", &panicError{p, debug.Stack()})
		} else {
			close(r.gone)
		}
	}()
	result = fn(tx)
	returned = true
}

// run has the caller run its closure on tx.
func (r *request) run(tx *Tx) error {
	select {
	case r.turn <- tx:
	case <-r.gone:
		return errGone()
	}
	select {
	case err := <-r.ran:
		return err
	case <-r.gone:
		return errGone()
	}
}

func errGone() error {
	return shoal.Errorf(shoal.KindInternal, "cannot change the store: the update's goroutine ended")
}

// panicError keeps where a closure panicked, for the log.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%v\n%s", e.value, e.stack) }

// writer owns the writing connection. conn is nil after a failure until the next attempt.
type writer struct {
	store  *Store
	conn   Conn
	doubt  *doubt    // nil: none
	failed error     // why there is no connection
	again  time.Time // when one is tried for again
}

func (w *writer) run() {
	defer close(w.store.stopped)
	defer func() {
		if w.conn != nil {
			w.conn.Discard()
		}
	}()
	var beat <-chan time.Time // silence would lose the right to write
	if lease := w.store.db.Lease(); lease > 0 {
		t := time.NewTicker(lease / beats)
		defer t.Stop()
		beat = t.C
	}
	group := make([]*request, 0, maxGroup)
	for {
		select {
		case r := <-w.store.queue:
			group = w.gather(append(group[:0], r))
			w.settle(group)
		case <-beat:
			w.renew()
		case <-w.store.quit:
			return
		}
	}
}

// gather takes along whoever is waiting already.
func (w *writer) gather(group []*request) []*request {
	for len(group) < maxGroup {
		select {
		case r := <-w.store.queue:
			group = append(group, r)
		default:
			return group
		}
	}
	return group
}

// settle carries out a group. When the transaction as a whole fails, each is tried alone, so that
// one large update which no longer fits on the disk does not fail the small ones beside it.
func (w *writer) settle(group []*request) {
	errs, err := w.commit(group)
	if errors.Is(err, ErrUnsure) {
		w.doubt.why = err
		if w.resolve(); w.doubt != nil {
			for _, r := range group {
				close(r.unsure)
			}
		}
		return
	}
	if err != nil && len(group) > 1 {
		for _, r := range group {
			w.settle([]*request{r})
		}
		return
	}
	for i, r := range group {
		if err != nil {
			r.result <- err
			continue
		}
		r.result <- errs[i]
	}
}

// commit runs the closures of a group in one transaction. errs are those of the closures; err
// is set when nothing of the group was stored.
func (w *writer) commit(group []*request) (errs []error, err error) {
	defer func() {
		if err != nil {
			w.drop() // ends the transaction too; the next group starts afresh
			err = w.store.db.Explain(err)
		}
	}()
	w.resolve()
	if err := w.connect(); err != nil {
		return nil, err
	}
	if err := w.conn.Begin(true); err != nil {
		return nil, err
	}
	state := w.store.Revs()
	start := state.All
	errs = make([]error, len(group))
	for i, r := range group {
		after, fnErr, err := w.one(r, state)
		if err != nil {
			return nil, err
		}
		state, errs[i] = after, fnErr
	}
	if state.All == start {
		return errs, w.conn.Rollback()
	}
	switch err := w.conn.Commit(start, state.All); {
	case errors.Is(err, ErrUnsure):
		w.doubt = &doubt{group: slices.Clone(group), errs: errs, state: state}
		return nil, err
	case errors.Is(err, ErrLost):
		w.lose()
		return nil, err
	case err != nil:
		return nil, err
	}
	w.store.announce(state)
	return errs, nil
}

// one runs one closure within its savepoint. err means that the transaction is lost.
func (w *writer) one(r *request, before Revs) (after Revs, fnErr, err error) {
	if err := w.conn.Do("SAVEPOINT one"); err != nil {
		return before, nil, err
	}
	tx := &Tx{s: w.store, conn: w.conn, write: true, Revs: before}
	fnErr = r.run(tx)
	tx.done = true
	if tx.broken != nil {
		return before, nil, tx.broken
	}
	if fnErr != nil {
		if err := w.conn.Do("ROLLBACK TO one"); err != nil {
			return before, nil, err
		}
	}
	if err := w.conn.Do("RELEASE one"); err != nil {
		return before, nil, err
	}
	if fnErr != nil {
		return before, fnErr, nil
	}
	return tx.Revs, nil, nil
}
