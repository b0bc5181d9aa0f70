package shoaltest

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

func TestConnIsAConn(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		n := newNetwork()
		l := n.listen("a:1")
		got := make(chan net.Conn, 1)
		go func() {
			c, _ := l.Accept()
			got <- c
		}()
		c1, err = n.dial(t.Context(), "tcp", "a:1")
		c2 = <-got
		return c1, c2, func() { c1.Close(); c2.Close(); l.Close() }, err
	})
}

func TestDeadlineOnFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlow()
		start := time.Now()
		f.setDeadline(&f.readBy, start.Add(time.Hour))
		if _, err := f.read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d != time.Hour {
			t.Errorf("it took %v", d)
		}
		f.setDeadline(&f.readBy, time.Time{})
		f.end()
		if _, err := f.read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v", err)
		}
	})
}
