package browsertest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// network is a network namespace with a loopback and no other interface. Chromium drops what it is loading whenever an
// interface of its host comes or goes, as those of machines do.
type network struct {
	t    *testing.T
	name string
}

// newNetwork makes one, which ends with the test.
func newNetwork(t *testing.T, number *atomic.Int64) *network {
	t.Helper()
	n := &network{t, fmt.Sprintf("shoal-web-%d-%d", os.Getpid(), number.Add(1))}
	n.ip("netns", "add", n.name)
	t.Cleanup(func() { n.ip("netns", "delete", n.name) })
	n.ip("-n", n.name, "link", "set", "lo", "up")
	return n
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Errorf("ip %v: %v: %s", args, err, out)
	}
}

// listen listens in it. The listener is closed at the test's end.
func (n *network) listen(addr string) net.Listener {
	n.t.Helper()
	type result struct {
		l   net.Listener
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: this thread stays in the namespace, and ends with the goroutine
		f, err := os.Open("/run/netns/" + n.name)
		if err == nil {
			defer f.Close()
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		var l net.Listener
		if err == nil {
			l, err = net.Listen("tcp", addr)
		}
		done <- result{l, err}
	}()
	r := <-done
	if r.err != nil {
		n.t.Fatal(r.err)
	}
	n.t.Cleanup(func() { _ = r.l.Close() }) // may be closed already
	return r.l
}

// relay lets a port of the host's loopback be reached at the same address in it.
func (n *network) relay(port string) {
	n.t.Helper()
	l := n.listen("127.0.0.1:" + port)
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			go func() {
				defer from.Close()
				to, err := net.Dial("tcp", "127.0.0.1:"+port)
				if err != nil {
					return // the browser sees that nobody is there
				}
				go func() {
					_, _ = io.Copy(to, from) // either end may go at any time
					_ = to.(*net.TCPConn).CloseWrite()
				}()
				_, _ = io.Copy(from, to)
				_ = to.Close()
			}()
		}
	}()
}
