package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// The cookies. The prefix makes browsers take them from this very host only, over HTTPS, for all paths.
const (
	cookiePrefix  = "__Host-shoal"
	sessionCookie = cookiePrefix           // who is signed in
	formCookie    = cookiePrefix + "-form" // that a login form was given to this browser
)

// The headers of requests that come with a cookie.
const (
	CSRFHeader   = "Shoal-CSRF"
	StepUpHeader = "Shoal-Step-Up"
)

// How long one stays signed in: after a password, and after a link, which a program of hers on a machine can make, too.
const (
	passwordLife = 7 * 24 * time.Hour
	linkedLife   = 12 * time.Hour
	formLife     = time.Hour
)

// secretLength is that of shoal.NewToken.
const secretLength = 32

// secretOf is the secret of a request's cookie, empty if there is none that could be one of ours.
func secretOf(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil || len(c.Value) != secretLength || strings.Trim(c.Value, "0123456789abcdefghjkmnpqrstvwxyz") != "" {
		return ""
	}
	return c.Value
}

func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(life / time.Second)}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// tokenFor is what forms and scripts of our pages send beside a cookie: who has the one cannot tell the other
// without having read a page of ours.
func tokenFor(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("shoal csrf"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// tokenFits compares without telling.
func tokenFits(secret, token string) bool {
	return secret != "" && hmac.Equal([]byte(tokenFor(secret)), []byte(token))
}

// Strip takes what is Shoal's alone out of a request's header before the request is passed on. What else is in
// the Cookie lines stays as it is.
func (*Web) Strip(h http.Header) {
	h.Del(CSRFHeader)
	h.Del(StepUpHeader)
	lines := h["Cookie"]
	touched := false
	for _, l := range lines {
		touched = touched || strings.Contains(l, cookiePrefix)
	}
	if !touched {
		return
	}
	var kept []string
	for _, l := range lines {
		var pairs []string
		for p := range strings.SplitSeq(l, ";") {
			if name, _, _ := strings.Cut(p, "="); !strings.HasPrefix(strings.TrimSpace(name), cookiePrefix) {
				pairs = append(pairs, p)
			}
		}
		if line := strings.TrimSpace(strings.Join(pairs, ";")); line != "" {
			kept = append(kept, line)
		}
	}
	if kept == nil {
		h.Del("Cookie")
		return
	}
	h["Cookie"] = kept
}

// StripAnswer takes out of an answer from behind the gateway what would let it stand for Shoal: our cookies, and
// the leave to put a service worker before our pages or to empty the browser's memory of this origin.
func (*Web) StripAnswer(h http.Header) {
	h.Del("Service-Worker-Allowed")
	h.Del("Clear-Site-Data")
	lines := h["Set-Cookie"]
	var kept []string
	for _, l := range lines {
		name, _, _ := strings.Cut(l, "=")
		if name = strings.ToLower(strings.TrimSpace(name)); !strings.HasPrefix(name, strings.ToLower(cookiePrefix)) {
			kept = append(kept, l)
		}
	}
	switch {
	case len(kept) == len(lines):
	case kept == nil:
		h.Del("Set-Cookie")
	default:
		h["Set-Cookie"] = kept
	}
}

// signedIn says whose cookie a request carries, by the directory. KindUnauthenticated: nobody's. With any other error it cannot be
// told just now, and she may well be signed in.
func (w *Web) signedIn(r *http.Request) (u shoal.User, secret string, err error) {
	if secret = secretOf(r, sessionCookie); secret == "" {
		return u, "", nobody()
	}
	if u, err = w.cfg.People.BrowserUser(r.Context(), secret); err != nil {
		if !isNobody(err) && r.Context().Err() == nil {
			w.cfg.Log.Warn("web: it cannot be told who is signed in", "err", err)
		}
		return shoal.User{}, "", err
	}
	return u, secret, nil
}

func nobody() error { return shoal.Errorf(shoal.KindUnauthenticated, "nobody is signed in") }

func isNobody(err error) bool { return shoal.KindOf(err) == shoal.KindUnauthenticated }

// Who says whom the cookie of a request signs in. KindUnauthenticated: nobody, or another site made the request. What it
// says may be some seconds old where it is not told of a change (Forget).
func (w *Web) Who(r *http.Request) (shoal.UserName, error) {
	secret := secretOf(r, sessionCookie)
	if secret == "" || !w.followed(r) {
		return "", nobody()
	}
	key := sha256.Sum256([]byte(secret))
	name, epoch, ok := w.known.get(key, time.Now())
	if ok {
		return name, nil
	}
	u, _, err := w.signedIn(r)
	if err != nil {
		return "", err
	}
	w.known.put(key, u.Name, epoch, time.Now())
	return u.Name, nil
}

// Forget tells that something about a user may have changed: whether she may sign in, or by what. Links that were
// made for her before are good no more.
func (w *Web) Forget(name shoal.UserName) {
	w.known.forget(name)
	w.links.Drop(string(name))
	w.stepUps.Drop(string(name))
}
