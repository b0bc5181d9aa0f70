package shoal

// SecretName names a secret among those of its owner.
type SecretName string

// Secret is a value that nobody is to see but what uses it: a password, a token, the key of an account. The value is not
// part of it.
type Secret struct {
	Name   SecretName  `json:"name"`
	Owner  UserName    `json:"owner,omitempty"`  // empty: the site's own, for shares
	Groups []GroupName `json:"groups,omitempty"` // whose members may use it as well
	Size   int         `json:"size"`             // of the value, in bytes
	Meta
}
