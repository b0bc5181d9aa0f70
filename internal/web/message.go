package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/identity"
)

// note is the body of a page that says one thing.
type note struct {
	Text, Hint string
	Details    string // what a program wrote, as it is
	Link       string // where to go on; empty: home
	LinkText   string
	Again      string // a path to POST to, to try again; empty: there is nothing to try
}

// wantsPage reports whether a person will read the answer. Programs that take anything get JSON.
func wantsPage(r *http.Request) bool { return strings.Contains(r.Header.Get("Accept"), "text/html") }

// Message answers with a page that says one thing, or for a program with a problem document.
func (w *Web) Message(rw http.ResponseWriter, r *http.Request, status int, title, text, hint string) {
	w.say(rw, r, status, title, note{Text: text, Hint: hint})
}

func (w *Web) say(rw http.ResponseWriter, r *http.Request, status int, title string, n note) {
	if !wantsPage(r) {
		writeJSON(rw, status, "application/problem+json", api.Problem{Type: "about:blank", Title: title, Status: status, Detail: n.Text, Kind: kindOf(status), Hint: n.Hint})
		return
	}
	if n.Link == "" {
		n.Link, n.LinkText = home, "To my pools"
	}
	w.guarded(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.show(rw, r, status, "message", view{Title: title, Body: n})
	})).ServeHTTP(rw, r)
}

// kindOf is the kind of errors that have a status.
func kindOf(status int) shoal.Kind {
	for _, m := range shoal.Meanings() {
		if m.Status == status {
			return m.Kind
		}
	}
	switch {
	case status >= 500:
		return shoal.KindUnavailable
	}
	return shoal.KindInvalid
}

func writeJSON(rw http.ResponseWriter, status int, media string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(rw, "{}", http.StatusInternalServerError)
		return
	}
	h := rw.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_, _ = rw.Write(append(body, '\n'))
}

// failed answers with an error of a service.
func (w *Web) failed(rw http.ResponseWriter, r *http.Request, title string, err error) {
	m := shoal.KindOf(err).Meaning()
	n := note{Text: sentence(err.Error()), Hint: sentence(shoal.HintOf(err))}
	if m.Kind == shoal.KindInternal {
		reference := shoal.NewToken()[:8]
		w.cfg.Log.Error("web: a request failed", "method", r.Method, "path", r.URL.Path, "err", err, "reference", reference)
		n = note{Text: "Something went wrong in the server. Its log says more under the reference " + reference + "."}
	}
	if m.Retry {
		rw.Header().Set("Retry-After", identity.RetryAfter(err))
	}
	w.say(rw, r, m.Status, title, n)
}

// sentence makes one of an error's words.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// nothing answers where there is no page.
func (w *Web) nothing(rw http.ResponseWriter, r *http.Request) {
	w.Message(rw, r, http.StatusNotFound, "There is nothing here", "No page of Shoal's has this address.", "")
}

// unknown answers whoever is not known to be signed in.
func (w *Web) unknown(rw http.ResponseWriter, r *http.Request, err error) {
	if isNobody(err) {
		w.notSignedIn(rw, r)
		return
	}
	r = r.Clone(r.Context())
	r.Header.Del("Cookie") // who she is would be asked again for the page
	w.failed(rw, r, "It cannot be told who you are", err)
}

// notSignedIn sends a person to the login page and tells a program.
func (w *Web) notSignedIn(rw http.ResponseWriter, r *http.Request) {
	if !wantsPage(r) {
		w.Message(rw, r, http.StatusUnauthorized, "Nobody is signed in", "nobody is signed in", "sign in at /shoal/login, or send a bearer token to /api/v1/")
		return
	}
	to := home
	if safe(r.Method) {
		to = next(r.URL.RequestURI())
	}
	redirect(rw, http.StatusSeeOther, loginPath(to))
}
