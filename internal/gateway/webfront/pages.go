package webfront

import (
	"context"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
)

const (
	errorPageTime = 5 * time.Second // the hub's answer to a request for an error page
	maxErrorPage  = 1 << 20
)

// problem is the form in which the API tells of mistakes.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

var failPage = template.Must(template.New("fail").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Status}} {{.Title}}</title>
<style>body{font:16px/1.5 sans-serif;max-width:40em;margin:4em auto;padding:0 1em;color:#222}h1{font-size:1.4em}</style>
</head>
<body>
<h1>{{.Status}} {{.Title}}</h1>
<p>{{.Detail}}</p>
{{with .Hint}}<p>{{.}}</p>
{{end}}</body>
</html>
`))

// fail answers with a mistake: a page for people, a problem document for programs.
func (f *Front) fail(w http.ResponseWriter, r *http.Request, status int, detail string) {
	f.failHint(w, r, status, detail, "")
}

// failAs answers with an error as its kind says.
func (f *Front) failAs(w http.ResponseWriter, r *http.Request, err error) {
	f.failHint(w, r, shoal.KindOf(err).Meaning().Status, err.Error(), shoal.HintOf(err))
}

func (f *Front) failHint(w http.ResponseWriter, r *http.Request, status int, detail, hint string) {
	if f.cfg.Message != nil {
		f.cfg.Message(w, r, status, http.StatusText(status), detail, hint)
		return
	}
	p := problem{http.StatusText(status), status, detail, hint}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if accept := r.Header.Get("Accept"); strings.Contains(accept, "json") && !strings.Contains(accept, "text/html") {
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(p) // whoever asked has gone
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_ = failPage.Execute(w, p)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // whoever asked has gone
}

// errorPage answers for a server that cannot: with the page of the error target, where there is one that answers.
func (f *Front) errorPage(w http.ResponseWriter, r *http.Request, status int, detail, hint string) {
	if target := f.errorTarget(); target != nil && f.relayErrorPage(w, r, target, status) {
		return
	}
	f.failHint(w, r, status, detail, hint)
}

func (f *Front) errorTarget() *url.URL {
	if f.cfg.ErrorTarget != nil {
		return f.cfg.ErrorTarget
	}
	hub := f.cfg.Routes.Get("/")
	if hub == nil && f.cfg.AppsDomain != "" {
		hub = f.cfg.Routes.Get("/" + f.cfg.AppsDomain)
	}
	if hub != nil && hub.Hub && !hub.Guarded && hub.Target != nil {
		return hub.Target.JoinPath("hub/error")
	}
	return nil
}

func (f *Front) relayErrorPage(w http.ResponseWriter, r *http.Request, target *url.URL, status int) bool {
	page := target.JoinPath(strconv.Itoa(status))
	page.RawQuery = url.Values{"url": {r.URL.RequestURI()}}.Encode()
	ctx, cancel := context.WithTimeout(r.Context(), errorPageTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return false
	}
	answer, err := f.errors.Do(req)
	if err != nil {
		if r.Context().Err() == nil && f.calm.first(target.Host, time.Now()) {
			f.log.Warn("the error page cannot be had; showing our own", "from", target.Host, "err", err)
		}
		return false
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorPage))
	if err != nil {
		return false
	}
	h := w.Header()
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		if v := answer.Header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
	return true
}

// calm keeps what happens to every request from being logged for every one.
type calm struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const calmFor = time.Minute

// first reports whether nothing of the kind was reported lately.
func (c *calm) first(what string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.last[what]) < calmFor {
		return false
	}
	if c.last == nil || len(c.last) >= 1000 {
		c.last = map[string]time.Time{}
	}
	c.last[what] = now
	return true
}
