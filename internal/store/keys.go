package store

import (
	"time"

	"github.com/shoal-pool/shoal/internal/store/pack"
)

// RequestKey is a caller's key for a request with what the request led to.
type RequestKey struct {
	Owner  string // whose key it is; keys of different owners do not meet
	Key    string
	Digest string // of the request: the same key with another request is a mistake
	Result string
}

// RequestKey returns what is stored under a key; false if nothing is.
func (tx *Tx) RequestKey(owner, key string) (RequestKey, bool, error) {
	k := RequestKey{Owner: owner, Key: key}
	found := false
	err := tx.query(func(rows Rows) error {
		found = true
		return rows.Scan(&k.Digest, &k.Result)
	}, "SELECT digest, result FROM request_keys WHERE owner = ? AND key = ?", owner, key)
	return k, found, err
}

// PutRequestKey stores a key, replacing what was stored under it.
func (tx *Tx) PutRequestKey(k RequestKey) error {
	const put = `INSERT INTO request_keys (owner, key, digest, result, created) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (owner, key) DO UPDATE SET digest = excluded.digest, result = excluded.result, created = excluded.created`
	err := tx.put(put, k.Owner, k.Key, k.Digest, k.Result, pack.Nanos(now()))
	return err
}

// TrimRequestKeys forgets keys that were stored before a time.
func (tx *Tx) TrimRequestKeys(before time.Time) error {
	_, err := tx.change("DELETE FROM request_keys WHERE created < ?", pack.Nanos(before))
	return err
}
