package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
	"github.com/shoal-pool/shoal/internal/need"
)

// startAs starts a script as somebody.
func startAs(t *testing.T, uid int, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	must(t, cmd.Start())
	return cmd
}

// Copies of the output are written as it comes, as the user.
func TestCopies(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		home, _ := b.cfg.Lookup("alice")
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(home.Home, name))
			return string(text)
		}
		o := order("1", "echo one; until [ -e go ]; do sleep 0.02; done; echo two; echo err >&2", func(o *api.TaskOrder) {
			o.Stdout, o.Stderr = "log", home.Home+"/err log"
		})
		b.runner.Start(o)
		b.until("the first line is in the copy", func() bool { return read("log") == "one\n" })
		must(t, os.WriteFile(filepath.Join(home.Home, "go"), nil, 0o644))
		s := b.end(o.Ref)
		if s.report.State != shoal.JobSucceeded || s.report.Reason != "" || read("log") != "one\ntwo\n" || read("err log") != "err\n" {
			t.Errorf("%+v: %q, %q", s.report, read("log"), read("err log"))
		}
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Join(home.Home, "log"), &st))
		if st.Uid != firstUID {
			t.Errorf("the copy is %d's", st.Uid)
		}
		// Another attempt goes on with the file; another job begins it anew. Both streams may go into one.
		again := func(job string, attempt int) {
			s := b.run(order(job, "last() { until [ \"$(tail -n 1 log)\" = $1 ]; do sleep 0.02; done; }; echo out; last out; echo err >&2; last err; echo out", func(o *api.TaskOrder) {
				o.Ref.Attempt, o.Stdout, o.Stderr = attempt, "log", "log"
			}))
			if s.report.State != shoal.JobSucceeded {
				t.Errorf("%+v", s.report)
			}
		}
		again("1", 2)
		if read("log") != "one\ntwo\nout\nerr\nout\n" {
			t.Errorf("gone on with: %q", read("log"))
		}
		again("2", 1)
		if read("log") != "out\nerr\nout\n" {
			t.Errorf("begun anew: %q", read("log"))
		}
		// All of a long output is there when the end is told.
		if s := b.run(order("3", "head -c 5000000 /dev/zero", func(o *api.TaskOrder) { o.Stdout = "log" })); len(s.out[0]) != 5_000_000 || len(read("log")) != 5_000_000 {
			t.Errorf("%d bytes of %d were copied", len(read("log")), len(s.out[0]))
		}
	})
}

func TestCopiesThatFail(t *testing.T) {
	b := newBox(t, true)
	shut := filepath.Join(b.dir, "shut")
	must(t, os.Mkdir(shut, 0o755))
	if err := unix.Mount("tmpfs", shut, "tmpfs", 0, "size=64k,mode=1777"); err != nil {
		need.Missing(t, "a small file system cannot be mounted: "+err.Error())
	}
	defer unix.Unmount(shut, unix.MNT_DETACH)
	s := b.run(order("1", "head -c 1000000 /dev/zero; exit 3", func(o *api.TaskOrder) { o.Stdout = shut + "/log" }))
	if r := s.report; r.ExitCode != 3 || len(s.out[0]) != 1_000_000 || !strings.Contains(r.Reason, "the copy of its output in "+shut+"/log is not whole: no space left on device") {
		t.Errorf("%+v", r)
	}
	must(t, unix.Mount("", shut, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	for i, c := range []struct{ path, reason string }{
		{shut + "/other", "read-only file system"},
		{"/no/such/directory/log", "directory nonexistent"},
		{b.cfg.Dir + "/log", "permission denied"},
		{"/", "directory"},
	} {
		r := b.run(order(fmt.Sprint(i+2), "echo never", func(o *api.TaskOrder) { o.Stderr = c.path })).report
		if r.State != shoal.JobFailed || r.Cause != shoal.CauseSetupFailed || r.StdoutBytes != 0 ||
			!strings.HasPrefix(r.Reason, "cannot write its stderr to "+c.path+" as alice: ") || !strings.Contains(r.Reason, c.reason) {
			t.Errorf("%s: %+v", c.path, r)
		}
	}
}

// The signal ahead of the limit reaches what wants it, and not the shell that waits for it.
func TestSignalAhead(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		const wants = `trap 'echo saved; exit 0' USR1; echo ready; while :; do sleep 0.02; done`
		var refs []shoal.AttemptRef
		for i, c := range []string{wants, "sh -c '" + strings.ReplaceAll(wants, "'", `"`) + "'; exit 0", "exec sleep 1000"} {
			o := order(fmt.Sprint(i+1), c, func(o *api.TaskOrder) {
				o.Signal, o.SignalAhead, o.TimeLimit = "USR1", shoal.Duration(time.Minute), shoal.Duration(time.Minute+trapTime)
			})
			b.runner.Start(o)
			refs = append(refs, o.Ref)
		}
		for _, ref := range refs[:2] {
			if s := b.end(ref); s.report.State != shoal.JobSucceeded || string(s.out[0]) != "ready\nsaved\n" {
				t.Errorf("%+v %q %s", s.report, s.out[0], s.out[1])
			}
		}
		if r := b.end(refs[2]).report; r.Cause != shoal.CauseSignal || r.Signal != int(unix.SIGUSR1) {
			t.Errorf("%+v", r)
		}
		if r := b.run(order("4", "true", func(o *api.TaskOrder) { o.Signal = "USR9" })).report; r.Cause != shoal.CauseSetupFailed || !strings.Contains(r.Reason, `no signal "USR9"`) {
			t.Errorf("%+v", r)
		}
	})
}

// However a task ends, the end names each byte that it wrote, nothing of it runs any more, and what it used is known.
func TestEndsAreExact(t *testing.T) {
	b := newBox(t, true)
	const flood = `trap 'echo "term $i"; exit 1' TERM; i=0; (setsid sh -c 'trap "" TERM; while :; do echo deaf; sleep 0.01; done' &); while :; do i=$((i+1)); echo "$i"; done`
	for i, c := range []struct {
		state shoal.JobState
		cause shoal.Cause
	}{{shoal.JobCancelled, shoal.CauseCancelled}, {shoal.JobPreempted, shoal.CausePreempted}, {shoal.JobTimedOut, shoal.CauseTimeLimit}} {
		o := order(fmt.Sprint(i+1), flood, func(o *api.TaskOrder) { o.Grace = shoal.Duration(time.Second) })
		if c.state == shoal.JobTimedOut {
			o.TimeLimit = shoal.Duration(trapTime)
		}
		b.runner.Start(o)
		b.says(o.Ref, "deaf\n")
		if c.state != shoal.JobTimedOut {
			b.runner.Stop(api.StopOrder{Ref: o.Ref, State: c.state})
		}
		s := b.end(o.Ref) // which compares the bytes
		if left := processesOf(firstUID); len(left) != 0 {
			t.Errorf("%s: left %v", c.state, left)
		}
		out := string(s.out[0])
		m := regexp.MustCompile(`term (\d+)\n`).FindStringSubmatch(out)
		if m == nil || s.report.State != c.state || s.report.Cause != c.cause || s.report.CPUTime <= 0 || s.report.MaxMemory <= 0 {
			t.Fatalf("%+v: %.100s", s.report, out)
		}
		// All numbers up to the last are there, each once.
		last, _ := strconv.Atoi(m[1])
		next := 1
		for l := range strings.Lines(out) {
			if n, err := strconv.Atoi(strings.TrimSpace(l)); err == nil {
				if n != next {
					t.Fatalf("%s: %d follows %d", c.state, n, next-1)
				}
				next++
			}
		}
		if next-1 != last && next-1 != last-1 {
			t.Errorf("%s: the last of %d lines is %d", c.state, last, next-1)
		}
	}
}

// One that makes room has the least share of the processor from the first moment on, and its user's slice as well.
func TestPreemptedIsWeak(t *testing.T) {
	b := newBox(t, true)
	if !b.cfg.Groups.Offers("cpu") {
		t.Skip("no weights here")
	}
	weights := func(rel string) []string {
		var out []string
		files, _ := filepath.Glob("/sys/fs/cgroup/*/" + b.cfg.Groups.Config().Parent + "/" + rel + "/cpu.shares")
		more, _ := filepath.Glob("/sys/fs/cgroup/" + b.cfg.Groups.Config().Parent + "/" + rel + "/cpu.weight")
		for _, f := range append(files, more...) {
			text, _ := os.ReadFile(f)
			out = append(out, strings.TrimSpace(string(text)))
		}
		return out
	}
	leaf := func(o api.TaskOrder) string {
		name, err := tasks.FileName(o.Ref)
		must(t, err)
		rec, err := tasks.ReadRecord(b.cfg.Dir, name)
		must(t, err)
		return fmt.Sprintf("u%d/%s", firstUID, rec.Group)
	}
	least := func(list []string) bool { return len(list) == 1 && (list[0] == "1" || list[0] == "2") }
	var orders []api.TaskOrder
	for i := range 2 {
		orders = append(orders, order(fmt.Sprint(i+1), "trap '' TERM; echo ready; while :; do sleep 0.02; done", func(o *api.TaskOrder) { o.Grace = shoal.Duration(time.Minute) }))
		b.runner.Start(orders[i])
		b.says(orders[i].Ref, "ready")
	}
	b.runner.Stop(api.StopOrder{Ref: orders[0].Ref, State: shoal.JobPreempted})
	b.until("the first is weak", func() bool { return least(weights(leaf(orders[0]))) })
	if w := weights(fmt.Sprintf("u%d", firstUID)); least(w) {
		t.Errorf("her other task suffers: %v", w)
	}
	b.runner.Stop(api.StopOrder{Ref: orders[1].Ref, State: shoal.JobPreempted})
	b.until("both are", func() bool {
		return least(weights(leaf(orders[1]))) && least(weights(fmt.Sprintf("u%d", firstUID)))
	})
	third := order("3", "echo ready; sleep 1000")
	b.runner.Start(third)
	b.says(third.Ref, "ready")
	if w := weights(fmt.Sprintf("u%d", firstUID)); least(w) {
		t.Errorf("her next task finds a weak slice: %v", w)
	}
	// What may not wait does not wait for the grace.
	for _, o := range orders {
		b.runner.Stop(api.StopOrder{Ref: o.Ref, State: shoal.JobLost})
	}
	for _, o := range orders {
		if r := b.end(o.Ref).report; r.State != shoal.JobPreempted {
			t.Errorf("%+v", r)
		}
	}
}

// What a task is told to have used is its own, whoever had its control group before; and so is whether its memory
// was too little.
func TestUseIsTheTasksOwn(t *testing.T) {
	b := newBox(t, true)
	if !b.cfg.Groups.Offers("memory") {
		t.Skip("nothing is counted here")
	}
	limits := func(o *api.TaskOrder) { o.Resources = shoal.Resources{CPUs: 1000, Memory: 96 << 20} }
	job := 0
	run := func(command string) api.TaskReport {
		job++
		return b.run(order(fmt.Sprint(job), command, limits)).report
	}
	light := func(after string) {
		t.Helper()
		for range 3 {
			if r := run("true"); r.State != shoal.JobSucceeded || r.MaxMemory > 8<<20 || r.MaxMemory == 0 || r.CPUTime > shoal.Duration(100*time.Millisecond) || r.CPUTime == 0 {
				t.Errorf("after %s: %+v", after, r)
			}
		}
	}
	light("nothing")
	if r := run("head -c 50000000 /dev/zero | tail -c 50000000 | wc -c; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"); r.MaxMemory < 40<<20 || r.CPUTime < shoal.Duration(100*time.Millisecond) {
		t.Errorf("a heavy one: %+v", r)
	}
	light("a heavy one")
	if r := run("tail /dev/zero"); r.Cause != shoal.CauseOOM {
		t.Errorf("one that needs too much: %+v", r)
	}
	if r := run("exit 1"); r.Cause != shoal.CauseExit {
		t.Errorf("after one that needed too much: %+v", r)
	}
	light("one that needed too much")
	if r := run("(setsid sleep 1000 &) ; sleep 0.05"); r.State != shoal.JobSucceeded {
		t.Errorf("one that leaves something: %+v", r)
	}
	light("one that left something")
}

// A scratch directory that served another task is empty, and its user's alone again.
func TestScratchIsEmpty(t *testing.T) {
	b := newBox(t, true)
	const look = `ls -A "$SHOAL_SCRATCH"; stat -c %a "$SHOAL_SCRATCH"; `
	for i, c := range []string{"true", `touch "$SHOAL_SCRATCH/a"`, "true", `mkdir "$SHOAL_SCRATCH/b"; rmdir "$SHOAL_SCRATCH/b"; chmod 755 "$SHOAL_SCRATCH"`, "true", "true"} {
		if s := b.run(order(fmt.Sprint(i+1), look+c)); s.report.State != shoal.JobSucceeded || string(s.out[0]) != "700\n" {
			t.Errorf("%d: %+v %q", i, s.report, s.out[0])
		}
	}
}
