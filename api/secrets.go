package api

import "github.com/shoal-pool/shoal"

// SetSecret is a secret's value, which is never answered but by SecretValue, and the groups whose members may use it.
type SetSecret struct {
	Value  []byte            `json:"value"`
	Groups []shoal.GroupName `json:"groups,omitempty"`
}

// SecretValue is the value of a secret.
type SecretValue struct {
	Value []byte `json:"value"`
}
