package shoaltest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// network is listeners by address and connections between them, in memory.
type network struct {
	mu    sync.Mutex
	doors map[string]*door
}

func newNetwork() *network { return &network{doors: map[string]*door{}} }

// address is one on the network.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// listen opens a door. An address can be opened again once it was closed.
func (n *network) listen(at string) net.Listener {
	d := &door{n: n, at: address(at), knock: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.doors[at] = d
	return d
}

// dial connects to a door, or fails at once as to a port that nobody listens on.
func (n *network) dial(ctx context.Context, _, to string) (net.Conn, error) {
	n.mu.Lock()
	d := n.doors[to]
	n.mu.Unlock()
	if d == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: address(to), Err: fmt.Errorf("connection refused")}
	}
	there, here := newFlow(), newFlow()
	select {
	case d.knock <- &conn{in: there, out: here, local: d.at, remote: address("192.0.2.1:1234")}:
		return &conn{in: here, out: there, local: address("192.0.2.1:1234"), remote: d.at}, nil
	case <-d.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: d.at, Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// door is a listener.
type door struct {
	n      *network
	at     address
	knock  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.knock:
		return c, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Close() error {
	d.once.Do(func() {
		close(d.closed)
		d.n.mu.Lock()
		defer d.n.mu.Unlock()
		if d.n.doors[string(d.at)] == d {
			delete(d.n.doors, string(d.at))
		}
	})
	return nil
}

func (d *door) Addr() net.Addr { return d.at }

// conn is one end of a connection. What is written is buffered, so that two ends that write at once do not
// wait for each other.
type conn struct {
	in, out       *flow
	local, remote net.Addr
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

func (c *conn) Close() error {
	c.in.drop()
	c.out.end()
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// flow is one direction of a connection.
type flow struct {
	mu              sync.Mutex
	moved           *sync.Cond
	data            []byte
	ended           bool // the writer closed: what is there can still be read
	dropped         bool // the reader closed
	readBy, writeBy time.Time
}

const flowSize = 256 << 10

func newFlow() *flow {
	f := &flow{}
	f.moved = sync.NewCond(&f.mu)
	return f
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.dropped:
			return 0, net.ErrClosed
		case expired(f.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(f.data) > 0:
			n := copy(p, f.data)
			f.data = f.data[n:]
			f.moved.Broadcast()
			return n, nil
		case f.ended:
			return 0, io.EOF
		}
		f.moved.Wait()
	}
}

func (f *flow) write(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 {
		switch {
		case f.ended || f.dropped:
			return n, io.ErrClosedPipe
		case expired(f.writeBy):
			return n, os.ErrDeadlineExceeded
		}
		if room := flowSize - len(f.data); room > 0 {
			k := min(room, len(p))
			f.data = append(f.data, p[:k]...)
			p, n = p[k:], n+k
			f.moved.Broadcast()
			continue
		}
		f.moved.Wait()
	}
	return n, nil
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.moved.Broadcast()
}

func (f *flow) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped = true
	f.moved.Broadcast()
}

func (f *flow) setDeadline(which *time.Time, t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*which = t
	f.moved.Broadcast()
	// A deadline that has passed needs no timer; in a bubble, under the race detector, one has crashed Go's runtime.
	if left := time.Until(t); left > 0 && !t.IsZero() {
		time.AfterFunc(left, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.moved.Broadcast()
		})
	}
}
