package commit

import (
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

// Step is the way from one version of the schema to the next.
type Step struct {
	Version int
	SQL     string
	schema  Schema
}

// Steps are those that lead from a version to the newest. A database of the future is refused rather than guessed at.
func (s Schema) Steps(have int) ([]Step, error) {
	names, err := fs.Glob(s.Files, "migrations/*.sql") // sorted
	if err != nil {
		return nil, err
	}
	if have > len(names) {
		return nil, shoal.Errorf(shoal.KindInvalid, "it was last used by a newer version of shoal: it is of schema %d, this version knows up to %d", have, len(names)).
			WithHint("run that version, or a newer one; the way back is a backup from before the upgrade")
	}
	var steps []Step
	for i, name := range names[have:] {
		version := have + i + 1
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != version {
			return nil, fmt.Errorf("cannot migrate the store: %s is not number %d", name, version)
		}
		text, err := fs.ReadFile(s.Files, name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, Step{version, string(text), s})
	}
	return steps, nil
}

// Also does what the step's SQL cannot, once that is done, in the transaction that runs on c.
func (s Step) Also(db Database, c Conn) error {
	if s.schema.Also == nil {
		return nil
	}
	tx := &Tx{s: &Store{db: db}, conn: c, write: true}
	if err := s.schema.Also(tx, s.Version); err != nil {
		return err
	}
	return tx.broken
}
