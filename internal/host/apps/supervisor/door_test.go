package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/apps"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// patience is how long a test waits for what takes a moment.
const patience = 2 * time.Minute

// TestMain lets this binary listen at a port as somebody else.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "squat" {
		l, err := net.Listen("tcp4", os.Args[2])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			if err != nil {
				os.Exit(1)
			}
			fmt.Println("got somebody")
			c.Close()
		}
	}
	os.Exit(m.Run())
}

// squat listens at a port as another user until the test ends. said returns what it wrote.
func squat(t *testing.T, port int) (said func() string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to be another user needs root")
	}
	self, err := os.ReadFile("/proc/self/exe") // the test's own lies where others may not go
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "shoal-apps-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/squat", self, 0o755)); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var out bytes.Buffer
	cmd := exec.Command(dir+"/squat", "squat", fmt.Sprintf("127.0.0.1:%d", port))
	cmd.Stdout = writer(func(p []byte) { mu.Lock(); out.Write(p); mu.Unlock() })
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 28642, Gid: 28642}, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	runtime.LockOSThread() // whose end would be the child's
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	said = func() string { mu.Lock(); defer mu.Unlock(); return out.String() }
	for deadline := time.Now().Add(patience); !strings.Contains(said(), "\n"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not listen")
		}
	}
	return said
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// Who binds the port first gets no connection, and the app starts at another.
func TestPortThatSomebodyElseHas(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	said := squat(t, port)
	g := guard{port: port, uid: os.Getuid()}
	if c, err := g.dial(t.Context()); !errors.Is(err, errNotHers) {
		t.Errorf("%v, %v", c, err)
	}
	s := newSupervisor(t.TempDir(), apps.Order{Order: api.AppOrder{ID: "a-1"}, Person: tasks.Person{UID: os.Getuid()}})
	a := attempt{supervisor: s, guard: g}
	if err := a.probe(t.Context()); !errors.Is(err, errTaken) {
		t.Errorf("the probe says %v", err)
	}
	if strings.Contains(said(), "got somebody") {
		t.Error("the other got a connection")
	}
	for range 50 {
		if other, err := freePort(); err != nil || other == port {
			t.Fatalf("port %d is given out, %v", other, err)
		}
	}
}

func TestGuardWithoutListener(t *testing.T) {
	t.Parallel()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := (guard{port: port, uid: os.Getuid()}).dial(t.Context()); !errors.Is(err, errNotHers) {
		t.Errorf("%v, %v", c, err)
	}
}

// echo is an app that answers what it gets, and ends when it has got all.
func echo(t *testing.T) guard {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	return guard{port: l.Addr().(*net.TCPAddr).Port, uid: os.Getuid()}
}

// newDoor is a door that admits this host, if it should.
func newDoor(t *testing.T, admits bool) *door {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the ports of ways in are root's")
	}
	dir := t.TempDir()
	d, err := openDoor(dir, os.Getuid(), func(netip.Addr) bool { return admits })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.close(dir) })
	return d
}

// dial connects to a door. nil: it was refused at once.
func dial(t *testing.T, d *door) *net.TCPConn {
	t.Helper()
	return dialAs(t, d, os.Getuid())
}

// dialAs connects by a socket of a user's.
func dialAs(t *testing.T, d *door, uid int) *net.TCPConn {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchown(int(fd), uid, -1) }), err)
	}}
	c, err := dialer.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", d.port))
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// Bytes pass unchanged in both directions at once, and so does the end of each.
func TestPump(t *testing.T) {
	t.Parallel()
	d := newDoor(t, true)
	d.open(echo(t))
	c := dial(t, d)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// Before there is an app, from elsewhere, and afterwards, nobody gets in. The machine's own agent is not elsewhere.
func TestShut(t *testing.T) {
	t.Parallel()
	refused := func(what string, c *net.TCPConn) {
		t.Helper()
		if c == nil {
			return
		}
		_, _ = c.Write([]byte("x"))
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: %d bytes", what, n)
		}
	}
	d := newDoor(t, true)
	refused("before", dial(t, d))
	d.open(echo(t))
	c := dial(t, d)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	d.shut()
	refused("after", c)
	refused("anew", dial(t, d))
	other := newDoor(t, false)
	other.open(echo(t))
	if os.Getuid() != 0 {
		t.Skip("whose a connection is only root can choose")
	}
	refused("from a user of the machine", dialAs(t, other, 12345))
	if c := dialAs(t, other, 0); c == nil {
		t.Error("the agent of the machine is refused")
	} else if _, err := c.Write([]byte("x")); err != nil {
		t.Error(err)
	} else if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("the agent of the machine: %v", err)
	}
}

// An app that goes away ends its connections and does not hold up others.
func TestAppThatGoes(t *testing.T) {
	t.Parallel()
	d := newDoor(t, true)
	d.open(guard{port: 1, uid: os.Getuid()})
	if c := dial(t, d); c == nil {
		return
	} else if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("somebody answers")
	}
	for deadline := time.Now().Add(patience); len(d.places) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("its place is not free")
		}
	}
}

// A connection without a byte in either direction ends after a time; one that is used in one direction only stays.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // reads, and says nothing
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
	}()
	app := guard{port: l.Addr().(*net.TCPAddr).Port, uid: os.Getuid()}
	for idle := 500 * time.Millisecond; !tryIdle(t, app, idle); idle *= 2 {
	}
}

// tryIdle uses one connection and leaves one at rest. false: it was itself held up for long, and what it saw says nothing.
func tryIdle(t *testing.T, app guard, limit time.Duration) bool {
	t.Helper()
	d := newDoor(t, true)
	d.idle = limit
	d.open(app)
	before, held := time.Now(), time.Duration(0)
	used, idle := dial(t, d), dial(t, d)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = idle.Read(make([]byte, 1))
	}()
	for began := time.Now(); time.Since(began) < 2*limit; time.Sleep(limit / 100) {
		_, err := used.Write([]byte("x"))
		now := time.Now()
		held, before = max(held, now.Sub(before)), now
		switch {
		case err != nil && held > limit/4:
			t.Logf("held up for %v of %v", held, limit)
			return false
		case err != nil:
			t.Fatalf("one that is used ended after %v: %v", time.Since(began), err)
		}
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("one at rest stays")
	}
	return true
}

// Many connections at rest cost little: no buffer is held for them, and all is given back.
func TestManyAtRest(t *testing.T) {
	d := newDoor(t, true)
	d.open(echo(t))
	const many = 500
	var all []*net.TCPConn
	b := make([]byte, 1)
	for range many {
		c := dial(t, d)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	runtime.GC()
	runtime.GC() // twice: so long a pool keeps what it has
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if each := m.HeapAlloc / many; each > 48<<10 { // of both ends, and less than the two buffers that it would have
		t.Errorf("a connection at rest holds %d bytes", each)
	}
	for _, c := range all {
		_ = c.Close()
	}
	for deadline := time.Now().Add(patience); len(d.places) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d places are not free", len(d.places))
		}
	}
}

// A port that was one user's is not another's before it has rested, and hers again at once.
func TestPortsRest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(port, uid int, ago time.Duration) {
		t.Helper()
		at := time.Now().Add(-ago)
		if err := errors.Join(os.WriteFile(doorFile(dir, port), fmt.Append(nil, uid), 0o600), os.Chtimes(doorFile(dir, port), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	for port := firstDoor; port <= lastDoor; port++ {
		write(port, 1, time.Second)
	}
	write(700, 2, time.Second)
	write(701, 3, time.Hour)
	write(702, 3, 2*time.Hour)
	if got := doorPorts(dir, 2); !slices.Equal(got, []int{700, 702, 701}) {
		t.Errorf("%v", got)
	}
	if got := doorPorts(dir, 1); len(got) != lastDoor-firstDoor {
		t.Errorf("%d ports", len(got))
	}
}

func TestRing(t *testing.T) {
	t.Parallel()
	r := newRing(100)
	for i := range 1000 {
		r.note(fmt.Sprintf("line %d", i))
	}
	if got := r.last(30); got != "line 997\nline 998\nline 999\n" {
		t.Errorf("%q", got)
	}
	_, _ = r.Write(bytes.Repeat([]byte("x"), 1000))
	if got := r.last(50); got != strings.Repeat("x", 50) {
		t.Errorf("%q", got)
	}
	_, _ = r.Write([]byte{0xff, '\n'})
	if got := r.last(2); got != "?\n" {
		t.Errorf("%q", got)
	}
}

// BenchmarkDoor is what the way in adds to a round trip.
func BenchmarkDoor(b *testing.B) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }()
		}
	}()
	dir := b.TempDir()
	d, err := openDoor(dir, os.Getuid(), func(netip.Addr) bool { return true })
	if err != nil {
		b.Fatal(err)
	}
	defer d.close(dir)
	d.open(guard{port: l.Addr().(*net.TCPAddr).Port, uid: os.Getuid()})
	for name, at := range map[string]string{"direct": l.Addr().String(), "door": fmt.Sprintf("127.0.0.1:%d", d.port)} {
		b.Run(name, func(b *testing.B) {
			c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp4", at)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			p := make([]byte, 100)
			for b.Loop() {
				if _, err := c.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// When the wall clock is put forward by half a day, nobody's connection has been idle for so long.
func TestUseClock(t *testing.T) {
	u := use{since: time.Now()}
	u.note()
	if at := u.at(); !strings.Contains(at.String(), " m=") || at.Before(u.since) {
		t.Errorf("used at %s, with no reading of the monotonic clock", at)
	}
}
