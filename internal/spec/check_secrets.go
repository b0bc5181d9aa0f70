package spec

import (
	"regexp"
	"strings"

	"github.com/shoal-pool/shoal"
)

// ownVariables are those that a login or the machine's programs rely on.
var ownVariables = regexp.MustCompile(`^(SHOAL_.*|LD_.*|SSH_.*|XDG_.*|LC_.*|LANG|PATH|HOME|USER|LOGNAME|SHELL|TERM|MAIL|PWD|ENV|BASH_ENV|IFS|_)$`)

// maxSecrets is how many secrets sessions get from a pool: they are fetched at each login.
const maxSecrets = 32

// secrets checks those that sessions get.
func (c *checks) secrets(p shoal.Pool) {
	if len(p.Secrets) > maxSecrets {
		c.wrong("secrets", "", "there are more than %d secrets", maxSecrets)
	}
	if len(p.Secrets) > 0 && !p.Has(shoal.UseInteractive) {
		c.wrong("secrets", "jobs name theirs themselves: add interactive to uses, or leave them out", "they are for sessions, and the pool takes no logins")
	}
	for key, secret := range p.Secrets {
		c.secret(key, secret)
		at := join("secrets", key)
		_, taken := p.Secrets[strings.TrimSuffix(key, fileSuffix)]
		switch {
		case ownVariables.MatchString(key):
			c.wrong(at, "choose another name", "the variable %s is not for secrets", clip(key))
		case taken && strings.HasSuffix(key, fileSuffix):
			c.wrong(at, "choose another name", "%s is where the path of the other's file is", clip(key))
		}
	}
}

// fileSuffix ends the variable that holds the path of a secret's file.
const fileSuffix = "_FILE"

// secret checks a variable and the secret that it gets.
func (c *checks) secret(key, secret string) {
	at := join("secrets", key)
	if !variable.MatchString(key) {
		c.wrong(at, "use letters, digits and _", "%q cannot be a variable", clip(key))
	}
	if !objectName.MatchString(secret) {
		c.wrong(at, "give the name of a secret, never its value", "this cannot be the name of a secret")
	}
}
