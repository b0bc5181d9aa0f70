package file

import (
	"database/sql"
	"errors"

	"github.com/shoal-pool/shoal"
)

// Tx is the file within one View or Update, for the goroutine that runs the closure.
type Tx struct {
	conn   *conn
	write  bool
	done   bool
	broken error // an error after which nothing of this transaction can be kept
	Revs
}

// Revs are the revisions of the last changes. A closure moves them forward; one that fails leaves them as they were.
type Revs struct {
	All      shoal.Rev // of anything
	Events   shoal.Rev // of an event
	Machines shoal.Rev // of a machine, or that of the start
}

var (
	errReadOnly = errors.New("store: a View tried to write")
	errDone     = errors.New("store: a transaction was used after its closure returned")
)

// Rev is the revision of what the transaction sees, its own changes included.
func (tx *Tx) Rev() (shoal.Rev, error) {
	if tx.write {
		return tx.All, nil
	}
	var rev shoal.Rev
	err := tx.Query(func(rows *sql.Rows) error { return rows.Scan(&rev) }, "SELECT value FROM counters WHERE name = 'rev'")
	return rev, err
}

// Next takes the next revision.
func (tx *Tx) Next() shoal.Rev {
	tx.All++
	return tx.All
}

// Query calls scan for each row. Strings and bytes scanned as sql.RawBytes are valid during the call only.
func (tx *Tx) Query(scan func(*sql.Rows) error, query string, args ...any) error {
	if tx.done {
		return errDone
	}
	return tx.check(tx.conn.query(scan, query, args...))
}

// Exec runs a statement that by itself is no change of the store's state: it takes no revision.
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error) {
	if tx.done {
		return nil, errDone
	}
	if !tx.write {
		return nil, errReadOnly
	}
	res, err := tx.conn.exec(query, args...)
	return res, tx.check(err)
}

// Spoil keeps the whole transaction from being stored, because of an error that is not told by the closure.
func (tx *Tx) Spoil(err error) {
	if err != nil && tx.broken == nil {
		tx.broken = explain(err)
	}
}

func (tx *Tx) check(err error) error {
	if err != nil && broken(err) {
		tx.Spoil(err)
	}
	return explain(err)
}
