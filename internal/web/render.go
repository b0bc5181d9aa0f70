package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

//go:embed pages/*.html
var pageFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// view is what every page is made from.
type view struct {
	Title   string
	User    shoal.UserName // who is signed in; empty: nobody, or it does not matter
	CSRF    string         // the token for her forms
	Static  string         // where styles and scripts lie
	Refresh int            // seconds after which a browser without scripts asks again; 0: never
	Body    any
}

type renderer struct{ *template.Template }

// newRenderers reads the pages, each with the layout around it.
func newRenderers() (map[string]*renderer, error) {
	names, err := fs.Glob(pageFiles, "pages/*.html")
	if err != nil {
		return nil, err
	}
	all := map[string]*renderer{}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		if base == "layout" {
			continue
		}
		t, err := template.New("layout.html").Funcs(template.FuncMap{"ago": ago, "until": func(t time.Time) string { return inWords(time.Until(t)) }, "sentence": sentence}).ParseFS(pageFiles, "pages/layout.html", name)
		if err != nil {
			return nil, fmt.Errorf("cannot read page %s: %w", base, err)
		}
		all[base] = &renderer{t}
	}
	return all, nil
}

// show answers with a page.
func (w *Web) show(rw http.ResponseWriter, r *http.Request, status int, name string, v view) {
	v.Static = "/shoal/static/" + w.files.version
	if v.User == "" {
		if u, secret, err := w.signedIn(r); err == nil {
			v.User, v.CSRF = u.Name, tokenFor(secret)
		}
	}
	var b bytes.Buffer
	if err := w.pages[name].Execute(&b, v); err != nil {
		w.cfg.Log.Error("web: a page cannot be made", "page", name, "err", err)
		http.Error(rw, "something went wrong in the server; its log says more", http.StatusInternalServerError)
		return
	}
	h := rw.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_, _ = rw.Write(b.Bytes()) // whoever is gone needs no page
}

// guarded sets what every answer below /shoal/ carries. Forms may lead on to the clients that codes are for.
func (w *Web) guarded(next http.Handler) http.Handler {
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'" + w.origins()
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		next.ServeHTTP(rw, r)
	})
}

// origins are those of clients elsewhere.
func (w *Web) origins() string {
	var b strings.Builder
	for _, uris := range w.cfg.Clients {
		for _, u := range uris {
			if at, err := url.Parse(u); err == nil && at.Host != "" {
				b.WriteString(" " + at.Scheme + "://" + at.Host)
			}
		}
	}
	return b.String()
}

// static are the files that pages link to. Their address names their content, so they never change.
type static struct {
	version string
	files   map[string][]byte
}

func newStatic() (static, error) {
	s := static{files: map[string][]byte{}}
	sum := sha256.New()
	err := fs.WalkDir(staticFiles, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := staticFiles.ReadFile(name)
		fmt.Fprintf(sum, "%s %d\n", name, len(data))
		sum.Write(data)
		s.files[path.Base(name)] = data
		return err
	})
	s.version = hex.EncodeToString(sum.Sum(nil))[:12]
	return s, err
}

func (w *Web) static(rw http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	data, ok := w.files.files[name]
	if !ok {
		w.nothing(rw, r)
		return
	}
	h := rw.Header()
	h.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	h.Set("Cache-Control", "no-cache") // of another version's address
	if r.PathValue("version") == w.files.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	rw.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = rw.Write(data)
	}
}

// ago says how long ago something was.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	if d < time.Second {
		return "just now"
	}
	return inWords(d) + " ago"
}

// inWords says how long something is, in one unit.
func inWords(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		word string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if d >= u.unit && (u.unit != 24*time.Hour || d >= 2*u.unit) {
			n := int(math.Round(float64(d) / float64(u.unit)))
			if n == 1 {
				return "1 " + u.word
			}
			return fmt.Sprintf("%d %ss", n, u.word)
		}
	}
	return "a moment"
}
