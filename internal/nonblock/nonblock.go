// Package nonblock reads and writes sockets that never block, for loops that do nothing else all day.
//
// Go's scheduler is told of every system call, for it may block and others must run meanwhile. That takes a tenth of the time of
// a short message. These calls return at once, so the scheduler need not know: their sockets are taken not to block whatever their
// flags say.
package nonblock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read reads what there is: EAGAIN means nothing, and neither byte nor error the end. b must not be empty.
func Read(fd int, b []byte) (int, error) {
	return result(unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0))
}

// Write writes what the kernel takes: EAGAIN means nothing. b must not be empty.
func Write(fd int, b []byte) (int, error) {
	return result(unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0))
}

// Wait waits for events as unix.EpollWait does, which it calls only when there are none yet. Milliseconds below zero wait for ever.
func Wait(epoll int, events []unix.EpollEvent, milliseconds int) (int, error) {
	n, err := result(unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0))
	if err == nil && n == 0 && milliseconds != 0 {
		return unix.EpollWait(epoll, events, milliseconds)
	}
	return n, err
}

func result(n, _ uintptr, e unix.Errno) (int, error) {
	if e != 0 {
		return -1, e
	}
	return int(n), nil
}
