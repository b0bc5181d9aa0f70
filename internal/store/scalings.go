package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// PutScaling puts on record what the autoscaler decided for a pool.
func (tx *Tx) PutScaling(pool shoal.PoolName, s api.Scaling) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cannot store a decision about pool %q: %w", pool, err)
	}
	err = tx.put("INSERT INTO scalings (pool, at, body) VALUES (?, ?, ?) ON CONFLICT (pool, at) DO UPDATE SET body = excluded.body", string(pool), pack.Nanos(s.At), string(body))
	return err
}

// Scalings returns the latest decisions about a pool since a time, the newest first.
func (tx *Tx) Scalings(pool shoal.PoolName, since time.Time, most int) ([]api.Scaling, error) {
	return list[api.Scaling](tx, "SELECT body FROM scalings WHERE pool = ? AND at >= ? ORDER BY at DESC LIMIT ?", string(pool), pack.Nanos(since), most)
}

// ScalingsFrom returns the same, and at last the one before, if it is on record, as if it had been made at that time: it held then.
func (tx *Tx) ScalingsFrom(pool shoal.PoolName, since time.Time, most int) ([]api.Scaling, error) {
	all, err := tx.Scalings(pool, since, most)
	if err != nil || len(all) >= most {
		return all, err
	}
	before, err := list[api.Scaling](tx, "SELECT body FROM scalings WHERE pool = ? AND at < ? ORDER BY at DESC LIMIT 1", string(pool), pack.Nanos(since))
	for _, s := range before {
		s.At, s.Created, s.Retired, s.Drained, s.Restored = since, 0, 0, 0, 0 // what it did was done before
		all = append(all, s)
	}
	return all, err
}

// DropScalings removes the decisions about a pool.
func (tx *Tx) DropScalings(pool shoal.PoolName) error {
	_, err := tx.change("DELETE FROM scalings WHERE pool = ?", string(pool))
	return err
}

// TrimScalings deletes decisions from before a time. It tells how many went.
func (db *DB) TrimScalings(ctx context.Context, before time.Time) (int64, error) {
	return db.trim(ctx, trimStep, "DELETE FROM scalings WHERE (pool, at) IN (SELECT pool, at FROM scalings WHERE at < ? LIMIT ?)", pack.Nanos(before), trimStep)
}
