package commit

import (
	"errors"

	"github.com/shoal-pool/shoal"
)

// Rows is the row that a query is at. Strings and bytes scanned as sql.RawBytes are valid during the call only.
type Rows interface {
	Scan(dest ...any) error
}

// Conn is one connection to a database. One goroutine at a time uses it. Its statements are in SQLite's form; a
// database that speaks otherwise translates them. Its methods return the database's own errors.
type Conn interface {
	// Begin starts a transaction: one that writes, or one that reads one snapshot.
	Begin(write bool) error
	// Commit moves the revision on and stores what the transaction changed. ErrLost: the revision was another. An
	// error that is an ErrUnsure leaves open whether it is stored.
	Commit(from, to shoal.Rev) error
	Rollback() error
	Exec(query string, args ...any) (affected int64, err error)
	// Do is Exec for whoever does not ask how many rows it was. A database that is far away may carry it out
	// together with what follows, which then returns its error.
	Do(query string, args ...any) error
	Query(scan func(Rows) error, query string, args ...any) error
	// Discard closes the connection for good, whatever state it is in.
	Discard()
}

// ErrUnsure is the error of a commit of which nobody knows whether it happened.
var ErrUnsure = errors.New("it is not known whether the last changes are stored")

// Tx is the database within one View or Update, for the goroutine that runs the closure.
type Tx struct {
	s      *Store
	conn   Conn
	write  bool
	done   bool
	broken error // an error after which nothing of this transaction can be kept
	Revs
}

// Revs are the revisions of the last changes, and what else is counted up. A closure moves them forward; one that fails
// leaves them as they were.
type Revs struct {
	All      shoal.Rev // of anything
	Events   shoal.Rev // of an event
	Others   shoal.Rev // of an event that is not about jobs
	Machines shoal.Rev // of a machine, or that of the start
	Catalog  shoal.Rev // of a user, a group, a pool or a token, or that of the start
	Job      int64     // the number of the last job
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
	err := tx.Query(func(rows Rows) error { return rows.Scan(&rev) }, "SELECT value FROM counters WHERE name = 'rev'")
	return rev, err
}

// Next takes the next revision.
func (tx *Tx) Next() shoal.Rev {
	tx.All++
	return tx.All
}

// Query calls scan for each row.
func (tx *Tx) Query(scan func(Rows) error, query string, args ...any) error {
	if tx.done {
		return errDone
	}
	return tx.check(tx.conn.Query(scan, query, args...))
}

// Exec runs a statement that by itself is no change of the store's state: it takes no revision.
func (tx *Tx) Exec(query string, args ...any) (affected int64, err error) {
	if err := tx.mayWrite(); err != nil {
		return 0, err
	}
	affected, err = tx.conn.Exec(query, args...)
	return affected, tx.check(err)
}

// Do is Exec for whoever does not ask how many rows it was.
func (tx *Tx) Do(query string, args ...any) error {
	if err := tx.mayWrite(); err != nil {
		return err
	}
	return tx.check(tx.conn.Do(query, args...))
}

func (tx *Tx) mayWrite() error {
	if tx.done {
		return errDone
	}
	if !tx.write {
		return errReadOnly
	}
	return nil
}

// Spoil keeps the whole transaction from being stored, because of an error that is not told by the closure.
func (tx *Tx) Spoil(err error) {
	if err != nil && tx.broken == nil {
		tx.broken = tx.s.db.Explain(err)
	}
}

func (tx *Tx) check(err error) error {
	if err == nil {
		return nil
	}
	if tx.s.db.Broken(err) {
		tx.Spoil(err)
	}
	return tx.s.db.Explain(err)
}

// Columns is a query for each column of each table of the store.
func (tx *Tx) Columns() string { return tx.s.db.Columns() }
