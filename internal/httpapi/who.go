package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

// call is one request to an endpoint.
type call = rest.Call

// who finds out who asks.
type who = rest.Who

// endpoint makes a handler of a line of the table. known: it must be known who asks.
func (a *API) endpoint(e endpoint, ask who, known bool) http.Handler {
	return a.desk.Guard(func(w http.ResponseWriter, r *http.Request) error {
		c := &call{Ctx: r.Context(), W: w, Req: r, Ask: a.actingAs(ask)}
		if known {
			by, err := c.Ask(r)
			if err != nil {
				return err
			}
			c.By = by
			if err := a.matched(c, e); err != nil {
				return err
			}
		}
		return a.desk.Do(c, e.do)
	})
}

// byToken says whose bearer token a request carries.
func (a *API) byToken(r *http.Request) (access.Subject, error) {
	token, err := bearer(r)
	if err != nil {
		return access.Subject{}, err
	}
	if a.cfg.AdminToken != "" && equal(token, a.cfg.AdminToken) {
		return access.Subject{Host: true}, nil
	}
	if a.byHub(token) {
		return access.Subject{Service: access.ServiceHub}, nil
	}
	u, err := a.cfg.People.TokenUser(r.Context(), token)
	if err != nil {
		return access.Subject{}, err
	}
	return access.Subject{User: u.Name, Role: u.Role, Groups: u.Groups}, nil
}

// actingAs lets an admin ask as somebody else.
func (a *API) actingAs(ask who) who {
	return func(r *http.Request) (access.Subject, error) {
		by, err := ask(r)
		name := shoal.UserName(r.Header.Get(api.AsHeader))
		if err != nil || name == "" {
			return by, err
		}
		if err := access.Check(by, access.ActAs, access.Object{Kind: shoal.ObjectUser, Name: string(name), Owner: name}); err != nil {
			return access.Subject{}, err
		}
		u, err := store.Credentials{DB: a.cfg.Store}.Member(r.Context(), name)
		switch {
		case shoal.KindOf(err) == shoal.KindNotFound:
			return access.Subject{}, access.Missing(access.Object{Kind: shoal.ObjectUser, Name: string(name)})
		case err != nil:
			return access.Subject{}, err
		case u.Disabled:
			return access.Subject{}, shoal.Errorf(shoal.KindDenied, "cannot act as user %s: the user is disabled", name)
		}
		return access.Subject{User: u.Name, Role: u.Role, Groups: u.Groups}, nil
	}
}

// bearer is the token of a request.
func bearer(r *http.Request) (string, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	const longest = 512
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > longest {
		return "", shoal.Errorf(shoal.KindUnauthenticated, "nobody is signed in: the request carries no bearer token").
			WithHint("`shoal login` gets one")
	}
	return token, nil
}

// equal compares secrets in a time that tells nothing of them.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
