package store

import (
	"encoding/json"
	"fmt"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// PutRevision puts on record what machines of a pool are made like, in place of the revision of its number.
func (tx *Tx) PutRevision(pool shoal.PoolName, r api.Revision) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot store revision %d of pool %q: %w", r.N, pool, err)
	}
	err = tx.put("INSERT INTO rollouts (pool, n, body) VALUES (?, ?, ?) ON CONFLICT (pool, n) DO UPDATE SET body = excluded.body", string(pool), r.N, string(body))
	return err
}

// Revisions returns the latest revisions of a pool, the newest first.
func (tx *Tx) Revisions(pool shoal.PoolName, most int) ([]api.Revision, error) {
	return list[api.Revision](tx, "SELECT body FROM rollouts WHERE pool = ? ORDER BY n DESC LIMIT ?", string(pool), most)
}

// DropRevisions removes the revisions of a pool up to a number.
func (tx *Tx) DropRevisions(pool shoal.PoolName, n int) error {
	_, err := tx.change("DELETE FROM rollouts WHERE pool = ? AND n <= ?", string(pool), n)
	return err
}
