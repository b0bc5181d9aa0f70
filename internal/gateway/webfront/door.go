package webfront

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/record"
)

// Limits bound what clients can take. Zero fields get their defaults. A source is an address, of IPv6 the network of a
// site: many people may share one.
type Limits struct {
	Connections      int // of all; default 20000
	PerSource        int // connections; default 5000
	Requests         int // being answered, of all; default 20000
	SourceRequests   int // being answered; default 5000
	ServerRequests   int // waiting for one server behind; default 1000
	Streams          int // at once on one connection of HTTP/2; default 128
	Websockets       int // of all; default 10000
	SourceWebsockets int // default 4000
	UserWebsockets   int // to the servers of one user; default 3000
	Idle             int // connections kept to one server behind; default 64
	AllIdle          int // connections kept to all servers behind; default 2000
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		of    *int
		value int
	}{{&l.Connections, 20000}, {&l.PerSource, 5000}, {&l.Requests, 20000}, {&l.SourceRequests, 5000}, {&l.ServerRequests, 1000}, {&l.Streams, 128},
		{&l.Websockets, 10000}, {&l.SourceWebsockets, 4000}, {&l.UserWebsockets, 3000}, {&l.Idle, 64}, {&l.AllIdle, 2000}} {
		if *d.of <= 0 {
			*d.of = d.value
		}
	}
	return l
}

// door counts connections of clients.
type door struct {
	limits      Limits
	book        *record.Book
	connections *gateway.Counts
}

type frontListener struct {
	net.Listener
	door *door
}

// Accept returns the next connection that there is room for. The others are closed.
func (l *frontListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := gateway.Source(c.RemoteAddr())
		if !l.door.connections.Enter(source) {
			l.door.book.Refused(record.Connections)
			c.Close()
			continue
		}
		tune(c)
		return &client{Conn: c, source: source, addr: c.RemoteAddr().String(), door: l.door, made: time.Now()}, nil
	}
}

// How long an end that has gone, or does not read, is waited for.
const (
	writeTime = 90 * time.Second
	extend    = 15 * time.Second // a deadline is set anew only this often
)

// tune lets the kernel notice that the other end has gone: by probes while all is quiet, by a limit for
// what is not acknowledged else.
func tune(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 4})
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTime/time.Millisecond))
		})
	}
}

// client is a connection that was let in. A client that does not read what it has asked for is given up.
type client struct {
	net.Conn
	source string
	addr   string
	door   *door
	closed atomic.Bool
	told   atomic.Bool // somebody has set a deadline for writes
	made   time.Time
	until  atomic.Int64 // the deadline set here, in nanoseconds since then: the clock may be set, and deadlines do not follow it
}

func (c *client) Write(b []byte) (int, error) {
	if !c.told.Load() {
		if until := time.Since(c.made) + writeTime; until-time.Duration(c.until.Load()) > extend {
			c.until.Store(int64(until))
			if err := c.Conn.SetWriteDeadline(c.made.Add(until)); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Write(b)
}

// SetWriteDeadline is what others set; until they take it back, it holds.
func (c *client) SetWriteDeadline(t time.Time) error {
	c.told.Store(!t.IsZero())
	c.until.Store(0)
	return c.Conn.SetWriteDeadline(t)
}

func (c *client) SetDeadline(t time.Time) error {
	c.told.Store(!t.IsZero())
	c.until.Store(0)
	return c.Conn.SetDeadline(t)
}

func (c *client) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.door.connections.Leave(c.source)
	}
	return c.Conn.Close()
}

func (c *client) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

type clientKey struct{}

func withClient(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, clientKey{}, c)
}

// clientOf returns the connection that a request came by, or nil.
func clientOf(r *http.Request) *client {
	c, _ := r.Context().Value(clientKey{}).(*client)
	return c
}

// peerOf returns the address that a request came from: that of a proxy, where one is before this front end.
func peerOf(r *http.Request) string {
	if c := clientOf(r); c != nil {
		return c.addr
	}
	return r.RemoteAddr
}

// sourceOf returns what a request's client is counted as.
func sourceOf(r *http.Request) string {
	if c := clientOf(r); c != nil && c.addr == r.RemoteAddr {
		return c.source
	}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return gateway.Source(net.TCPAddrFromAddrPort(a))
	}
	return r.RemoteAddr
}

// believe puts the client's own address into a request that a trusted proxy has passed on: the last one of
// X-Forwarded-For that is not a trusted proxy's.
func (f *Front) believe(r *http.Request) {
	if len(f.cfg.Trusted) == 0 || !f.trusts(addrOf(r.RemoteAddr)) {
		return
	}
	list := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for _, text := range slices.Backward(list) {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return
		}
		r.RemoteAddr = netip.AddrPortFrom(a.Unmap(), 0).String()
		if !f.trusts(a.Unmap()) {
			return
		}
	}
}

// addrOf is the address of HOST:PORT; the zero one: there is none in it.
func addrOf(hostPort string) netip.Addr {
	a, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

func (f *Front) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(f.cfg.Trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}
