package webfront_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
)

func TestForward(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/", backend(t, echo("root")))
	w.route("/user/alice", backend(t, echo("alice")))
	w.route("/user/ärger @x", backend(t, echo("odd")))
	w.route("/base", backend(t, echo("base"))+"/below/it/")
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/", "", "root GET /  <nil>"},
		{"GET", "/user/alicia?x=1", "", "root GET /user/alicia?x=1  <nil>"},
		{"GET", "/user/alice", "", "alice GET /user/alice  <nil>"},
		{"GET", "/user/alice/tree?q=a%2Fb&c=%20d", "", "alice GET /user/alice/tree?q=a%2Fb&c=%20d  <nil>"},
		{"GET", "/user/alice/a%2Fb/c/../d;e", "", "alice GET /user/alice/a%2Fb/c/../d;e  <nil>"},
		{"GET", "/user/alice///a//b/?c//d?e", "", "alice GET /user/alice/a/b/?c//d?e  <nil>"},
		{"GET", "/user/alice/proxy/http://x//y/https:/z", "", "alice GET /user/alice/proxy/http://x/y/https://z  <nil>"},
		{"GET", "/user/alice/%2e%2e/%2F/~?", "", "alice GET /user/alice/%2e%2e/%2F/~?  <nil>"},
		{"GET", "/us%65r/alice/x", "", "alice GET /us%65r/alice/x  <nil>"},
		{"POST", "/user/alice", "some body", "alice POST /user/alice some body <nil>"},
		{"POST", "/user/alice", "", "alice POST /user/alice  <nil>"},
		{"PUT", "/user/alice", strings.Repeat("x", 100_000), "alice PUT /user/alice " + strings.Repeat("x", 100_000) + " <nil>"},
		{"DELETE", "/user/alice", "", "alice DELETE /user/alice  <nil>"},
		{"PATCH", "/user/alice", "p", "alice PATCH /user/alice p <nil>"},
		{"GET", "/user/%C3%A4rger%20@x/lab", "", "odd GET /user/%C3%A4rger%20@x/lab  <nil>"},
		{"GET", "/base/x?y", "", "base GET /below/it/base/x?y  <nil>"},
	} {
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		res, got := w.send(c.method, c.path, body)
		if res.StatusCode != 200 || got != c.want {
			t.Errorf("%s %s: %d %.200q, want %.200q", c.method, c.path, res.StatusCode, got, c.want)
		}
		if c.body == "" {
			continue
		}
		if res, got = w.send(c.method, c.path, io.MultiReader(strings.NewReader(c.body))); got != c.want { // chunked
			t.Errorf("%s %s chunked: %d %.200q, want %.200q", c.method, c.path, res.StatusCode, got, c.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	w := start(t, webfront.Config{Guard: guard{}})
	w.route("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(204)
		case "/304":
			w.Header().Set("ETag", `"x"`)
			w.WriteHeader(304)
		case "/302":
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(302)
		case "/500":
			http.Error(w, "mine", 500)
		case "/cookies":
			w.Header().Add("Set-Cookie", "a=1; Path=/")
			w.Header().Add("Set-Cookie", "__Host-shoal=evil; Path=/; Secure")
			w.Header().Add("Set-Cookie", "b=2")
		case "/hop":
			w.Header().Set("Connection", "X-Mine")
			w.Header().Set("X-Mine", "1")
			w.Header().Set("Keep-Alive", "timeout=1")
			w.Header().Set("X-Other", "2")
		case "/plain":
			w.Header()["Content-Type"] = nil
			_, _ = io.WriteString(w, "<html>")
		case "/trailer":
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
		case "/early":
			w.Header().Set("Link", "</a.css>")
			w.WriteHeader(103)
			_, _ = io.WriteString(w, "late")
		}
	}))
	for _, path := range []string{"/204", "/304", "/302", "/500"} {
		if res, _ := w.get("GET", path); fmt.Sprintf("/%d", res.StatusCode) != path {
			t.Errorf("%s gave %d", path, res.StatusCode)
		}
	}
	if res, _ := w.get("GET", "/cookies"); fmt.Sprint(res.Header["Set-Cookie"]) != "[a=1; Path=/ b=2]" {
		t.Errorf("cookies are %v", res.Header["Set-Cookie"])
	}
	if res, _ := w.get("GET", "/hop"); res.Header.Get("X-Mine") != "" || res.Header.Get("Keep-Alive") != "" || res.Header.Get("X-Other") != "2" {
		t.Errorf("headers are %v", res.Header)
	}
	if res, _ := w.get("GET", "/plain"); res.Header["Content-Type"] != nil {
		t.Errorf("the type was guessed: %v", res.Header)
	}
	if res, body := w.get("GET", "/trailer"); res.Trailer.Get("X-Sum") != "42" || body != "body" {
		t.Errorf("trailers are %v", res.Trailer)
	}
	if _, body := w.get("GET", "/early"); body != "late" {
		t.Errorf("after an early answer there is %q", body)
	}
	if res, body := w.get("HEAD", "/500"); res.StatusCode != 500 || body != "" {
		t.Errorf("HEAD gave %d %q", res.StatusCode, body)
	}
	if _, body := w.get("GET", "/early"); body != "late" {
		t.Errorf("after HEAD there is %q", body)
	}
}

// TestStreams: each piece arrives before the next is sent, both ways.
func TestStreams(t *testing.T) {
	next := make(chan string)
	w := start(t, webfront.Config{})
	w.route("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "4")
		}
		for piece := range next {
			_, _ = io.WriteString(w, piece)
			w.(http.Flusher).Flush()
			if piece == "d" {
				return
			}
		}
	}))
	for _, path := range []string{"/unknown", "/known"} {
		r, _ := http.NewRequest("GET", w.url+path, nil)
		go func() { next <- "a" }()
		res, err := w.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []string{"a", "b", "c", "d"} {
			if piece != "a" {
				next <- piece
			}
			b := make([]byte, 10)
			n, err := res.Body.Read(b)
			if string(b[:n]) != piece {
				t.Fatalf("%s: got %q, %v, want %q", path, b[:n], err, piece)
			}
		}
		res.Body.Close()
	}

	pieces := make(chan string)
	w.route("/up", backend(t, func(_ http.ResponseWriter, r *http.Request) {
		b := make([]byte, 10)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				pieces <- string(b[:n])
			}
			if err != nil {
				return
			}
		}
	}))
	from, to := io.Pipe()
	r, _ := http.NewRequest("POST", w.url+"/up", from)
	done := make(chan error, 1)
	go func() {
		res, err := w.client.Do(r)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	for _, piece := range []string{"a", "b", "c"} {
		_, _ = io.WriteString(to, piece)
		if got := <-pieces; got != piece {
			t.Fatalf("got %q, want %q", got, piece)
		}
	}
	to.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestForwardedHeaders(t *testing.T) {
	seen := make(chan http.Header, 1)
	server := func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		h.Set("Host", r.Host)
		seen <- h
	}
	w := start(t, webfront.Config{Guard: guard{}})
	w.route("/", backend(t, server))
	w.get("GET", "/", "Host: pool.example.org:8443", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X_Forwarded_For: 5.6.7.8", "Forwarded: for=9.9.9.9",
		"X-Real-Ip: 1.1.1.1", "Connection: X-Secret, close", "X-Secret: 1", "Te: trailers", "Cookie: a=1; __Host-shoal=alice; b=2", "Proxy-Authorization: x", "Accept-Encoding: br")
	h := <-seen
	for name, want := range map[string]string{"Host": "pool.example.org:8443", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "8443",
		"X-Forwarded-Host": "pool.example.org:8443", "X_forwarded_for": "", "Forwarded": "", "X-Real-Ip": "", "X-Secret": "", "Te": "", "Cookie": "a=1; b=2",
		"Proxy-Authorization": "", "Accept-Encoding": "br", "Connection": ""} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	w = start(t, webfront.Config{Trusted: prefixes("127.0.0.0/8")})
	w.route("/", backend(t, server))
	w.get("GET", "/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: outside")
	h = <-seen
	if h.Get("X-Forwarded-For") != "1.2.3.4,127.0.0.1" || h.Get("X-Forwarded-Proto") != "https,http" || h.Get("X-Forwarded-Host") != "outside" {
		t.Errorf("from a trusted proxy: %v", h)
	}
}

// TestKept: connections to a server behind are used again, and one that it has closed does not fail a request.
func TestKept(t *testing.T) {
	opened := make(chan struct{}, 100)
	w := start(t, webfront.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: echo("kept"), ConnState: func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened <- struct{}{}
		}
	}}
	go func() { _ = s.Serve(l) }()
	defer func() { s.Close() }()
	w.route("/", "http://"+l.Addr().String())
	for range 20 {
		w.get("GET", "/")
		w.send("POST", "/", strings.NewReader("x"))
	}
	if n := len(opened); n != 1 {
		t.Errorf("%d connections for requests one after another", n)
	}
	addr := l.Addr().String()
	s.Close()
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Skip("the port is taken:", err)
	}
	s = &http.Server{Handler: echo("again")}
	go func() { _ = s.Serve(l) }()
	if res, body := w.send("POST", "/", strings.NewReader("x")); res.StatusCode != 200 || body != "again POST / x <nil>" {
		t.Errorf("after the server was restarted: %d %q", res.StatusCode, body)
	}
}

func TestWebsocket(t *testing.T) {
	own, err := certs.FromOwn(t.TempDir(), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	for name, secure := range map[string]*tls.Config{"plain": nil, "TLS": own.TLS()} {
		t.Run(name, func(t *testing.T) { testWebsocket(t, secure) })
	}
}

func testWebsocket(t *testing.T, secure *tls.Config) {
	w := start(t, webfront.Config{TLS: secure})
	w.secure = secure != nil
	w.route("/user/alice", wsEcho(t))
	c, r, res := w.websocket("/user/alice/api/kernels/x%2Fy/channels?session_id=1")
	if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "y" || res.Header.Get("X-Path") != "/user/alice/api/kernels/x%2Fy/channels" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	greeting := make([]byte, 6)
	if _, err := io.ReadFull(r, greeting); err != nil || string(greeting) != "hello " {
		t.Fatalf("%q %v", greeting, err)
	}
	before := w.routes.Get("/user/alice").LastUsed()
	for _, size := range []int{1, 10, 1000, 1024, 5000, 300_000, 3} {
		sent := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, size)
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes came back otherwise: %v", size, err)
		}
	}
	if !w.routes.Get("/user/alice").LastUsed().After(before.Add(-time.Second)) || time.Since(w.routes.Get("/user/alice").LastUsed()) > time.Minute {
		t.Error("a websocket's bytes are not taken for use")
	}
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("after the end came %q, %v", rest, err)
	}
	w.route("/user/alice", backend(t, echo("plain")))
	if _, _, res := w.websocket("/user/alice/x"); res.StatusCode != 200 {
		t.Errorf("a server without websockets: %d", res.StatusCode)
	}
}

// TestUsed: only what succeeds is use.
func TestUsed(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		status := 0
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(status)
	}))
	for status, use := range map[int]bool{200: true, 204: true, 302: false, 404: false, 503: false} {
		w.route("/", w.routes.Get("/").Target.String())
		w.get("GET", fmt.Sprintf("/%d", status))
		if got := time.Since(w.routes.Get("/").LastUsed()) < 30*time.Minute; got != use {
			t.Errorf("%d counts as use: %v", status, got)
		}
	}
}
