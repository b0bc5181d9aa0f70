package pump

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// LingerTime is how long one direction may go on when the other has ended.
	LingerTime = 5 * time.Second
	bufferSize = 32 << 10
	turns      = 8           // of the buffer, until others have theirs
	sweepEvery = time.Second // while somebody is waited for
)

// Pumps are threads that pass bytes on. A thread that has no pair ends.
type Pumps struct {
	all  []*pump
	next atomic.Uint32
}

// New makes n pumps, of which an end that takes nothing is given up after patience.
func New(n int, patience time.Duration) *Pumps {
	p := &Pumps{}
	for range max(1, n) {
		p.all = append(p.all, &pump{patience: patience})
	}
	return p
}

// Task is what a pump is to do.
type Task struct {
	A, B *net.TCPConn
	// What was read from them already: it goes first.
	FromA, FromB []byte
	// See is shown what passes, and must not wait. When it returns a question, the pair stands still until that is answered by
	// another goroutine; no ends it.
	See func(now time.Time, b []byte) (question func() bool)
	// Ended is called once, when both connections are closed and no question is open.
	Ended func()
}

// Take takes two connections over: A and B are of no use any more, whether or not there is an error. Begin begins.
func (p *Pumps) Take(t Task) (*Pair, error) {
	a, err := takeOver(t.A)
	b, err2 := takeOver(t.B)
	if err = errors.Join(err, err2); err != nil {
		for _, fd := range []int{a, b} {
			if fd >= 0 {
				_ = unix.Close(fd) // the error is told
			}
		}
		return nil, err
	}
	at := p.all[p.next.Add(1)%uint32(len(p.all))]
	pair := &Pair{pump: at, see: t.See, ended: t.Ended}
	pair.sides[0] = side{pair: pair, peer: &pair.sides[1], fd: a, out: t.FromB}
	pair.sides[1] = side{pair: pair, peer: &pair.sides[0], fd: b, out: t.FromA}
	return pair, nil
}

// takeOver returns a socket that Go's own poller knows nothing of.
func takeOver(c *net.TCPConn) (int, error) {
	fd := -1
	raw, err := c.SyscallConn()
	if err == nil {
		var dup error
		err = raw.Control(func(of uintptr) { fd, dup = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, dup)
	}
	_ = c.Close() // it was of one of two
	if err != nil {
		return -1, fmt.Errorf("cannot take a connection over: %w", err)
	}
	return fd, nil
}

// Pair is two connections and the bytes between them. All but its mutex's fields are its pump's.
type Pair struct {
	pump  *pump
	see   func(time.Time, []byte) func() bool
	ended func()
	sides [2]side
	held  bool      // until a question is answered
	until time.Time // when it ends at the latest; zero: nobody knows

	closing atomic.Bool
	mu      sync.Mutex // below the pump's
	gone    bool       // the sockets are closed
}

// side is one of the two connections.
type side struct {
	pair     *Pair
	peer     *side
	fd       int
	out      []byte    // still to be written to it
	since    time.Time // when it took something last, while there is something to write
	readable bool      // there may be something to read
	hup      bool      // its end may be there to be read
	eof      bool      // nothing more comes from it
	shut     bool      // it was told that nothing more comes
}

// Begin lets bytes pass.
func (pair *Pair) Begin() { pair.pump.add(pair) }

// Close ends the pair soon. It does not wait.
func (pair *Pair) Close() {
	pair.mu.Lock()
	defer pair.mu.Unlock()
	if pair.gone {
		return
	}
	pair.closing.Store(true)
	for i := range pair.sides {
		_ = unix.Shutdown(pair.sides[i].fd, unix.SHUT_RDWR) // whether or not it is connected, the pump is told
	}
}

// again lets the pump be told how both connections are.
func (pair *Pair) again() {
	pair.mu.Lock()
	defer pair.mu.Unlock()
	if pair.gone {
		return
	}
	for i := range pair.sides {
		fd := pair.sides[i].fd
		_ = unix.EpollCtl(pair.pump.epoll, unix.EPOLL_CTL_MOD, fd, interest(fd)) // it is there: add has put it there
	}
}

func interest(fd int) *unix.EpollEvent {
	return &unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET}
}
