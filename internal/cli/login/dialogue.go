// Package login signs a user in at a server, with an ssh key or a password, and keeps
// the token that comes of it in a file for her eyes only.
package login

import (
	"context"
	"fmt"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/login/sshkey"
)

// namespace is what a signature over a challenge is made for.
const namespace = "shoal-login"

// Dialogue is one attempt to log in.
type Dialogue struct {
	Client *client.Client
	Server string
	User   shoal.UserName
	Agent  string // the socket of the ssh-agent
	Home   string // where keys are looked for
	// Ask reads a secret from a terminal. Nil: there is none.
	Ask func(prompt string) (string, error)

	keys int // tried
}

// Run tries the keys that ssh would, then asks for the password.
func (d *Dialogue) Run(ctx context.Context) (api.LoginResponse, error) {
	answer, err := d.anyKey(ctx)
	if shoal.KindOf(err) != shoal.KindUnauthenticated {
		return answer, err
	}
	if d.Ask == nil {
		return answer, shoal.Errorf(shoal.KindUnauthenticated, "cannot log in as %s at %s: %s", d.User, d.Server, d.refused()).
			WithHint("an administrator adds keys; with a password use --password-stdin, or log in on a terminal")
	}
	password, err := d.Ask(fmt.Sprintf("Password of %s at %s: ", d.User, d.Server))
	if err != nil {
		return api.LoginResponse{}, err
	}
	return d.Password(ctx, password)
}

func (d *Dialogue) refused() string {
	switch d.keys {
	case 0:
		return "there is no ssh key to try"
	case 1:
		return "your ssh key was not accepted"
	}
	return fmt.Sprintf("none of your %d ssh keys was accepted", d.keys)
}

// Password logs in with a password.
func (d *Dialogue) Password(ctx context.Context, password string) (api.LoginResponse, error) {
	return d.Client.Login(ctx, api.LoginRequest{User: d.User, Password: password})
}

// Key logs in with the key of a file.
func (d *Dialogue) Key(ctx context.Context, path string) (api.LoginResponse, error) {
	s, err := sshkey.File(path, d.passphrase(path))
	if err != nil {
		return api.LoginResponse{}, err
	}
	return d.sign(ctx, s)
}

// anyKey tries the keys that ssh would. KindUnauthenticated: none was good.
func (d *Dialogue) anyKey(ctx context.Context) (api.LoginResponse, error) {
	held, done := sshkey.Agent(d.Agent)
	defer done()
	tried := map[string]bool{}
	for _, s := range held {
		tried[s.Line()] = true
		answer, err := d.sign(ctx, s)
		if shoal.KindOf(err) != shoal.KindUnauthenticated {
			return answer, err
		}
	}
	for _, path := range sshkey.Defaults(d.Home) {
		s, err := sshkey.File(path, d.passphrase(path))
		if err != nil || tried[s.Line()] {
			continue // locked, or not readable: ssh goes on, too
		}
		answer, err := d.sign(ctx, s)
		if shoal.KindOf(err) != shoal.KindUnauthenticated {
			return answer, err
		}
	}
	return api.LoginResponse{}, shoal.Errorf(shoal.KindUnauthenticated, "cannot log in: no key was accepted")
}

// sign answers the server's challenge with a key.
func (d *Dialogue) sign(ctx context.Context, s sshkey.Signer) (api.LoginResponse, error) {
	d.keys++
	req := api.LoginRequest{User: d.User, Key: s.Line()}
	asked, err := d.Client.Login(ctx, req)
	if err != nil {
		return asked, err
	}
	req.Challenge = asked.Challenge
	if req.Signature, err = sshkey.Sign(s, namespace, []byte(asked.Challenge)); err != nil {
		return asked, err
	}
	return d.Client.Login(ctx, req)
}

// passphrase asks for one, nil where nobody can be asked.
func (d *Dialogue) passphrase(path string) func() ([]byte, error) {
	if d.Ask == nil {
		return nil
	}
	return func() ([]byte, error) {
		text, err := d.Ask("Passphrase of " + path + ": ")
		return []byte(text), err
	}
}
