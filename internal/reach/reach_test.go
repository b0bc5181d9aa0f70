package reach

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

const lab = shoal.MachineID("m-lab")

// world has one machine, whose agent is a function.
type world struct {
	*Reach
	t     *testing.T
	ca    ssh.Signer
	agent func(api.ReachOrder) // nil: it is not connected
	log   *bytes.Buffer

	mu    sync.Mutex
	dial  func() (net.Conn, error) // the direct way
	told  []string
	dials int
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ca: newKey(t), log: &bytes.Buffer{}, dial: func() (net.Conn, error) { return nil, errors.New("no route to host") }}
	w.Reach = New(Config{HostCA: w.ca.PublicKey(), Log: slog.New(slog.NewTextHandler(w.log, nil)),
		Machine: func(_ context.Context, id shoal.MachineID) (shoal.Machine, error) {
			return shoal.Machine{ID: id, Provider: "cloud", Address: "192.0.2.1:22"}, nil
		},
		Here: func(provider string) bool { return provider != "cloud" },
		Send: func(_ shoal.MachineID, r api.Record) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.agent == nil {
				return false
			}
			go w.agent(*r.Reach)
			return true
		},
		Dial: func(context.Context, string, string) (net.Conn, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.dials++
			return w.dial()
		},
		Told: func(_ shoal.MachineID, way, _ string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, way)
		}})
	return w
}

func newKey(t *testing.T) ssh.Signer {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sshd answers as a machine's sshd would, with a certificate of an authority.
func sshd(t *testing.T, ca ssh.Signer, id shoal.MachineID) func() (net.Conn, error) {
	key := newKey(t)
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{string(id)}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(bytes.NewReader(bytes.Repeat([]byte{7}, 1000)), ca); err != nil {
		t.Fatal(err)
	}
	host, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(host)
	return func() (net.Conn, error) {
		a, b := pipe()
		go func() { _, _, _, _ = ssh.NewServerConn(b, cfg); b.Close() }()
		return a, nil
	}
}

// brings answers orders with a connection at whose other end somebody says which port was asked for.
func (w *world) brings(o api.ReachOrder) {
	deliver, err := w.Claim(lab, o.Stream, false)
	if err != nil {
		return
	}
	a, b := pipe()
	deliver(a, nil)
	_, _ = io.WriteString(b, "port "+string(rune('0'+o.Port%10)))
	b.Close()
}

// pipe is like net.Pipe, with room for what is not read yet.
func pipe() (net.Conn, net.Conn) {
	a, b := net.Pipe()
	return &roomy{Conn: a, out: roomyWriter(a)}, &roomy{Conn: b, out: roomyWriter(b)}
}

type roomy struct {
	net.Conn
	out chan<- []byte
	end sync.Once
}

func roomyWriter(c net.Conn) chan<- []byte {
	out := make(chan []byte, 1000)
	go func() {
		for b := range out {
			if _, err := c.Write(b); err != nil {
				for range out { //nolint:revive // nobody reads the rest
				}
				return
			}
		}
		c.Close()
	}()
	return out
}

func (r *roomy) Write(b []byte) (n int, err error) {
	defer func() {
		if recover() != nil {
			n, err = 0, net.ErrClosed
		}
	}()
	r.out <- bytes.Clone(b)
	return len(b), nil
}

func (r *roomy) Close() error {
	r.end.Do(func() { close(r.out) })
	return nil
}

func said(t *testing.T, c net.Conn, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (w *world) wantTold(want string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.told, " "); got != want {
		w.t.Errorf("told %q, want %q", got, want)
	}
}

func TestAgentWhereNothingAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent = w.brings
		c, err := w.Dial(t.Context(), lab, "192.0.2.1:22")
		if got := said(t, c, err); got != "port 0" {
			t.Errorf("%q", got)
		}
		c, err = w.Dial(t.Context(), lab, "192.0.2.1:8123")
		if got := said(t, c, err); got != "port 3" {
			t.Errorf("%q", got)
		}
		w.wantTold("agent")
		if why := w.Why(lab); len(why) != 1 || !strings.Contains(why[0].Sentence, "through its agent: it does not answer at 192.0.2.1:22: no route to host") {
			t.Errorf("%v", why)
		}
		if w.dials != 1 {
			t.Errorf("it was tried directly %d times", w.dials)
		}
	})
}

func TestSlowProofKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent = w.brings
		w.dial = func() (net.Conn, error) { // packets are dropped
			w.mu.Unlock()
			time.Sleep(directTime)
			w.mu.Lock()
			return nil, context.DeadlineExceeded
		}
		began := time.Now()
		c, err := w.Dial(t.Context(), lab, "192.0.2.1:22")
		said(t, c, err)
		if took := time.Since(began); took != patience {
			t.Errorf("it took %s", took)
		}
		time.Sleep(directTime)
		synctest.Wait()
		w.wantTold("agent")
	})
}

// What goes through the server ends with it, so nobody is led that way to a machine that only answers slowly.
func TestGatewayWaitsForTheDirectWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg := w.cfg
		cfg.Back = func(context.Context, shoal.MachineID, int) (net.Conn, error) {
			t.Error("it was led through the server")
			return nil, context.Canceled
		}
		w.Reach = New(cfg)
		answers := sshd(t, w.ca, lab)
		w.dial = func() (net.Conn, error) {
			w.mu.Unlock()
			time.Sleep(directTime - time.Millisecond)
			w.mu.Lock()
			return answers()
		}
		c, err := w.Dial(t.Context(), lab, "192.0.2.1:22")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		w.wantTold("direct")
	})
}

func TestDirectIsProved(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ours bool
		id   shoal.MachineID
		want string
	}{"itself": {true, lab, Direct}, "another machine": {true, "m-other", Agent}, "another authority": {false, lab, Agent}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.agent = w.brings
				ca := w.ca
				if !c.ours {
					ca = newKey(t)
				}
				w.dial = sshd(t, ca, c.id)
				conn, err := w.Dial(t.Context(), lab, "192.0.2.1:22")
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				w.wantTold(c.want)
				synctest.Wait()
			})
		})
	}
}

func TestWaysChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent = w.brings
		open := sshd(t, w.ca, lab)
		dial := func() {
			t.Helper()
			c, err := w.Dial(t.Context(), lab, "192.0.2.1:22")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			synctest.Wait()
		}
		dial()
		w.mu.Lock()
		w.dial = open
		w.mu.Unlock()
		dial() // it is not looked yet
		w.wantTold("agent")
		time.Sleep(fresh + time.Second)
		dial() // it is looked beside
		w.wantTold("agent direct")
		w.mu.Lock()
		w.dial = func() (net.Conn, error) { return nil, errors.New("no route to host") }
		w.mu.Unlock()
		dial() // at once the other way, and it is known
		w.wantTold("agent direct agent")
	})
}

func TestRefusedIsSaid(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent = func(o api.ReachOrder) {
			if err := w.Failed(lab, api.Unreached{Stream: o.Stream, Refused: true, Error: "connection refused"}); err != nil {
				t.Error(err)
			}
		}
		if _, err := w.Dial(t.Context(), lab, "192.0.2.1:8123"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v", err)
		}
	})
}

func TestAgentThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		if _, err := w.DialInside(t.Context(), lab, "192.0.2.1:600"); err == nil || !strings.Contains(err.Error(), "its agent is not connected") {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took != backTime {
			t.Errorf("it took %s", took)
		}
		time.AfterFunc(2*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.agent = w.brings
		})
		c, err := w.DialInside(t.Context(), lab, "192.0.2.1:600")
		said(t, c, err)
	})
}

// What an agent was asked by a stream that broke it never heard of; it is asked again.
func TestOrderThatIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var asked atomic.Int32
		w.agent = func(o api.ReachOrder) {
			if asked.Add(1) > 1 {
				w.brings(o)
			}
		}
		c, err := w.DialInside(t.Context(), lab, "192.0.2.1:600")
		said(t, c, err)
	})
}

func TestOnlyTheMachineOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent = func(o api.ReachOrder) {
			for _, thief := range []shoal.MachineID{"m-thief", ""} {
				if _, err := w.Claim(thief, o.Stream, false); shoal.KindOf(err) != shoal.KindNotFound {
					t.Errorf("%q takes another's stream: %v", thief, err)
				}
				if err := w.Failed(thief, api.Unreached{Stream: o.Stream, Error: "mine"}); err == nil {
					t.Errorf("%q ends another's stream", thief)
				}
			}
			if _, err := w.Claim(lab, o.Stream+"x", false); err == nil {
				t.Error("another secret is taken")
			}
			w.brings(o)
			if _, err := w.Claim(lab, o.Stream, false); err == nil {
				t.Error("a secret is good twice")
			}
		}
		c, err := w.DialInside(t.Context(), lab, "192.0.2.1:600")
		said(t, c, err)
		if _, err := w.Claim(lab, "", false); err == nil {
			t.Error("no secret is taken for one")
		}
	})
}

// A connection that comes after nobody waits any more is closed, and nothing is kept of it.
func TestLateConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		claimed := make(chan func(net.Conn, error), 1)
		w.agent = func(o api.ReachOrder) {
			if deliver, err := w.Claim(lab, o.Stream, false); err == nil {
				claimed <- deliver
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.DialInside(ctx, lab, "192.0.2.1:600"); err == nil {
			t.Fatal("there is a connection")
		}
		a, b := net.Pipe()
		(<-claimed)(a, nil)
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("it is not closed: %v", err)
		}
		synctest.Wait()
		if its, all := w.open.Taken(lab); len(w.waiting) != 0 || all != 0 || its != 0 {
			t.Errorf("left: %v %v %v", w.waiting, all, its)
		}
	})
}

func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent = func(o api.ReachOrder) {
			if deliver, err := w.Claim(lab, o.Stream, false); err == nil {
				a, _ := net.Pipe()
				deliver(a, nil)
			}
		}
		var open []net.Conn
		for range mostOfOne {
			c, err := w.DialInside(t.Context(), lab, "192.0.2.1:600")
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, c)
		}
		if _, err := w.DialInside(t.Context(), lab, "192.0.2.1:600"); shoal.KindOf(err) != shoal.KindExhausted {
			t.Errorf("one more: %v", err)
		}
		for _, c := range open {
			c.Close()
			c.Close() // counts once
		}
		w.mu.Lock()
		w.agent = func(api.ReachOrder) {} // takes orders, and does nothing
		w.mu.Unlock()
		var failed sync.WaitGroup
		for range mostWaiting {
			failed.Go(func() { _, _ = w.DialInside(t.Context(), lab, "192.0.2.1:600") })
		}
		synctest.Wait()
		if _, err := w.DialInside(t.Context(), lab, "192.0.2.1:600"); shoal.KindOf(err) != shoal.KindExhausted {
			t.Errorf("one more half-open: %v", err)
		}
		failed.Wait()
		synctest.Wait()
		if _, all := w.open.Taken(lab); len(w.waiting) != 0 || all != 0 {
			t.Errorf("left: %d waiting, %d open", len(w.waiting), all)
		}
	})
}

func TestHereIsDirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Here = func(string) bool { return true }
	a, _ := net.Pipe()
	w.dial = func() (net.Conn, error) { return a, nil }
	for _, dial := range []func(context.Context, shoal.MachineID, string) (net.Conn, error){w.Dial, w.DialInside} {
		if c, err := dial(t.Context(), lab, "192.0.2.1:22"); err != nil || c != a {
			t.Errorf("%v, %v", c, err)
		}
	}
	if _, err := w.Dial(t.Context(), lab, "nowhere"); err == nil {
		t.Error("no address is dialled")
	}
	w.wantTold("")
}
