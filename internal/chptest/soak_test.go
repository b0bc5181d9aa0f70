package chptest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

// prove returns how often something is done: some times here, the full count with SHOAL_PROVE.
func prove(few, full int) int {
	if os.Getenv("SHOAL_PROVE") != "" {
		return full
	}
	return few
}

// TestSoak does again and again what made the original keep sockets, and looks whether any is left: a websocket
// where there is none (jupyterhub/configurable-http-proxy issue 557 and sagemathinc/http-proxy-3 issue 26), clients
// and servers that vanish in the middle (434), all of it for long (388).
func TestSoak(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes: left out with -short")
	}
	for _, c := range []struct {
		name string
		once func(*world) error // what is done again and again, several at a time
	}{
		{"a websocket that the server refuses", func(w *world) error { return refused(w, "/user/x?refuse", 403) }},
		{"a websocket to a server that is gone", func(w *world) error { return refused(w, "/gone/x", 503) }},
		{"a websocket without a route", func(w *world) error { return refused(w, "/nowhere", 404) }},
		{"a websocket whose server hangs up", func(w *world) error { return refused(w, "/user/x?hangup&refuse", 503) }},
		{"a client that vanishes before the answer", func(w *world) error { return vanish(w, "/user/x?sleep=1h", 5*time.Millisecond, true) }},
		{"a client that ends before the answer", func(w *world) error { return vanish(w, "/user/x?sleep=1h", 5*time.Millisecond, false) }},
		{"a client that vanishes in the middle of an answer", func(w *world) error { return vanish(w, "/user/x?bytes=100000000", 5*time.Millisecond, true) }},
		{"a client that vanishes from a stream", func(w *world) error { return vanish(w, "/user/x?drip=2", 5*time.Millisecond, true) }},
		{"a websocket whose client vanishes", func(w *world) error { return vanishSocket(w, true) }},
		{"a websocket whose client ends without a word", func(w *world) error { return vanishSocket(w, false) }},
		{"a websocket that ends well", endWell},
		{"a websocket whose server ends it", func(w *world) error { return say(w, "bye") }},
		{"a server that hangs up", func(w *world) error { return status(w, "/user/x?hangup", 503) }},
		{"requests on connections that are kept", func(w *world) error { return status(w, "/user/x", 200) }},
		{"servers that come and go", comeAndGo},
		{"half a request", func(w *world) error { return half(w, "GET /user/x HTTP/1.1\r\nHost: x\r\n") }},
		{"half a body", func(w *world) error {
			return half(w, "POST /user/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
		}},
		{"nothing that is HTTP", func(w *world) error { return half(w, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, standIn, true)
			w.route("/user")
			w.route("/gone", "http://127.0.0.1:1")
			w.soak(prove(100, 5000), c.once)
		})
	}
}

// soak does something n times, ten at a time, and waits until no socket is left of it.
func (w *world) soak(n int, once func(*world) error) {
	w.t.Helper()
	if err := once(w); err != nil { // what is made once is made
		w.t.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(10)
	for range n {
		g.Go(func() error { return once(w) })
	}
	if err := g.Wait(); err != nil {
		w.t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections() // those are the tests' own
	w.drained(10)
}

// drainTime is longer than a connection to a server that has ended is kept for the next request.
const drainTime = 2 * time.Minute

// drained waits until all but a few sockets have gone: two listeners and what is kept to servers for further requests.
func (w *world) drained(kept int) {
	w.t.Helper()
	n := 0
	for deadline := time.Now().Add(drainTime); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var err error
		if n, err = proxy.Sockets(w.p.Cmd.Process.Pid); err != nil {
			w.t.Fatal(err)
		}
		if n <= 2+kept && w.b.Open.Load() == 0 && w.b.Conns.Load() <= int64(kept) {
			return
		}
	}
	w.t.Errorf("the proxy has %d sockets, the server %d connections and %d websockets when all have gone", n, w.b.Conns.Load(), w.b.Open.Load())
}

func refused(w *world, path string, want int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, r, err := proxy.Websocket(ctx, w.p.Addr, path, nil)
	if err == nil || r == nil || r.StatusCode != want {
		return fmt.Errorf("%s: %v: %w", path, r, err)
	}
	return nil
}

// vanish asks for something and is gone a little later, with a reset or in order.
func vanish(w *world, path string, after time.Duration, reset bool) error {
	c, err := net.Dial("tcp", w.p.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return err
	}
	time.Sleep(after)
	if reset {
		return c.(*net.TCPConn).SetLinger(0) // the closing is a reset
	}
	return nil
}

func vanishSocket(w *world, reset bool) error {
	var raw net.Conn
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		raw = c
		return c, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := proxy.Websocket(ctx, w.p.Addr, "/user/x", &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}}})
	if err != nil {
		return err
	}
	if reset {
		err = raw.(*net.TCPConn).SetLinger(0)
	}
	return errors.Join(err, raw.Close(), ignore(c.CloseNow()))
}

func ignore(error) error { return nil }

func endWell(w *world) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := proxy.Websocket(ctx, w.p.Addr, "/user/x", nil)
	if err != nil {
		return err
	}
	return c.Close(websocket.StatusNormalClosure, "")
}

func say(w *world, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := proxy.Websocket(ctx, w.p.Addr, "/user/x", nil)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		return err
	}
	if _, _, err = c.Read(ctx); websocket.CloseStatus(err) != 4001 {
		return fmt.Errorf("it ends with %w", err)
	}
	return nil
}

func status(w *world, path string, want int) error {
	r, err := http.Get("http://" + w.p.Addr + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.StatusCode != want {
		return fmt.Errorf("%s: status %d", path, r.StatusCode)
	}
	return nil
}

// comers counts the servers that come and go.
var comers atomic.Int64

// comeAndGo is a user's server that starts, is used, and ends without a word.
func comeAndGo(w *world) error {
	b, err := proxy.NewBackend("short")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := fmt.Sprint("/user/", comers.Add(1)) // not its port, which may be the next one's before its route has gone
	err = errors.Join(w.p.Add(ctx, path, b.URL), status(w, path+"/x", 200))
	c, _, e := proxy.Websocket(ctx, w.p.Addr, path+"/x", nil)
	if err = errors.Join(err, e); err == nil {
		defer c.CloseNow()
	}
	err = errors.Join(err, b.Close())
	if c != nil {
		if _, _, e := c.Read(ctx); e == nil || ctx.Err() != nil {
			err = errors.Join(err, fmt.Errorf("the websocket of a server that ended: %w", e))
		}
	}
	r, _, e := w.p.Call(ctx, http.MethodDelete, path, nil)
	if e == nil && r.StatusCode != http.StatusNoContent {
		e = errors.New(r.Status)
	}
	return errors.Join(err, e)
}

// half sends a part of a request and ends.
func half(w *world, text string) error {
	c, err := net.Dial("tcp", w.p.Addr)
	if err != nil {
		return err
	}
	_, err = io.WriteString(c, text)
	return errors.Join(err, c.Close())
}

// TestSoakCrowd holds websockets open, for ten minutes with SHOAL_PROVE: neither memory nor sockets grow.
func TestSoakCrowd(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes: left out with -short")
	}
	w := newWorld(t, standIn, true)
	w.route("/user")
	n := prove(200, 2000)
	crowd, err := proxy.Gather(t.Context(), w.p.Addr, "/user/x", n)
	if err != nil {
		t.Fatal(err)
	}
	leave := sync.OnceFunc(crowd.Leave)
	defer leave()
	pid := w.p.Cmd.Process.Pid
	look := func() (sockets int, memory float64) {
		t.Helper()
		if err := crowd.Talk(t.Context()); err != nil {
			t.Fatal(err)
		}
		sockets, err1 := proxy.Sockets(pid)
		memory, err2 := proxy.Memory(pid)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return sockets, memory
	}
	rounds, pause := prove(5, 120), time.Duration(prove(20, 5000))*time.Millisecond
	for range max(3, rounds/10) { // buffers and heap find their size
		look()
	}
	sockets, memory := look()
	least := math.Inf(1) // later on: what is on top is garbage
	for i := range rounds {
		s, m := look()
		if s > sockets {
			t.Fatalf("%d sockets became %d", sockets, s)
		}
		if i >= rounds/2 {
			least = min(least, m)
		}
		time.Sleep(pause)
	}
	t.Logf("%d websockets: %.0f KiB, %.0f KiB later, %d sockets", n, memory, least, sockets)
	if least > memory*1.25+4096 { // what a collection of garbage makes of it
		t.Errorf("%.0f KiB became %.0f KiB", memory, least)
	}
	if w.b.Dialed.Load() > int64(n)+10 {
		t.Errorf("%d connections were made for %d websockets", w.b.Dialed.Load(), n)
	}
	leave()
	http.DefaultClient.CloseIdleConnections()
	w.drained(4)
}
