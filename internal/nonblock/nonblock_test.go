package nonblock_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/nonblock"
)

func TestNonblock(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // they block, but for us
	if err != nil {
		t.Fatal(err)
	}
	a, b := fds[0], fds[1]
	defer unix.Close(a)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, a, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(a)}); err != nil {
		t.Fatal(err)
	}
	var events [4]unix.EpollEvent
	for _, wait := range []int{0, 1} {
		if n, err := nonblock.Wait(epoll, events[:], wait); n != 0 || err != nil {
			t.Errorf("%d events of nothing, %v", n, err)
		}
	}
	buf := make([]byte, 10)
	if n, err := nonblock.Read(a, buf); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d bytes of nothing, %v", n, err)
	}
	if n, err := nonblock.Write(b, []byte("hello")); n != 5 || err != nil {
		t.Errorf("%d bytes written, %v", n, err)
	}
	for _, wait := range []int{0, -1} {
		if n, err := nonblock.Wait(epoll, events[:], wait); n != 1 || err != nil || events[0].Fd != int32(a) {
			t.Errorf("%d events, %v", n, err)
		}
	}
	if n, err := nonblock.Read(a, buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%d bytes read, %v", n, err)
	}
	for full := false; !full; { // until nothing more is taken
		_, err := nonblock.Write(b, make([]byte, 1<<16))
		if full = errors.Is(err, unix.EAGAIN); err != nil && !full {
			t.Fatal(err)
		}
	}
	unix.Close(b)
	for n := 1; n > 0; {
		if n, err = nonblock.Read(a, make([]byte, 1<<16)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := nonblock.Write(a, []byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("writing to nobody: %v", err)
	}
	if _, err := nonblock.Read(-1, buf); !errors.Is(err, unix.EBADF) {
		t.Errorf("no socket: %v", err)
	}
}
