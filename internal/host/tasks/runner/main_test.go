package runner

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
	"github.com/shoal-pool/shoal/internal/host/tasks/supervisor"
)

// TestMain is also the agent's binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "task" {
		os.Exit(supervisor.Main(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == "runner" {
		os.Exit(runnerMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what takes a moment.
const patience = 3 * time.Minute

// box is a machine's part of the world: a directory, users, control groups.
type box struct {
	t      testing.TB
	dir    string
	cfg    Config
	runner *Runner
	state  map[shoal.AttemptRef]*seen
}

// seen is what the control plane would know of an attempt.
type seen struct {
	out    [2][]byte
	report api.TaskReport
	states []shoal.JobState
}

const firstUID = 28501 // nobody else's on this host

func users() map[shoal.UserName]tasks.Person {
	return map[shoal.UserName]tasks.Person{
		"alice": {UID: firstUID, GID: firstUID, Groups: []int{30001, firstUID}, Shell: "/bin/bash"},
		"bob":   {UID: firstUID + 1, GID: firstUID + 1},
	}
}

// newBox makes a box, with control groups or without.
func newBox(t testing.TB, groups bool, change ...func(*Config)) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("tasks run as their users, which needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "shoal-tasks-")
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, state: map[shoal.AttemptRef]*seen{}}
	must(t, os.Chmod(dir, 0o711))
	people := users()
	for name, p := range people {
		p.Home = filepath.Join(dir, "home-"+string(name))
		must(t, os.Mkdir(p.Home, 0o700))
		must(t, os.Chown(p.Home, p.UID, p.GID))
		people[name] = p
	}
	exe, err := os.Executable()
	must(t, err)
	b.cfg = Config{Dir: filepath.Join(dir, "tasks"), Places: tasks.Places{Scratch: filepath.Join(dir, "scratch"), Run: filepath.Join(dir, "run")}, Agent: exe, Idle: 100 * time.Millisecond,
		Lookup: func(n shoal.UserName) (tasks.Person, bool) { p, ok := people[n]; return p, ok },
		Log:    slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if groups {
		parent := fmt.Sprintf("shoal-tasks-test-%d-%d", os.Getpid(), boxes.Add(1))
		if b.cfg.Groups, err = cgroups.Open(cgroups.Config{Parent: parent}); err != nil {
			t.Skipf("no control groups here: %v", err)
		}
		t.Cleanup(func() { b.removeGroups(parent) })
	}
	for _, c := range change {
		c(&b.cfg)
	}
	t.Cleanup(b.close)
	b.open()
	return b
}

var boxes atomic.Int64

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *box) open() {
	b.t.Helper()
	var err error
	if b.runner, err = Open(b.cfg); err != nil {
		b.t.Fatal(err)
	}
}

// close ends what runs, and sees that nothing stays.
func (b *box) close() {
	b.t.Helper()
	if b.runner == nil {
		b.open()
	}
	b.runner.Want(nil)
	b.until("all tasks have ended", func() bool { return len(b.runner.Running()) == 0 })
	b.forgetAll()
	b.until("the supervisor has gone", func() bool {
		lock, err := b.runner.supervisorLock()
		if err == nil {
			lock.Close()
		}
		return err == nil
	})
	must(b.t, b.runner.Close())
	if left := processesOf(firstUID, firstUID+1); len(left) != 0 {
		b.t.Errorf("processes are left: %v", left)
	}
	for _, dir := range []string{b.cfg.Scratch, b.cfg.Files(), b.cfg.Jobs()} {
		b.until("nothing is left in "+dir, func() bool { entries, _ := os.ReadDir(dir); return len(entries) == 0 })
	}
	must(b.t, os.RemoveAll(b.dir))
}

// forgetAll forgets all attempts and jobs.
func (b *box) forgetAll() {
	var f api.ForgetTask
	b.runner.mu.Lock()
	for ref := range b.runner.attempts {
		f.Refs = append(f.Refs, ref)
	}
	for id := range b.runner.jobs {
		f.Jobs = append(f.Jobs, id)
	}
	b.runner.mu.Unlock()
	b.runner.Forget(f)
}

func (b *box) removeGroups(parent string) {
	if err := errors.Join(b.cfg.Groups.Sweep(), b.cfg.Groups.Prune()); err != nil {
		b.t.Error(err)
	}
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + parent)
	more, _ := filepath.Glob("/sys/fs/cgroup/" + parent)
	for _, d := range append(dirs, more...) {
		if err := unix.Rmdir(d); err != nil {
			b.t.Errorf("%s stays: %v", d, err)
		}
	}
}

// processesOf lists living processes of uids.
func processesOf(uids ...int) (out []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		var st unix.Stat_t
		if unix.Stat(d, &st) != nil {
			continue
		}
		for _, uid := range uids {
			if int(st.Uid) == uid {
				cmd, _ := os.ReadFile(d + "/cmdline")
				status, _ := os.ReadFile(d + "/stat")
				if !strings.Contains(string(status), ") Z ") && len(status) > 0 {
					out = append(out, filepath.Base(d)+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
				}
			}
		}
	}
	return out
}

func (b *box) until(what string, f func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("it does not come to pass that %s", what)
		}
	}
}

func ref(job string, index, attempt int) shoal.AttemptRef {
	return shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: shoal.JobID(job), Index: index}, Attempt: attempt}
}

// order is one of alice's.
func order(job, command string, change ...func(*api.TaskOrder)) api.TaskOrder {
	o := api.TaskOrder{Ref: ref(job, 0, 1), User: "alice", Command: command, Env: map[string]string{"SHOAL_JOB_ID": job}, Grace: shoal.Duration(300 * time.Millisecond)}
	for _, c := range change {
		c(&o)
	}
	return o
}

// pump takes what there is to report, as the control plane would.
func (b *box) pump() {
	b.t.Helper()
	reports, output, sent := b.runner.Collect(1 << 20)
	for _, o := range output {
		b.take(o)
	}
	for _, r := range reports {
		s := b.of(r.Ref)
		if over(s.report.State) && s.report.State != r.State {
			b.t.Errorf("%s: %s after %s", r.Ref, r.State, s.report.State)
		}
		s.report = r
		s.states = append(s.states, r.State)
		if r.State.Ended() {
			if int64(len(s.out[0])) != r.StdoutBytes || int64(len(s.out[1])) != r.StderrBytes {
				b.t.Errorf("%s ended with %d and %d bytes of output, after %d and %d were sent", r.Ref, r.StdoutBytes, r.StderrBytes, len(s.out[0]), len(s.out[1]))
			}
		}
	}
	sent()
}

// over reports whether a state was reported that is an end.
func over(s shoal.JobState) bool { return s != "" && s.Ended() }

func (b *box) of(ref shoal.AttemptRef) *seen {
	if b.state[ref] == nil {
		b.state[ref] = &seen{}
	}
	return b.state[ref]
}

func (b *box) take(o api.Output) {
	b.t.Helper()
	s := b.of(o.Ref)
	i := 0
	if o.Stream == "stderr" {
		i = 1
	}
	if o.Offset > int64(len(s.out[i])) {
		b.t.Errorf("%s: a gap in %s before %d", o.Ref, o.Stream, o.Offset)
		return
	}
	again := s.out[i][o.Offset:]
	if n := min(len(again), len(o.Data)); !bytes.Equal(again[:n], o.Data[:n]) {
		b.t.Errorf("%s: %s at %d is not what it was", o.Ref, o.Stream, o.Offset)
	}
	if len(o.Data) > len(again) {
		s.out[i] = append(s.out[i][:o.Offset], o.Data...)
	}
}

// end waits for the end of an attempt.
func (b *box) end(ref shoal.AttemptRef) *seen {
	b.t.Helper()
	b.until(ref.String()+" has ended", func() bool { b.pump(); return over(b.of(ref).report.State) })
	return b.of(ref)
}

// run runs an order to its end.
func (b *box) run(o api.TaskOrder) *seen {
	b.t.Helper()
	b.runner.Start(o)
	return b.end(o.Ref)
}

// says waits until an attempt has written something to stdout.
func (b *box) says(ref shoal.AttemptRef, text string) {
	b.t.Helper()
	b.until(ref.String()+" says "+text, func() bool { b.pump(); return strings.Contains(string(b.of(ref).out[0]), text) })
}

// supervisorPID is that of the box's.
func (b *box) supervisorPID() int {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.cfg.Dir, "supervisor.lock"))
	must(b.t, err)
	var pid int
	if _, err := fmt.Sscan(string(raw), &pid); err != nil {
		b.t.Fatal(err)
	}
	return pid
}

// both runs a test with control groups and without.
func both(t *testing.T, f func(t *testing.T, b *box)) {
	t.Run("groups", func(t *testing.T) { f(t, newBox(t, true)) })
	t.Run("without", func(t *testing.T) { f(t, newBox(t, false)) })
}
