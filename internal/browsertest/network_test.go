package browsertest

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/shoal-pool/shoal/internal/rig/namespace"
)

// network is a namespace with no other interface than the loopback. Chromium drops what it is loading whenever an
// interface of its host comes or goes, as those of machines do.
type network struct {
	*namespace.Namespace
	t *testing.T
}

// newNetwork makes one, which ends with the test.
func newNetwork(t *testing.T, number *atomic.Int64) *network {
	t.Helper()
	n, err := namespace.New(fmt.Sprintf("shoal-web-%d-%d", os.Getpid(), number.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return &network{n, t}
}

// listen listens in it.
func (n *network) listen(addr string) net.Listener {
	n.t.Helper()
	l, err := n.Listen(addr)
	if err != nil {
		n.t.Fatal(err)
	}
	return l
}
