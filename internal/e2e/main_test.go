package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

// patience is how long a test waits for what takes a moment on a quiet host.
const patience = 5 * time.Minute

// smallSeats makes logins entitled to next to nothing, so that tasks beside them are not told to go.
const smallSeats = "seat: {cpus: 0.001, memory: 1MiB}\n"

// binaries is where shoal and shoal-agent lie.
var binaries string

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "4"); err != nil { // they wait more than they compute
		panic(err)
	}
	flag.Parse()
	if testing.Short() || os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test leaves itself out
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if binaries = os.Getenv("SHOAL_BIN"); binaries == "" {
		dir, err := os.MkdirTemp("", "shoal-e2e-bin-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binaries = dir
		if err := build(dir, "test", "./cmd/..."); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// lookAtSources lets the cache of test results know what they depend on: the binaries are made behind its back.
var lookAtSources = sync.OnceValue(func() error {
	return rig.LookAt(filepath.Join("..", ".."), filepath.Join(binaries, "shoal"), filepath.Join(binaries, "shoal-agent"))
})

// build builds commands into a directory, or one into a file.
func build(to, version, what string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", to, what)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", what, err, out)
	}
	return nil
}

// prove returns how often something is done: a few times here, the full count with SHOAL_PROVE.
func prove(few, full int) int {
	if os.Getenv("SHOAL_PROVE") != "" {
		return full
	}
	return few
}

// tally has internal/prove add to what a suite has done. It reads these lines.
func tally(t testing.TB, n int, what string) {
	t.Helper()
	t.Logf("counted %d %s", n, what)
}

// repeat numbers rounds, as many as prove says, and counts those that were begun.
func repeat(t testing.TB, few, full int, what string) iter.Seq[int] {
	t.Helper()
	return func(yield func(int) bool) {
		n := 0
		defer func() { tally(t, n, what) }()
		for i := range prove(few, full) {
			if n++; !yield(i) {
				return
			}
		}
	}
}

// needHost leaves a test out where it cannot run. A missing program is a failure.
func needHost(t testing.TB) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real machines need root, and are left out with -short")
	}
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
}

// world is a server of a test's own, which is gone without a trace when the test ends.
type world struct {
	*rig.World
	t        testing.TB
	onClosed func() // before the directory is removed; may be nil
}

// newDir is a fresh directory with a short path, for those of sockets in it.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newWorld starts a server on a fresh directory.
func newWorld(t testing.TB) *world {
	t.Helper()
	needHost(t)
	return newWorldIn(t, newDir(t))
}

func newWorldIn(t testing.TB, dir string, flags ...string) *world {
	t.Helper()
	r, err := rig.New(t.Context(), binaries, dir, flags...)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "serve.log"))
		t.Fatalf("%v\n%s", err, log)
	}
	w := &world{World: r, t: t}
	t.Cleanup(w.close)
	return w
}

// close takes the world down and looks for what is left of it.
func (w *world) close() {
	w.t.Helper()
	if w.Server.ProcessState != nil { // a test left it dead
		if err := w.Start(context.Background()); err != nil {
			w.t.Error(err)
		}
	}
	w.endSessions()
	w.empty()
	if err := w.Close(); err != nil {
		w.t.Errorf("the end: %v", err)
	}
	if w.t.Failed() {
		w.t.Logf("the log of the server ends with:\n%s", w.logTail())
	}
	if w.onClosed != nil {
		w.onClosed()
	}
	w.clean()
	if err := os.RemoveAll(w.Dir); err != nil {
		w.t.Error(err)
	}
}

// endSessions ends what would keep machines for a while. What people left running there, a tmux for one, ends with
// the machines.
func (w *world) endSessions() {
	w.t.Helper()
	all, err := w.Client.Sessions(context.Background(), client.SessionQuery{})
	if err != nil {
		w.t.Error(err)
	}
	for _, s := range all {
		if err := w.Client.EndSession(context.Background(), s.ID); err != nil && shoal.KindOf(err) != shoal.KindNotFound && shoal.KindOf(err) != shoal.KindConflict {
			w.t.Errorf("session %s cannot be ended: %v", s.ID, err)
		}
	}
}

// empty deletes all machines, whoever is on them, and keeps the pools from making others. Pools that are being
// deleted are gone when it returns.
func (w *world) empty() {
	w.t.Helper()
	pools, err := w.Client.Pools(context.Background())
	if err != nil {
		w.t.Error(err)
	}
	for _, p := range pools {
		if p.Deleting {
			continue
		}
		if _, err := w.Client.ScalePool(context.Background(), p.Name, api.ScaleRequest{Size: 0}); err != nil {
			w.t.Error(err)
		}
	}
	machines, err := w.Client.Machines(context.Background(), client.MachineQuery{})
	if err != nil {
		w.t.Error(err)
	}
	for _, m := range machines {
		if err := w.Client.DeleteMachine(context.Background(), m.ID, true); err != nil && shoal.KindOf(err) != shoal.KindNotFound && shoal.KindOf(err) != shoal.KindConflict {
			w.t.Errorf("machine %s cannot be deleted: %v", m.ID, err)
		}
	}
	err = rig.Until(context.Background(), patience, "no pool is being deleted", func() (bool, error) {
		pools, err := w.Client.Pools(context.Background())
		return !slices.ContainsFunc(pools, func(p shoal.Pool) bool { return p.Deleting }), err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// clean waits until nothing on the host is the server's.
func (w *world) clean() {
	w.t.Helper()
	var left []string
	err := rig.Until(context.Background(), patience, "nothing is left", func() (bool, error) {
		left = w.leftovers()
		return len(left) == 0, nil
	})
	if err != nil {
		w.t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
	}
}

func (w *world) logTail() string {
	log, _ := os.ReadFile(filepath.Join(w.Dir, "serve.log")) // without a log there is nothing to show
	lines := strings.Split(string(log), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// tag is what the server's networks and control groups are named by.
func (w *world) tag() string {
	sum := sha256.Sum256([]byte(filepath.Join(w.Data, "local")))
	return hex.EncodeToString(sum[:3])
}

// leftovers lists what is the server's on this host, outside its directory: by its tag, or by a mount or an
// argument with the directory in it.
func (w *world) leftovers() []string {
	var left []string
	for _, dir := range []string{"/sys/class/net", "/run", "/run/runc", "/run/netns", "/opt"} {
		names, _ := filepath.Glob(filepath.Join(dir, "*"+w.tag()+"*")) // the pattern is well formed
		left = append(left, names...)
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), w.tag()) {
			left = append(left, path)
			return fs.SkipDir
		}
		return nil // what has just gone is not left
	})
	out, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		left = append(left, "nft: "+err.Error())
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, w.tag()) {
			left = append(left, "nft "+strings.TrimSpace(line))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		left = append(left, "mounts: "+err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, w.Dir+"/") {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	return append(left, w.processes()...)
}

// processes lists those that have the world's directory among their arguments or mounts.
func (w *world) processes() []string {
	var left []string
	pids, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, pid := range pids {
		if pid == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		args, _ := os.ReadFile(pid + "/cmdline")
		if bytes.Contains(args, []byte(w.Dir)) || w.sees(pid) {
			left = append(left, pid+" "+strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " ")))
		}
	}
	return left
}

// sees reports whether a process has the world's directory mounted elsewhere, as machines have. What is mounted in the directory itself is in
// every namespace of mounts that began meanwhile, those of other tests too.
func (w *world) sees(pid string) bool {
	mounts, _ := os.ReadFile(pid + "/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(line, w.Dir+"/") && !strings.HasPrefix(f[4], w.Dir+"/") {
			return true
		}
	}
	return false
}

// apply applies users and documents.
func (w *world) apply(users int, documents ...string) {
	w.t.Helper()
	if err := w.Apply(w.t.Context(), users, strings.Join(documents, "")); err != nil {
		w.t.Fatal(err)
	}
}

// shoal runs the command line as the host's root.
func (w *world) shoal(args ...string) string {
	w.t.Helper()
	out, err := w.Shoal(w.t.Context(), args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// as returns a client that acts as a user.
func (w *world) as(user shoal.UserName) *client.Client { w.t.Helper(); return w.asAt("", user) }

// asAt is as at a socket; empty: the server's.
func (w *world) asAt(socket string, user shoal.UserName) *client.Client {
	w.t.Helper()
	if socket == "" {
		socket = filepath.Join(w.Data, "shoal.sock")
	}
	c, err := client.New(client.Options{Socket: socket, As: user})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// ssh runs a command through the gateway and returns what it printed.
func (w *world) ssh(login, command string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	out, err := rig.Output(w.SSH(ctx, login, command))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// ready waits until a pool has n ready machines.
func (w *world) ready(pool string, n int) []shoal.Machine {
	w.t.Helper()
	list, err := w.Ready(w.t.Context(), pool, n, patience)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// until waits for something of the real world to be so.
func (w *world) until(what string, is func() (bool, error)) {
	w.t.Helper()
	if err := rig.Until(w.t.Context(), patience, what, is); err != nil {
		w.t.Fatal(err)
	}
}

// pids lists the processes of a machine, in its control group, whose arguments contain a text.
func (w *world) pids(id shoal.MachineID, text string) []int {
	w.t.Helper()
	var list []int
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" || !strings.Contains(path, w.tag()) || !strings.Contains(path, "/"+string(id)+"/") {
			return nil
		}
		b, _ := os.ReadFile(path)
		for f := range strings.FieldsSeq(string(b)) {
			args, _ := os.ReadFile("/proc/" + f + "/cmdline")
			var pid int
			if _, err := fmt.Sscan(f, &pid); err == nil && strings.Contains(strings.ReplaceAll(string(args), "\x00", " "), text) && !slices.Contains(list, pid) {
				list = append(list, pid)
			}
		}
		return nil
	})
	return list
}
