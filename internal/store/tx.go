package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
)

// Tx is the store within one View or Update, for the goroutine that runs the closure.
type Tx struct {
	conn   *conn
	write  bool
	done   bool
	broken error   // an error after which nothing of this transaction can be kept
	items  itemRow // those that were read last
	txState
}

// txState is what a closure moves forward, kept apart so that a failed closure leaves it as it was.
type txState struct {
	rev       shoal.Rev
	lastEvent shoal.Rev
	machines  shoal.Rev // of the last change of a machine
}

var (
	errReadOnly = errors.New("store: a View tried to write")
	errDone     = errors.New("store: a transaction was used after its closure returned")
)

// Rev is the revision of what the transaction sees, its own changes included.
func (tx *Tx) Rev() (shoal.Rev, error) {
	if tx.write {
		return tx.rev, nil
	}
	var rev shoal.Rev
	err := tx.query(func(rows *sql.Rows) error { return rows.Scan(&rev) }, "SELECT value FROM counters WHERE name = 'rev'")
	return rev, err
}

// next takes the next revision.
func (tx *Tx) next() shoal.Rev {
	tx.rev++
	return tx.rev
}

func (tx *Tx) query(scan func(*sql.Rows) error, query string, args ...any) error {
	if tx.done {
		return errDone
	}
	return tx.check(tx.conn.query(scan, query, args...))
}

func (tx *Tx) exec(query string, args ...any) (sql.Result, error) {
	if tx.done {
		return nil, errDone
	}
	if !tx.write {
		return nil, errReadOnly
	}
	res, err := tx.conn.exec(query, args...)
	return res, tx.check(err)
}

// change is exec for statements that count as a change of the store's state.
func (tx *Tx) change(query string, args ...any) (affected int64, err error) {
	res, err := tx.exec(query, args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	if err == nil && n > 0 {
		tx.next()
	}
	return n, err
}

func (tx *Tx) check(err error) error {
	if err != nil && broken(err) && tx.broken == nil {
		tx.broken = explain(err)
	}
	return explain(err)
}

// list decodes the body column of each row.
func list[V any](tx *Tx, query string, args ...any) ([]V, error) {
	var all []V
	err := tx.query(func(rows *sql.Rows) error {
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var v V
		if err := json.Unmarshal(body, &v); err != nil {
			return fmt.Errorf("cannot read a stored %T: %w", v, err)
		}
		all = append(all, v)
		return nil
	}, query, args...)
	return all, err
}

// nanos is a time as the columns hold it; zero for none.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// now is the time without its monotonic reading, as it comes back from the store.
func now() time.Time { return time.Now().UTC().Round(0) }
