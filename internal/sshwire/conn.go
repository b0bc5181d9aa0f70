package sshwire

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is the network connection below an SSH connection. It reads ahead into a buffer that
// it holds only while there is something in it, so thousands of quiet connections cost
// nothing; it remembers when bytes last came and went; it tells when reading ends; and it
// sends each packet in one piece.
//
// As below any SSH connection, one goroutine may read at a time, and one write.
type Conn struct {
	net.Conn
	raw   syscall.RawConn // nil: not a socket of this system
	lease *[]byte         // the buffer, while there are unread bytes
	ahead []byte          // the unread bytes
	told  []byte          // what the first write will be; it has been sent already

	packed atomic.Bool // every packet ends in a write that is not headSize long
	head   *[]byte     // a piece held back until the rest of its packet comes
	pieces [2][]byte   // scratch for writing both
	made   time.Time
	read   atomic.Int64 // since then, in nanoseconds: by the clock that nobody can set
	wrote  atomic.Int64
	onEnd  func(error)
	onSend atomic.Pointer[func()]
	ended  sync.Once
}

// NewConn wraps c. End, if not nil, is called once, by the reading goroutine, when reading
// has failed or come to its end: the other side has gone.
func NewConn(c net.Conn, end func(error)) *Conn {
	w := &Conn{Conn: c, onEnd: end, made: time.Now()}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	return w
}

// LastRead returns when bytes last came from the other side; if never, when the connection was wrapped.
func (c *Conn) LastRead() time.Time { return c.made.Add(time.Duration(c.read.Load())) }

// LastWrite returns when bytes were last sent; if never, when the connection was wrapped.
func (c *Conn) LastWrite() time.Time { return c.made.Add(time.Duration(c.wrote.Load())) }

func (c *Conn) Read(p []byte) (int, error) {
	if len(c.ahead) == 0 {
		n, err := c.fetch(p)
		if err != nil {
			c.ended.Do(func() {
				if c.onEnd != nil {
					c.onEnd(err)
				}
			})
			return n, err
		}
		c.read.Store(int64(time.Since(c.made)))
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	n := copy(p, c.ahead)
	c.ahead = c.ahead[n:]
	if len(c.ahead) == 0 && c.lease != nil {
		shared.ahead.Put(c.lease)
		c.lease, c.ahead = nil, nil
	}
	return n, nil
}

// fetch reads into p, or into a buffer that becomes c.ahead and then returns 0.
func (c *Conn) fetch(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return c.Conn.Read(p)
	}
	var n int
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		b := shared.ahead.Get().(*[]byte)
		n, failed = unix.Read(int(fd), *b)
		for failed == unix.EINTR {
			n, failed = unix.Read(int(fd), *b)
		}
		if n > 0 {
			c.lease, c.ahead = b, (*b)[:n]
			return true
		}
		shared.ahead.Put(b) // held by nobody while we wait
		return failed != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: failed}
	case n <= 0:
		return 0, io.EOF
	}
	return 0, nil
}

// headSize is the size of the buffer through which x/crypto/ssh writes. A larger packet
// leaves it as one full buffer and a rest.
const headSize = 4096

// Pack says that the connection is encrypted with AES-GCM. There the length of a packet is
// never a multiple of 16, so a write of headSize is always followed by the rest of its
// packet, and both can be sent by one system call and in one go.
func (c *Conn) Pack() { c.packed.Store(true) }

func (c *Conn) Write(p []byte) (int, error) {
	if c.told != nil {
		n := min(len(p), len(c.told))
		if string(p[:n]) == string(c.told[:n]) && n == len(p) {
			c.told = c.told[n:]
			if len(c.told) == 0 {
				c.told = nil
			}
			return n, nil
		}
		c.told = nil
	}
	if c.packed.Load() && len(p) == headSize && c.head == nil {
		c.head = shared.heads.Get().(*[]byte)
		copy(*c.head, p)
		return len(p), nil
	}
	c.wrote.Store(int64(time.Since(c.made)))
	if sent := c.onSend.Load(); sent != nil {
		(*sent)() // before sending, which may never return
	}
	if err := c.send(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *Conn) send(p []byte) error {
	if c.head == nil {
		_, err := c.Conn.Write(p)
		return err
	}
	c.pieces = [2][]byte{*c.head, p}
	both := net.Buffers(c.pieces[:])
	_, err := both.WriteTo(c.Conn)
	shared.heads.Put(c.head)
	c.head, c.pieces = nil, [2][]byte{}
	return err
}
