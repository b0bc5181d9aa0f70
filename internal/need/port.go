package need

import (
	"fmt"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Port returns a port of 127.0.0.1 that is nobody else's until the test ends. Nobody listens at it; who sets SO_REUSEADDR, as
// servers do, may listen, end and listen again.
func Port(t testing.TB) string {
	t.Helper()
	port, free, err := HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(free)
	return port
}

// HoldPort is Port for who has no test: the port is held until free is called, or the process ends. It is bound to a socket that
// does not listen: the kernel gives it to nobody who takes any port, and the socket is in nobody's way who asks for this one.
func HoldPort() (port string, free func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("cannot hold a port: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	var at unix.Sockaddr
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return "", nil, fmt.Errorf("cannot hold a port: %w", err)
	}
	return strconv.Itoa(at.(*unix.SockaddrInet4).Port), func() { unix.Close(fd) }, nil
}
