package owner

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/shoal-pool/shoal/internal/need"
)

// listen listens at a port that is nobody else's by IPv4.
func listen(t *testing.T, network, host string) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen(network, net.JoinHostPort(host, need.Port(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(l.Addr().(*net.TCPAddr).Port))
}

func TestListener(t *testing.T) {
	t.Parallel()
	for _, address := range [][2]string{{"tcp4", "127.0.0.1"}, {"tcp4", "0.0.0.0"}, {"tcp", "::"}} {
		l, at := listen(t, address[0], address[1])
		first, err := Listener(at)
		if err != nil || first.UID != os.Getuid() || first.Inode == 0 {
			t.Fatalf("%s: %+v, %v", address, first, err)
		}
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Listener(at); err != nil || again != first {
			t.Errorf("%s: after a connection %+v, %v", address, again, err)
		}
		c.Close()
		l.Close()
		if _, err := Listener(at); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: closed, and %v", address, err)
		}
		l, err = net.Listen("tcp4", at.String())
		if err != nil {
			t.Fatal(err)
		}
		if other, err := Listener(at); err != nil || other.Inode == first.Inode {
			t.Errorf("%s: another listener has %+v, %v", address, other, err)
		}
		l.Close()
	}
}

// One of IPv6 alone gets no connection of IPv4.
func TestOtherFamily(t *testing.T) {
	t.Parallel()
	_, at := listen(t, "tcp6", "::1")
	if s, err := Listener(at); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(request(netip.MustParseAddrPort("127.0.0.1:80"), netip.AddrPort{}, listening))
	f.Add(make([]byte, 88))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parse(b, listening) })
}
