package chptest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestOptions is what the command line of the original changes, as far as JupyterHub uses it.
func TestOptions(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, program string, ours bool) {
		t.Run("default target", func(t *testing.T) {
			w := newWorld(t, program, ours, "--default-target", "http://127.0.0.1:1")
			if got := w.routes()["/"]; got["target"] != "http://127.0.0.1:1" {
				t.Errorf("the table has %v", w.routes())
			}
			w.route("/")
			if got := w.get("/any/random/url").asked(t); got.URI != "/any/random/url" {
				t.Errorf("it arrives as %s", got.URI)
			}
		})
		t.Run("host routing", func(t *testing.T) { hostRouting(newWorld(t, program, ours, "--host-routing")) })
		t.Run("error target", func(t *testing.T) { errorTarget(t, program, ours) })
	})
}

func hostRouting(w *world) {
	w.route("/alice.example.org/user/alice")
	w.route("/bob.example.org")
	if got := w.routes()["/alice.example.org/user/alice"]; got["host"] != "alice.example.org" {
		w.t.Errorf("the table has %v", got)
	}
	ask := func(host, path string) answer {
		return w.raw("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	}
	for _, c := range []struct{ host, path string }{{"alice.example.org", "/user/alice/x"}, {"alice.example.org:8000", "/user/alice"}, {"bob.example.org", "/any"}} {
		if got := ask(c.host, c.path).asked(w.t); got.URI != c.path || got.Host != c.host {
			w.t.Errorf("%s%s arrives as %s%s", c.host, c.path, got.Host, got.URI)
		}
	}
	for _, c := range []struct{ host, path string }{{"alice.example.org", "/"}, {"example.org", "/user/alice"}, {"alice.example.org.evil", "/user/alice"}, {"x", "/bob.example.org"}} {
		if got := ask(c.host, c.path); got.StatusCode != 404 {
			w.t.Errorf("%s%s: %d", c.host, c.path, got.StatusCode)
		}
	}
}

// errorTarget is how the hub draws the pages for what the proxy refuses.
func errorTarget(t *testing.T, program string, ours bool) {
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("X-Secret", "of the hub")
		w.Header().Set("Set-Cookie", "of=hub")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, r.URL.Query().Get("url"))
	}))
	defer hub.Close()
	w := newWorld(t, program, ours, "--error-target", hub.URL+"/hub/error")
	w.route("/gone", "http://127.0.0.1:1")
	for _, c := range []struct {
		path string
		code int
	}{{"/foo/bar", 404}, {"/gone/a%20b?c=d&e=%26", 503}} {
		a := w.raw("POST " + c.path + " HTTP/1.1\r\nHost: NAME\r\nContent-Length: 2\r\n\r\nhi")
		if want := fmt.Sprintf("GET /hub/error/%d %s", c.code, c.path); a.StatusCode != c.code || a.body != want || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d %s: %q, want %q", c.path, a.StatusCode, a.Header.Get("Content-Type"), a.body, want)
		}
		if a.Header.Get("X-Secret") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: the hub's headers are handed on: %v", c.path, a.Header)
		}
	}
	hub.Close() // the hub is gone: a page of the proxy's own
	if a := w.get("/foo"); a.StatusCode != 404 {
		t.Errorf("without the hub: %d %s", a.StatusCode, a.body)
	}
}
