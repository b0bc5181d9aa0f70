// Package namespace makes network namespaces for tests: hosts of their own, whose interfaces come and go as a test
// likes, and no others'. It needs root.
package namespace

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace with a loopback.
type Namespace struct {
	Name      string
	listeners []net.Listener
}

// New makes one.
func New(name string) (*Namespace, error) {
	n := &Namespace{Name: name}
	if err := ip("netns", "add", name); err != nil {
		return nil, err
	}
	if err := ip("-n", name, "link", "set", "lo", "up"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close removes it, with its listeners and interfaces.
func (n *Namespace) Close() error {
	for _, l := range n.listeners {
		_ = l.Close() // may be closed already
	}
	return ip("netns", "delete", n.Name)
}

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Connect gives the namespace and the host an interface each, with a wire between them, and both an address of one
// network. The namespace's interface is called wire.
func (n *Namespace) Connect(hostName, host, inside string) error {
	return errors.Join(
		ip("link", "add", hostName, "type", "veth", "peer", "name", "wire", "netns", n.Name),
		ip("address", "add", host, "dev", hostName), ip("link", "set", hostName, "up"),
		ip("-n", n.Name, "address", "add", inside, "dev", "wire"), ip("-n", n.Name, "link", "set", "wire", "up"))
}

// Cut takes the wire away without a word to who talks over it.
func (n *Namespace) Cut() error { return ip("-n", n.Name, "link", "set", "wire", "down") }

// Listen listens in it.
func (n *Namespace) Listen(addr string) (l net.Listener, err error) {
	err = n.do(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err == nil {
		n.listeners = append(n.listeners, l)
	}
	return l, err
}

// Dial connects from it to an address, which is no name.
func (n *Namespace) Dial(addr string) (c net.Conn, err error) {
	err = n.do(func() (err error) {
		c, err = net.Dial("tcp", addr)
		return err
	})
	return c, err
}

// do does something on a thread that is in the namespace. Sockets stay where they were made.
func (n *Namespace) do(what func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		f, err := os.Open("/run/netns/" + n.Name)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = what()
		}
		done <- err
	}()
	return <-done
}

// Relay lets a port of the host's loopback be reached at the same address in the namespace.
func (n *Namespace) Relay(port string) error {
	l, err := n.Listen("127.0.0.1:" + port)
	if err != nil {
		return err
	}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			go relay(from, port)
		}
	}()
	return nil
}

func relay(from net.Conn, port string) {
	defer from.Close()
	to, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return // who called sees that nobody is there
	}
	defer to.Close()
	go func() {
		_, _ = io.Copy(to, from) // either end may go at any time
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(from, to)
}
