package sshfront

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/route"
)

// held makes logins wait until the returned function is called.
func (w *world) held(m *machine) (waiting *atomic.Int32, release func()) {
	waiting = new(atomic.Int32)
	gate := make(chan struct{})
	w.router.set(func(ctx context.Context, r route.Request, progress func(string)) (*machine, error) {
		waiting.Add(1)
		defer waiting.Add(-1)
		progress("machine m-1 of pool lab is starting")
		select {
		case <-gate:
			return m, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	return waiting, sync.OnceFunc(func() { close(gate) })
}

func TestHold(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	os.WriteFile(m.dir+"/home/alice/f", []byte("data\n"), 0o644)
	rsh := "ssh " + strings.Join(w.options(w.addr), " ")
	options := strings.Join(w.options(w.addr), " ")
	for name, c := range map[string]struct {
		script, out string
		silent      bool
	}{
		"plain":  {rsh + " alice@127.0.0.1 echo hi", "hi\n", false},
		"quiet":  {rsh + " -q alice@127.0.0.1 echo hi", "hi\n", true},
		"scp":    {"scp " + options + " alice@127.0.0.1:f scp1 && cat scp1", "data\n", false},
		"sftp":   {"printf 'get f sftp1\\n' | sftp -b - " + options + " alice@127.0.0.1 >/dev/null && cat sftp1", "data\n", false},
		"git":    {"git ls-remote alice@127.0.0.1:none 2>&1 | grep -o 'does not appear to be a git repository'", "does not appear to be a git repository\n", true},
		"rsync":  {"rsync alice@127.0.0.1:f rsync1 && cat rsync1", "data\n", false},
		"a pipe": {"echo hi | " + rsh + " alice@127.0.0.1 cat", "hi\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			waiting, release := w.held(m)
			defer release()
			cmd := exec.Command("/bin/sh", "-c", c.script)
			cmd.Env, cmd.Dir = append(os.Environ(), "HOME="+w.dir, "GIT_SSH_COMMAND="+rsh, "RSYNC_RSH="+rsh), w.dir
			errs := &lockedBuffer{}
			cmd.Stderr = errs
			go func() {
				w.until("the login waits", func() bool { return waiting.Load() == 1 })
				if !c.silent {
					w.until("the client is told", func() bool { return strings.Contains(errs.String(), "shoal: machine m-1 of pool lab is starting\n") })
				}
				release()
			}()
			got := w.run(cmd, nil)
			if got.out != c.out || got.code != 0 {
				t.Errorf("%+v\n%s", got, errs.String())
			}
			if name == "quiet" && errs.String() != "" {
				t.Errorf("told %q although quiet", errs.String())
			}
		})
	}
}

func TestGoneWhileHeld(t *testing.T) {
	w := newWorld(t)
	waiting, release := w.held(w.newMachine("m-1"))
	defer release()
	cmd := w.ssh("alice@127.0.0.1", "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.until("the login waits", func() bool { return waiting.Load() == 1 })
	cmd.Process.Kill()
	cmd.Wait()
	w.until("the demand is withdrawn", func() bool { return waiting.Load() == 0 })
	if n := w.router.open(); n != 0 {
		t.Errorf("%d parts are left", n)
	}
}

func TestRefusal(t *testing.T) {
	w := newWorld(t)
	w.router.set(func(context.Context, route.Request, func(string)) (*machine, error) {
		return nil, &route.Refusal{Reason: shoal.Reason{Code: "noPool", Sentence: "there is no pool lab"}}
	})
	const why = "shoal: there is no pool lab"
	for name, cmd := range map[string]*exec.Cmd{
		"exec":     w.ssh("alice@127.0.0.1", "echo hi"),
		"quiet":    w.ssh("-q", "alice@127.0.0.1", "echo hi"),
		"shell":    w.ssh("alice@127.0.0.1"),
		"terminal": w.ssh("-tt", "alice@127.0.0.1"),
		"sftp":     w.ssh("-s", "alice@127.0.0.1", "sftp"),
		"agent":    w.ssh("-A", "-X", "alice@127.0.0.1", "true"),
	} {
		got := w.run(cmd, nil)
		if got.code != 75 || !strings.Contains(got.err+got.out, why) || strings.Contains(got.err, "denied") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	got := w.run(w.ssh("-W", "127.0.0.1:1", "alice@127.0.0.1"), nil)
	if got.code == 0 || !strings.Contains(got.err, "there is no pool lab") {
		t.Errorf("-W: %+v", got)
	}
	scp := exec.Command("/usr/bin/scp", append(w.options(w.addr), "alice@127.0.0.1:f", w.dir)...)
	if got := w.run(scp, nil); got.code == 0 || !strings.Contains(got.err, why) {
		t.Errorf("scp: %+v", got)
	}
	got = w.run(w.ssh("alice+lab/what@127.0.0.1", "true"), nil)
	if got.code != 75 || !strings.Contains(got.err, "alice+lab/new") {
		t.Errorf("a wrong name: %+v", got)
	}
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	for name, want := range map[string]route.Request{
		"alice":              {User: "alice"},
		"alice+lab":          {User: "alice", Pool: "lab"},
		"alice+lab/new":      {User: "alice", Pool: "lab", New: true},
		"alice+lab/m-7f3kq2": {User: "alice", Pool: "lab", Machine: "m-7f3kq2"},
	} {
		if got := w.run(w.ssh("-l", name, "127.0.0.1", "id -un"), nil); got.out != "alice\n" {
			t.Errorf("%s: %+v", name, got)
		}
		w.router.mu.Lock()
		got := w.router.logins[len(w.router.logins)-1]
		w.router.mu.Unlock()
		if got.Arrived.IsZero() || got.Kind != "ssh" || !strings.HasPrefix(got.Source, "127.0.0.1:") {
			t.Errorf("%s: %+v", name, got)
		}
		got.Arrived, got.Source, got.Kind = time.Time{}, "", ""
		if got != want {
			t.Errorf("%s: asked for %+v, want %+v", name, got, want)
		}
	}
}

func TestDenied(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	for _, user := range []string{"nobody", "root", "carol+lab", "al ice", "+lab"} {
		got := w.run(w.ssh("-l", user, "127.0.0.1", "true"), nil)
		if got.code != 255 || !strings.Contains(got.err, "Permission denied (password,publickey,keyboard-interactive)") {
			t.Errorf("%s: %+v", user, got)
		}
	}
	cmd := w.ssh("alice@127.0.0.1", "true")
	for i, a := range cmd.Args {
		if strings.HasSuffix(a, "/id") {
			cmd.Args[i] = w.dir + "/other"
		}
	}
	if got := w.run(cmd, nil); got.code != 255 {
		t.Errorf("with another key: %+v", got)
	}
	if len(w.router.logins) != 0 {
		t.Errorf("the router was asked for %+v", w.router.logins)
	}
}

// A key that is only offered wakes nothing.
func TestOfferedKeyIsNotProof(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	right := w.signer(t)
	thief := thiefSigner{right.PublicKey(), newKey(t, "")}
	_, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{
		User: "alice", Auth: []ssh.AuthMethod{ssh.PublicKeys(thief)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err == nil {
		t.Fatal("logged in with another's public key")
	}
	w.router.mu.Lock()
	defer w.router.mu.Unlock()
	if len(w.router.logins) != 0 {
		t.Errorf("the router was asked for %+v", w.router.logins)
	}
}

// thiefSigner offers a key and signs with another.
type thiefSigner struct {
	offered ssh.PublicKey
	own     ssh.Signer
}

func (s thiefSigner) PublicKey() ssh.PublicKey { return s.offered }

func (s thiefSigner) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return s.own.Sign(r, data)
}

func TestPassword(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	w.people.password = "correct horse"
	for name, auth := range map[string]ssh.AuthMethod{
		"password": ssh.Password("correct horse"),
		"keyboard-interactive": ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			if len(questions) == 0 {
				return nil, nil
			}
			if len(questions) != 1 || echos[0] {
				return nil, errors.New("not one hidden question")
			}
			return []string{"correct horse"}, nil
		}),
	} {
		c, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{User: "alice", Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, _ := c.NewSession()
		if out, err := s.Output("id -un"); err != nil || string(out) != "alice\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		c.Close()
	}
	if strings.Contains(w.log.String(), "correct horse") {
		t.Error("the password is in the log")
	}
}

// Many more than the door holds, who guess, do not keep one who has a key out. They come from the same address as she.
// Package e2e has the same with the door as it is.
func TestGuessers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	w := newWorld(t, func(c *Config) { c.Limits.Door = gateway.DoorLimits{Full: 40, Early: 20} })
	w.router.to(w.newMachine("m-1"))
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var guesses atomic.Int64
	for range 100 {
		all.Go(func() {
			for ctx.Err() == nil {
				c, err := net.DialTimeout("tcp", w.addr, patience)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				ssh.NewClientConn(c, "", &ssh.ClientConfig{
					User: "alice", HostKeyCallback: ssh.InsecureIgnoreHostKey(),
					Auth: []ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
						guesses.Add(1)
						return "guess", nil
					}), 6)},
				})
				stop()
				c.Close()
				select { // as guessers over a network, and so as not to measure their own work only
				case <-time.After(time.Second):
				case <-ctx.Done():
				}
			}
		})
	}
	w.until("the door is crowded", func() bool { return w.front.door.Guests() >= 20 && guesses.Load() > 40 })
	logins := 2
	if os.Getenv("SHOAL_COUNT") != "" {
		logins = 5
	}
	for range logins {
		start, tries := time.Now(), 0
		// Where the guessers and all else leave the host no time for a login, she has to come again.
		w.until("she is let in", func() bool { tries++; return w.run(w.ssh("alice@127.0.0.1", "echo in"), nil).out == "in\n" })
		t.Logf("in after %v and %d tries beside %d guests, %d guesses so far", time.Since(start).Round(time.Millisecond), tries, w.front.door.Guests(), guesses.Load())
	}
	if n := w.front.door.Guests(); n > 40 {
		t.Errorf("%d guests at once", n)
	}
}

func TestFlood(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Door = gateway.DoorLimits{Full: 20, Early: 10} })
	w.router.to(w.newMachine("m-1"))
	var conns []net.Conn
	for range 60 { // connections that say nothing
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	w.until("she is let in", func() bool { return w.run(w.ssh("alice@127.0.0.1", "echo in"), nil).out == "in\n" })
	if n := w.front.door.Guests(); n > 20 {
		t.Errorf("%d guests", n)
	}
	_ = conns
}

// The channels of all of a user's connections are counted together; closed ones make room.
func TestUserChannels(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.UserChannels = 3 })
	w.router.to(w.newMachine("m-1"))
	one, two := w.dial(t, "alice"), w.dial(t, "alice")
	var open []*ssh.Session
	for _, c := range []*ssh.Client{one, two, two} {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	for _, c := range []*ssh.Client{one, two} {
		if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "too many channels") {
			t.Errorf("one more is %v", err)
		}
	}
	open[1].Close()
	w.until("there is room", func() bool {
		s, err := one.NewSession()
		if err == nil {
			s.Close()
		}
		return err == nil
	})
}
