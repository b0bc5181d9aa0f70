// Package vault is what batch asks of whoever keeps secrets.
package vault

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// Vault knows values that jobs name.
type Vault interface {
	// Known says what is wrong with those that a job of a user's names.
	Known(tx *store.Tx, user shoal.User, j shoal.JobSpec) error
	// ForTask returns the values for a job's tasks, by variable, or a reason why they cannot start.
	ForTask(tx *store.Tx, j shoal.Job) (values map[string]string, why string, err error)
	// Given puts on record that an attempt gets them.
	Given(tx *store.Tx, j shoal.Job, ref shoal.AttemptRef) error
}

// Empty is a Vault that holds nothing.
type Empty struct{}

// Known refuses jobs that name secrets.
func (Empty) Known(_ *store.Tx, _ shoal.User, j shoal.JobSpec) error {
	for _, name := range j.Secrets {
		return shoal.Errorf(shoal.KindNotFound, "there is no secret %q", name)
	}
	return nil
}

// ForTask returns nothing.
func (Empty) ForTask(*store.Tx, shoal.Job) (map[string]string, string, error) { return nil, "", nil }

// Given does nothing.
func (Empty) Given(*store.Tx, shoal.Job, shoal.AttemptRef) error { return nil }
