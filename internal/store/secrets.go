package store

import (
	"encoding/json"
	"fmt"

	"github.com/shoal-pool/shoal"
)

// Secrets lists all secrets, by owner and name.
func (tx *Tx) Secrets() ([]shoal.Secret, error) {
	return list[shoal.Secret](tx, "SELECT body FROM secrets ORDER BY owner, name")
}

// PutSecret stores a secret with its value, which is encrypted already, in place of the one of its owner and name.
func (tx *Tx) PutSecret(s shoal.Secret, sealed []byte) error {
	body, err := json.Marshal(s)
	if err == nil {
		const put = `INSERT INTO secrets (owner, name, body, sealed) VALUES (?, ?, ?, ?)
			ON CONFLICT (owner, name) DO UPDATE SET body = excluded.body, sealed = excluded.sealed`
		err = tx.put(put, string(s.Owner), string(s.Name), string(body), sealed)
	}
	if err != nil {
		return fmt.Errorf("cannot store secret %q: %w", s.Name, err)
	}
	return nil
}

// SealedSecret returns a secret's value as it was stored; nil if there is no such secret.
func (tx *Tx) SealedSecret(owner shoal.UserName, name shoal.SecretName) (sealed []byte, err error) {
	err = tx.query(func(rows Rows) error { return rows.Scan(&sealed) },
		"SELECT sealed FROM secrets WHERE owner = ? AND name = ?", string(owner), string(name))
	return sealed, err
}

// DeleteSecret removes a secret, and reports whether there was one.
func (tx *Tx) DeleteSecret(owner shoal.UserName, name shoal.SecretName) (bool, error) {
	n, err := tx.change("DELETE FROM secrets WHERE owner = ? AND name = ?", string(owner), string(name))
	return n > 0, err
}
