package webfront_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// world is a front end that serves on loopback.
type world struct {
	*testing.T
	routes *routes.Table
	addr   string
	url    string
	client *http.Client
	secure bool // websockets are opened with TLS
}

func start(t *testing.T, cfg webfront.Config) *world {
	t.Helper()
	if cfg.Routes == nil {
		cfg.Routes = routes.New()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := webfront.New(cfg)
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the front end ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("the front end does not end")
		}
	})
	w := &world{T: t, routes: cfg.Routes, addr: l.Addr().String(), url: "http://" + l.Addr().String()}
	w.client = &http.Client{Transport: &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// route puts a route; more are further keys of what is posted.
func (w *world) route(prefix, target string, more ...string) {
	w.Helper()
	posted := map[string]json.RawMessage{"target": json.RawMessage(fmt.Sprintf("%q", target))}
	guarded := false
	for _, m := range more {
		if m == "guarded" {
			guarded = true
			continue
		}
		key, value, _ := strings.Cut(m, "=")
		posted[key] = json.RawMessage(value)
	}
	if err := w.routes.Put(prefix, posted, guarded, time.Now().Add(-time.Hour)); err != nil {
		w.Fatal(err)
	}
}

// backend is a server behind that answers with what it was asked.
func backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s %s %s %s %v", name, r.Method, r.RequestURI, body, err)
	}
}

// get asks for something and returns the status and the body. Headers are written as "Name: value".
func (w *world) get(method, path string, headers ...string) (*http.Response, string) {
	w.Helper()
	return w.send(method, path, nil, headers...)
}

func (w *world) send(method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	w.Helper()
	r, err := http.NewRequest(method, w.url+path, body)
	if err != nil {
		w.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Add(name, value)
	}
	res, err := w.client.Do(r)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return res, string(text)
}

// raw sends bytes as they are and returns all that comes within a second, or until the connection is closed.
func (w *world) raw(text string) string { return w.rawFor(text, time.Second) }

// whole sends bytes that ask for the connection to be closed and returns all that comes.
func (w *world) whole(text string) string { return w.rawFor(text, patience) }

func (w *world) rawFor(text string, most time.Duration) string {
	w.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	_ = c.SetReadDeadline(time.Now().Add(most))
	all, _ := io.ReadAll(c)
	return string(all)
}

// websocket opens one and returns the connection.
func (w *world) websocket(path string, headers ...string) (net.Conn, *bufio.Reader, *http.Response) {
	w.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.Fatal(err)
	}
	if w.secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	w.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n%s\r\n", path, w.addr, lines(headers))
	r := bufio.NewReader(c)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		w.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	return c, r, res
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

// wsEcho agrees to a websocket and sends back whatever comes, byte for byte, after a greeting.
func wsEcho(t *testing.T) string {
	return backend(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			echo("ws")(w, r)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\nX-Path: "+r.URL.EscapedPath()+"\r\n\r\nhello ")
		_, _ = io.Copy(c, rw)
	})
}

// guard signs in by a cookie that says whom.
type guard struct{}

func (guard) Who(r *http.Request) (shoal.UserName, error) {
	c, err := r.Cookie("__Host-shoal")
	if err != nil {
		return "", shoal.Errorf(shoal.KindUnauthenticated, "nobody")
	}
	return shoal.UserName(c.Value), nil
}

func (guard) Strip(h http.Header) {
	var rest []string
	for _, line := range h["Cookie"] {
		for c := range strings.SplitSeq(line, "; ") {
			if !strings.HasPrefix(c, "__Host-shoal") {
				rest = append(rest, c)
			}
		}
	}
	h.Del("Cookie")
	if len(rest) > 0 {
		h.Set("Cookie", strings.Join(rest, "; "))
	}
}

func (guard) StripAnswer(h http.Header) {
	var rest []string
	for _, c := range h["Set-Cookie"] {
		if !strings.HasPrefix(c, "__Host-shoal") {
			rest = append(rest, c)
		}
	}
	h["Set-Cookie"] = rest
}

// serving is a front end that serves on a listener of a test.
type serving struct {
	cancel func()
	ended  chan error
	t      *testing.T
}

func newServe(t *testing.T, f *webfront.Front, l net.Listener) *serving {
	ctx, cancel := context.WithCancel(context.Background())
	s := &serving{cancel: cancel, ended: make(chan error, 1), t: t}
	go func() { s.ended <- f.Serve(ctx, l) }()
	return s
}

func (s *serving) stop() {
	s.cancel()
	if err := <-s.ended; err != nil {
		s.t.Errorf("the front end ended with %v", err)
	}
}

func target(url string) map[string]json.RawMessage {
	text, _ := json.Marshal(url)
	return map[string]json.RawMessage{"target": text}
}
