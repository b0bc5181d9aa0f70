package chptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-pool/shoal/internal/rig/namespace"
	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

// TestSoakCut takes the wire away, without a word, from clients with open websockets, with requests that wait for
// their answers and with connections that wait for their next request; and from a server with all of that. What is left of them in
// the proxy ends by itself. It takes minutes, the kernel's probes being slow: with SHOAL_PROVE only.
func TestSoakCut(t *testing.T) {
	t.Parallel()
	if testing.Short() || os.Getenv("SHOAL_PROVE") == "" || os.Geteuid() != 0 {
		t.Skip("takes minutes and root: with SHOAL_PROVE")
	}
	const n = 50
	t.Run("clients", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, standIn, true, "--ip", "0.0.0.0")
		w.route("/user")
		space := w.wire("c", "198.51.100.1", "198.51.100.2")
		_, port, err := net.SplitHostPort(w.p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		dial := func(context.Context, string, string) (net.Conn, error) { return space.Dial("198.51.100.1:" + port) }
		client := &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: n}}
		for range n {
			if _, _, err := proxy.Websocket(w.ctx(), "198.51.100.1:"+port, "/user/x", &websocket.DialOptions{HTTPClient: client}); err != nil {
				t.Fatal(err)
			}
		}
		for _, path := range []string{"/user/x", "/user/x?sleep=1h", "/user/x?bytes=1000000000"} {
			for range n {
				c, err := space.Dial("198.51.100.1:" + port)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
					t.Fatal(err)
				}
				if path == "/user/x" {
					if _, err := c.Read(make([]byte, 4096)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		w.cut(space)
	})
	t.Run("servers", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, standIn, true)
		space := w.wire("s", "198.51.100.5", "198.51.100.6")
		l, err := space.Listen("198.51.100.6:0")
		if err != nil {
			t.Fatal(err)
		}
		far := proxy.NewBackendOn(l, "far")
		defer far.Close()
		w.route("/user", far.URL)
		crowd, err := proxy.Gather(w.ctx(), w.p.Addr, "/user/x", n)
		if err != nil {
			t.Fatal(err)
		}
		defer crowd.Leave()
		ended := make(chan error, n)
		for range n {
			go func() { ended <- status(w, "/user/x?sleep=1h", 503) }()
		}
		w.until("the requests are there", func() bool { return far.Conns.Load() >= 2*n })
		w.cut(space)
		for range n {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if err := crowd.Talk(w.ctx()); err == nil {
			t.Error("websockets to a server that is gone still work")
		}
		if err := status(w, "/user/x", 503); err != nil { // it is not waited for very long, either
			t.Error(err)
		}
	})
}

// wire makes a namespace that is reached at an address.
func (w *world) wire(name, host, inside string) *namespace.Namespace {
	w.t.Helper()
	name = fmt.Sprintf("shoal%s%d", name, os.Getpid()) // an interface's name is short
	space, err := namespace.New(name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := space.Close(); err != nil {
			w.t.Error(err)
		}
	})
	if err := space.Connect(name, host+"/30", inside+"/30"); err != nil {
		w.t.Fatal(err)
	}
	return space
}

// cut takes the wire away and waits until no socket is left of what was on it.
func (w *world) cut(space *namespace.Namespace) {
	w.t.Helper()
	before, err := proxy.Sockets(w.p.Cmd.Process.Pid)
	if err := errors.Join(err, space.Cut()); err != nil {
		w.t.Fatal(err)
	}
	start := time.Now()
	w.drained(10)
	w.t.Logf("of %d sockets none is left after %s", before, time.Since(start).Round(time.Second))
}
