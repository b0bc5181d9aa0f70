package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/owner"
)

// Ports. Those of the ways in are privileged, so that nobody can take one after its app has ended. Those of the apps
// are above all that the kernel gives out by itself; see package network of the local provider.
const (
	firstDoor, lastDoor = 600, 1019
	firstPort, lastPort = 61000, 64999
)

const (
	// maxConns is how many connections an app may have.
	maxConns = 4096
	// idleLimit is how long a connection may be without a byte in either direction. Whose other end is gone is found
	// out much sooner.
	idleLimit = 12 * time.Hour
	dialTime  = 10 * time.Second
)

// alive has connections found out whose other end is gone: after two minutes.
func alive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}
}

// freePort finds a port at which nobody listens, for the app.
func freePort() (int, error) {
	const many = 200
	for range many {
		port := firstPort + rand.N(lastPort-firstPort+1)
		l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("cannot find a free port for it between %d and %d: other programs on the machine have them", firstPort, lastPort)
}

// guard is the app's own listening socket, wherever that is.
type guard struct {
	port int
	uid  int
}

func (g guard) at() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(g.port))
}

var errNotHers = errors.New("the port is not the app's: it does not listen, or somebody else does")

// dial connects to the app. The socket that listens there is the user's before and after, and the same: so it
// was hers that took the connection.
func (g guard) dial(ctx context.Context) (*net.TCPConn, error) {
	before, err := owner.Listener(g.at())
	if err != nil || before.UID != g.uid || before.Inode == 0 {
		return nil, errors.Join(errNotHers, err)
	}
	d := net.Dialer{Timeout: dialTime, KeepAliveConfig: alive()}
	c, err := d.DialContext(ctx, "tcp4", g.at().String())
	if err != nil {
		return nil, err
	}
	after, err := owner.Listener(g.at())
	if err != nil || after != before {
		return nil, errors.Join(errNotHers, err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// door is where the gateway comes in.
type door struct {
	l      *net.TCPListener
	port   int
	admits func(netip.Addr) bool
	places chan struct{}
	pool   *sync.Pool    // of buffers
	idle   time.Duration // idleLimit

	mu    sync.Mutex
	guard *guard // nil: shut
	conns map[net.Conn]bool
	over  bool
}

// openDoor takes a port. Nobody is let in before there is an app. Files in dir say who has had which port since the
// machine was started.
func openDoor(dir string, uid int, admits func(netip.Addr) bool) (*door, error) {
	d := &door{admits: admits, places: make(chan struct{}, maxConns), conns: map[net.Conn]bool{}, pool: newBuffers(), idle: idleLimit}
	var failed error
	for _, port := range doorPorts(dir, uid) {
		cfg := net.ListenConfig{KeepAliveConfig: alive()}
		l, err := cfg.Listen(context.Background(), "tcp4", ":"+strconv.Itoa(port))
		if err == nil {
			err = os.WriteFile(doorFile(dir, port), []byte(strconv.Itoa(uid)), 0o600)
			if err != nil {
				_ = l.Close()
			}
		}
		if err != nil {
			failed = err
			continue
		}
		d.l, d.port = l.(*net.TCPListener), port
		go d.accept()
		return d, nil
	}
	return nil, fmt.Errorf("no port between %d and %d is free: %w", firstDoor, lastDoor, failed)
}

func doorFile(dir string, port int) string { return filepath.Join(dir, "door-"+strconv.Itoa(port)) }

// doorRest is after how long a port may become somebody else's. The gateway may hold the address of an app that has ended,
// for a moment, and must not lead its user to another's.
const doorRest = 10 * time.Minute

// doorPorts are the ports to try: those that nobody but this user has had, in any order, and then those of others
// that have rested, the longest first.
func doorPorts(dir string, uid int) []int {
	var fresh, used []int
	since := map[int]time.Time{}
	for _, i := range rand.Perm(lastDoor - firstDoor + 1) {
		port := firstDoor + i
		b, err := os.ReadFile(doorFile(dir, port))
		if err != nil || string(b) == strconv.Itoa(uid) {
			fresh = append(fresh, port)
			continue
		}
		if fi, err := os.Stat(doorFile(dir, port)); err == nil && time.Since(fi.ModTime()) > doorRest {
			since[port] = fi.ModTime()
			used = append(used, port)
		}
	}
	slices.SortFunc(used, func(a, b int) int { return since[a].Compare(since[b]) })
	return append(fresh, used...)
}

// open lets in to an app.
func (d *door) open(g guard) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guard = &g
}

// shut lets nobody in any more, and ends all connections.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guard = nil
	for c := range d.conns {
		_ = c.Close()
	}
}

func (d *door) close(dir string) {
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	now := time.Now()
	_ = os.Chtimes(doorFile(dir, d.port), now, now) // its rest begins
	_ = d.l.Close()
	d.shut()
}

func (d *door) accept() {
	for {
		c, err := d.l.AcceptTCP()
		if err != nil {
			d.mu.Lock()
			over := d.over
			d.mu.Unlock()
			if over {
				return
			}
			time.Sleep(100 * time.Millisecond) // too many files, for a moment
			continue
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err != nil || !d.admits(from.Addr()) && !isRoots(c, from) {
			d.refuse(c)
			continue
		}
		select {
		case d.places <- struct{}{}:
			go func() {
				defer func() { <-d.places }()
				d.carry(c)
			}()
		default:
			d.refuse(c)
		}
	}
}

// isRoots reports whether a connection comes from this machine's root: its agent brings the gateway, where that cannot come itself.
func isRoots(c net.Conn, from netip.AddrPort) bool {
	at, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return false
	}
	s, err := owner.Connection(from, at) // there is none if it comes from elsewhere
	return err == nil && s.UID == 0 && s.Inode != 0
}

// refuse ends a connection with a reset: nothing of it stays.
func (d *door) refuse(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// enter notes a connection. nil: the door is shut.
func (d *door) enter(c net.Conn) *guard {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.guard != nil {
		d.conns[c] = true
	}
	return d.guard
}

func (d *door) leave(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// carry carries a connection from the gateway to the app and back.
func (d *door) carry(c *net.TCPConn) {
	defer c.Close()
	g := d.enter(c)
	if g == nil {
		d.refuse(c)
		return
	}
	defer d.leave(c)
	app, err := g.dial(context.Background())
	if err != nil {
		d.refuse(c)
		return
	}
	defer app.Close()
	last := use{since: time.Now()}
	var way sync.WaitGroup
	way.Go(func() { d.pump(app, c, &last) })
	d.pump(c, app, &last)
	way.Wait()
}

// use is when a connection was used last, by the clock that nobody can set.
type use struct {
	since time.Time
	last  atomic.Int64 // in nanoseconds after that
}

func (u *use) note() { u.last.Store(int64(time.Since(u.since))) }

func (u *use) at() time.Time { return u.since.Add(time.Duration(u.last.Load())) }

// newBuffers makes a pool of buffers. One is only taken once there is something to read, so that a connection at rest has none.
func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
}

// pump carries bytes one way, until their end, which it hands on, or an error, which ends both ways.
func (d *door) pump(to, from *net.TCPConn, last *use) {
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	var set time.Time // the deadline counts from then. To set it costs more than to read, so that is seldom done
	for {
		if at := last.at(); at.Sub(set) > d.idle/100 {
			_ = from.SetReadDeadline(at.Add(d.idle))
			set = at
		}
		n, buf, err := d.take(raw)
		switch {
		case n > 0:
			last.note()
			_, err = to.Write((*buf)[:n])
			d.pool.Put(buf)
		case err == nil: // its end
			_ = to.CloseWrite()
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(last.at()) < d.idle:
			set = time.Time{} // the other way is used, or was since the deadline was set
			continue
		}
		if err != nil {
			_ = to.Close()
			_ = from.Close()
			return
		}
	}
}

// take waits until there is something to read and reads it. No bytes and no error are the end.
func (d *door) take(raw interface {
	Read(func(uintptr) bool) error
}) (n int, buf *[]byte, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf = d.pool.Get().(*[]byte)
		for {
			if n, failed = unix.Read(int(fd), *buf); !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		if n <= 0 {
			d.pool.Put(buf)
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	return max(n, 0), buf, errors.Join(err, failed)
}

// ask asks the app for its probe's path. Any answer below 500 is a good one.
func (a *attempt) ask(ctx context.Context) error {
	path := a.o.Order.Ready.Path
	if !a.o.Order.Strip {
		path = strings.TrimSuffix(a.o.Order.BaseURL, "/") + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.guard.at().String()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "shoal-probe")
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return a.guard.dial(ctx) }}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("asked at %s, it does not answer: %w", path, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // its status is all that counts
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("asked at %s, it answers %s", path, resp.Status)
	}
	return nil
}
