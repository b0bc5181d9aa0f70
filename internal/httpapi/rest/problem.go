package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/identity"
)

// errEnded: the other side is gone, or the answer has begun; there is nobody to tell.
type errEnded struct{ error }

func (e errEnded) Unwrap() error { return e.error }

// Ended marks an error of writing an answer.
func Ended(err error) error {
	if err == nil {
		return nil
	}
	return errEnded{err}
}

// tracker knows whether an answer has begun.
type tracker struct {
	http.ResponseWriter
	begun bool
}

func (t *tracker) WriteHeader(status int) {
	t.begun = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracker) Write(p []byte) (int, error) {
	t.begun = true
	return t.ResponseWriter.Write(p)
}

// Unwrap lets an http.ResponseController through.
func (t *tracker) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// Guard makes a handler of a function: its error becomes a problem document, and so does a panic. An answer
// that has begun is torn down, so that nobody takes it for complete.
func (d *Desk) Guard(serve func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := &tracker{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // it is compared so by net/http
				panic(p)
			}
			d.fail(t, r, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}()
		if err := serve(t, r); err != nil {
			d.fail(t, r, err)
		}
	})
}

// fail tells of an error, or tears the connection down where an answer has begun.
func (d *Desk) fail(t *tracker, r *http.Request, err error) {
	var gone errEnded
	if errors.As(err, &gone) {
		panic(http.ErrAbortHandler)
	}
	kind := shoal.KindOf(err)
	if (kind == shoal.KindInternal || kind == shoal.KindCancelled) && r.Context().Err() != nil {
		err = ended(context.Cause(r.Context()))
		kind = shoal.KindOf(err)
	}
	reference := ""
	if kind == shoal.KindInternal {
		reference = shoal.NewToken()[:8]
	}
	// Where and what, but neither header nor body: they hold secrets.
	d.log.Log(r.Context(), kind.Meaning().Level, "api: a request failed", "method", r.Method, "path", r.URL.Path,
		"kind", kind, "err", err, "reference", reference)
	if t.begun {
		panic(http.ErrAbortHandler)
	}
	p := ProblemOf(err)
	if reference != "" {
		p.Detail = "something went wrong in the server; its log says more under the reference " + reference
		p.Hint, p.Mistakes = "", nil
	}
	writeProblem(t, p, identity.RetryAfter(err))
}

// ended says why a request ended early: who asked has gone, or the server goes.
func ended(cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		return shoal.Errorf(shoal.KindCancelled, "the request was given up: %w", cause)
	}
	return shoal.Errorf(shoal.KindUnavailable, "the server is stopping").WithHint("try again in a moment")
}

// ProblemOf is an error as the wire has it.
func ProblemOf(err error) api.Problem {
	m := shoal.KindOf(err).Meaning()
	return api.Problem{Type: "about:blank", Title: Title(m.Status), Status: m.Status, Detail: err.Error(), Kind: m.Kind,
		Hint: shoal.HintOf(err), Mistakes: shoal.MistakesOf(err)}
}

// Title is the title of a problem document of a status.
func Title(status int) string {
	if status == shoal.KindCancelled.Meaning().Status {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

func writeProblem(w http.ResponseWriter, p api.Problem, retry string) {
	body, err := json.Marshal(p)
	if err != nil { // text that is no UTF-8 does not come to this; nothing else can
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500,"kind":"internal"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("ETag")
	switch p.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", retry)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // whoever is gone needs no answer
}

// Fallback answers for paths and methods that a mux does not have. list is where all are listed.
func Fallback(mux *http.ServeMux, list string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		probe := &probe{header: http.Header{}}
		h.ServeHTTP(probe, r)
		p := ProblemOf(shoal.Errorf(shoal.KindNotFound, "there is nothing at %s", r.URL.Path).WithHint("%s lists what there is", list))
		if probe.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", probe.header.Get("Allow"))
			p = ProblemOf(shoal.Errorf(shoal.KindInvalid, "cannot %s %s", r.Method, r.URL.Path).WithHint("it takes %s", probe.header.Get("Allow")))
			p.Status, p.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		}
		writeProblem(w, p, "1")
	})
}

// probe takes what a mux would answer.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(status int)      { p.status = status }
