package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/rig"
)

// alone names, in the environment, the run of this test in a network namespace that nobody else uses.
const alone = "SHOAL_E2E_ALONE"

// A server that made machines, was killed, and ended in order leaves the host as it was: interfaces, packet filter,
// forwarding, listening sockets, control groups of every controller, mounts, processes, accounts.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	needHost(t)
	if os.Getenv(alone) == "" {
		cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--", "/proc/self/exe", "-test.run=^TestNothingIsLeft$", "-test.v")
		cmd.Args[3] = must(t, os.Executable)
		cmd.Env = append(os.Environ(), alone+"=1", "SHOAL_BIN="+binaries)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestNothingIsLeft") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	output(t, "ip", "link", "set", "lo", "up")
	dir := newDir(t)
	before := (&world{World: &rig.World{Dir: dir, Data: filepath.Join(dir, "data")}, t: t}).host()
	w := newWorldIn(t, dir)
	w.apply(2, rig.Pool("lab", "interactive, batch", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 3}", 4, ""))
	w.ssh("u1", "tmux new-session -d 'sleep 1000'; shoal run --wait -- true")
	w.shoal("pool", "scale", "lab", "--size", "3", "--wait")
	w.ssh("u2", "true")
	if len(w.leftovers()) == 0 || len(w.host()) < len(before)+20 {
		t.Fatal("this test sees nothing")
	}
	if err := w.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ssh("u1", "tmux has-session")
	w.onClosed = func() {
		w.clean()
		var changed []string
		if err := rig.Until(context.Background(), patience, "the host is as it was", func() (bool, error) { // the kernel removes interfaces in its own time
			after := w.host()
			changed = nil
			for _, line := range after {
				if !slices.Contains(before, line) {
					changed = append(changed, "left: "+line)
				}
			}
			for _, line := range before {
				if !slices.Contains(after, line) {
					changed = append(changed, "gone: "+line)
				}
			}
			return len(changed) == 0, nil
		}); err != nil {
			t.Errorf("%v\n%s", err, strings.Join(changed, "\n"))
		}
	}
}

func must(t *testing.T, f func() (string, error)) string {
	t.Helper()
	s, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func output(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return string(out)
}

// host describes this host as far as a server might change it, a line each. What belongs to other servers' control
// groups and mounts is left out; the network is this test's own.
func (w *world) host() []string {
	var lines []string
	add := func(kind, text string, keep func(string) bool) {
		for line := range strings.Lines(text) {
			if line = strings.Join(strings.Fields(line), " "); keep == nil || keep(line) {
				lines = append(lines, kind+" "+line)
			}
		}
	}
	ours := func(line string) bool { return strings.Contains(line, w.Dir) || strings.Contains(line, w.tag()) }
	add("link", output(w.t, "ip", "-o", "-br", "link"), nil)
	add("address", output(w.t, "ip", "-o", "-br", "address"), nil)
	add("route", output(w.t, "ip", "route", "show", "table", "all"), nil)
	add("nft", output(w.t, "nft", "list", "ruleset"), nil)
	add("listens", output(w.t, "ss", "-Hlntu"), nil)
	settings, _ := filepath.Glob("/proc/sys/net/ipv[46]/conf/*/*forward*") // the pattern is well formed
	for _, name := range append(settings, "/proc/sys/net/ipv4/ip_forward") {
		b, _ := os.ReadFile(name) // one of an interface may have gone
		add("setting "+name, string(b), nil)
	}
	for _, name := range []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/subuid", "/etc/hosts", "/etc/resolv.conf"} {
		b, _ := os.ReadFile(name) // not each is everywhere
		add(name, string(b), nil)
	}
	add("mount", output(w.t, "cat", "/proc/self/mountinfo"), ours)
	add("left", strings.Join(w.leftovers(), "\n"), nil)
	slices.Sort(lines)
	return lines
}
