package proxy

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What goes over a websocket here: one frame of a short text (RFC 6455, 5.2), four bytes of mask in what clients send.
const (
	textLength = 64
	headLength = 2
	maskLength = 4
)

// Echoes are backends that agree to websockets and send messages of 64 bytes back, each at an address of its own, as users'
// servers have. They, and the clients of RoundTrips and Visits, do no more than read and write, with one thread, on the processor of
// OnOne: what is measured is between.
type Echoes struct {
	URLs      []string
	listeners []int
}

// NewEchoes starts n at a free port of loopback's first addresses. They answer while they are measured.
func NewEchoes(n int) (*Echoes, error) {
	e := &Echoes{}
	port := 0
	for i := range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.listeners = append(e.listeners, fd)
		at := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, byte(i >> 7), byte(1 + i&127)}}
		var bound unix.Sockaddr
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
			err = unix.Bind(fd, at)
		}
		if err == nil {
			err = unix.Listen(fd, 4096)
		}
		if err == nil {
			bound, err = unix.Getsockname(fd)
		}
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		port = bound.(*unix.SockaddrInet4).Port
		e.URLs = append(e.URLs, fmt.Sprintf("http://127.0.%d.%d:%d", at.Addr[2], at.Addr[3], port))
	}
	return e, nil
}

// Close ends the backends.
func (e *Echoes) Close() error {
	var errs []error
	for _, fd := range e.listeners {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// RoundTrips sends messages over one websocket to each path, each as soon as the former has come back, and returns how many
// came back in a second.
func (e *Echoes) RoundTrips(ctx context.Context, addr string, paths []string, length time.Duration) (float64, error) {
	return e.measure(ctx, addr, paths, length, false)
}

// Visits opens a websocket to each path, sends a message there and back, closes it and opens the next; it returns how many
// were done in a second.
func (e *Echoes) Visits(ctx context.Context, addr string, paths []string, length time.Duration) (float64, error) {
	return e.measure(ctx, addr, paths, length, true)
}

func (e *Echoes) measure(ctx context.Context, addr string, paths []string, length time.Duration, visit bool) (rate float64, err error) {
	to, err := sockaddr(addr)
	if err != nil {
		return 0, err
	}
	l, err := newLoop()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	for _, listener := range e.listeners {
		fd, err := unix.Dup(listener)
		if err != nil {
			return 0, err
		}
		if err := l.add(fd, &door{l, fd}); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	var all []*guest
	message := newMessage()
	for _, path := range paths {
		c := newGuest(l, to, addr, path, message, visit)
		all = append(all, c)
		if err := c.open(); err != nil {
			return 0, err
		}
	}
	if err := OnOne(func() error { return l.run(ctx, start.Add(length)) }); err != nil {
		return 0, err
	}
	done := 0
	for _, c := range all {
		done += c.done
	}
	return float64(done) / time.Since(start).Seconds(), nil
}

// door is where an echo is asked for websockets.
type door struct {
	l  *loop
	fd int
}

func (d *door) ready() error {
	for {
		fd, _, err := unix.Accept4(d.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == nil:
			err = d.l.add(fd, &host{l: d.l, fd: fd})
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ECONNABORTED):
			continue
		}
		if err != nil {
			return err
		}
	}
}

const endOfHead = "\r\n\r\n"

// host is a backend's end of a websocket. It, and guest, are small, and frames lie where the former one lay: the fewer of a
// processor's caches the load takes, the more is left for who is measured.
type host struct {
	l    *loop
	fd   int
	open bool
	part []byte // of the head, or of a frame that has not come whole
}

func (h *host) ready() error {
	if !h.open {
		return h.shake()
	}
	frame, err := h.l.frame(h.fd, &h.part, headLength+maskLength+textLength)
	if err != nil {
		return h.l.drop(h.fd) // it is the proxy's to close
	}
	if frame == nil {
		return nil
	}
	if frame[1] != 0x80|textLength {
		return fmt.Errorf("% x has come to a backend", frame[:headLength])
	}
	mask := frame[headLength : headLength+maskLength]
	back := frame[maskLength:]
	for i := range textLength {
		back[headLength+i] ^= mask[i%maskLength]
	}
	back[0], back[1] = 0x81, textLength // where the mask was
	if write(h.fd, back) != nil {
		return h.l.drop(h.fd)
	}
	return nil
}

func (h *host) shake() error {
	var b [4096]byte
	n, err := read(h.fd, b[:])
	if err != nil {
		return h.l.drop(h.fd)
	}
	if h.part = append(h.part, b[:n]...); !bytes.HasSuffix(h.part, []byte(endOfHead)) {
		return nil
	}
	key := ""
	for line := range strings.Lines(string(h.part)) {
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Sec-WebSocket-Key") {
			key = strings.TrimSpace(value)
		}
	}
	h.part, h.open = nil, true
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	accept := base64.StdEncoding.EncodeToString(sum[:])
	if write(h.fd, []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+accept+"\r\n\r\n")) != nil {
		return h.l.drop(h.fd)
	}
	return nil
}

// guest is a client's end.
type guest struct {
	l       *loop
	fd      int
	done    int
	visit   bool // it closes after each message
	shaken  bool
	part    []byte // of the answer's head, or of a frame that has not come whole
	to      unix.Sockaddr
	request []byte
	message []byte
}

// newMessage returns what guests send.
func newMessage() []byte {
	frame := make([]byte, headLength+maskLength+textLength)
	frame[0], frame[1] = 0x81, 0x80|textLength
	for i := range frame[headLength:] {
		frame[headLength+i] = byte(i)
	}
	return frame
}

func newGuest(l *loop, to unix.Sockaddr, host, path string, message []byte, visit bool) *guest {
	g := &guest{l: l, to: to, message: message, visit: visit}
	g.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, host)
	return g
}

// open connects and asks for a websocket.
func (g *guest) open() (err error) {
	if g.fd, err = dial(g.to); err != nil {
		return err
	}
	g.shaken, g.part = false, g.part[:0]
	if err := write(g.fd, g.request); err != nil {
		return errors.Join(err, unix.Close(g.fd))
	}
	return g.l.add(g.fd, g)
}

func (g *guest) ready() error {
	if !g.shaken {
		return g.shake()
	}
	back, err := g.l.frame(g.fd, &g.part, headLength+textLength)
	if err != nil {
		return fmt.Errorf("an open websocket: %w", err)
	}
	if back == nil {
		return nil
	}
	if back[0] != 0x81 || back[1] != textLength || back[9] != g.message[headLength+maskLength+7]^g.message[headLength+3] {
		return fmt.Errorf("% x came back", back[:10])
	}
	g.done++
	if !g.visit {
		return write(g.fd, g.message)
	}
	if err := g.l.drop(g.fd); err != nil {
		return err
	}
	return g.open()
}

func (g *guest) shake() error {
	var b [4096]byte
	n, err := read(g.fd, b[:])
	if err != nil {
		return fmt.Errorf("a websocket that was asked for: %w: %.200s", err, g.part)
	}
	if g.part = append(g.part, b[:n]...); !bytes.HasSuffix(g.part, []byte(endOfHead)) {
		return nil
	}
	if !bytes.HasPrefix(g.part, []byte("HTTP/1.1 101 ")) {
		return fmt.Errorf("no websocket: %.200s", g.part)
	}
	g.shaken, g.part = true, g.part[:0]
	return write(g.fd, g.message)
}
