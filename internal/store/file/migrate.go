package file

import (
	"context"
	"fmt"

	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// migrate brings the schema forward to the newest version, each in a transaction of its own with its number in
// user_version.
func (f *file) migrate(ctx context.Context, c *conn) error {
	var have int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return explain(err)
	}
	steps, err := store.Schema().Steps(have)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if err := f.step(ctx, c, s); err != nil {
			_, _ = c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
			return fmt.Errorf("cannot migrate the store to schema %d: %w", s.Version, explain(err))
		}
	}
	return nil
}

// newest refuses a file of another schema than this program's.
func newest(ctx context.Context, c *conn) error {
	var have int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return err
	}
	return store.Newest(have)
}

func (f *file) step(ctx context.Context, c *conn, s commit.Step) error {
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE;\n"+s.SQL); err != nil {
		return err
	}
	if err := s.Also(f, c); err != nil {
		return err
	}
	c.closeStatements() // they are of the old schema
	_, err := c.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d;\nCOMMIT;", s.Version))
	return err
}
