package store

import (
	"context"
	"errors"
	"maps"
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

// tables are the tables with their columns, and perhaps tables of others.
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
			known, err := target.tables() // of the same schema
			if err != nil {
				return err
			}
			for table, columns := range tables {
				if known[table] == nil { // somebody else's, beside ours
					continue
				}
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

// Unused refuses a store in which anything was ever kept.
func Unused(ctx context.Context, db *DB) error { return db.View(ctx, (*Tx).unused) }

func (tx *Tx) unused() error {
	used := func(what string) error {
		return shoal.Errorf(shoal.KindConflict, "cannot copy into a store that has been used%s", what).WithHint("name one that is empty, or that does not exist yet")
	}
	tables, err := tx.tables()
	if err != nil {
		return err
	}
	for _, table := range slices.Sorted(maps.Keys(tables)) {
		if table == "counters" {
			continue
		}
		some := false
		if err := tx.query(func(Rows) error { some = true; return nil }, "SELECT 1 FROM "+quoted(table)+" LIMIT 1"); err != nil {
			return err
		}
		if some {
			return used(": something is in its table " + table)
		}
	}
	if tx.db.Job > 0 || tx.db.All > freshRev {
		return used("")
	}
	return nil
}

// quoted is a name as others may have chosen it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

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
