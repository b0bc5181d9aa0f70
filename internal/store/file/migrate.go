package file

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Schema is how the tables came to be as they are.
type Schema struct {
	// Files has directory migrations with numbered files of SQL.
	Files fs.FS
	// Also, if not nil, does what the SQL of a version cannot.
	Also func(tx *Tx, version int) error
}

// migrate brings the schema forward to the newest numbered file, each in a transaction of its
// own with its number in user_version. A file of the future is refused rather than guessed at.
func migrate(ctx context.Context, c *conn, schema Schema) error {
	names, err := fs.Glob(schema.Files, "migrations/*.sql") // sorted
	if err != nil {
		return err
	}
	var have int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return explain(err)
	}
	if have > len(names) {
		return shoal.Errorf(shoal.KindInvalid, "cannot open the store: it is of schema %d, this version knows up to %d", have, len(names)).
			WithHint("run the version of shoal that wrote it, or a newer one")
	}
	for i, name := range names[have:] {
		version := have + i + 1
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != version {
			return fmt.Errorf("cannot migrate the store: %s is not number %d", name, version)
		}
		text, err := fs.ReadFile(schema.Files, name)
		if err != nil {
			return err
		}
		if err := step(ctx, c, version, string(text), schema.Also); err != nil {
			_, _ = c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
			return fmt.Errorf("cannot migrate the store to schema %d: %w", version, explain(err))
		}
	}
	return nil
}

// step brings the schema to a version.
func step(ctx context.Context, c *conn, version int, text string, also func(*Tx, int) error) error {
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE;\n"+text); err != nil {
		return err
	}
	if also != nil {
		if err := also(&Tx{conn: c, write: true}, version); err != nil {
			return err
		}
		c.closeStatements() // they are of the old schema
	}
	_, err := c.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d;\nCOMMIT;", version))
	return err
}
