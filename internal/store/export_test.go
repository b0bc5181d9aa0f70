package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/file"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// Pragma reads a setting of the connection that a transaction runs on.
func (tx *Tx) Pragma(name string) (value string, err error) {
	err = tx.query(func(rows *sql.Rows) error { return rows.Scan(&value) }, "PRAGMA "+name)
	return value, err
}

// Waiting is how many Updates are queued.
func (db *DB) Waiting() int { return db.file.Waiting() }

// ReadPack, ReadItems and ReadHot read what a row holds.
func ReadPack(body []byte) ([]shoal.Attempt, error) { return pack.Read("1", 0, body, 0, -1) }

// ReadItems reads a row of items.
func ReadItems(body []byte) ([]shoal.Item, error) { return readItemRow(body) }

// ReadHot reads the changing part of a row of the queue.
func ReadHot(body []byte) (j shoal.Job, err error) { err = readHot(body, &j); return j, err }

// WritePack, WriteHot write what they read.
func WritePack(all []shoal.Attempt) []byte { return pack.Write(all) }

// WriteHot writes what ReadHot reads.
func WriteHot(j shoal.Job) []byte { return hotOf(&j) }

// OldFile makes a file of a schema of the past, and runs a script in it.
func OldFile(path string, version int, script string) error {
	pool, err := sql.Open("sqlite", file.DataSource(path))
	if err != nil {
		return err
	}
	defer pool.Close()
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	for _, name := range names[:version] {
		text, err := migrations.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := pool.ExecContext(context.Background(), string(text)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	_, err = pool.ExecContext(context.Background(), script+fmt.Sprintf(";\nPRAGMA user_version = %d", version))
	return err
}
