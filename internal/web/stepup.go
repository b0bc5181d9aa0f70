package web

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
)

// stepUp is the leave to make one request with the rights that one's role has.
type stepUp struct {
	user        shoal.UserName
	cookie      string // its token: the leave is that browser's
	method, uri string
	expires     time.Time

	mu        sync.Mutex
	confirmed bool
	used      *http.Request // a stream asks again who it is for
}

// StepUp gives a token for one request of a browser: at once against the password, or once she has typed the code
// on a command line that is logged in (Confirm).
func (w *Web) StepUp(r *http.Request, req api.StepUpRequest) (api.StepUp, error) {
	u, secret, err := w.signedIn(r)
	switch {
	case isNobody(err):
		return api.StepUp{}, shoal.Errorf(shoal.KindDenied, "only requests that come from a browser are confirmed").
			WithHint("with a bearer token send the request itself")
	case err != nil:
		return api.StepUp{}, err
	}
	cookie := tokenFor(secret)
	if req.Token != "" {
		s, ok := w.stepUps.Look(req.Token)
		if !ok || s.cookie != cookie {
			return api.StepUp{}, shoal.Errorf(shoal.KindNotFound, "no such token, or it has expired")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return api.StepUp{Token: req.Token, Expires: s.expires, Confirmed: s.confirmed}, nil
	}
	s := &stepUp{user: u.Name, cookie: cookie, method: strings.ToUpper(req.Method), uri: req.Path}
	if s.method == "" || !strings.HasPrefix(s.uri, "/api/v1/") || len(s.uri) > maxNext {
		return api.StepUp{}, shoal.Errorf(shoal.KindInvalid, "cannot confirm %q %q", clip(req.Method), clip(req.Path)).
			WithHint("name the request as it will be sent: its method, and its path with what follows a ?, from /api/v1/ on")
	}
	answer := api.StepUp{}
	if req.Password != "" {
		if err := w.cfg.People.CheckPassword(r.Context(), u.Name, req.Password, r.RemoteAddr); err != nil {
			return answer, err
		}
		s.confirmed, answer.Confirmed = true, true
	} else {
		answer.Code = shortCode()
		w.confirms.PutAs(confirmKey(u.Name, answer.Code), string(u.Name), s)
	}
	s.expires = time.Now().Add(stepUpLife)
	answer.Token, answer.Expires = w.stepUps.Put(string(u.Name), s)
	return answer, nil
}

// Confirm confirms what the caller's browser asked for. She must be logged in on a command line of her own.
func (w *Web) Confirm(_ context.Context, by access.Subject, req api.ConfirmRequest) (api.Confirmation, error) {
	if by.User == "" || by.Machine != "" || by.Browser {
		return api.Confirmation{}, shoal.Errorf(shoal.KindDenied, "only a user who is logged in with `shoal login` can confirm, not %s", by)
	}
	key := confirmKey(by.User, strings.ToLower(strings.TrimSpace(req.Code)))
	take := w.confirms.Look
	if req.Confirm {
		take = w.confirms.Take
	}
	s, ok := take(key)
	if !ok {
		return api.Confirmation{}, shoal.Errorf(shoal.KindNotFound, "nothing of yours waits for the code %q", clip(req.Code)).
			WithHint("a code is good for a minute; begin again in the browser")
	}
	if req.Confirm {
		s.mu.Lock()
		s.confirmed = true
		s.mu.Unlock()
	}
	return api.Confirmation{Method: s.method, Path: s.uri, Confirmed: req.Confirm}, nil
}

// confirmed takes a token for a request; nil if it was for exactly this one and is confirmed.
func (w *Web) confirmed(r *http.Request, token, secret string) error {
	refused := shoal.Errorf(shoal.KindDenied, "the confirmation in %s is not for this request, or is not good any more", StepUpHeader).WithHint("%s", access.ConfirmHint)
	s, ok := w.stepUps.Look(token)
	if !ok || s.cookie != tokenFor(secret) {
		return refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.method != r.Method || s.uri != r.URL.RequestURI() || s.used != nil && s.used != r:
		return refused
	case !s.confirmed:
		return shoal.Errorf(shoal.KindDenied, "the request is not confirmed yet").WithHint("run `shoal web --confirm CODE` where you are logged in")
	}
	s.used = r
	return nil
}

// shortCode is one that people type: forty random bits, good for a minute and for one user.
func shortCode() string {
	t := shoal.NewToken()
	return t[:4] + "-" + t[4:8]
}

func confirmKey(user shoal.UserName, code string) string { return string(user) + " " + code }

// clip shortens what others have written, for messages.
func clip(s string) string {
	const longest = 60
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…"
}
