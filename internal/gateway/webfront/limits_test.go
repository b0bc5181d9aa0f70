package webfront_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

func TestWebsocketLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits webfront.Limits
	}{
		{"of all", webfront.Limits{Websockets: 3}},
		{"of a source", webfront.Limits{SourceWebsockets: 3}},
		{"of a user", webfront.Limits{UserWebsockets: 3}},
	} {
		w := start(t, webfront.Config{Limits: c.limits})
		w.route("/user/alice", wsEcho(t), `user="alice"`)
		w.route("/user/bob", wsEcho(t), `user="bob"`)
		var open []net.Conn
		for range 3 {
			conn, _, res := w.websocket("/user/alice/x")
			if res.StatusCode != 101 {
				t.Fatalf("%s: %d", c.name, res.StatusCode)
			}
			open = append(open, conn)
		}
		if _, _, res := w.websocket("/user/alice/x"); res.StatusCode != 429 {
			t.Errorf("%s: the fourth gave %d", c.name, res.StatusCode)
		}
		if res, _ := w.get("GET", "/user/alice/x"); res.StatusCode != 200 {
			t.Errorf("%s: a request beside them gave %d", c.name, res.StatusCode)
		}
		want := map[bool]int{true: 101, false: 429}[c.name == "of a user"]
		if _, _, res := w.websocket("/user/bob/x"); res.StatusCode != want {
			t.Errorf("%s: another user's gave %d", c.name, res.StatusCode)
		}
		open[0].Close()
		for end := time.Now().Add(patience); ; {
			if _, _, res := w.websocket("/user/alice/x"); res.StatusCode == 101 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: one that has gone still counts", c.name)
			}
		}
	}
}

func TestConnectionLimits(t *testing.T) {
	w := start(t, webfront.Config{Limits: webfront.Limits{PerSource: 3}})
	w.route("/", backend(t, echo("x")))
	var open []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n"); got != "" {
		t.Errorf("the fourth connection was answered: %.60q", got)
	}
	open[0].Close()
	for end := time.Now().Add(patience); w.whole("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") == ""; {
		if time.Now().After(end) {
			t.Fatal("one that has gone still counts")
		}
	}
}

func TestRequestLimits(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{}, 10)
	w := start(t, webfront.Config{Limits: webfront.Limits{SourceRequests: 2}})
	w.route("/", backend(t, func(http.ResponseWriter, *http.Request) { held <- struct{}{}; <-hold }))
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { w.get("GET", "/") })
		<-held
	}
	if res, _ := w.get("GET", "/"); res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("the third at once gave %d", res.StatusCode)
	}
	if res, _ := w.get("GET", "/_chp_healthz"); res.StatusCode != 200 {
		t.Errorf("health gave %d", res.StatusCode)
	}
	close(hold)
	all.Wait()
	if res, _ := w.get("GET", "/"); res.StatusCode != 200 {
		t.Errorf("afterwards: %d", res.StatusCode)
	}
}

// bubble is a front end on a network in memory, with fake time. The backend answers with what it has read of a body.
type bubble struct {
	t      *testing.T
	accept chan net.Conn
	front  *webfront.Front
	once   sync.Once
}

func (b *bubble) Accept() (net.Conn, error) {
	c, ok := <-b.accept
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (b *bubble) Close() error   { b.once.Do(func() { close(b.accept) }); return nil }
func (b *bubble) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// TestSlowClients: who sends slowly, or not at all, is given up in time; others are not disturbed.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := routes.New()
		backendSide := make(chan net.Conn, 10)
		b := &bubble{t: t, accept: make(chan net.Conn)}
		pages := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/shoal/read" {
				if _, err := io.ReadAll(r.Body); err == nil {
					time.Sleep(5 * time.Minute) // an answer may take its time
				}
			}
		})
		b.front = webfront.New(webfront.Config{Routes: table, Pages: pages, Dial: func(context.Context, string, string) (net.Conn, error) {
			a, z := net.Pipe()
			backendSide <- z
			return a, nil
		}})
		_ = table.Put("/", target("http://backend:1"), false, time.Now())
		serve := newServe(t, b.front, b)
		connect := func() net.Conn {
			a, z := net.Pipe()
			b.accept <- z
			return a
		}
		ends := func(c net.Conn) (string, time.Duration) {
			began := time.Now()
			text, _ := io.ReadAll(c)
			return string(text), time.Since(began)
		}

		c := connect()
		if text, took := ends(c); text != "" || took > 15*time.Second {
			t.Errorf("who says nothing: %q after %v", text, took)
		}
		slow := connect()
		go func() {
			for range 100 {
				if _, err := io.WriteString(slow, "G"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if text, took := ends(slow); strings.Contains(text, "200") || took > 15*time.Second {
			t.Errorf("who sends a header slowly: %q after %v", text, took)
		}

		c = connect()
		go func() {
			z := <-backendSide
			_, _ = io.Copy(io.Discard, z)
		}()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
		if text, took := ends(c); !strings.Contains(text, "408") || took < 50*time.Second || took > 70*time.Second {
			t.Errorf("who does not send the rest of a body: %.200q after %v", text, took)
		}

		for _, path := range []string{"/shoal/read", "/shoal/ignore", "/_chp_healthz", "/api/v1/none"} {
			c := connect()
			if path == "/api/v1/none" { // no route: it goes to the server of /, which takes it
				go func() { _, _ = io.Copy(io.Discard, <-backendSide) }()
			}
			_, _ = io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
			if text, took := ends(c); took < 50*time.Second || took > 70*time.Second {
				t.Errorf("%s, who does not send the rest of a body: %.200q after %v", path, text, took)
			}
		}
		whole := connect()
		_, _ = io.WriteString(whole, "POST /shoal/read HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
		if text, took := ends(whole); !strings.HasPrefix(text, "HTTP/1.1 200") || took < 4*time.Minute {
			t.Errorf("an answer that takes its time: %.100q after %v", text, took)
		}

		c = connect()
		gone := make(chan time.Duration, 1)
		began := time.Now()
		go func() { // a server that sends without end
			z := <-backendSide
			buf := make([]byte, 1000)
			_, _ = z.Read(buf)
			_, _ = io.WriteString(z, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
			for {
				if _, err := z.Write(buf); err != nil {
					gone <- time.Since(began)
					return
				}
			}
		}()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		_, _ = c.Read(make([]byte, 10))
		if took := <-gone; took < time.Minute || took > 2*time.Minute {
			t.Errorf("who does not read holds a server for %v", took)
		}
		_ = c.Close()
		serve.stop()
	})
}

func TestHTTP2(t *testing.T) {
	own, err := certs.FromOwn(t.TempDir(), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan http.Header, 1)
	w := start(t, webfront.Config{TLS: own.TLS()})
	w.route("/", backend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s %s %q", r.Method, r.RequestURI, body)
		w.Header().Set("X-Sum", "1")
		seen <- r.Header
	}))
	roots := x509.NewCertPool()
	roots.AddCert(own.CA())
	w.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}, ForceAttemptHTTP2: true}}
	defer w.client.CloseIdleConnections()
	w.url = "https://" + w.addr
	res, body := w.send("POST", "/a%2Fb?x=%20", io.MultiReader(strings.NewReader("some "), strings.NewReader("body")), "Cookie: a=1", "Cookie: b=2")
	if res.ProtoMajor != 2 || body != `POST /a%2Fb?x=%20 "some body"` || res.Trailer.Get("X-Sum") != "1" {
		t.Errorf("%s %q %v", res.Proto, body, res.Trailer)
	}
	if h := <-seen; h.Get("X-Forwarded-Proto") != "https" || h.Get("Cookie") != "a=1; b=2" {
		t.Errorf("headers are %v", h)
	}
	large := strings.Repeat("x", 200_000)
	if _, body := w.send("PUT", "/", strings.NewReader(large)); body != fmt.Sprintf("PUT / %q", large) {
		t.Errorf("a large body: %.100s", body)
	}
	<-seen
}

// TestHTTP2TooMuch: headers that are too large are told of; beyond what is read at all it ends, and
// no other does.
func TestHTTP2TooMuch(t *testing.T) {
	own, err := certs.FromOwn(t.TempDir(), []string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, webfront.Config{TLS: own.TLS()})
	w.route("/", backend(t, echo("x")))
	roots := x509.NewCertPool()
	roots.AddCert(own.CA())
	secure := &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"}}
	var dialed atomic.Int32
	w.client = &http.Client{Transport: &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	defer w.client.CloseIdleConnections()
	w.url = "https://" + w.addr
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("X-%d: %s", i, strings.Repeat("x", 1000)))
	}
	for _, c := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"one", []string{"X: " + strings.Repeat("x", 65<<10)}, 431},
		{"one larger", []string{"X: " + strings.Repeat("x", 120<<10)}, 431},
		{"many", many, 431},
		{"cookies", []string{"Cookie: a=" + strings.Repeat("x", 100<<10)}, 431},
		{"right", []string{"X: " + strings.Repeat("x", 60<<10)}, 200},
	} {
		if res, body := w.get("GET", "/", c.headers...); res.StatusCode != c.want || res.ProtoMajor != 2 {
			t.Errorf("%s: %s %d %.200q", c.name, res.Proto, res.StatusCode, body)
		}
	}
	before := dialed.Load()
	conn, err := tls.Dial("tcp", w.addr, secure)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 16<<10)})
	for range 1000 { // it may be closed meanwhile
		if f.WriteContinuation(1, false, make([]byte, 16<<10)) != nil {
			break
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("headers without end do not end the connection")
	}
	if res, _ := w.get("GET", "/"); res.StatusCode != 200 || dialed.Load() != before {
		t.Errorf("the other connection: %d, %d were made anew", res.StatusCode, dialed.Load()-before)
	}
}

// TestHalfOpen: on both sides the kernel is told to notice an end that has gone without saying so.
func TestHalfOpen(t *testing.T) {
	var mu sync.Mutex
	var conns []*net.TCPConn
	note := func(c net.Conn, err error) (net.Conn, error) {
		if err == nil {
			mu.Lock()
			conns = append(conns, c.(*net.TCPConn))
			mu.Unlock()
		}
		return c, err
	}
	table := routes.New()
	f := webfront.New(webfront.Config{Routes: table, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return note((&net.Dialer{}).DialContext(ctx, network, address))
	}})
	_ = table.Put("/", target(backend(t, echo("x"))), false, time.Now())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServe(t, f, noting{l, note})
	defer s.stop()
	res, err := http.Get("http://" + l.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	mu.Lock()
	defer mu.Unlock()
	if len(conns) != 2 {
		t.Fatalf("there are %d connections", len(conns))
	}
	for i, c := range conns {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			for _, o := range []struct{ level, name, want int }{{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 90_000},
				{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 10}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4}} {
				if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
					t.Errorf("connection %d, option %d: %d, %v; want %d", i, o.name, got, err, o.want)
				}
			}
		})
	}
}

type noting struct {
	net.Listener
	note func(net.Conn, error) (net.Conn, error)
}

func (n noting) Accept() (net.Conn, error) { return n.note(n.Listener.Accept()) }
