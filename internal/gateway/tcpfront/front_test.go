package tcpfront

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/route"
)

// world is a front end, whose only machine is a listener here.
type world struct {
	t       *testing.T
	front   *Front
	address string
	machine net.Listener
	known   []shoal.UserName

	mu     sync.Mutex
	gone   bool // nothing answers
	awake  chan struct{}
	done   chan struct{}
	logins []route.Request
	closed int
	dead   int
}

func (w *world) Login(ctx context.Context, r route.Request, _ string, _ func(string)) (route.Target, error) {
	w.mu.Lock()
	w.logins = append(w.logins, r)
	w.mu.Unlock()
	select {
	case <-w.awake:
	case <-ctx.Done():
		return route.Target{}, ctx.Err()
	}
	return route.Target{Session: "s-1", User: r.User, Pool: r.Pool, Machine: "m-1", Address: "10.0.0.1:22", Done: w.done}, nil
}

func (w *world) Closed(shoal.SessionID, string) { w.mu.Lock(); defer w.mu.Unlock(); w.closed++ }

func (w *world) Suspect(shoal.MachineID) { w.mu.Lock(); defer w.mu.Unlock(); w.dead++ }

func newWorld(t *testing.T, limits Limits, known ...shoal.UserName) *world {
	t.Helper()
	w := &world{t: t, known: known, awake: make(chan struct{}), done: make(chan struct{})}
	listen := func() net.Listener { // at a port that stays nobody else's once it is closed
		ln, err := net.Listen("tcp", "127.0.0.1:"+need.Port(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	w.machine = listen()
	w.front = New(Config{Recent: func(string) []shoal.UserName { return w.known }, Router: w, Limits: limits,
		Dial: func(ctx context.Context, _ shoal.MachineID, address string) (net.Conn, error) {
			if address != "10.0.0.1:5000" {
				t.Errorf("the front end dials %s", address)
			}
			w.mu.Lock()
			gone := w.gone
			w.mu.Unlock()
			if gone {
				return nil, errors.New("no answer")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", w.machine.Addr().String())
		}})
	ln := listen()
	w.address = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- w.front.Serve(ctx, ln, "lab", shoal.Endpoint{Name: "licence", Protocol: shoal.ProtocolTCP, Port: 5000})
	}()
	t.Cleanup(func() {
		cancel()
		ln.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) dial() *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for range 20_000 {
		w.mu.Lock()
		ok := is()
		w.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("waited in vain until %s", what)
}

func TestAConnectionGoesWhereItsUserIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{}, "alice", "bob")
	c := w.dial()
	if _, err := c.Write([]byte("a question")); err != nil {
		t.Fatal(err)
	}
	w.until("she waits", func() bool { return len(w.logins) == 1 })
	close(w.awake)
	m, err := w.machine.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	if b, err := io.ReadAll(m); err != nil || string(b) != "a question" {
		t.Errorf("%q, %v", b, err)
	}
	m.Write([]byte("an answer"))
	m.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "an answer" {
		t.Errorf("%q, %v", b, err)
	}
	w.until("the part is closed", func() bool { return w.closed == 1 })
	if r := w.logins[0]; r.User != "alice" || r.Pool != "lab" || r.Kind != "licence" {
		t.Errorf("%+v", r)
	}
}

func TestNobodyComesFromAnUnknownAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	if b, err := io.ReadAll(w.dial()); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if len(w.logins) != 0 {
		t.Errorf("%+v", w.logins)
	}
}

func TestWhoGoesAwayOrWaitsTooLongIsNoDemand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Hold: 100 * time.Millisecond}, "alice")
	if b, err := io.ReadAll(w.dial()); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	other := newWorld(t, Limits{}, "alice")
	other.dial().Close()
	other.until("nobody is there", func() bool { return len(other.front.users.Each()) == 0 })
	w.until("nobody is there", func() bool { return len(w.front.users.Each()) == 0 })
}

func TestConnectionsOfOneUserAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{PerUser: 2}, "alice")
	w.dial()
	w.dial()
	w.until("two wait", func() bool { return len(w.logins) == 2 })
	if b, err := io.ReadAll(w.dial()); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWhatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{}, "alice")
	close(w.awake)
	w.machine.Close() // the machine is there, its service is not
	if b, err := io.ReadAll(w.dial()); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	w.until("the part is closed", func() bool { return w.closed == 1 })
	w.mu.Lock()
	dead := w.dead
	w.mu.Unlock()
	if dead != 0 {
		t.Error("the machine is suspected")
	}
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	if b, err := io.ReadAll(w.dial()); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	w.until("the machine is suspected", func() bool { return w.closed == 2 && w.dead == 1 })
}

func TestTheEndOfASessionEndsItsConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{}, "alice")
	close(w.awake)
	c := w.dial()
	if _, err := w.machine.Accept(); err != nil {
		t.Fatal(err)
	}
	close(w.done)
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("%q", b)
	}
	w.until("the part is closed", func() bool { return w.closed == 1 })
}
