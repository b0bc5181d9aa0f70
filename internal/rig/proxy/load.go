package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
)

// Fast is a backend that answers every request with the same few bytes, for next to no processor time, so that a
// measure is the proxy's. It closes a connection when asked to, without saying so: that is the best case of a proxy that asks for
// it each time.
type Fast struct {
	URL string
	l   net.Listener
}

const fastAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nfast"

// NewFast starts one on a free port of loopback.
func NewFast() (*Fast, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Fast{URL: "http://" + l.Addr().String(), l: l}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			go serveFast(c)
		}
	}()
	return f, nil
}

// Close ends the listener; connections end with their clients.
func (f *Fast) Close() error { return f.l.Close() }

func serveFast(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		last, any := false, false
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
			any = true
			last = last || strings.EqualFold(string(line), "Connection: close\r\n")
		}
		if !any {
			return
		}
		if _, err := io.WriteString(c, fastAnswer); err != nil || last {
			return
		}
	}
}

// caller sends the same request again and again, over a connection that it keeps as long as the server does.
type caller struct {
	addr    string
	request string
	c       net.Conn
	in      *bufio.Reader
}

func newCaller(addr, path string) *caller {
	return &caller{addr: addr, request: "GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nConnection: keep-alive\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"}
}

func (l *caller) close() {
	if l.c != nil {
		_ = l.c.Close() // nothing is lost
		l.c = nil
	}
}

func (l *caller) call() error {
	if l.c == nil {
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			return err
		}
		l.c, l.in = c, bufio.NewReader(c)
	}
	if _, err := io.WriteString(l.c, l.request); err != nil {
		return err
	}
	r, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK || string(body) != "fast" {
		return fmt.Errorf("status %d: %.200s", r.StatusCode, body)
	}
	if r.Close {
		l.close()
	}
	return nil
}

// Requests sends requests over n connections for a time, and returns how many were answered in a second.
func Requests(ctx context.Context, addr, path string, n int, length time.Duration) (float64, error) {
	return during(ctx, n, length, func(context.Context) (func() error, func(), error) {
		l := newCaller(addr, path)
		return l.call, l.close, nil
	})
}

// Latency returns the median of n requests one after the other, in milliseconds.
func Latency(ctx context.Context, addr, path string, n int) (float64, error) {
	l := newCaller(addr, path)
	defer l.close()
	var took []float64
	for i := range n + n/10 {
		start := time.Now()
		if err := l.call(); err != nil {
			return 0, err
		}
		if i >= n/10 { // the first make what is made once
			took = append(took, time.Since(start).Seconds()*1000)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// during lets n callers call until the time is over.
func during(ctx context.Context, n int, length time.Duration, open func(context.Context) (call func() error, done func(), err error)) (float64, error) {
	var count, over atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	timer := time.AfterFunc(length, func() { over.Store(1) })
	defer timer.Stop()
	start := time.Now()
	for range n {
		g.Go(func() error {
			call, done, err := open(ctx)
			if err != nil {
				return err
			}
			defer done()
			for over.Load() == 0 && ctx.Err() == nil {
				if err := call(); err != nil {
					return err
				}
				count.Add(1)
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return float64(count.Load()) / time.Since(start).Seconds(), nil
}

// Crowd is many open websockets.
type Crowd struct{ open []*websocket.Conn }

// Gather opens n websockets.
func Gather(ctx context.Context, addr, path string, n int) (*Crowd, error) {
	c := &Crowd{open: make([]*websocket.Conn, n)}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range n {
		g.Go(func() (err error) {
			c.open[i], _, err = Websocket(gctx, addr, path, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		c.Leave()
		return nil, err
	}
	return c, nil
}

// Talk sends a message over each and waits until it has come back.
func (c *Crowd) Talk(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, w := range c.open {
		g.Go(func() error {
			if err := w.Write(gctx, websocket.MessageText, []byte("still there?")); err != nil {
				return err
			}
			_, text, err := w.Read(gctx)
			if err == nil && string(text) != "still there?" {
				err = fmt.Errorf("%q came back", text)
			}
			return err
		})
	}
	return g.Wait()
}

// Leave closes all without a word, as a browser does that is gone.
func (c *Crowd) Leave() {
	for _, w := range c.open {
		if w != nil {
			_ = w.CloseNow() // the proxy may be gone
		}
	}
}

// Sockets counts those of a process.
func Sockets(pid int) (int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		to, err := os.Readlink(filepath.Join(dir, name.Name()))
		if err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n, nil
}

// Ports counts the connections to an address, of anybody's, in any state: each holds a port of who called.
func Ports(addr string) (int, error) {
	_, port, err := net.SplitHostPort(strings.TrimPrefix(addr, "http://"))
	if err != nil {
		return 0, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return 0, err
	}
	suffix := fmt.Sprintf(":%04X", number)
	n := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[2], suffix) { // who called: the remote address is the server's
			n++
		}
	}
	return n, nil
}

// Memory is the proportional set size of a process, in KiB.
func Memory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, errors.New("no memory is told of the process")
}
