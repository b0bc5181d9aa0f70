// Package owner asks the kernel whose a socket is.
package owner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is what the kernel says of one.
type Socket struct {
	UID   int
	Inode uint32 // tells it from all others; zero: nobody has it yet
}

// The protocol is the kernel's, of linux/inet_diag.h and linux/sock_diag.h.
const (
	byFamily   = 20 // SOCK_DIAG_BY_FAMILY
	requestLen = 56 // struct inet_diag_req_v2
	messageLen = 72 // struct inet_diag_msg
	uidAt      = 64
	inodeAt    = 68
	noCookie   = 0xffffffff

	// States of a socket.
	established = 1
	listening   = 10
)

// Listener returns the socket that gets a connection to an IPv4 address and port of this machine; fs.ErrNotExist
// where none does. That may be one of IPv6, which takes connections of both kinds.
func Listener(at netip.AddrPort) (Socket, error) {
	s, err := ask(request(at, netip.AddrPort{}, listening), listening)
	if errors.Is(err, unix.ENOENT) {
		return Socket{}, fs.ErrNotExist
	}
	if err != nil {
		return Socket{}, fmt.Errorf("cannot ask the kernel whose port %d is: %w", at.Port(), err)
	}
	return s, nil
}

// Connection returns the socket of this machine at one end of an IPv4 connection; fs.ErrNotExist where it is not one of this machine's,
// or not open.
func Connection(at, other netip.AddrPort) (Socket, error) {
	s, err := ask(request(at, other, established), established)
	if errors.Is(err, unix.ENOENT) {
		return Socket{}, fs.ErrNotExist
	}
	if err != nil {
		return Socket{}, fmt.Errorf("cannot ask the kernel whose connection from port %d is: %w", at.Port(), err)
	}
	return s, nil
}

func ask(request []byte, state byte) (Socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return Socket{}, err
	}
	defer unix.Close(fd)
	patience := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return Socket{}, err
	}
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return Socket{}, err
	}
	buf := make([]byte, 8<<10)
	n, from, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return Socket{}, err
	}
	if k, ok := from.(*unix.SockaddrNetlink); !ok || k.Pid != 0 {
		return Socket{}, errors.New("the answer is not the kernel's")
	}
	return parse(buf[:n], state)
}

// request asks for the one socket that a packet to the address would reach, from the other: with no port of the other side it is
// the listening one.
func request(at, other netip.AddrPort, state byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+requestLen)
	h := (*unix.NlMsghdr)(unsafe.Pointer(&b[0]))
	h.Len, h.Type, h.Flags, h.Seq = uint32(len(b)), byFamily, unix.NLM_F_REQUEST, 1
	r := b[unix.SizeofNlMsghdr:]
	r[0], r[1] = unix.AF_INET, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[4:], 1<<state)
	binary.BigEndian.PutUint16(r[8:], at.Port())
	addr := at.Addr().As4()
	copy(r[12:], addr[:])
	if other.IsValid() {
		binary.BigEndian.PutUint16(r[10:], other.Port())
		addr = other.Addr().As4()
		copy(r[28:], addr[:])
	}
	binary.NativeEndian.PutUint32(r[48:], noCookie)
	binary.NativeEndian.PutUint32(r[52:], noCookie)
	return b
}

// parse reads the kernel's answer.
func parse(b []byte, state byte) (Socket, error) {
	short := errors.New("the answer is cut off")
	if len(b) < unix.SizeofNlMsghdr {
		return Socket{}, short
	}
	length, kind := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint16(b[4:])
	if int64(length) > int64(len(b)) {
		return Socket{}, short
	}
	m := b[unix.SizeofNlMsghdr:]
	switch kind {
	case unix.NLMSG_ERROR:
		if len(m) < 4 {
			return Socket{}, short
		}
		return Socket{}, unix.Errno(-int32(binary.NativeEndian.Uint32(m)))
	case byFamily:
		if len(m) < messageLen {
			return Socket{}, short
		}
		if m[1] != state {
			return Socket{}, unix.ENOENT
		}
		return Socket{UID: int(binary.NativeEndian.Uint32(m[uidAt:])), Inode: binary.NativeEndian.Uint32(m[inodeAt:])}, nil
	}
	return Socket{}, fmt.Errorf("the kernel answers with a message of type %d", kind)
}
