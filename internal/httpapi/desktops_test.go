package httpapi_test

import (
	"context"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/identity"
)

// desktops know one password.
type desktops struct{}

func (desktops) Ticket(_ context.Context, by access.Subject, req api.DesktopRequest, source string) (api.DesktopTicket, error) {
	return api.DesktopTicket{User: by.User, Pool: req.Pool, From: source, Password: "once"}, nil
}

func (desktops) Check(_ context.Context, machine shoal.MachineID, user shoal.UserName, password string) error {
	if machine != "m-1" || user != "alice" || password != "right" {
		return identity.Denied()
	}
	return nil
}

func TestMachinesAskForPasswords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := start(t, w.api.Agent())
	ask := func(token, body string) answer {
		return do(t, agent, request{method: "POST", path: "/agent/v1/password", header: bearer(token), body: body})
	}
	const right = `{"user":"alice","password":"right"}`
	for what, c := range map[string]struct {
		token, body string
		status      int
	}{
		"the right one":        {w.mtoken, right, 200},
		"a wrong one":          {w.mtoken, `{"user":"alice","password":"wrong"}`, 401},
		"another's":            {w.mtoken, `{"user":"bob","password":"right"}`, 401},
		"by nobody's token":    {"wrong", right, 401},
		"by a user's token":    {w.tokens["alice"], right, 401},
		"by the admin's":       {adminToken, right, 401},
		"what cannot be read":  {w.mtoken, `{`, 400},
		"far too long a thing": {w.mtoken, `{"password":"` + strings.Repeat("x", 5<<20) + `"}`, 400},
		"nothing":              {w.mtoken, `{}`, 401},
	} {
		if a := ask(c.token, c.body); a.status != c.status {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	for _, face := range []string{start(t, w.api.Control()), start(t, w.api.Local())} {
		if a := do(t, face, request{method: "POST", path: "/agent/v1/password", header: bearer(w.mtoken), body: right}); a.status != 404 && a.status != 401 {
			t.Errorf("at another door: %d %s", a.status, a.body)
		}
	}
}
