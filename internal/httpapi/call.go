package httpapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
)

// The limits of a request; those of its body are in body.go.
const (
	writeTime = time.Minute // to take one piece of a stream
	maxPage   = 1000
)

// call is one request to an endpoint.
type call struct {
	api  *API
	ctx  context.Context
	by   access.Subject
	w    http.ResponseWriter
	req  *http.Request
	body []byte
	ask  who // says again who asks: streams outlive tokens
}

// endpoint makes a handler of a line of the table. known: it must be known who asks.
func (a *API) endpoint(e endpoint, ask who, known bool) http.Handler {
	return a.guard(func(w http.ResponseWriter, r *http.Request) error {
		c := &call{api: a, ctx: r.Context(), w: w, req: r, ask: a.actingAs(ask)}
		if known {
			by, err := c.ask(r)
			if err != nil {
				return err
			}
			c.by = by
			if err := a.matched(c, e); err != nil {
				return err
			}
		}
		if r.Method == http.MethodHead && e.do.media != "" {
			return shoal.Errorf(shoal.KindInvalid, "cannot answer HEAD for a stream").WithHint("use GET")
		}
		if e.do.in != nil && !(e.do.spare && r.ContentLength == 0) {
			body, done, err := a.readBody(w, r, max(e.do.limit, maxBody))
			if err != nil {
				return err
			}
			defer done()
			c.body = body
		}
		return e.do.serve(a, c)
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
	return a.subject(r.Context(), u.Name)
}

// subject is a user with her role and all her groups.
func (a *API) subject(ctx context.Context, name shoal.UserName) (access.Subject, error) {
	u, ok := a.cfg.People.User(ctx, name)
	if !ok || u.Disabled {
		return access.Subject{}, shoal.Errorf(shoal.KindUnauthenticated, "user %s cannot be found, or is disabled", name)
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
		u, ok := a.cfg.People.User(r.Context(), name)
		switch {
		case !ok:
			return access.Subject{}, access.Missing(access.Object{Kind: shoal.ObjectUser, Name: string(name)})
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

const unreadable = "cannot read the request: "

// decode reads a body strictly: what is not known is a mistake and not a wish that came to nothing.
func decode[T any](body []byte) (v T, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err = d.Decode(&v)
	if err == nil && d.More() {
		err = errors.New("there is more than one value")
	}
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "json: ")
		e := shoal.Errorf(shoal.KindInvalid, "%s%s", unreadable, text)
		e.Hint = shoal.HintOf(err)
		return v, e
	}
	return v, nil
}

// name is a part of the path.
func (c *call) name(part string) string { return c.req.PathValue(part) }

// query is a parameter, empty if it is not there.
func (c *call) query(name string) string { return c.req.URL.Query().Get(name) }

// flag is a parameter that is true or false.
func (c *call) flag(name string, otherwise bool) (bool, error) {
	text := c.query(name)
	if text == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, shoal.Errorf(shoal.KindInvalid, "cannot read %s=%q", name, text).WithHint("it is true or false")
	}
	return b, nil
}

// number is a parameter that is a whole number, not below lowest.
func (c *call) number(name string, lowest int64) (int64, error) {
	text := c.query(name)
	if text == "" {
		return max(lowest, 0), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < lowest {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot read %s=%q", name, text).WithHint("it is a whole number from %d on", lowest)
	}
	return n, nil
}

// instant is a parameter that is a time; zero if it is not there.
func (c *call) instant(name string) (time.Time, error) {
	text := c.query(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, shoal.Errorf(shoal.KindInvalid, "cannot read %s=%q as a time", name, text).WithHint("write it as in 2026-11-24T15:04:05Z")
	}
	return t, nil
}

// page is the cursor and the length of the page that is wanted.
func (c *call) page() (cursor string, limit int, err error) {
	n, err := c.number("limit", 1)
	if c.query("limit") == "" || n > maxPage {
		n = maxPage
	}
	return c.query("cursor"), int(n), err
}

// ifMatch is the revision that a change assumes; 0: none.
func (c *call) ifMatch() (shoal.Rev, error) { return parseMatch(c.req.Header.Get("If-Match")) }

// parseMatch reads an If-Match: one entity tag, which is a revision, or "*".
func parseMatch(text string) (shoal.Rev, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "*" {
		return 0, nil
	}
	rev, err := strconv.ParseInt(strings.Trim(text, `"`), 10, 64)
	if err != nil || rev <= 0 {
		return 0, shoal.Errorf(shoal.KindInvalid, "cannot read If-Match: %s", text).WithHint("it is the ETag of the object, which is its rev")
	}
	return shoal.Rev(rev), nil
}

// tag tells the revision of the one object in the answer.
func (c *call) tag(rev shoal.Rev) {
	c.w.Header().Set("ETag", `"`+strconv.FormatInt(int64(rev), 10)+`"`)
}

// answer sends a value as JSON.
func (c *call) answer(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Cache-Control", "no-store")
	c.w.WriteHeader(status)
	_, err = c.w.Write(append(body, '\n'))
	return ended(err)
}
