package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// conn is one connection: a commit.Conn. Statements whose outcome nobody asks for are sent together with the next one
// that is asked for, since it is the way there and back that costs.
//
// Statements run under context.Background, which costs nothing; that a database does not answer is noticed by patient.
type conn struct {
	pg     *pgx.Conn
	texts  map[string]string // what statements are in PostgreSQL's dialect
	queued *pgx.Batch
}

const (
	// maxQueued bounds what waits to be sent.
	maxQueued = 256
	// maxTexts bounds what is kept of translations; the filters of pages can be combined freely.
	maxTexts = 512
)

func (c *conn) queue(query string, args []any) {
	text, ok := c.texts[query]
	if !ok {
		if len(c.texts) >= maxTexts {
			clear(c.texts)
		}
		text = translate(query)
		c.texts[query] = text
	}
	c.queued.Queue(text, args...)
}

// send sends what is queued, and has last read the answer to the last of it.
func (c *conn) send(last func(pgx.BatchResults) error) error {
	n := c.queued.Len()
	results := c.pg.SendBatch(context.Background(), c.queued)
	c.queued = &pgx.Batch{}
	for range n - 1 {
		if _, err := results.Exec(); err != nil {
			_ = results.Close()
			return err
		}
	}
	err := last(results)
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Begin is of commit.Conn, as those that follow.
func (c *conn) Begin(write bool) error {
	if write {
		return c.Do("BEGIN")
	}
	return c.Do("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
}

// Commit sends all that is left to be sent together. A revision that is another divides by zero, and then nothing is
// committed; when the connection is lost meanwhile it is not known whether it is.
func (c *conn) Commit(from, to shoal.Rev) error {
	const move = "UPDATE counters SET value = CASE WHEN value = ?2 THEN ?1 ELSE 1 / (value - value) END WHERE name = 'rev'"
	if err := c.Do(move, int64(to), int64(from)); err != nil {
		return err
	}
	_, err := c.Exec("COMMIT")
	e, told := errors.AsType[*pgconn.PgError](err)
	switch {
	case told && e.Code == "22012":
		return commit.ErrLost
	case err != nil && (!told || e.Severity != "ERROR"):
		return fmt.Errorf("%w: %w", commit.ErrUnsure, err)
	}
	return err
}

// Rollback takes the transaction back.
func (c *conn) Rollback() error { _, err := c.Exec("ROLLBACK"); return err }

// Exec runs a statement.
func (c *conn) Exec(query string, args ...any) (affected int64, err error) {
	c.queue(query, args)
	err = c.send(func(r pgx.BatchResults) error {
		tag, err := r.Exec()
		affected = tag.RowsAffected()
		return err
	})
	return affected, err
}

// Do runs a statement before the next that is asked for an answer.
func (c *conn) Do(query string, args ...any) error {
	c.queue(query, args)
	if c.queued.Len() < maxQueued {
		return nil
	}
	return c.send(func(r pgx.BatchResults) error { _, err := r.Exec(); return err })
}

// Query calls scan for each row.
func (c *conn) Query(scan func(commit.Rows) error, query string, args ...any) error {
	c.queue(query, args)
	return c.send(func(r pgx.BatchResults) error {
		rows, err := r.Query()
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(row{rows}); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// Discard closes the connection.
func (c *conn) Discard() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.pg.Close(ctx)
}

// row is a row whose bytes can be scanned without a copy, as database/sql does.
type row struct{ rows pgx.Rows }

// Scan is of commit.Rows.
func (r row) Scan(dest ...any) error {
	for i, d := range dest {
		if raw, ok := d.(*sql.RawBytes); ok {
			dest[i] = (*pgtype.DriverBytes)(raw)
		}
	}
	return r.rows.Scan(dest...)
}

// patience is how long a database may be silent while it is asked something.
const patience = time.Minute

// patient is a connection that gives up when what is read from does not come, or what is written is not taken.
type patient struct {
	net.Conn
	limit time.Duration
}

// Read reads, and waits no longer than the limit.
func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(p.limit)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// Write writes, and waits no longer than the limit.
func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// closed reports whether an error says that a connection ended.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "conn closed")
}
