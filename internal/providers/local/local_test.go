package local

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// patience is how long a test waits for what takes a moment on a quiet host.
const patience = 3 * time.Minute

// needHost skips where real machines cannot be made by the way the test is run, and only there:
// a missing runc fails.
func needHost(t testing.TB) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real machines need root, and are left out with -short")
	}
}

// waiter is a first process that does nothing but wait, and ends when it is told to.
func waiter() []string {
	return []string{"/bin/sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 3600 & wait $!; done"}
}

// place is a directory for a provider that other tests do not see.
func place(t testing.TB) Config {
	t.Helper()
	dir := t.TempDir()
	images, err := commonImages()
	if err != nil {
		t.Fatal(err)
	}
	return Config{images: images, Dir: filepath.Join(dir, "local"), ControlDir: filepath.Join(dir, "agent"), Init: waiter(), MountHelper: "/proc/self/exe",
		StopGrace: 5 * time.Second, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// open opens a provider; at the end of the test its machines are deleted and it is closed.
func open(t testing.TB, cfg Config) *Provider {
	t.Helper()
	p, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, p) })
	return p
}

// finish deletes all machines and closes.
func finish(t testing.TB, p *Provider) {
	t.Helper()
	if p.ctx.Err() != nil {
		return // closed by the test itself
	}
	ctx := context.Background()
	o, err := p.Observe(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, m := range o.Machines {
		if err := p.Delete(ctx, m.ID); err != nil {
			t.Error(err)
		}
	}
	for _, m := range o.Machines {
		wait(t, p, m.ID, "")
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}

// wait waits until a machine is in a phase; the empty one means that it is gone.
func wait(t testing.TB, p *Provider, id shoal.MachineID, phase provider.Phase) provider.Observed {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		o, err := p.Observe(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		var seen provider.Observed
		for _, m := range o.Machines {
			if m.ID == id {
				seen = m
			}
		}
		if seen.Phase == phase {
			return seen
		}
		if seen.Phase == provider.PhaseFailed || time.Now().After(deadline) {
			t.Fatalf("machine %s is %q (%s), want %q", id, seen.Phase, seen.Reason, phase)
		}
		time.Sleep(2 * time.Millisecond) // the real kernel has no clock to turn
	}
}

// spec is a small machine.
func spec(id, pool string) provider.MachineSpec {
	return provider.MachineSpec{ID: shoal.MachineID(id), Pool: shoal.PoolName(pool), Token: "token-" + id, Image: "host",
		Resources: shoal.Resources{CPUs: 500, Memory: 64 << 20},
		Join:      provider.Join{Machine: shoal.MachineID(id), Pool: shoal.PoolName(pool), Token: "secret-" + id, Control: "unix:///run/shoal/control/agent.sock", Epoch: 1}}
}

// create makes a machine and waits until it runs.
func create(t testing.TB, p *Provider, s provider.MachineSpec) provider.Observed {
	t.Helper()
	if err := p.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return wait(t, p, s.ID, provider.PhaseRunning)
}

// in runs a script as root in a machine, with the rights and limits that machine's root has.
func in(t testing.TB, p *Provider, id shoal.MachineID, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "runc", "--root", p.path("runc"), "exec", string(id), "/bin/sh", "-c", script)
	cmd.Stdin = nil
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// must runs a script that has to succeed.
func must(t testing.TB, p *Provider, id shoal.MachineID, script string) string {
	t.Helper()
	out, err := in(t, p, id, script)
	if err != nil {
		t.Fatalf("in %s: %s: %v: %s", id, script, err, out)
	}
	return out
}

// refused runs a script that has to fail.
func refused(t testing.TB, p *Provider, id shoal.MachineID, script string) {
	t.Helper()
	if out, err := in(t, p, id, script); err == nil {
		t.Errorf("in %s: %s: succeeded: %s", id, script, out)
	}
}

func TestLife(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	s := spec("m-life", "lab")
	seen := create(t, p, s)
	if err := p.Create(t.Context(), s); err != nil {
		t.Errorf("a repeated Create: %v", err)
	}
	other := s
	other.Token = "another"
	if err := p.Create(t.Context(), other); err == nil {
		t.Error("a Create with another token succeeded")
	}
	if got := must(t, p, s.ID, "hostname; cat /run/shoal/join.json; stat -c '%a %U' /run/shoal/join.json"); !strings.Contains(got, "secret-m-life") ||
		!strings.HasPrefix(got, "m-life\n") || !strings.HasSuffix(got, "600 root") {
		t.Errorf("in the machine: %s", got)
	}
	if got := must(t, p, s.ID, "hostname -i"); got+":22" != seen.Address {
		t.Errorf("the machine calls itself %s, and is observed at %s", got, seen.Address)
	}
	must(t, p, s.ID, "echo kept > /var/tmp/file; echo kept > /usr/local/file")

	if err := p.Start(t.Context(), s); err != nil {
		t.Errorf("starting a running machine: %v", err)
	}
	for range 2 {
		if err := p.Stop(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
		wait(t, p, s.ID, provider.PhaseStopped)
	}
	s.Join.Token, s.Join.Epoch = "second", 2
	if err := p.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if again := wait(t, p, s.ID, provider.PhaseRunning); again.Address != seen.Address {
		t.Errorf("the address changed from %s to %s", seen.Address, again.Address)
	}
	if got := must(t, p, s.ID, "cat /var/tmp/file /usr/local/file /run/shoal/join.json"); strings.Count(got, "kept") != 2 || !strings.Contains(got, `"second"`) {
		t.Errorf("after a stop and a start: %s", got)
	}
	for range 2 {
		if err := p.Delete(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, p, s.ID, "")
	if err := p.Delete(t.Context(), s.ID); err != nil {
		t.Errorf("deleting an absent machine: %v", err)
	}
	if err := p.Stop(t.Context(), s.ID); err == nil {
		t.Error("stopping an absent machine succeeded")
	}
}

// A machine whose first process ends by itself has failed, and says its last words.
func TestEndedByItself(t *testing.T) {
	needHost(t)
	cfg := place(t)
	cfg.Init = []string{"/bin/sh", "-c", "echo the agent cannot go on; exit 3"}
	p := open(t, cfg)
	if err := p.Create(t.Context(), spec("m-dead", "lab")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		o, err := p.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m := o.Machines[0]; m.Phase == provider.PhaseFailed {
			if !strings.Contains(m.Reason, "cannot go on") {
				t.Errorf("the reason is %q", m.Reason)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the machine is %+v", o.Machines[0])
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestForeground makes one machine and keeps it until interrupted; see the package comment.
func TestForeground(t *testing.T) {
	bin := os.Getenv("SHOAL_LOCAL_BIN")
	if bin == "" {
		t.Skip("for trying an agent by hand: set SHOAL_LOCAL_BIN")
	}
	cfg := place(t)
	cfg.BinDir, cfg.Init = bin, nil
	if v := os.Getenv("SHOAL_LOCAL_CONTROL"); v != "" {
		cfg.ControlDir = v
	}
	if v := os.Getenv("SHOAL_LOCAL_INIT"); v != "" {
		cfg.Init = strings.Fields(v)
	}
	p := open(t, cfg)
	s := spec("m-try", "lab")
	s.Resources = shoal.Resources{CPUs: 1000, Memory: 1 << 30}
	seen := create(t, p, s)
	fmt.Printf("machine %s at %s\nenter: runc --root %s exec -t %s bash\nlog:   %s\nend:   Ctrl-C, or kill -INT %d\n",
		s.ID, seen.Address, p.path("runc"), s.ID, p.path("machines", "m-try", "init.log"), os.Getpid())
	ctx, stop := signalContext(unix.SIGINT, unix.SIGTERM)
	defer stop()
	<-ctx.Done()
}

func signalContext(signals ...os.Signal) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), signals...)
}
