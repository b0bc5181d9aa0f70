package store

import "database/sql"

// Pragma reads a setting of the connection that a transaction runs on.
func (tx *Tx) Pragma(name string) (value string, err error) {
	err = tx.query(func(rows *sql.Rows) error { return rows.Scan(&value) }, "PRAGMA "+name)
	return value, err
}

// Waiting is how many Updates are queued.
func (db *DB) Waiting() int { return len(db.queue) }
