package sshwire

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wireConn is the other side of a connection under test: it swallows what is sent and says what it is told to.
type wireConn struct {
	net.Conn
	in chan []byte
}

func (w *wireConn) Read(p []byte) (int, error) {
	b, ok := <-w.in
	if !ok {
		return 0, io.EOF
	}
	return copy(p, b), nil
}

func (w *wireConn) Write(p []byte) (int, error) { return len(p), nil }

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := &wireConn{in: make(chan []byte)}
		c := NewConn(wire, nil)
		var probes, stalls, lives, deaths atomic.Int32
		p := NewPulse(c, func() { probes.Add(1); c.Write([]byte("?")) }, func(s bool) {
			if s {
				stalls.Add(1)
			} else {
				lives.Add(1)
			}
		}, func() { deaths.Add(1) })
		defer p.Stop()
		go func() {
			b := make([]byte, 10)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
		}()
		defer close(wire.in)
		check := func(when string, pr, st, li, de int32) {
			t.Helper()
			synctest.Wait()
			if probes.Load() != pr || stalls.Load() != st || lives.Load() != li || deaths.Load() != de {
				t.Errorf("%s: %d probes, %d stalls, %d lives, %d deaths; want %d, %d, %d, %d", when,
					probes.Load(), stalls.Load(), lives.Load(), deaths.Load(), pr, st, li, de)
			}
		}
		time.Sleep(time.Hour)
		check("idle", 0, 0, 0, 0)
		c.Write([]byte("x"))
		time.Sleep(time.Second)
		wire.in <- []byte("y")
		time.Sleep(time.Hour)
		check("answered", 0, 0, 0, 0)
		c.Write([]byte("x"))
		time.Sleep(4 * time.Second)
		check("slow", 1, 0, 0, 0)
		wire.in <- []byte("y")
		time.Sleep(time.Minute)
		check("slow answer", 1, 0, 0, 0)
		c.Write([]byte("x"))
		time.Sleep(StallAfter + 1500*time.Millisecond)
		check("stalled", 2, 1, 0, 0)
		if !p.Stalled() {
			t.Error("not stalled")
		}
		wire.in <- []byte("y")
		time.Sleep(3 * time.Second)
		check("back", 2, 1, 1, 0)
		c.Write([]byte("x"))
		time.Sleep(DeadAfter - time.Second)
		check("nearly", 3, 2, 1, 0)
		time.Sleep(3 * time.Second)
		check("dead", 3, 2, 1, 1)
	})
}

// When bytes came and went is told by the clock that nobody can set: else a connection would count as dead whose answers come while
// the wall clock is put back.
func TestPulseClock(t *testing.T) {
	wire := &wireConn{in: make(chan []byte, 1)}
	c := NewConn(wire, nil)
	wire.in <- []byte("!")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	for what, at := range map[string]time.Time{"read": c.LastRead(), "wrote": c.LastWrite()} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%s at %s: this has no reading of the monotonic clock", what, at)
		}
	}
}
