package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// prepare makes what our tables need beside themselves. json_extract is SQLite's function; a NUL, which PostgreSQL has
// no text for, is read as what stands for unreadable characters.
const prepare = `CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL);
CREATE OR REPLACE FUNCTION json_extract(body text, path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
	$$ SELECT replace(body, '\u0000', '\ufffd')::json #>> string_to_array(substr(path, 3), '.') $$;`

// migrate brings the schema forward to the newest version, each in a transaction of its own.
func (d *database) migrate(ctx context.Context, c *conn) error {
	steps, err := missing(c)
	if err != nil {
		return err
	}
	if err := c.script(ctx, prepare); err != nil {
		return err
	}
	for _, s := range steps {
		if err := d.step(ctx, c, s); err != nil {
			return fmt.Errorf("cannot migrate the store to schema %d: %w", s.Version, err)
		}
	}
	return nil
}

// schema is the version that a database is of; 0: there is no store in it.
func schema(c *conn) (have int, err error) {
	err = c.Query(func(r commit.Rows) error { return r.Scan(&have) }, "SELECT coalesce(max(version), 0) FROM schema_version")
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "42P01" {
		return 0, nil
	}
	return have, err
}

// missing are the steps that lead to the newest schema. A database of a newer version is refused, and is left as it is.
func missing(c *conn) ([]commit.Step, error) {
	have, err := schema(c)
	if err != nil {
		return nil, err
	}
	return store.Schema().Steps(have)
}

// newest refuses a database of another schema than this program's.
func newest(c *conn) error {
	have, err := schema(c)
	if err == nil && have == 0 {
		return shoal.Errorf(shoal.KindNotFound, "there is no store in database %q", c.pg.Config().Database).WithHint("no server was ever started with it: is it the right one?")
	}
	if err != nil {
		return err
	}
	return store.Newest(have)
}

// step brings the schema to a version. Whoever sees an error closes the connection, which takes the step back.
func (d *database) step(ctx context.Context, c *conn, s commit.Step) error {
	if err := c.script(ctx, "BEGIN;\n"+translate(s.SQL)); err != nil {
		return err
	}
	if err := s.Also(d, c); err != nil {
		return err
	}
	if err := c.Do("DELETE FROM schema_version"); err != nil {
		return err
	}
	if err := c.Do("INSERT INTO schema_version VALUES (?)", s.Version); err != nil {
		return err
	}
	if _, err := c.Exec("COMMIT"); err != nil {
		return err
	}
	return c.pg.DeallocateAll(ctx) // they are of the old schema
}

// script runs statements without arguments that are in PostgreSQL's dialect.
func (c *conn) script(ctx context.Context, text string) error {
	_, err := c.pg.PgConn().Exec(ctx, text).ReadAll()
	return err
}
