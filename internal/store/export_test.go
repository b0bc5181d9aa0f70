package store

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// Pragma reads a setting of the connection that a transaction runs on.
func (tx *Tx) Pragma(name string) (value string, err error) {
	err = tx.query(func(rows Rows) error { return rows.Scan(&value) }, "PRAGMA "+name)
	return value, err
}

// Waiting is how many Updates are queued.
func (db *DB) Waiting() int { return db.in.Waiting() }

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
