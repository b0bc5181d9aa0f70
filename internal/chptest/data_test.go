package chptest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

// TestProxying is what becomes of requests.
func TestProxying(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, program string, ours bool) {
		w := newWorld(t, program, ours)
		for _, c := range slices.Concat(dataCases, wireCases, socketCases) {
			t.Run(c.name, func(t *testing.T) {
				w := w.sub(t)
				w.clear()
				c.test(w)
			})
		}
	})
}

var dataCases = []testCase{
	{"no route", func(w *world) {
		if a := w.get("/nope"); a.StatusCode != 404 || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "404") {
			w.t.Errorf("%d %s: %s", a.StatusCode, a.Header.Get("Content-Type"), a.body)
		}
	}},
	{"the path is kept as it was written", func(w *world) {
		w.route("/bar")
		w.route("/b%40r/b%20r")
		for _, path := range []string{"/bar", "/bar/", "/bar?query=foo", "/bar/rest/of/it?a=1&b=%20&c", "/bar/%2e%2e/x", "/bar/%E7%A7%80?q=%E7", "/bar/a%2Fb", "/b%40r/b%20r/rest", "/b@r/b%20r/rest", "/bar/;a=b,c", "/bar/?", "/bar/~a!$&'()*+"} {
			if got := w.get(path).asked(w.t); got.URI != path {
				w.t.Errorf("%s arrives as %s", path, got.URI)
			}
		}
		for path, want := range map[string]string{"/bar//double//slash/": "/bar/double/slash/", "//bar/x": "/bar/x", "/bar/http://a//b?c=//d": "/bar/http://a/b?c=//d", "/bar//?": "/bar/?"} {
			if got := w.get(path).asked(w.t); got.URI != want {
				w.t.Errorf("%s arrives as %s, want %s", path, got.URI, want)
			}
		}
	}},
	{"whole segments, the longest first", func(w *world) {
		for _, path := range []string{"/1", "/a/b/c/d", "/a/b/d", "/a/b/e", "/b/c", "/b/c/d", "/user/al", "/user/alice/named"} {
			w.route(path, w.b.URL+"/at"+path)
		}
		for path, want := range map[string]string{
			"/1": "/1", "/1/etc/etc/": "/1", "/a/b/c/d/e/f": "/a/b/c/d", "/b/c/d/word": "/b/c/d", "/b/c/dword": "/b/c", "/b/c/": "/b/c",
			"/user/al": "/user/al", "/user/al/x": "/user/al", "/user/alice/named/x": "/user/alice/named", "/%75ser/%61l/x": "/user/al",
		} {
			if got := w.get(path); got.StatusCode != 200 || got.asked(w.t).URI != "/at"+want+path {
				w.t.Errorf("%s: %d %s, want the route %s", path, got.StatusCode, got.body, want)
			}
		}
		for _, path := range []string{"/", "/a", "/a/b/c", "/11", "/user/alice", "/user/alic", "/user", "/USER/al"} {
			if got := w.get(path); got.StatusCode != 404 {
				w.t.Errorf("%s: %d, want 404", path, got.StatusCode)
			}
		}
		w.route("/", w.b.URL+"/root")
		if got := w.get("/user/alice").asked(w.t); got.URI != "/root/user/alice" {
			w.t.Errorf("/user/alice arrives as %s", got.URI)
		}
		w.call(204, http.MethodDelete, "/user/al", nil)
		if got := w.get("/user/al/x").asked(w.t); got.URI != "/root/user/al/x" {
			w.t.Errorf("after the removal /user/al/x arrives as %s", got.URI)
		}
	}},
	{"the target's path comes first", func(w *world) {
		w.route("/bar", w.b.URL+"/foo")
		w.route("/baz", w.b.URL+"/foo/")
		for path, want := range map[string]string{"/bar/rest/of/it": "/foo/bar/rest/of/it", "/bar?query=foo": "/foo/bar?query=foo", "/baz/x": "/foo/baz/x"} {
			if got := w.get(path).asked(w.t); got.URI != want {
				w.t.Errorf("%s arrives as %s, want %s", path, got.URI, want)
			}
		}
	}},
	{"a route is changed while it is in use", func(w *world) {
		other, err := proxy.NewBackend("two")
		if err != nil {
			w.t.Fatal(err)
		}
		defer other.Close()
		for i := range 20 {
			b, name := w.b, "one"
			if i%2 == 1 {
				b, name = other, "two"
			}
			w.route("/switch", b.URL)
			if got := w.get("/switch/x").asked(w.t); got.Name != name {
				w.t.Fatalf("request %d goes to %s, want %s", i, got.Name, name)
			}
		}
	}},
	{"who asked", forwarded},
	{"a backend that is not there", func(w *world) {
		w.route("/gone", "http://127.0.0.1:"+need.Port(w.t)) // where nobody listens
		w.route("/user")
		for _, path := range []string{"/gone/x", "/user/x?hangup"} {
			if a := w.get(path); a.StatusCode != 503 || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "503") {
				w.t.Errorf("%s: %d %s: %s", path, a.StatusCode, a.Header.Get("Content-Type"), a.body)
			}
		}
	}},
	{"a path that cannot be unescaped", func(w *world) {
		w.route("/")
		want := 500
		if w.ours {
			want = 400 // it is the client's mistake
		}
		for _, path := range []string{"/%", "/x%zz", "/%E0%A4%A"} {
			if a := w.get(path); a.StatusCode != want {
				w.t.Errorf("%s: %d, want %d", path, a.StatusCode, want)
			}
		}
	}},
	{"redirects and cookies are the backend's", func(w *world) {
		w.route("/bar")
		a := w.get("/bar/x?status=301&location=http://foo.com:12345/whatever")
		if a.StatusCode != 301 || a.Header.Get("Location") != "http://foo.com:12345/whatever" {
			w.t.Errorf("%d to %s", a.StatusCode, a.Header.Get("Location"))
		}
		if got := a.Header.Values("Set-Cookie"); len(got) != 2 {
			w.t.Errorf("cookies %q", got)
		}
		for _, code := range []int{200, 204, 302, 304, 400, 403, 404, 424, 500, 502, 503} {
			if a := w.get(fmt.Sprintf("/bar/x?status=%d", code)); a.StatusCode != code {
				w.t.Errorf("status %d arrives as %d", code, a.StatusCode)
			}
		}
	}},
	{"health", func(w *world) {
		if a := w.get("/_chp_healthz"); a.StatusCode != 200 || strings.ReplaceAll(strings.TrimSpace(a.body), " ", "") != `{"status":"OK"}` || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") {
			w.t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}},
	{"activity", activity},
}

// forwarded looks at the headers that tell the backend whom it serves.
func forwarded(w *world) {
	w.route("/user")
	host, port, _ := strings.Cut(w.p.Addr, ":")
	got := w.get("/user/x", "Cookie: a=b; c=d", "Authorization: token t", "X-XSRFToken: 2|x", "Origin: https://example.org", "Referer: https://example.org/").asked(w.t)
	if got.Host != w.p.Addr {
		w.t.Errorf("Host is %s", got.Host)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": host, "X-Forwarded-Port": port, "X-Forwarded-Proto": "http", "X-Forwarded-Host": w.p.Addr,
		"Cookie": "a=b; c=d", "Authorization": "token t", "X-Xsrftoken": "2|x", "Origin": "https://example.org", "Referer": "https://example.org/",
	} {
		if v := strings.Join(got.Header.Values(name), "|"); v != want && !(name == "X-Forwarded-For" && v == "::ffff:"+want) {
			w.t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	got = w.raw("GET /user/x HTTP/1.1\r\nHost: alice.example.org\r\n\r\n").asked(w.t)
	if got.Host != "alice.example.org" || got.Header.Get("X-Forwarded-Host") != "alice.example.org" {
		w.t.Errorf("Host is %s, X-Forwarded-Host %s", got.Host, got.Header.Get("X-Forwarded-Host"))
	}
}

// activity moves by what succeeds, and by nothing else.
func activity(w *world) {
	w.route("/user")
	w.route("/gone", "http://127.0.0.1:1")
	last := func(path string) string { return fmt.Sprint(w.routes()[path]["last_activity"]) }
	step := func(what string, moves bool, do func()) {
		w.t.Helper()
		before := last("/user") + last("/gone")
		time.Sleep(5 * time.Millisecond)
		do()
		moved := func() bool { return last("/user")+last("/gone") != before }
		if moves {
			w.until(what+" moves it", moved)
			return
		}
		for range 20 {
			if moved() {
				w.t.Fatalf("%s moves it", what)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	step("a page", true, func() { w.get("/user/x") })
	step("a deletion", true, func() { w.get("/user/x?status=204") })
	for _, code := range []int{302, 304, 404, 403, 500, 503} {
		step(fmt.Sprint("status ", code), false, func() { w.get(fmt.Sprintf("/user/x?status=%d", code)) })
	}
	step("an answer that is none", false, func() { w.get("/user/x?hangup") })
	step("a server that is gone", false, func() { w.get("/gone/x") })
	step("the API", false, func() { w.call(200, http.MethodGet, "/user", nil) })
	step("health", false, func() { w.get("/_chp_healthz") })
	step("the same route again", true, func() { w.route("/user") })
}

var wireCases = []testCase{
	{"methods and bodies", func(w *world) {
		w.route("/user")
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			a := w.raw(method + " /user/x HTTP/1.1\r\nHost: NAME\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
			if got := a.asked(w.t); got.Method != method || got.Body != "hello" || got.Header.Get("Content-Type") != "text/plain" {
				w.t.Errorf("%s arrives as %s %q", method, got.Method, got.Body)
			}
		}
		if a := w.raw("HEAD /user/x HTTP/1.1\r\nHost: NAME\r\n\r\n"); a.StatusCode != 200 || a.body != "" {
			w.t.Errorf("HEAD: %d %q", a.StatusCode, a.body)
		}
		a := w.raw("POST /user/x HTTP/1.1\r\nHost: NAME\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
		if got := a.asked(w.t); got.Body != "hello" {
			w.t.Errorf("chunks arrive as %q", got.Body)
		}
	}},
	{"large bodies both ways", func(w *world) {
		w.route("/user")
		const n = 8 << 20
		r, err := http.Post("http://"+w.p.Addr+"/user/x", "application/octet-stream", bytes.NewReader(make([]byte, n)))
		if err != nil {
			w.t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if got := (answer{r, string(text)}).asked(w.t); err != nil || got.Length != n {
			w.t.Errorf("%d of %d bytes arrived: %v", got.Length, n, err)
		}
		a := w.get(fmt.Sprintf("/user/x?bytes=%d", n))
		if sum := sha256.Sum256([]byte(a.body)); len(a.body) != n || sum != sha256.Sum256(bytes.Repeat([]byte("x"), n)) {
			w.t.Errorf("%d of %d bytes came", len(a.body), n)
		}
	}},
	{"connections are kept", func(w *world) {
		w.route("/user")
		c := w.dial()
		in := bufio.NewReader(c)
		n := 5
		if !w.ours {
			n = 1 // it asks the backend to close, and hands on that the backend does
		}
		for i := range n {
			fmt.Fprintf(c, "GET /user/%d HTTP/1.1\r\nHost: %s\r\n\r\n", i, w.p.Addr)
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				w.t.Fatalf("request %d: %v", i, err)
			}
			if w.ours && r.Header.Get("Connection") != "keep-alive" {
				w.t.Errorf("request %d: the connection is %q", i, r.Header.Get("Connection"))
			}
			text, err := io.ReadAll(r.Body)
			if got := (answer{r, string(text)}).asked(w.t); err != nil || got.URI != fmt.Sprint("/user/", i) {
				w.t.Errorf("request %d arrives as %s: %v", i, got.URI, err)
			}
		}
		if a := w.get("/user/x", "Connection: close"); a.StatusCode != 200 || !a.Close {
			w.t.Errorf("with Connection: close: %d, closed %t", a.StatusCode, a.Close)
		}
	}},
	{"HTTP/1.0", func(w *world) {
		w.route("/user")
		if a := w.raw("GET /user/x HTTP/1.0\r\nHost: NAME\r\n\r\n"); a.StatusCode != 200 || a.asked(w.t).URI != "/user/x" {
			w.t.Errorf("%d %s", a.StatusCode, a.body)
		}
	}},
	{"what is streamed comes as it is sent", func(w *world) {
		w.route("/user")
		c := w.dial()
		fmt.Fprintf(c, "GET /user/x?drip=4 HTTP/1.1\r\nHost: %s\r\n\r\n", w.p.Addr)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			w.t.Fatal(err)
		}
		lines := bufio.NewReader(r.Body)
		for i := range 4 {
			if i > 0 {
				w.b.Drip <- struct{}{}
			}
			line, err := lines.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				w.t.Fatalf("line %d is %q: %v", i, line, err)
			}
			_, _ = lines.ReadString('\n') // the empty one
		}
	}},
	{"headers between neighbours end here", func(w *world) {
		w.route("/user")
		got := w.get("/user/x", "Connection: keep-alive, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "TE: trailers", "X-End: 2").asked(w.t)
		if got.Header.Get("X-End") != "2" {
			w.t.Error("X-End is lost")
		}
		if w.ours { // the original hands them on
			for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Connection"} {
				if got.Header.Get(name) != "" {
					w.t.Errorf("%s is handed on", name)
				}
			}
		}
	}},
}
