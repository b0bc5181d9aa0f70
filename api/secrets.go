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

// SessionSecretsRequest is what a machine asks when somebody has come to it (POST /agent/v1/secrets). It is answered for users
// who have a session or a task there.
type SessionSecretsRequest struct {
	User shoal.UserName `json:"user"`
}

// SessionSecrets are the secrets that the sessions of one user get from her pool.
type SessionSecrets struct {
	Values  map[string][]byte `json:"values,omitempty"`  // by variable
	Missing []string          `json:"missing,omitempty"` // of each that she does not get, why, in a sentence
}

// SessionSecretsDir holds, on a machine, a directory for each user who is there and has a pool's secrets.
const SessionSecretsDir = "/run/shoal/secrets"

// SessionSecretFile is where a user finds the value of a variable, byte for byte. Its path is in VARIABLE_FILE.
func SessionSecretFile(user shoal.UserName, variable string) string {
	return SessionSecretsDir + "/" + string(user) + "/" + variable
}
