package webfront_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
	"github.com/shoal-pool/shoal/internal/need"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// deadPort is one on which nobody listens.
func deadPort(t *testing.T) string {
	return "http://127.0.0.1:" + need.Port(t)
}

func TestNobodyThere(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/dead", deadPort(t))
	w.route("/nonsense", "nope")
	w.route("/cut", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		c.Close()
	}))
	w.route("/garbage", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		c, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
		c.Close()
	}))
	w.route("/long", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 400 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
	}))
	for path, want := range map[string]int{"/": 404, "/x/y": 404, "/dead": 503, "/nonsense/x": 503, "/cut": 503, "/garbage": 503, "/long": 503} {
		for _, method := range []string{"GET", "POST", "HEAD"} {
			res, body := w.get(method, path)
			if res.StatusCode != want || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%s %s: %d %v %q", method, path, res.StatusCode, res.Header, body)
			}
		}
		if _, _, res := w.websocket(path); res.StatusCode != want {
			t.Errorf("websocket %s: %d", path, res.StatusCode)
		}
		if res, body := w.get("GET", path, "Accept: application/json"); res.StatusCode != want || !strings.Contains(body, `"detail":`) {
			t.Errorf("%s for a program: %d %q", path, res.StatusCode, body)
		}
	}
	if res, body := w.get("GET", "/_chp_healthz"); res.StatusCode != 200 || body != `{"status":"OK"}` {
		t.Errorf("health is %d %q", res.StatusCode, body)
	}
}

// TestCutOff: an answer that ends before its end does not look whole.
func TestCutOff(t *testing.T) {
	w := start(t, webfront.Config{})
	for name, head := range map[string]string{"/length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "/chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
		w.route(name, backend(t, func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, head)
			c.Close()
		}))
		res, err := w.client.Get(w.url + name)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			t.Errorf("%s looks whole: %q", name, body)
		}
	}
}

func TestErrorTarget(t *testing.T) {
	hub := backend(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/hub/error/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/x-mine; charset=x")
		w.Header().Set("X-Other", "1")
		fmt.Fprintf(w, "page %s for %s", r.URL.Path, r.URL.Query().Get("url"))
	})
	check := func(w *world) {
		t.Helper()
		res, body := w.get("GET", "/user/al%20ice/x?y=1&z=%2F")
		if res.StatusCode != 503 || body != "page /hub/error/503 for /user/al%20ice/x?y=1&z=%2F" || res.Header.Get("Content-Type") != "text/x-mine; charset=x" || res.Header.Get("X-Other") != "" {
			t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
		}
	}
	target, _ := url.Parse(hub + "/hub/error")
	w := start(t, webfront.Config{ErrorTarget: target})
	w.route("/user/al ice", deadPort(t))
	check(w)
	if res, body := w.get("GET", "/nowhere"); res.StatusCode != 404 || body != "page /hub/error/404 for /nowhere" {
		t.Errorf("%d %q", res.StatusCode, body)
	}

	w = start(t, webfront.Config{})
	w.route("/", hub, "hub=true")
	w.route("/user/al ice", deadPort(t))
	check(w)

	w = start(t, webfront.Config{})
	w.route("/", deadPort(t), "hub=true")
	if res, body := w.get("GET", "/x"); res.StatusCode != 503 || !strings.Contains(body, "does not answer") {
		t.Errorf("with a dead hub: %d %q", res.StatusCode, body)
	}
}

// TestSmuggling: what could be read in two ways is refused, or reaches the server behind in one way only.
func TestSmuggling(t *testing.T) {
	requests := make(chan string, 100)
	w := start(t, webfront.Config{})
	w.route("/", backend(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- fmt.Sprintf("%s %s %v %d %q", r.Method, r.RequestURI, r.TransferEncoding, r.ContentLength, body)
	}))
	const smuggled = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"
	post := func(headers string) string { return "POST /a HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n" }
	for i, c := range []struct {
		name, text string
		max        int // requests that may reach the server
	}{
		{"length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 1},
		{"chunks and length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "0\r\n\r\n", 1},
		{"two lengths", post("Content-Length: 0\r\nContent-Length: 33\r\n") + smuggled, 0},
		{"length with a list", post("Content-Length: 0, 33\r\n") + smuggled, 0},
		{"length with a sign", post("Content-Length: +33\r\n") + smuggled, 0},
		{"length in hex", post("Content-Length: 0x21\r\n") + smuggled, 0},
		{"odd coding", post("Transfer-Encoding: xchunked\r\n") + smuggled, 0},
		{"chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n", 0},
		{"space before the colon", post("Content-Length : 33\r\n") + smuggled, 0},
		{"space before chunked's colon", post("Transfer-Encoding : chunked\r\n") + "0\r\n\r\n", 0},
		{"folded", post("Transfer-Encoding:\r\n chunked\r\n") + "0\r\n\r\n", 1},
		{"tab", post("Transfer-Encoding:\tchunked\r\n") + "0\r\n\r\n", 1},
		{"vertical tab", post("Transfer-Encoding: \x0bchunked\r\n") + "0\r\n\r\n", 0},
		{"null", post("Transfer-Encoding: chunked\x00\r\n") + "0\r\n\r\n", 0},
		{"carriage return alone", post("X: a\rTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 0},
		{"chunk extension with a line's end", post("Transfer-Encoding: chunked\r\n") + "1;\nx\r\na\r\n0\r\n\r\n", 1},
		{"huge chunk", post("Transfer-Encoding: chunked\r\n") + "FFFFFFFFFFFFFFFFF\r\n", 1},
		{"name with a space", "GET /a HTTP/1.1\r\nHost: x\r\nX Y: 1\r\n\r\n", 0},
		{"two hosts", "GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 0},
		{"host with a slash", "GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", 0},
		{"no host", "GET /a HTTP/1.1\r\n\r\n", 0},
		{"odd version", "GET /a HTTP/1.2\r\nHost: x\r\n\r\n", 1},
		{"version 9", "GET /a HTTP/9.9\r\nHost: x\r\n\r\n", 0},
		{"space in the address", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 0},
		{"connect", "CONNECT x:22 HTTP/1.1\r\nHost: x:22\r\n\r\n", 0},
		{"h2c", "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n" + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 2},
		{"upgrade with a wrong version", "GET /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n\r\n" + smuggled, 2},
	} {
		mine := fmt.Sprintf("/a?%d ", i)
		answer := w.raw(strings.ReplaceAll(c.text, "/a ", mine))
		n := 0
		for len(requests) > 0 {
			got := <-requests
			if strings.Contains(got, mine) || strings.Contains(got, "/admin") {
				n++
			}
			if strings.Contains(got, "[chunked]") && !strings.Contains(got, " -1 ") {
				t.Errorf("%s: the server saw both: %s", c.name, got)
			}
			if strings.Contains(got, "/admin") && c.name != "upgrade with a wrong version" {
				t.Errorf("%s: smuggled: %s", c.name, got)
			}
		}
		if n > c.max {
			t.Errorf("%s: %d requests reached the server; answer %q", c.name, n, answer)
		}
		if strings.Contains(answer, "HTTP/1.1 5") && !strings.Contains(answer, "501") && !strings.Contains(answer, "505") {
			t.Errorf("%s: %q", c.name, answer)
		}
	}
}

func TestTooMuch(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/", backend(t, echo("x")))
	for _, c := range []struct {
		name, path string
		headers    []string
		want       int
	}{
		{"header", "/", []string{"X: " + strings.Repeat("x", 200<<10)}, 431},
		{"cookie", "/", []string{"Cookie: " + strings.Repeat("x", 40<<10)}, 431},
		{"many cookies", "/", []string{"Cookie: a=" + strings.Repeat("x", 30<<10), "Cookie: b=" + strings.Repeat("x", 10<<10)}, 431},
		{"address", "/" + strings.Repeat("x", 20<<10), nil, 414},
		{"large but right", "/" + strings.Repeat("x", 10<<10), []string{"Cookie: " + strings.Repeat("x", 20<<10)}, 200},
	} {
		res, body := w.get("GET", c.path, c.headers...)
		if res.StatusCode != c.want {
			t.Errorf("%s: %d %.200q", c.name, res.StatusCode, body)
		}
	}
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("X-%d: 1", i))
	}
	if res, _ := w.get("GET", "/", many...); res.StatusCode != 431 {
		t.Errorf("300 headers: %d", res.StatusCode)
	}
}

// TestOddNames: whatever is in an address, it is answered by the server behind or refused, and never with 500.
func TestOddNames(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/", backend(t, echo("x")))
	for _, name := range []string{"%", "%zz", "%FF", "%C3", "%00", "%0d%0a", "%25", "%2e%2e", "Alice", "ALICE@EXAMPLE.ORG", "\xff\xfe", "ä", "%C3%A4", "a b", "a+b", "%F0%9F%90%9F", "<script>", "\"", "{}", "|", "^", "`", "..", "%5c", "~"} {
		text := "GET /user/" + name + "/tree HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
		answer := w.whole(text)
		if !strings.HasPrefix(answer, "HTTP/1.1 200") && !strings.HasPrefix(answer, "HTTP/1.1 400") {
			t.Errorf("%q: %.100q", name, answer)
		}
	}
}

// TestHubHangs: who asks for a server that has gone gets a page of ours when the hub, who is asked for one, does not answer.
func TestHubHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := routes.New()
		for prefix, to := range map[string]string{"/": "http://hub:1", "/user/alice": "http://gone:1"} {
			posted := target(to)
			posted["hub"] = []byte("true")
			if err := table.Put(prefix, posted, false, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		f := webfront.New(webfront.Config{Routes: table, Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			if address == "gone:1" {
				return nil, errors.New("refused")
			}
			a, z := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, z) }() // it takes everything and says nothing
			return a, nil
		}})
		began := time.Now()
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest("GET", "/user/alice/tree", nil))
		if took := time.Since(began); w.Code != 503 || took > 6*time.Second {
			t.Errorf("%d after %v", w.Code, took)
		}
	})
}
