package store

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/commit"
)

// Rows is the row that a query is at.
type Rows = commit.Rows

// Tx is the store within one View or Update, for the goroutine that runs the closure.
type Tx struct {
	db    *commit.Tx
	items itemRow // those that were read last
}

// Rev is the revision of what the transaction sees, its own changes included.
func (tx *Tx) Rev() (shoal.Rev, error) { return tx.db.Rev() }

// CatalogRev is DB.CatalogRev with the transaction's own changes. Only an Update has it.
func (tx *Tx) CatalogRev() shoal.Rev { return tx.db.Catalog }

func (tx *Tx) query(scan func(Rows) error, query string, args ...any) error {
	return tx.db.Query(scan, query, args...)
}

func (tx *Tx) exec(query string, args ...any) error { return tx.db.Do(query, args...) }

// put is exec for statements that change exactly one row, and count as a change of the store's state.
func (tx *Tx) put(query string, args ...any) error {
	err := tx.exec(query, args...)
	if err == nil {
		tx.db.Next()
	}
	return err
}

// change is exec for statements that count as a change of the store's state.
func (tx *Tx) change(query string, args ...any) (affected int64, err error) {
	n, err := tx.db.Exec(query, args...)
	if err == nil && n > 0 {
		tx.db.Next()
	}
	return n, err
}

// list decodes the body column of each row.
func list[V any](tx *Tx, query string, args ...any) ([]V, error) {
	var all []V
	err := tx.query(func(rows Rows) error {
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var v V
		if err := json.Unmarshal(body, &v); err != nil {
			return fmt.Errorf("cannot read a stored %T: %w", v, err)
		}
		all = append(all, v)
		return nil
	}, query, args...)
	return all, err
}

// now is the time without its monotonic reading, as it comes back from the store.
func now() time.Time { return time.Now().UTC().Round(0) }
