package runner

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

func TestTaskRunsAsItsUser(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		s := b.run(order("1", `id -u; id -g; id -G; pwd; umask; env | grep -E '^(HOME|USER|LOGNAME|SHELL|PATH|LANG|SHOAL_[A-Z_]*|X)=' | sort
			stat -c '%u %a' "$SHOAL_SCRATCH"; touch "$SHOAL_SCRATCH/a"; echo err >&2; echo "to stdout" > /dev/stdout; echo more > /dev/stderr; cat; exec 3>/dev/tty`,
			func(o *api.TaskOrder) { o.Env["X"] = "a b" }))
		home, _ := b.cfg.Lookup("alice")
		scratch := filepath.Join(b.cfg.Scratch, "1.0.1")
		want := fmt.Sprintf("28501\n28501\n28501 30001\n%[1]s\n0022\nHOME=%[1]s\nLANG=C.UTF-8\nLOGNAME=alice\nPATH=%[2]s\nSHELL=/bin/bash\nSHOAL_JOB_ID=1\nSHOAL_SCRATCH=%[3]s\nUSER=alice\nX=a b\n28501 700\nto stdout\n", home.Home, "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games", scratch)
		if string(s.out[0]) != want {
			t.Errorf("stdout:\n%s\nwant:\n%s", s.out[0], want)
		}
		if !strings.HasPrefix(string(s.out[1]), "err\nmore\n") || !strings.Contains(string(s.out[1]), "/dev/tty") {
			t.Errorf("stderr: %s", s.out[1])
		}
		r := s.report
		if r.State != shoal.JobFailed || r.Cause != shoal.CauseExit || r.ExitCode != 2 || r.Started.IsZero() || r.Ended.Before(r.Started) {
			t.Errorf("report %+v", r)
		}
		if _, err := os.Stat(scratch); err == nil {
			t.Error("the scratch directory stays")
		}
	})
}

func TestTimersOfTasksAreOnTime(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		s := b.run(order("1", `read own < /proc/$$/timerslack_ns; echo "$own"`))
		if own := strings.TrimSpace(string(s.out[0])); own != "50000" {
			t.Errorf("a task's timers may be %s ns late, which is not as usual: 50000", own)
		}
		own, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", b.supervisorPID()))
		must(t, err)
		if late := strings.TrimSpace(string(own)); late != fmt.Sprint(supervisorSlack.Nanoseconds()) {
			t.Errorf("the supervisor's timers may be %s ns late, not %d", late, supervisorSlack.Nanoseconds())
		}
	})
}

func TestSignalsOfTasksAreAsUsual(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		s := b.run(order("1", `while read -r name set; do case $name in SigIgn: | SigBlk:) echo "$set" ;; esac; done < /proc/self/status`))
		const usual = 1<<31 - 1 // those up to 31: the C library's own, 32 and 33, are as whoever started the agent left them
		sets := strings.Fields(string(s.out[0]))
		if len(sets) != 2 {
			t.Errorf("a task's signals: %q", sets)
		}
		for _, set := range sets {
			if n, err := strconv.ParseUint(set, 16, 64); err != nil || n&usual != 0 {
				t.Errorf("a task begins with signals blocked or ignored:\n%s", s.out[0])
			}
		}
		for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE} {
			must(t, syscall.Kill(b.supervisorPID(), signal))
		}
		if r := b.run(order("2", "true")).report; r.State != shoal.JobSucceeded {
			t.Errorf("a task after signals to the supervisor: %+v", r)
		}
	})
}

// trapTime is how long a shell may take until its trap is set, on a host that has much to do.
const trapTime = 2 * time.Second

func TestHowTasksEnd(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		home, _ := b.cfg.Lookup("alice")
		cases := []struct {
			name   string
			order  func(*api.TaskOrder)
			state  shoal.JobState
			cause  shoal.Cause
			code   int
			signal int
			reason string
		}{
			{"success", func(o *api.TaskOrder) { o.Command = "true" }, shoal.JobSucceeded, shoal.CauseExit, 0, 0, ""},
			{"exit code", func(o *api.TaskOrder) { o.Command = "exit 7" }, shoal.JobFailed, shoal.CauseExit, 7, 0, ""},
			{"signal", func(o *api.TaskOrder) { o.Command = "kill -SEGV $$" }, shoal.JobFailed, shoal.CauseSignal, 139, 11, "SIGSEGV"},
			{"no such command", func(o *api.TaskOrder) { o.Command = "no-such-command" }, shoal.JobFailed, shoal.CauseExit, 127, 0, ""},
			{"time limit", func(o *api.TaskOrder) { o.Command, o.TimeLimit = "sleep 1000", shoal.Duration(50*time.Millisecond) }, shoal.JobTimedOut, shoal.CauseTimeLimit, 143, 15, "time limit of 50ms"},
			{"time limit, stubborn", func(o *api.TaskOrder) {
				o.Command, o.TimeLimit = "trap '' TERM; while :; do sleep 0.05; done", shoal.Duration(trapTime)
			}, shoal.JobTimedOut, shoal.CauseTimeLimit, 137, 9, "time limit of 2s"},
			{"time limit, orderly", func(o *api.TaskOrder) {
				o.Command, o.TimeLimit = "trap 'exit 3' TERM; while :; do sleep 0.05; done", shoal.Duration(trapTime)
				o.Grace = shoal.Duration(patience)
			}, shoal.JobTimedOut, shoal.CauseTimeLimit, 3, 0, "time limit of 2s"},
			{"time limit in prepare", func(o *api.TaskOrder) {
				o.Command, o.Prepare, o.TimeLimit = "true", "sleep 1000", shoal.Duration(50*time.Millisecond)
			}, shoal.JobTimedOut, shoal.CauseTimeLimit, 143, 15, "time limit"},
			{"prepare", func(o *api.TaskOrder) { o.Prepare, o.Command = "echo one > p; echo out", "cat p; rm p" }, shoal.JobSucceeded, shoal.CauseExit, 0, 0, ""},
			{"prepare fails", func(o *api.TaskOrder) { o.Prepare, o.Command = "echo no licence >&2; exit 4", "echo never" }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "prepare ended with exit code 4: no licence"},
			{"no working directory", func(o *api.TaskOrder) { o.Workdir, o.Command = home.Home+"/nowhere", "true" }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "cannot go to the working directory " + home.Home + "/nowhere as alice: no such file or directory"},
			{"working directory of root's", func(o *api.TaskOrder) { o.Workdir, o.Command = b.cfg.Dir, "true" }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "permission denied"},
			{"outputs", func(o *api.TaskOrder) {
				o.Outputs, o.Command = []string{home.Home + "/out/a b", "rel"}, `stat -c %u "$HOME/out/a b" rel; rmdir "$HOME/out/a b" rel`
			}, shoal.JobSucceeded, shoal.CauseExit, 0, 0, ""},
			{"outputs of root's", func(o *api.TaskOrder) { o.Outputs, o.Command = []string{b.cfg.Dir + "/x"}, "true" }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "output directories ended with exit code 1: mkdir: cannot create directory"},
			{"nobody", func(o *api.TaskOrder) { o.User, o.Command = "carol", "true" }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "carol has no account"},
			{"zero byte", func(o *api.TaskOrder) { o.Command = "echo \x00" }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "zero byte"},
			{"too long", func(o *api.TaskOrder) { o.Command = "# " + strings.Repeat("x", 200_000) }, shoal.JobFailed, shoal.CauseSetupFailed, 0, 0, "longer than the system allows"},
		}
		for i, c := range cases { // at once, since some take their time
			b.runner.Start(order(fmt.Sprint(100+i), "", c.order))
		}
		for i, c := range cases {
			r := b.end(ref(fmt.Sprint(100+i), 0, 1)).report
			if r.State != c.state || r.Cause != c.cause || r.ExitCode != c.code || r.Signal != c.signal || !strings.Contains(r.Reason, c.reason) || c.reason == "" && r.Reason != "" {
				t.Errorf("%s: %+v", c.name, r)
			}
		}
	})
}

func TestBackgroundProcessesDelayNothing(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		for i, command := range []string{
			"echo yes; sleep 1000 &",
			"echo yes; setsid sleep 1000 & sleep 0.05",
			"echo yes; setsid sh -c 'trap \"\" TERM HUP; sleep 1000; sleep 1000' > /dev/null 2>&1 & sleep 0.1",
			"echo yes; (setsid setsid sleep 1000 &) ; (nohup sleep 1000 2>/dev/null &); sleep 0.05",
		} {
			s := b.run(order(fmt.Sprint(i+1), command))
			if string(s.out[0]) != "yes\n" || s.report.State != shoal.JobSucceeded {
				t.Errorf("%s: %q, %+v", command, s.out[0], s.report)
			}
			if left := processesOf(firstUID); len(left) != 0 {
				t.Errorf("%s: left %v", command, left)
			}
			if took := s.report.Ended.Sub(s.report.Started); took > 30*time.Second {
				t.Errorf("%s took %s", command, took)
			}
		}
		// What a helper writes a moment after the end counts. It has only that moment: one that a busy host kept from
		// writing tells nothing.
		home, _ := b.cfg.Lookup("alice")
		wrote := filepath.Join(home.Home, "wrote")
		for i, end := 0, time.Now().Add(patience); ; i++ {
			s := b.run(order(fmt.Sprint(9+i), "(sleep 0.05; echo late; : > wrote) &"))
			if string(s.out[0]) == "late\n" {
				break
			}
			if _, err := os.Stat(wrote); err == nil || time.Now().After(end) {
				t.Fatalf("the last line is missing: %q", s.out[0])
			}
		}
	})
}

func TestStop(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		for i, state := range []shoal.JobState{shoal.JobCancelled, shoal.JobPreempted} {
			cause := map[shoal.JobState]shoal.Cause{shoal.JobCancelled: shoal.CauseCancelled, shoal.JobPreempted: shoal.CausePreempted}[state]
			o := order(fmt.Sprint(i+1), "trap 'echo saved; sleep 0.05; echo done; exit 0' TERM; echo ready; while :; do sleep 0.02; done; ", func(o *api.TaskOrder) {
				o.Grace = shoal.Duration(patience) // one that makes room is slow
			})
			b.runner.Start(o)
			b.says(o.Ref, "ready")
			b.runner.Stop(api.StopOrder{Ref: o.Ref, State: state})
			s := b.end(o.Ref)
			if s.report.State != state || s.report.Cause != cause || string(s.out[0]) != "ready\nsaved\ndone\n" || s.report.Reason == "" {
				t.Errorf("%q, %+v", s.out[0], s.report)
			}
		}
		// The shell ends at once, its child saves: the grace is for all.
		o := order("5", "sh -c 'trap \"sleep 0.1; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.02; done'; true", func(o *api.TaskOrder) { o.Grace = shoal.Duration(patience) })
		b.runner.Start(o)
		b.says(o.Ref, "ready")
		b.runner.Stop(api.StopOrder{Ref: o.Ref, State: shoal.JobCancelled})
		if s := b.end(o.Ref); s.report.State != shoal.JobCancelled || !strings.Contains(string(s.out[0]), "saved") {
			t.Errorf("%q, %+v", s.out[0], s.report)
		}
		// One that never came here is told to have ended, and does not start any more.
		late := order("6", "echo never")
		b.runner.Stop(api.StopOrder{Ref: late.Ref, State: shoal.JobCancelled})
		if s := b.run(late); s.report.State != shoal.JobCancelled || len(s.out[0]) != 0 {
			t.Errorf("%+v", s.report)
		}
	})
}

func TestFence(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		mark := filepath.Join(b.dir, "home-alice", "mark")
		first := order("1", "echo 1 >> mark; echo ready; trap '' TERM; while :; do sleep 0.02; done")
		b.runner.Start(first)
		b.runner.Start(first)
		b.says(first.Ref, "ready")
		second := order("1", "echo 2 >> mark; pgrep -u 28501 -f [t]rap", func(o *api.TaskOrder) { o.Ref.Attempt = 2 })
		b.runner.Start(second)
		s := b.end(second.Ref)
		if s.report.ExitCode != 1 || len(s.out[0]) != 0 { // pgrep found none
			t.Errorf("both ran: %q %+v", s.out[0], s.report)
		}
		if old := b.end(first.Ref).report; old.State != shoal.JobLost || old.Ended.After(s.report.Started) {
			t.Errorf("the older: %+v", old)
		}
		b.runner.Start(first)
		b.runner.Start(second)
		b.runner.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{second.Ref, first.Ref}})
		b.runner.Start(first)
		b.runner.Start(second)
		must(t, b.runner.Close())
		b.open()
		b.runner.Start(first)
		b.runner.Start(second)
		if got := b.run(order("2", "cat mark")); string(got.out[0]) != "1\n2\n" {
			t.Errorf("%s says %q", mark, got.out[0])
		}
		if files := b.files(); len(files) != 1 {
			t.Errorf("files: %v", files)
		}
	})
}

// files are those of attempts on disk, but for records that wait to become others'.
func (b *box) files() (out []string) {
	entries, err := os.ReadDir(b.cfg.Dir)
	must(b.t, err)
	b.runner.mu.Lock()
	defer b.runner.mu.Unlock()
	for _, e := range entries {
		_, ok := tasks.ParseName(strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())))
		if ok && !strings.HasSuffix(e.Name(), ".out") && !slices.Contains(b.runner.spares, e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestWant(t *testing.T) {
	b := newBox(t, true)
	var orders []api.TaskOrder
	for i := range 3 {
		orders = append(orders, order("1", "echo ready; sleep 1000", func(o *api.TaskOrder) { o.Ref.Index = i }))
	}
	b.runner.Want(orders)
	for _, o := range orders {
		b.says(o.Ref, "ready")
	}
	if got := b.runner.Running(); got["alice"] != 3 {
		t.Errorf("running: %v", got)
	}
	b.runner.Want(orders[1:])
	if s := b.end(orders[0].Ref); s.report.State != shoal.JobCancelled {
		t.Errorf("%+v", s.report)
	}
	b.runner.Want(orders[1:]) // its end was acknowledged and it is not listed: nobody asks for it any more
	if files := b.files(); len(files) != 2 {
		t.Errorf("files: %v", files)
	}
	for _, o := range orders[1:] {
		b.until("it is told that they run", func() bool { b.pump(); return b.of(o.Ref).report.State == shoal.JobRunning })
	}
	b.runner.Want(nil)
	for _, o := range orders[1:] {
		if s := b.end(o.Ref); s.report.State != shoal.JobCancelled || !slices.Equal(s.states, []shoal.JobState{shoal.JobRunning, shoal.JobCancelled}) {
			t.Errorf("%+v", s)
		}
	}
}

func TestLimits(t *testing.T) {
	b := newBox(t, true)
	if !b.cfg.Groups.Offers("memory") || !b.cfg.Groups.Offers("pids") {
		t.Skip("no limits here")
	}
	calm := order("1", "echo ready; sleep 1000", func(o *api.TaskOrder) { o.User = "bob" })
	b.runner.Start(calm)
	b.says(calm.Ref, "ready")
	for i, c := range []string{"exec tail /dev/zero", "tail /dev/zero; exit 1", "echo x; tail /dev/zero"} {
		s := b.run(order(fmt.Sprint(i+2), c, func(o *api.TaskOrder) { o.Resources.Memory = 32 << 20 }))
		if r := s.report; r.State != shoal.JobFailed || r.Cause != shoal.CauseOOM || !strings.Contains(r.Reason, "32MiB") || r.MaxMemory < 16<<20 || r.MaxMemory > 33<<20 || r.CPUTime <= 0 {
			t.Errorf("%s: %+v", c, r)
		}
	}
	s := b.run(order("8", "i=0; while [ $i -lt 2000 ]; do sleep 1000 & i=$((i+1)); done"))
	if s.report.State != shoal.JobFailed || !strings.Contains(string(s.out[1]), "annot fork") {
		t.Errorf("a bomb: %+v %.200s", s.report, s.out[1])
	}
	if b.pump(); b.of(calm.Ref).report.State != shoal.JobRunning {
		t.Errorf("the neighbour: %+v", b.of(calm.Ref).report)
	}
}

func TestLongOutput(t *testing.T) {
	b := newBox(t, true)
	const n = 3 << 20
	s := b.run(order("1", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; printf y >&2", n)))
	if len(s.out[0]) != n || string(s.out[1]) != "y" || strings.Trim(string(s.out[0]), "x") != "" {
		t.Errorf("%d bytes, %q", len(s.out[0]), s.out[1])
	}
	b.runner.Resend([]api.Resend{{Ref: ref("1", 0, 1), Stream: "stdout", Offset: n - 5}})
	reports, output, _ := b.runner.Collect(1 << 20)
	if len(reports) != 1 || len(output) != 1 || output[0].Offset != n-5 || string(output[0].Data) != "xxxxx" {
		t.Errorf("%v %v", reports, output)
	}
}

func TestOutputLimitAndFullDisk(t *testing.T) {
	b := newBox(t, true, func(c *Config) { c.OutputLimit = 100 })
	home, _ := b.cfg.Lookup("alice")
	o := order("1", "head -c 60 /dev/zero; until [ -e go ]; do sleep 0.02; done; head -c 60 /dev/zero; echo end >&2")
	b.runner.Start(o)
	b.until("the first output is there", func() bool { b.pump(); return len(b.of(o.Ref).out[0]) == 60 })
	must(t, os.WriteFile(filepath.Join(home.Home, "go"), nil, 0o644))
	s := b.end(o.Ref)
	if r := s.report; r.State != shoal.JobSucceeded || len(s.out[0]) != 60 || string(s.out[1]) != "end\n" || !strings.Contains(r.Reason, "output after byte 60 was not kept") {
		t.Errorf("%+v", r)
	}
	small := filepath.Join(b.dir, "small")
	must(t, os.Mkdir(small, 0o700))
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=1M"); err != nil {
		need.Missing(t, "a small file system cannot be mounted: "+err.Error())
	}
	t.Cleanup(func() {}) // before the box is closed
	defer unix.Unmount(small, unix.MNT_DETACH)
	must(t, b.runner.Close())
	former := b.cfg.Dir
	b.until("the supervisor has gone", func() bool {
		lock, err := b.runner.supervisorLock()
		if err == nil {
			lock.Close()
		}
		return err == nil
	})
	b.cfg.Dir, b.cfg.OutputLimit = filepath.Join(small, "tasks"), 0
	b.open()
	full := b.run(order("2", "head -c 3000000 /dev/zero; exit 5"))
	if r := full.report; r.ExitCode != 5 || !strings.Contains(r.Reason, "no space left") || len(full.out[0]) < 500_000 {
		t.Errorf("full: %+v", r)
	}
	// No record can be made.
	filler, err := os.Create(filepath.Join(small, "filler"))
	must(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	o = order("3", "exit 5")
	b.runner.Start(o)
	b.until("it has ended", func() bool { return len(b.runner.Running()) == 0 })
	must(t, b.runner.Close())
	b.open() // before anybody was told
	none := b.end(o.Ref)
	if r := none.report; r.State != shoal.JobFailed || r.Cause != shoal.CauseSetupFailed || !strings.Contains(r.Reason, "no space left") {
		t.Errorf("no record: %+v", r)
	}
	b.runner.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{full.report.Ref, none.report.Ref}})
	b.runner.Want(nil)
	b.until("the supervisor has gone", func() bool {
		lock, err := b.runner.supervisorLock()
		if err == nil {
			lock.Close()
		}
		return err == nil
	})
	must(t, b.runner.Close())
	b.cfg.Dir = former
	b.runner = nil
}

func TestStraysBySession(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: firstUID, Gid: firstUID}}
	cmd.Dir = "/"
	must(t, cmd.Start())
	pid := cmd.Process.Pid
	first := tasks.Started{PID: pid, Born: tasks.Born(pid)}
	for len(tasks.Strays(firstUID, "", []tasks.Started{first})) < 2 {
		time.Sleep(time.Millisecond)
	}
	if got := tasks.Strays(firstUID, "", []tasks.Started{{PID: pid, Born: first.Born + 1}}); len(got) != 0 {
		t.Errorf("another process of the same number is taken for it: %v", got)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if got := tasks.Strays(firstUID, "", []tasks.Started{first}); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
	tasks.KillStrays(firstUID, "", []tasks.Started{first}) // which waits for their end
	if left := processesOf(firstUID); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
