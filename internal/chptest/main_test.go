package chptest

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

const patience = time.Minute

// standIn is the program with our front, built once.
var standIn string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if testing.Short() {
		return m.Run() // each test leaves itself out
	}
	dir, err := os.MkdirTemp("", "shoal-chptest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if standIn, err = proxy.StandIn(filepath.Join("..", ".."), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// world is a proxy with a backend.
type world struct {
	t    *testing.T
	ours bool
	p    *proxy.Proxy
	b    *proxy.Backend
}

// both runs a test against ours and against the original.
func both(t *testing.T, test func(t *testing.T, program string, ours bool)) {
	if testing.Short() {
		t.Skip("starts processes: left out with -short")
	}
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		test(t, standIn, true)
	})
	t.Run("original", func(t *testing.T) {
		t.Parallel()
		program, err := proxy.Original()
		if err != nil {
			need.Missing(t, err.Error())
		}
		test(t, program, false)
	})
}

// lookAtSources lets the cache of results know what they depend on.
var lookAtSources = sync.OnceValue(func() error { return rig.LookAt(filepath.Join("..", "..")) })

// newWorld starts a proxy, with a backend that has no route yet.
func newWorld(t *testing.T, program string, ours bool, args ...string) *world {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	b, err := proxy.NewBackend("one")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := proxy.Start(t.Context(), program, t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the proxy wrote:\n%s", p.Log())
		}
	})
	return &world{t, ours, p, b}
}

// sub is the world of a part of a test.
func (w *world) sub(t *testing.T) *world {
	c := *w
	c.t = t
	return &c
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// call calls the API and expects a status.
func (w *world) call(want int, method, path string, body any) string {
	w.t.Helper()
	r, text, err := w.p.Call(w.ctx(), method, path, body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	if r.StatusCode != want {
		w.t.Errorf("%s /api/routes%s %v: status %d, want %d: %s", method, path, body, r.StatusCode, want, text)
	}
	return string(text)
}

// clear removes all routes.
func (w *world) clear() {
	w.t.Helper()
	for path := range w.routes() {
		w.call(http.StatusNoContent, http.MethodDelete, escape(path), nil)
	}
}

func escape(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c == '/' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (w *world) routes() map[string]map[string]any {
	w.t.Helper()
	all, err := w.p.Routes(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// route adds a route to a target, the backend's if none is given.
func (w *world) route(path string, target ...string) {
	w.t.Helper()
	to := w.b.URL
	if len(target) > 0 {
		to = target[0]
	}
	if err := w.p.Add(w.ctx(), path, to); err != nil {
		w.t.Fatal(err)
	}
}

// answer is what came of a request.
type answer struct {
	*http.Response
	body string
}

// asked reads what the backend says that it was asked.
func (a answer) asked(t *testing.T) proxy.Asked {
	t.Helper()
	var got proxy.Asked
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatalf("status %d is no answer of the backend: %s", a.StatusCode, a.body)
	}
	return got
}

// raw sends bytes to the data port and reads one answer. NAME stands for the proxy's address.
func (w *world) raw(text string) answer {
	w.t.Helper()
	c := w.dial()
	if _, err := io.WriteString(c, strings.ReplaceAll(text, "NAME", w.p.Addr)); err != nil {
		w.t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%q: %v", text, err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Fatalf("%q: %v", text, err)
	}
	return answer{r, string(body)}
}

func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.p.Addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() }) // may be closed already
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// get asks for a path as it is written, with further header lines.
func (w *world) get(path string, lines ...string) answer {
	w.t.Helper()
	return w.raw("GET " + path + " HTTP/1.1\r\nHost: NAME\r\n" + strings.Join(append(lines, "", ""), "\r\n"))
}
