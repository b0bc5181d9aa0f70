package local

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/provider"
)

func victimConfig(dir string) Config {
	return Config{Dir: filepath.Join(dir, "local"), ControlDir: filepath.Join(dir, "agent"), Init: waiter(),
		StopGrace: 50 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

// victim makes and unmakes machines at random, and says what was accepted, until it is killed.
func victim(dir string) {
	ctx := context.Background()
	p, err := New(ctx, victimConfig(dir))
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	fmt.Println("open")
	for {
		s := spec(fmt.Sprintf("m-%d", rand.IntN(6)), "lab")
		op := []string{"create", "create", "start", "stop", "delete"}[rand.IntN(5)]
		fmt.Println("try", s.ID, op)
		switch op {
		case "create":
			err = p.Create(ctx, s)
		case "start":
			err = p.Start(ctx, s)
		case "stop":
			err = p.Stop(ctx, s.ID)
		case "delete":
			err = p.Delete(ctx, s.ID)
		}
		if err == nil {
			fmt.Println("done", s.ID, op)
		} else {
			fmt.Println("refused", s.ID, op)
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
	}
}

// intents is what a victim was told is accepted, by machine.
type intents struct {
	sure map[shoal.MachineID]string
	// murky are the machines whose last operation was under way when the victim was killed: it may have been
	// accepted or not, until a start or a delete makes that plain.
	murky map[shoal.MachineID]bool
}

// done takes note of an accepted operation.
func (n *intents) done(id shoal.MachineID, op string) {
	switch {
	case op == "start" || op == "delete":
		n.sure[id] = op
		delete(n.murky, id)
	case n.murky[id]:
	case op == "stop" && n.sure[id] != "delete": // what is being deleted has stopped
		n.sure[id] = op
	case op == "create" && (n.sure[id] == "" || n.sure[id] == "delete"): // of one that is there it changes nothing
		n.sure[id] = op
	}
}

// kill lets a victim work for a while and kills it.
func (n *intents) kill(t *testing.T, dir string, after time.Duration) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "SHOAL_LOCAL_VICTIM="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var under shoal.MachineID
	for lines.Scan() {
		switch f := strings.Fields(lines.Text()); f[0] {
		case "open":
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		case "try":
			under = shoal.MachineID(f[1])
		case "done", "refused":
			under = ""
			if f[0] == "done" {
				n.done(shoal.MachineID(f[1]), f[2])
			}
		default:
			t.Errorf("the victim says: %s", lines.Text())
		}
	}
	if under != "" {
		n.murky[under] = true
	}
	_ = cmd.Wait() // it was killed
}

// The server is killed again and again; the next finds and does all that was accepted, and in the end
// nothing is left of either.
func TestServerDies(t *testing.T) {
	needHost(t)
	dir := t.TempDir()
	n := &intents{sure: map[shoal.MachineID]string{}, murky: map[shoal.MachineID]bool{}}
	for round := range 6 {
		after := time.Duration(20+rand.IntN(2500)) * time.Millisecond
		t.Logf("round %d: killed after %s", round, after)
		n.kill(t, dir, after)
	}
	p, err := New(t.Context(), victimConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, p) })
	eventually(t, func() error { return n.hold(t, p) })
	for id := range n.sure { // all are as usable as if nothing had been
		if err := p.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
		wait(t, p, id, "")
		create(t, p, spec(string(id), "lab"))
		must(t, p, id, "getent hosts $(hostname)")
	}
	finish(t, p)
	clean(t, p)
}

// hold reports an intent that is not fulfilled.
func (n *intents) hold(t *testing.T, p *Provider) error {
	o, err := p.Observe(t.Context())
	if err != nil {
		return err
	}
	phase := map[shoal.MachineID]provider.Phase{}
	for _, m := range o.Machines {
		phase[m.ID] = m.Phase
		if m.Phase == provider.PhaseCreating || m.Phase == provider.PhaseStopping {
			return fmt.Errorf("%s is %s", m.ID, m.Phase)
		}
	}
	for id, op := range n.sure {
		want := map[string]provider.Phase{"create": provider.PhaseRunning, "start": provider.PhaseRunning, "stop": provider.PhaseStopped, "delete": ""}[op]
		if !n.murky[id] && phase[id] != want {
			return fmt.Errorf("%s is %q after %s was accepted", id, phase[id], op)
		}
	}
	return nil
}

// runc is killed at any moment; the machine is made at another try, or has failed and can be deleted.
func TestRuncDies(t *testing.T) {
	needHost(t)
	p := open(t, place(t))
	create(t, p, spec("m-first", "lab")) // the image is made
	script := filepath.Join(t.TempDir(), "runc")
	text := fmt.Sprintf("#!/bin/bash\nexec timeout -s KILL 0.0$((RANDOM %% 50 + 15)) %s \"$@\"\n", p.runc)
	need.Script(t, script, text)
	p.runc = script
	ids := []shoal.MachineID{}
	for i := range 12 {
		s := spec(fmt.Sprintf("m-%d", i), "lab")
		ids = append(ids, s.ID)
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	counts := map[provider.Phase]int{}
	eventually(t, func() error {
		o, err := p.Observe(t.Context())
		clear(counts)
		for _, m := range o.Machines {
			counts[m.Phase]++
		}
		if err == nil && counts[provider.PhaseCreating] > 0 {
			err = fmt.Errorf("still being made: %v", counts)
		}
		return err
	})
	t.Logf("under a runc that is killed, machines are %v", counts)
	for _, id := range ids {
		if p.find(id).alive() {
			must(t, p, id, "true")
		}
		if err := p.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	for _, id := range ids {
		wait(t, p, id, "")
	}
	left, err := leftovers(p)
	if err != nil {
		t.Error(err)
	}
	for _, l := range left {
		if !strings.HasSuffix(strings.TrimSuffix(l, "/"), "/m-first") && !strings.HasPrefix(l, "/sys/class/net/") {
			t.Errorf("left: %s", l)
		}
	}
	finish(t, p)
	clean(t, p)
}

// A full disk refuses a machine, and leaves nothing of it; those that run go on.
func TestFullDisk(t *testing.T) {
	needHost(t)
	cfg := place(t)
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", cfg.Dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cfg.Dir, unix.MNT_DETACH) })
	p := open(t, cfg)
	create(t, p, spec("m-1", "lab"))
	filler := filepath.Join(cfg.Dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	s := spec("m-2", "lab")
	e, ok := p.Create(t.Context(), s).(*provider.Error)
	if !ok || e.Code != provider.Transient || !strings.Contains(e.Error(), "no space") {
		t.Errorf("a create on a full disk: %v", e)
	}
	if err := p.Stop(t.Context(), "m-1"); err == nil {
		t.Error("a stop that could not be recorded was accepted")
	}
	o, err := p.Observe(t.Context())
	if err != nil || len(o.Machines) != 1 || o.Machines[0].Phase != provider.PhaseRunning {
		t.Errorf("after that there are %+v, %v", o.Machines, err)
	}
	must(t, p, "m-1", "true")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	create(t, p, s)
}
