package file

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// conn is one SQLite connection with its prepared statements. One goroutine at a time uses it.
// Statements run under context.Background: closures are short, and a context that can end costs
// the driver a goroutine per statement.
type conn struct {
	*sql.Conn
	stmts map[string]*sql.Stmt
}

// maxStatements bounds the cache of a connection; the filters of pages can be combined freely.
const maxStatements = 256

// DataSource names the file with the settings each connection gets. WAL with FULL reaches the disk
// at every commit. The journal is cut back after a checkpoint so that a burst does not keep space.
func DataSource(path string) string {
	const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=journal_size_limit(67108864)&_pragma=temp_store(MEMORY)&_pragma=trusted_schema(OFF)"
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas
}

func newConn(ctx context.Context, pool *sql.DB) (*conn, error) {
	c, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, stmts: map[string]*sql.Stmt{}}, nil
}

func (c *conn) prepare(query string) (*sql.Stmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	if len(c.stmts) >= maxStatements {
		c.closeStatements()
	}
	s, err := c.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.stmts[query] = s
	return s, nil
}

// Begin is of commit.Conn, as those that follow.
func (c *conn) Begin(write bool) error {
	if write {
		return c.Do("BEGIN IMMEDIATE")
	}
	return c.Do("BEGIN")
}

// Commit either stores everything or nothing, and says so.
func (c *conn) Commit(from, to shoal.Rev) error {
	n, err := c.Exec("UPDATE counters SET value = ? WHERE name = 'rev' AND value = ?", int64(to), int64(from))
	if err == nil && n != 1 {
		err = commit.ErrLost
	}
	if err != nil {
		return err
	}
	return c.Do("COMMIT")
}

// Rollback takes the transaction back.
func (c *conn) Rollback() error { return c.Do("ROLLBACK") }

// Exec runs a statement.
func (c *conn) Exec(query string, args ...any) (affected int64, err error) {
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Do runs a statement at once.
func (c *conn) Do(query string, args ...any) error {
	_, err := c.Exec(query, args...)
	return err
}

// Query calls scan for each row. Strings and bytes scanned as sql.RawBytes are valid during the call only.
func (c *conn) Query(scan func(commit.Rows) error, query string, args ...any) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (c *conn) closeStatements() {
	for q, s := range c.stmts {
		s.Close()
		delete(c.stmts, q)
	}
}

// Discard closes the connection for good, whatever state it is in.
func (c *conn) Discard() {
	c.closeStatements()
	_ = c.Raw(func(any) error { return errDiscard }) // database/sql drops it only when told it is bad
	_ = c.Close()
}

var errDiscard = fmt.Errorf("discarded: %w", driver.ErrBadConn)

// broken reports whether an error ends the whole SQL transaction rather than one statement:
// the disk, the memory or the file is at fault.
func broken(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, sql.ErrTxDone)
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_NOMEM, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB,
		lib.SQLITE_BUSY, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL, lib.SQLITE_INTERRUPT:
		return true
	}
	return false
}

// explain gives an error of the database a kind and, where something can be done, a hint.
func explain(err error) error { return commit.Explain(err, says) }

// says is explain for what SQLite says.
func says(err error) error {
	if errors.Is(err, commit.ErrLost) {
		return shoal.Errorf(shoal.KindUnavailable, "cannot change the store: its file was changed by another program").
			WithHint("leave store and server to each other: restart shoal")
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return shoal.Errorf(shoal.KindCancelled, "cannot use the store: %w", err)
		}
		return err
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_FULL:
		return shoal.Errorf(shoal.KindUnavailable, "cannot write to the store: its disk is full: %w", err).
			WithHint("free some space where the data directory lies; nothing stored is lost and work goes on by itself")
	case lib.SQLITE_IOERR, lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL:
		return shoal.Errorf(shoal.KindUnavailable, "cannot use the store: its disk does not obey: %w", err).
			WithHint("look at the disk that holds the data directory: is it full, read-only or failing?")
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return shoal.Errorf(shoal.KindInternal, "cannot use the store: its file is damaged: %w", err).
			WithHint("stop shoal and make the data directory anew from a backup: shoal admin restore")
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_NOMEM:
		return shoal.Errorf(shoal.KindUnavailable, "cannot use the store just now: %w", err)
	}
	return shoal.Errorf(shoal.KindInternal, "cannot use the store: %w", err)
}

// secure makes the file, readable by its owner only; SQLite gives its journals the same mode.
func secure(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(0o600)
}
