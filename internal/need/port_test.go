package need_test

import (
	"net"
	"testing"

	"github.com/shoal-pool/shoal/internal/need"
)

// A port that is held is given to nobody else, and can be listened at again and again.
// Nothing is started meanwhile: until it is another program, it would have open what is closed here.
func TestPort(t *testing.T) {
	port := need.Port(t)
	at := net.JoinHostPort("127.0.0.1", port)
	if c, err := net.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("somebody answers")
	}
	for range 2 {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		if other, err := net.Listen("tcp", at); err == nil {
			other.Close()
			t.Error("two listen at it")
		}
		l.Close()
	}
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	seen := map[string]bool{port: true}
	for range 2000 {
		p := need.Port(t)
		if seen[p] {
			t.Fatalf("port %s is given out twice", p)
		}
		seen[p] = true
	}
}
