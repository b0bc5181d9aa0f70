package rdpfront

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/gateway/rdpfront/desk"
	"github.com/shoal-pool/shoal/internal/identity"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// world is a front end with one pool, whose only machine is a listener here, and which may be asleep.
type world struct {
	t       *testing.T
	db      *store.DB
	desk    *desk.Desk
	front   *Front
	address string // of the gateway
	machine net.Listener
	log     *buffer

	mu     sync.Mutex
	awake  chan struct{} // closed once the machine runs
	logins []route.Request
	closed []string
	done   chan struct{} // of the session
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (w *world) Login(ctx context.Context, r route.Request, part string, progress func(string)) (route.Target, error) {
	w.mu.Lock()
	w.logins = append(w.logins, r)
	awake := w.awake
	w.mu.Unlock()
	if progress != nil {
		progress("waking machine m-1")
	}
	select {
	case <-awake:
	case <-ctx.Done():
		return route.Target{}, ctx.Err()
	}
	return route.Target{Session: "s-1", User: r.User, Pool: "lab", Machine: "m-1", Address: "10.0.0.1:22", Done: w.done}, nil
}

func (w *world) Closed(_ shoal.SessionID, part string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = append(w.closed, part)
}

func (w *world) Suspect(shoal.MachineID) {}

func (w *world) counts() (logins, closed int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.logins), len(w.closed)
}

func (w *world) User(_ context.Context, name shoal.UserName) (shoal.User, bool) {
	return shoal.User{Name: name}, true
}

func (w *world) CheckPassword(_ context.Context, _ shoal.UserName, password, _ string) error {
	if password != "right" {
		return identity.Denied()
	}
	return nil
}

func newWorld(t *testing.T, limits Limits) *world {
	t.Helper()
	w := &world{t: t, log: &buffer{}, awake: make(chan struct{}), done: make(chan struct{})}
	db := storetest.Open(t)
	storetest.Update(t, db, func(tx *store.Tx) error {
		_, err := tx.Users().Put(shoal.User{Name: "alice", UID: 20001})
		if err == nil {
			_, err = tx.Pools().Put(shoal.Pool{Name: "lab", Provider: "fake"})
		}
		return err
	})
	w.db = db
	w.desk = desk.New(desk.Config{Store: db, People: w})
	var err error
	if w.machine, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.machine.Close() })
	log := slog.New(slog.NewTextHandler(w.log, nil))
	w.front = New(Config{Desk: w.desk, Router: w, Log: log, Limits: limits, Dial: func(ctx context.Context, _ shoal.MachineID, address string) (net.Conn, error) {
		if address != "10.0.0.1:3389" {
			t.Errorf("the front end dials %s", address)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", w.machine.Addr().String())
	}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- w.front.Serve(ctx, ln, "lab", shoal.Endpoint{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389})
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

// session gives alice a session on the machine.
func (w *world) session() {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady, Health: shoal.HealthUp, Wanted: shoal.WantRun, Provider: "fake", Address: "10.0.0.1:22"})
		if err == nil {
			_, err = tx.Sessions().Put(shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionDisconnected})
		}
		return err
	})
}

func (w *world) dial(first []byte) *net.TCPConn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.address)
	if err == nil {
		_, err = c.Write(first)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// arrives is a connection at the machine, with its first packet.
func (w *world) arrives() (*net.TCPConn, request) {
	w.t.Helper()
	c, err := w.machine.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	q, err := readRequest(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.(*net.TCPConn), q
}

// until waits for something that happens in another goroutine.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 20_000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("waited in vain until %s", what)
}

func say(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestAStrangerWakesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	for _, first := range [][]byte{seen, packet("", tlsOnly...), packet("Cookie: mstshash=nobody", tlsOnly...)} {
		c := w.dial(first)
		answer, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(answer, refusal()) {
			t.Errorf("%x, %v", answer, err)
		}
	}
	if answer, err := io.ReadAll(w.dial(packet("Cookie: mstshash=alice"))); err != nil || len(answer) > 0 {
		t.Errorf("one that negotiates nothing: %x, %v", answer, err)
	}
	if logins, _ := w.counts(); logins != 0 {
		t.Errorf("%d logins", logins)
	}
	storetest.View(t, w.db, func(tx *store.Tx) error {
		events, err := tx.EventsAbout(shoal.ObjectUser, "alice", 10)
		if err != nil || len(events) == 0 || events[0].Code != "desktopRefused" || !strings.HasPrefix(events[0].Sentence, "a connection from 127.0.0.1 to a desktop of alice was refused: user alice has no session") {
			t.Errorf("%+v, %v", events, err)
		}
		if events, err := tx.EventsAbout(shoal.ObjectUser, "nobody", 10); err != nil || len(events) > 0 {
			t.Errorf("of a name that nobody has: %+v, %v", events, err)
		}
		return nil
	})
	if log := w.log.String(); !strings.Contains(log, "user alice has no session here") || !strings.Contains(log, "nobody has signed in") {
		t.Errorf("the log says\n%s", log)
	}
}

func TestSomebodyKnownIsHeldWhileHerMachineWakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	w.desk.SignedIn("alice", "127.0.0.1:1")
	c := w.dial(seen)
	until(t, "she waits", func() bool { n, _ := w.counts(); return n == 1 })
	close(w.awake)
	m, q := w.arrives()
	if !bytes.Equal(q.raw, seen) {
		t.Errorf("%x arrives", q.raw)
	}
	say(t, m, c, "confirmed")
	say(t, c, m, "a password")
	if err := w.desk.Check(t.Context(), "m-1", "alice", "wrong"); err == nil {
		t.Error("a wrong password was taken")
	}
	if err := w.desk.Check(t.Context(), "m-1", "alice", "right"); err != nil {
		t.Error(err)
	}
	say(t, m, c, "a picture")
	// What one side has said is not cut off because it says no more.
	c.CloseWrite()
	if b, err := io.ReadAll(m); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	say(t, m, c, "goodbye")
	m.Close()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	until(t, "the part is closed", func() bool { _, n := w.counts(); return n == 1 })
	if r := w.logins[0]; r.User != "alice" || r.Pool != "lab" || r.Kind != "rdp" || !strings.HasPrefix(r.Source, "127.0.0.1:") {
		t.Errorf("%+v", r)
	}
}

func TestAClientThatGoesAwayIsNoDemand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	w.desk.SignedIn("alice", "127.0.0.1:1")
	c := w.dial(seen)
	until(t, "she waits", func() bool { n, _ := w.counts(); return n == 1 })
	c.Close()
	until(t, "she is gone", func() bool { return len(w.front.all.Each()) == 0 })
}

// Nor is one that goes away once its user has shown her password, while her place is looked for still.
func TestAClientThatGoesAwayWithoutItsPlaceIsNoDemand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	w.session()
	c := w.dial(seen)
	m, _ := w.arrives()
	say(t, m, c, "confirmed")
	if err := w.desk.Check(t.Context(), "m-1", "alice", "right"); err != nil {
		t.Fatal(err)
	}
	until(t, "she waits", func() bool { n, _ := w.counts(); return n == 1 })
	c.Close()
	m.Close()
	until(t, "she is gone", func() bool { return len(w.front.all.Each()) == 0 })
}

func TestHoldingHasAnEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Hold: 50 * time.Millisecond})
	w.desk.SignedIn("alice", "127.0.0.1:1")
	answer, err := io.ReadAll(w.dial(seen))
	if err != nil || !bytes.Equal(answer, refusal()) {
		t.Errorf("%x, %v", answer, err)
	}
	if log := w.log.String(); !strings.Contains(log, "longer than clients wait: waking machine m-1") {
		t.Errorf("the log says\n%s", log)
	}
}

func TestASessionIsReachedByNameAndBecomesAPartByPassword(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	w.session()
	close(w.awake)
	c := w.dial(seen)
	m, _ := w.arrives()
	say(t, m, c, "confirmed")
	if logins, _ := w.counts(); logins != 0 {
		t.Error("it is a part before anybody has shown a password")
	}
	say(t, c, m, "typing")
	if err := w.desk.Check(t.Context(), "m-1", "alice", "right"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is a part", func() bool { n, _ := w.counts(); return n == 1 })
	if r := w.logins[0]; r.Machine != "m-1" || r.User != "alice" {
		t.Errorf("%+v", r)
	}
	until(t, "the guest has left the door", func() bool { return w.front.door.Guests() == 0 })
	close(w.done) // somebody ends the session
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	until(t, "the part is closed", func() bool { _, n := w.counts(); return n == 1 })
}

func TestWhoShowsNoPasswordIsCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Login: 50 * time.Millisecond})
	w.session()
	c := w.dial(seen)
	m, _ := w.arrives()
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("%x", b)
	}
	if b, _ := io.ReadAll(m); len(b) > 0 {
		t.Errorf("%x", b)
	}
	if logins, closed := w.counts(); logins+closed != 0 {
		t.Errorf("%d logins, %d closed", logins, closed)
	}
}

// Strangers who say her name, however many, keep neither her nor others out.
func TestAFloodIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{PerUser: 3, Door: gateway.DoorLimits{Full: 8, Early: 4}})
	w.session()
	close(w.awake)
	go func() {
		for {
			c, err := w.machine.Accept()
			if err != nil {
				return
			}
			w.t.Cleanup(func() { c.Close() })
		}
	}()
	var all []net.Conn
	for range 30 {
		all = append(all, w.dial(seen[:5])) // slow, too
		all = append(all, w.dial(seen))
	}
	until(t, "no more than may be are in", func() bool { return w.front.door.Guests() <= 8 })
	for who, n := range w.front.users.Each() {
		if n > 3 || who == "alice" {
			t.Errorf("%d of %s", n, who)
		}
	}
	for _, c := range all {
		c.Close()
	}
	until(t, "all are gone", func() bool {
		return len(w.front.all.Each()) == 0 && len(w.front.users.Each()) == 0
	})
	until(t, "no guest is left", func() bool { return w.front.door.Guests() == 0 })
}

// Those that the door does not let in take no place of users.
func TestAFloodBeforeTheDoorTakesNoPlaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{Connections: 60, Door: gateway.DoorLimits{Full: 20, Early: 20}})
	for range 150 {
		w.dial(seen[:5])
	}
	until(t, "the door is full", func() bool { return w.front.door.Guests() == 20 })
	for range 60 {
		if n := w.front.all.Each()[""]; n == 60 {
			t.Fatalf("%d places are taken, by 20 guests", n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Who has taken xrdp's port on the machine gets nobody.
func TestWhoIsNotThePoolsGetsNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	asked := 0
	w.front.cfg.Prove = func(_ context.Context, _ net.Conn, pool shoal.PoolName) error {
		asked++
		return desk.ErrForeign
	}
	w.session()
	answer, err := io.ReadAll(w.dial(seen))
	if err != nil || !bytes.Equal(answer, refusal()) || asked != 1 {
		t.Errorf("%x, %v, asked %d times", answer, err, asked)
	}
	c, err := w.machine.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("the client's packet came to %q, %v", b, err)
	}
	if log := w.log.String(); !strings.Contains(log, "machine m-1 gives no desktops: what listens there is not the pool's") {
		t.Errorf("the log says\n%s", log)
	}
}
