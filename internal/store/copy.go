package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Newest refuses a store of another schema than this program's: whoever only reads one does not bring it forward.
func Newest(have int) error {
	steps, err := Schema().Steps(have)
	if err != nil || len(steps) == 0 {
		return err
	}
	return shoal.Errorf(shoal.KindInvalid, "it was last used by an older version of shoal").WithHint("start this version's server on it once")
}

// tables are the tables with their columns.
func (tx *Tx) tables() (map[string][]string, error) {
	all := map[string][]string{}
	err := tx.query(func(rows Rows) error {
		var table, column string
		err := rows.Scan(&table, &column)
		all[table] = append(all[table], column)
		return err
	}, tx.db.Columns())
	return all, err
}

// Copy copies everything from one store into another, which must never have been used. What changes in the first
// meanwhile is not copied.
func Copy(ctx context.Context, from, to *DB) error {
	return from.View(ctx, func(source *Tx) error {
		return to.Update(ctx, func(target *Tx) error {
			if err := target.unused(); err != nil {
				return err
			}
			tables, err := source.tables()
			if err != nil {
				return err
			}
			for table, columns := range tables {
				if err := copyTable(ctx, source, target, table, columns); err != nil {
					return err
				}
			}
			rev, err := source.Rev()
			target.db.All = rev + freshRev // above all that has been given out
			if err == nil {
				target.db.Job, err = source.lastJob()
			}
			return err
		})
	})
}

// freshRev is above the revision of a store that was only made: each time it is opened may move it on by one.
const freshRev = 16

func (tx *Tx) lastJob() (id int64, err error) {
	err = tx.query(func(rows Rows) error { return rows.Scan(&id) }, "SELECT value FROM counters WHERE name = 'job'")
	return id, err
}

// unused refuses a store in which anything was ever kept.
func (tx *Tx) unused() error {
	used := tx.db.Job > 0 || tx.db.All > freshRev
	tables, err := tx.tables()
	if err != nil {
		return err
	}
	for table := range tables {
		if table == "counters" {
			continue
		}
		if err := tx.query(func(Rows) error { used = true; return nil }, "SELECT 1 FROM "+table+" LIMIT 1"); err != nil {
			return err
		}
	}
	if used {
		return shoal.Errorf(shoal.KindConflict, "cannot copy into a store that has been used").WithHint("name one that is empty, or that does not exist yet")
	}
	return nil
}

func copyTable(ctx context.Context, source, target *Tx, table string, columns []string) error {
	list := strings.Join(columns, ", ")
	query, put := "SELECT "+list+" FROM "+table, "INSERT INTO "+table+" ("+list+") VALUES (?"+strings.Repeat(", ?", len(columns)-1)+")"
	if table == "counters" { // the store's own are the target's
		query += " WHERE name NOT IN ('rev', 'epoch')"
		put += " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
	}
	row, to := make([]any, len(columns)), make([]any, len(columns))
	for i := range row {
		to[i] = &row[i]
	}
	return source.query(func(rows Rows) error {
		if err := errors.Join(rows.Scan(to...), context.Cause(ctx)); err != nil {
			return err
		}
		return target.exec(put, slices.Clone(row)...)
	}, query)
}
