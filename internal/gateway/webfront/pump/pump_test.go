package pump_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/pump"
)

// ends are the far ends of a pair.
type ends struct {
	a, b  *net.TCPConn
	pair  *pump.Pair
	ended chan struct{}
}

// connect returns both ends of a connection.
func connect(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func take(t testing.TB, p *pump.Pumps, task pump.Task) *ends {
	t.Helper()
	e := &ends{ended: make(chan struct{})}
	task.A, e.a = connect(t)
	task.B, e.b = connect(t)
	task.Ended = func() { close(e.ended) } // a second time would panic
	if task.See == nil {
		task.See = func(time.Time, []byte) func() bool { return nil }
	}
	var err error
	if e.pair, err = p.Take(task); err != nil {
		t.Fatal(err)
	}
	e.pair.Begin()
	t.Cleanup(func() { e.pair.Close(); e.over(t) })
	return e
}

func (e *ends) over(t testing.TB) {
	t.Helper()
	select {
	case <-e.ended:
	case <-time.After(time.Minute):
		t.Fatal("the pair does not end")
	}
}

func say(t testing.TB, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t testing.TB, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, len(text))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("%q came, %v; want %q", b[:n], err, text)
	}
}

func TestPass(t *testing.T) {
	p := pump.New(1, time.Minute)
	e := take(t, p, pump.Task{FromA: []byte("early a "), FromB: []byte("early b ")})
	hear(t, e.b, "early a ")
	hear(t, e.a, "early b ")
	for i := range 100 {
		say(t, e.a, fmt.Sprint(i))
		hear(t, e.b, fmt.Sprint(i))
		say(t, e.b, "yes")
		hear(t, e.a, "yes")
	}
	e.pair.Close()
	e.over(t)
	if _, err := e.a.Read(make([]byte, 1)); err == nil {
		t.Error("a closed pair goes on")
	}
	e.pair.Close() // it may be said twice
}

// TestHalf: who has said its last word still hears the answer, for a moment.
func TestHalf(t *testing.T) {
	p := pump.New(1, time.Minute)
	e := take(t, p, pump.Task{})
	say(t, e.a, "last words")
	_ = e.a.CloseWrite() // with the words
	if got, err := io.ReadAll(e.b); err != nil || string(got) != "last words" {
		t.Fatalf("%q, %v", got, err)
	}
	say(t, e.b, "answer")
	hear(t, e.a, "answer")
	_ = e.b.CloseWrite()
	e.over(t)

	e = take(t, p, pump.Task{})
	_ = e.a.CloseWrite()
	if got, err := io.ReadAll(e.b); err != nil || len(got) > 0 {
		t.Fatalf("%q, %v", got, err)
	}
	e.over(t) // though the other end goes on

	e = take(t, p, pump.Task{})
	say(t, e.a, "x")
	hear(t, e.b, "x")
	_ = e.a.SetLinger(0) // a reset
	e.a.Close()
	e.over(t)
}

// TestQuestion: nothing passes until it is answered, and what has come then passes in order.
func TestQuestion(t *testing.T) {
	for _, may := range []bool{true, false} {
		p := pump.New(1, time.Minute)
		asked, answer := make(chan struct{}, 1), make(chan bool)
		var once atomic.Bool
		e := take(t, p, pump.Task{See: func(time.Time, []byte) func() bool {
			if !once.CompareAndSwap(false, true) {
				return nil
			}
			return func() bool { asked <- struct{}{}; return <-answer }
		}})
		other := take(t, p, pump.Task{})
		say(t, e.a, "1")
		<-asked
		say(t, e.a, "2")
		say(t, e.b, "back")
		say(t, other.a, "others go on")
		hear(t, other.b, "others go on")
		_ = e.b.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := e.b.Read(make([]byte, 9)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes passed before the answer, %v", n, err)
		}
		answer <- may
		if may {
			hear(t, e.b, "12")
			hear(t, e.a, "back")
			continue
		}
		_ = e.b.SetReadDeadline(time.Now().Add(time.Minute))
		if got, _ := io.ReadAll(e.b); len(got) > 0 {
			t.Errorf("%q passed though it may not", got)
		}
		e.over(t)
	}

	p := pump.New(1, time.Minute)
	asked, answer := make(chan struct{}, 1), make(chan bool)
	e := take(t, p, pump.Task{See: func(time.Time, []byte) func() bool { return func() bool { asked <- struct{}{}; return <-answer } }})
	say(t, e.a, "x")
	<-asked
	e.pair.Close()
	if got, _ := io.ReadAll(e.b); len(got) > 0 { // it is closed at once
		t.Errorf("%q passed though nobody has answered", got)
	}
	select {
	case <-e.ended:
		t.Error("it has ended while a question is open")
	default:
	}
	answer <- true
	e.over(t)
}

// TestStuck: who takes nothing is given up, and holds no more than a buffer meanwhile; others go on.
func TestStuck(t *testing.T) {
	p := pump.New(1, 2*time.Second)
	e, other := take(t, p, pump.Task{}), take(t, p, pump.Task{})
	go func() {
		b := make([]byte, 1<<20)
		for {
			if _, err := e.a.Write(b); err != nil {
				return
			}
		}
	}()
	for {
		say(t, other.a, "on")
		hear(t, other.b, "on")
		select {
		case <-e.ended:
			return
		default:
			time.Sleep(time.Millisecond)
		}
	}
}

// TestMuch sends much both ways at once over many pairs, in pieces of all sizes, to ends that stop now and then.
func TestMuch(t *testing.T) {
	p := pump.New(2, time.Minute)
	var all sync.WaitGroup
	for i := range 10 {
		e := take(t, p, pump.Task{})
		_ = e.a.SetReadBuffer(8 << 10) // so that it often takes nothing more
		_ = e.b.SetReadBuffer(8 << 10)
		send := func(c *net.TCPConn, seed uint64) {
			r := rand.New(rand.NewPCG(seed, 1))
			text := stream(seed)
			for len(text) > 0 {
				n := min(len(text), 1+r.IntN(1<<r.IntN(17)))
				if _, err := c.Write(text[:n]); err != nil {
					t.Errorf("pair %d: %v", i, err)
					return
				}
				text = text[n:]
			}
		}
		receive := func(c *net.TCPConn, seed uint64) {
			r := rand.New(rand.NewPCG(seed, 2))
			want := stream(seed)
			got := make([]byte, 0, len(want))
			b := make([]byte, 64<<10)
			for len(got) < len(want) {
				n, err := c.Read(b[:1+r.IntN(len(b))])
				if got = append(got, b[:n]...); err != nil {
					t.Errorf("pair %d after %d of %d bytes: %v", i, len(got), len(want), err)
					return
				}
				if r.IntN(20) == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("pair %d: what came is not what was sent", i)
			}
		}
		k := uint64(2 * i)
		all.Go(func() { send(e.a, k) })
		all.Go(func() { send(e.b, k+1) })
		all.Go(func() { receive(e.b, k) })
		all.Go(func() { receive(e.a, k+1) })
	}
	all.Wait()
}

func stream(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, 1<<18+r.IntN(1<<18))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestComeAndGo: pairs come and go in any order, closed by anybody, and leave no socket.
func TestComeAndGo(t *testing.T) {
	before := sockets(t)
	p := pump.New(2, time.Minute)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 3))
			for range 50 {
				a, farA := connect(t)
				b, farB := connect(t)
				ended := make(chan struct{})
				pair, err := p.Take(pump.Task{A: a, B: b, See: func(time.Time, []byte) func() bool {
					if r := rand.IntN(10); r < 2 {
						return func() bool { return r == 0 }
					}
					return nil
				}, Ended: func() { close(ended) }})
				if err != nil {
					t.Error(err)
					return
				}
				if r.IntN(4) == 0 {
					pair.Close() // before it has begun
				}
				pair.Begin()
				_, _ = farA.Write([]byte("hello"))
				switch r.IntN(4) {
				case 0:
					farA.Close()
					farB.Close()
				case 1:
					_ = farB.SetLinger(0)
					farB.Close()
				case 2:
					go pair.Close()
				case 3:
					pair.Close()
				}
				<-ended
				farA.Close()
				farB.Close()
			}
		})
	}
	all.Wait()
	for end := time.Now().Add(time.Minute); sockets(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are left of %d", sockets(t), before)
		}
	}
}

func sockets(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
