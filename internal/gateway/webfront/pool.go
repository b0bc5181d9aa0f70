package webfront

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway"
)

const (
	dialTime = 5 * time.Second
	keepTime = 30 * time.Second // an idle connection to a server behind
	// reapEvery is how often idle connections are looked at: what the other end has closed is not kept longer.
	reapEvery = 3 * time.Second
	// maxAnswerHeader bounds the headers of an answer.
	maxAnswerHeader = 256 << 10
	maxEarly        = 5 // answers ahead of the answer, as 103
)

// pool keeps connections to servers behind. Nothing is read from those that are idle: whether one still lives is looked at when it
// is needed, and after keepTime it is closed.
type pool struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	machine gateway.Dial // nil: as dial
	limits  Limits
	buffers buffers
	readers sync.Pool // *bufio.Reader
	writers sync.Pool // *bufio.Writer

	mu      sync.Mutex
	idle    map[string][]*link // the last one was used last
	total   int
	reaping bool
	closed  bool
}

func newPool(dial func(ctx context.Context, network, address string) (net.Conn, error), machine gateway.Dial, l Limits) *pool {
	return &pool{dial: dial, machine: machine, limits: l, idle: map[string][]*link{}}
}

// link is one connection to a server behind.
type link struct {
	net.Conn
	key   string
	r     *bufio.Reader
	w     *bufio.Writer
	left  int // how much may still be read; negative: as much as there is
	since time.Time
	raw   syscall.RawConn
	peek  func(fd uintptr) bool
	quiet bool // what peek found
}

var errHeaderTooLong = errors.New("the headers of the answer are too long")

func (l *link) Read(b []byte) (int, error) {
	if l.left < 0 {
		return l.Conn.Read(b)
	}
	if l.left == 0 {
		return 0, errHeaderTooLong
	}
	n, err := l.Conn.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// alive reports whether the other end has neither closed the connection nor said anything that nobody asked for.
func (l *link) alive() bool {
	if l.raw == nil {
		return true
	}
	l.quiet = false
	return l.raw.Read(l.peek) == nil && l.quiet
}

// keyOf tells servers apart. Machines of different networks may have the same address.
func keyOf(d dest) string {
	key := d.target.Scheme + "://" + d.target.Host
	if d.app != nil {
		key = string(d.app.Machine) + " " + key
	}
	return key
}

// get returns an idle connection, or nil.
func (p *pool) get(key string) *link {
	for {
		p.mu.Lock()
		list := p.idle[key]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		l := list[len(list)-1]
		p.drop(key, len(list)-1)
		p.mu.Unlock()
		if time.Since(l.since) < keepTime && l.alive() {
			return l
		}
		l.Close()
	}
}

// drop takes the i-th idle connection of a server out.
func (p *pool) drop(key string, i int) {
	list := p.idle[key]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(p.idle, key)
	} else {
		p.idle[key] = list
	}
	p.total--
}

func (p *pool) put(l *link) {
	l.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.total >= p.limits.AllIdle || len(p.idle[l.key]) >= p.limits.Idle {
		l.Close()
		return
	}
	p.idle[l.key] = append(p.idle[l.key], l)
	p.total++
	if !p.reaping {
		p.reaping = true
		time.AfterFunc(reapEvery, p.reap)
	}
}

// reap closes what nobody has needed for a while, and what the other end has closed.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for key := range p.idle {
		for i := len(p.idle[key]) - 1; i >= 0; i-- {
			if l := p.idle[key][i]; now.Sub(l.since) >= keepTime || !l.alive() {
				l.Close()
				p.drop(key, i)
			}
		}
	}
	if p.reaping = p.total > 0; p.reaping {
		time.AfterFunc(reapEvery, p.reap)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key := range p.idle {
		for len(p.idle[key]) > 0 {
			p.idle[key][0].Close()
			p.drop(key, 0)
		}
	}
}

// open makes a new connection to a server.
func (p *pool) open(ctx context.Context, d dest) (*link, error) {
	target := d.target
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	address := target.Host
	if target.Port() == "" {
		port := "80"
		if target.Scheme == "https" {
			port = "443"
		}
		address = net.JoinHostPort(target.Hostname(), port)
	}
	c, err := p.connect(ctx, d, address)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: c, key: keyOf(d), left: -1}
	below := c
	if s, ok := c.(interface{ NetConn() net.Conn }); ok { // where nothing comes unasked: there what is peeked at is its end
		below = s.NetConn()
	}
	tune(below)
	if s, ok := below.(syscall.Conn); ok {
		if l.raw, err = s.SyscallConn(); err != nil {
			l.raw = nil
		}
	}
	l.peek = func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		l.quiet = errors.Is(err, syscall.EAGAIN)
		return true
	}
	if target.Scheme == "https" {
		secure := tls.Client(c, &tls.Config{ServerName: target.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, fmt.Errorf("cannot speak TLS with %s: %w", address, err)
		}
		l.Conn = secure
		l.raw = nil // tickets and the like come unasked
	}
	if l.r, _ = p.readers.Get().(*bufio.Reader); l.r == nil {
		l.r = bufio.NewReader(l)
	} else {
		l.r.Reset(l)
	}
	if l.w, _ = p.writers.Get().(*bufio.Writer); l.w == nil {
		l.w = bufio.NewWriter(l.Conn)
	} else {
		l.w.Reset(l.Conn)
	}
	return l, nil
}

func (p *pool) connect(ctx context.Context, d dest, address string) (net.Conn, error) {
	if d.app != nil && p.machine != nil {
		return p.machine(ctx, d.app.Machine, address)
	}
	return p.dial(ctx, "tcp", address)
}

// recycle takes the buffers of a link that goes on without them.
func (p *pool) recycle(l *link) {
	l.r.Reset(nil)
	l.w.Reset(nil)
	p.readers.Put(l.r)
	p.writers.Put(l.w)
	l.r, l.w = nil, nil
}

// client asks the same servers for something beside.
func (p *pool) client(patience time.Duration) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: p.dial, MaxIdleConnsPerHost: 4, MaxIdleConns: 16,
		IdleConnTimeout: keepTime, MaxResponseHeaderBytes: maxAnswerHeader, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// buffers are for passing bodies on.
type buffers struct{ of sync.Pool }

func (b *buffers) get() *[]byte {
	if buf, ok := b.of.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, 32<<10)
	return &buf
}

func (b *buffers) put(buf *[]byte) { b.of.Put(buf) }
