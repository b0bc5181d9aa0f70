package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/nonblock"
)

// loop waits for many sockets with one thread, which is the least that the load of a measure can cost: what it takes is taken
// from the proxy, for they share the processors.
type loop struct {
	epoll int
	ends  []end // by file descriptor
	buf   [256]byte
}

// end is a socket of a loop. An error of ready ends the loop.
type end interface{ ready() error }

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{epoll: fd}, nil
}

// add lets e be told, once, when more has come to be read: it is to read all of it. The socket is the loop's from then on.
func (l *loop) add(fd int, e end) error {
	for fd >= len(l.ends) {
		l.ends = append(l.ends, make([]end, fd+64)...)
	}
	l.ends[fd] = e
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)})
}

func (l *loop) drop(fd int) error {
	l.ends[fd] = nil
	return unix.Close(fd)
}

// run goes on until the time is over.
func (l *loop) run(ctx context.Context, until time.Time) error {
	var events [256]unix.EpollEvent
	for ctx.Err() == nil {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		n, err := nonblock.Wait(l.epoll, events[:], int(min(left, 100*time.Millisecond)/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			if to := l.ends[e.Fd]; to != nil {
				if err := to.ready(); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

// OnOne calls f on one processor, always the same; so run the processes that f starts.
func OnOne(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &all)) }()
	return f()
}

// close closes every socket.
func (l *loop) close() error {
	var errs []error
	for fd, e := range l.ends {
		if e != nil {
			errs = append(errs, l.drop(fd))
		}
	}
	return errors.Join(append(errs, unix.Close(l.epoll))...)
}

// dial connects. It waits, which takes no time on loopback.
func dial(to unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Connect(fd, to)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// sockaddr is an address of IPv4, as 127.0.0.1:80.
func sockaddr(addr string) (*unix.SockaddrInet4, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	ip := net.ParseIP(host).To4()
	if err != nil || ip == nil {
		return nil, fmt.Errorf("%s is no address of IPv4", addr)
	}
	return &unix.SockaddrInet4{Port: n, Addr: [4]byte(ip)}, nil
}

// read reads what there is; none: nothing yet.
func read(fd int, b []byte) (int, error) {
	n, err := nonblock.Read(fd, b)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return 0, nil
	case err == nil && n == 0:
		return 0, errGone
	}
	return n, err
}

// frame reads n bytes, in one or more calls, and returns them until the next call, or nil while some are to come. Part is what has.
func (l *loop) frame(fd int, part *[]byte, n int) ([]byte, error) {
	got := copy(l.buf[:n], *part)
	more, err := read(fd, l.buf[got:n])
	if err != nil {
		return nil, err
	}
	if got += more; got < n {
		*part = append((*part)[:0], l.buf[:got]...)
		return nil, nil
	}
	*part = (*part)[:0]
	return l.buf[:n], nil
}

var errGone = errors.New("the other end has closed the connection")

// write writes what is short enough for the kernel to take at once.
func write(fd int, b []byte) error {
	n, err := nonblock.Write(fd, b)
	if err == nil && n != len(b) {
		err = fmt.Errorf("%d of %d bytes were taken", n, len(b))
	}
	return err
}
