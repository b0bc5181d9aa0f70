package runner

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
	"github.com/shoal-pool/shoal/internal/need"
)

// setup is what a process with a Runner is told.
type setup struct {
	Dir, Scratch, Agent string
	Groups              *cgroups.Config
	People              map[shoal.UserName]tasks.Person
}

// up and down are what such a process says and hears.
type up struct {
	Reports []api.TaskReport
	Output  []api.Output
}

type down struct {
	Want   []api.TaskOrder
	Run    *api.TaskOrder
	Forget []shoal.AttemptRef
}

// runnerMain is a process with a Runner, which speaks with the test over its standard files.
func runnerMain(text string) int {
	var s setup
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		panic(err)
	}
	cfg := Config{Dir: s.Dir, Places: tasks.Places{Scratch: s.Scratch, Run: filepath.Join(filepath.Dir(s.Dir), "run")}, Agent: s.Agent, Idle: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Lookup: func(n shoal.UserName) (tasks.Person, bool) { p, ok := s.People[n]; return p, ok }}
	if s.Groups != nil {
		tree, err := cgroups.Open(*s.Groups)
		if err != nil {
			panic(err)
		}
		cfg.Groups = tree
	}
	r, err := Open(cfg)
	if err != nil {
		panic(err)
	}
	go func() {
		in := json.NewDecoder(os.Stdin)
		for {
			var d down
			if in.Decode(&d) != nil {
				os.Exit(0)
			}
			switch {
			case d.Run != nil:
				r.Start(*d.Run)
			case d.Forget != nil:
				r.Forget(api.ForgetTask{Refs: d.Forget})
			default:
				r.Want(d.Want)
			}
		}
	}()
	out := json.NewEncoder(os.Stdout)
	for range r.Changed() {
		reports, output, sent := r.Collect(10_000)
		if out.Encode(up{reports, output}) != nil {
			return 1
		}
		sent()
	}
	return 0
}

// process starts a process with a Runner for the box, which must be closed itself.
func (b *box) process(orders []api.TaskOrder) (*exec.Cmd, *json.Encoder, <-chan up) {
	b.t.Helper()
	s := setup{b.cfg.Dir, b.cfg.Scratch, b.cfg.Agent, b.cfg.Groups.Config(), map[shoal.UserName]tasks.Person{}}
	for n := range users() {
		s.People[n], _ = b.cfg.Lookup(n)
	}
	text, err := json.Marshal(s)
	must(b.t, err)
	cmd := exec.Command(b.cfg.Agent, "runner", string(text))
	cmd.Stderr = testLog{b.t}
	cmd.WaitDelay = time.Second
	// Pipes of our own: what was written before it was killed is read after that.
	inR, inW, err := os.Pipe()
	must(b.t, err)
	outR, outW, err := os.Pipe()
	must(b.t, err)
	logR, logW, err := os.Pipe()
	must(b.t, err)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, logW
	must(b.t, cmd.Start())
	inR.Close()
	outW.Close()
	logW.Close()
	go io.Copy(io.Discard, logR)
	ups := make(chan up)
	go func() {
		defer close(ups)
		defer inW.Close()
		in := bufio.NewReader(outR)
		for {
			l, err := in.ReadBytes('\n')
			var u up
			if err != nil || json.Unmarshal(l, &u) != nil {
				return // the end, perhaps of a line that was cut off
			}
			ups <- u
		}
	}()
	enc := json.NewEncoder(inW)
	_ = enc.Encode(down{Want: orders})
	return cmd, enc, ups
}

func TestKillTheRunnerAnywhere(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		must(t, b.runner.Close())
		b.runner = nil
		const tasks = 60
		rounds := 25
		if testing.Short() {
			rounds = 5
		}
		orders := map[shoal.AttemptRef]api.TaskOrder{}
		for i := range tasks {
			o := order("1", fmt.Sprintf("echo %[1]d >> ran; echo out %[1]d; sleep 0.%[2]d; head -c %[3]d /dev/zero; echo err %[1]d >&2; exit %[4]d", i, i%7, i*500, i%3),
				func(o *api.TaskOrder) { o.Ref.Index = i })
			orders[o.Ref] = o
		}
		left := func() (out []api.TaskOrder) {
			for ref, o := range orders {
				if !over(b.of(ref).report.State) {
					out = append(out, o)
				}
			}
			return out
		}
		for round := 0; len(left()) > 0; round++ {
			cmd, enc, ups := b.process(left())
			var kill <-chan time.Time
			if round < rounds {
				kill = time.After(time.Duration(rand.IntN(60)) * time.Millisecond)
			}
			for open := true; open; {
				select {
				case u, ok := <-ups:
					if !ok {
						open = false
						break
					}
					b.note(u, enc)
				case <-kill:
					must(t, cmd.Process.Kill())
				}
				if len(left()) == 0 {
					_ = cmd.Process.Kill()
				}
			}
			_ = cmd.Wait()
		}
		for ref, o := range orders {
			s, i := b.of(ref), o.Ref.Index
			want := fmt.Sprintf("out %d\n%s", i, strings.Repeat("\x00", i*500))
			if string(s.out[0]) != want || string(s.out[1]) != fmt.Sprintf("err %d\n", i) || s.report.ExitCode != i%3 || s.report.Cause != shoal.CauseExit {
				t.Errorf("%s: %d bytes, %q, %+v", ref, len(s.out[0]), s.out[1], s.report)
			}
		}
		ran, err := os.ReadFile(filepath.Join(b.dir, "home-alice", "ran"))
		must(t, err)
		if n := len(strings.Fields(string(ran))); n != tasks {
			t.Errorf("%d tasks were started %d times", tasks, n)
		}
		b.open()
		b.runner.Want(nil)
		for ref := range orders {
			b.runner.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{ref}})
		}
		if files := b.files(); len(files) != 0 {
			t.Errorf("files stay: %v", files)
		}
	})
}

// note takes a report as the control plane would, and tells to forget what has ended.
func (b *box) note(u up, enc *json.Encoder) {
	b.t.Helper()
	for _, o := range u.Output {
		b.take(o)
	}
	var ended []shoal.AttemptRef
	for _, r := range u.Reports {
		s := b.of(r.Ref)
		if over(r.State) {
			if r.StdoutBytes != int64(len(s.out[0])) || r.StderrBytes != int64(len(s.out[1])) {
				b.t.Errorf("%s ended with %d bytes, %d were sent", r.Ref, r.StdoutBytes, len(s.out[0]))
			}
			ended = append(ended, r.Ref)
		} else if over(s.report.State) {
			b.t.Errorf("%s: %s after %s", r.Ref, r.State, s.report.State)
		}
		s.report = r
	}
	if len(ended) > 0 && rand.IntN(2) == 0 {
		_ = enc.Encode(down{Forget: ended})
	}
}

func TestKillTheSupervisor(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		for round := range 3 {
			var refs []shoal.AttemptRef
			for i := range 4 {
				o := order(fmt.Sprint(round+1), "echo ready; setsid sleep 1000 & trap '' TERM HUP; sleep 1000; sleep 1000", func(o *api.TaskOrder) { o.Ref.Index = i })
				b.runner.Start(o)
				b.says(o.Ref, "ready")
				refs = append(refs, o.Ref)
			}
			pid := b.supervisorPID()
			switch round {
			case 0: // alone
				must(t, syscall.Kill(pid, syscall.SIGKILL))
			case 1: // while there is no Runner
				must(t, b.runner.Close())
				must(t, syscall.Kill(pid, syscall.SIGKILL))
				b.open()
			case 2: // and it has written half a line
				must(t, b.runner.Close())
				must(t, syscall.Kill(pid, syscall.SIGKILL))
				name, _ := tasks.FileName(refs[0])
				f, err := os.OpenFile(filepath.Join(b.cfg.Dir, name+tasks.RecordFile), os.O_WRONLY|os.O_APPEND, 0)
				must(t, err)
				_, err = f.WriteString(`{"ended":{"state":"succ`)
				must(t, err)
				must(t, f.Close())
				b.open()
			}
			for _, ref := range refs {
				if s := b.end(ref); s.report.State != shoal.JobLost || s.report.Cause != shoal.CauseMachineLost || string(s.out[0]) != "ready\n" || !strings.Contains(s.report.Reason, "killed") {
					t.Errorf("%+v", s)
				}
			}
			if left := processesOf(firstUID); len(left) != 0 {
				t.Errorf("processes are left: %v", left)
			}
			if s := b.run(order(fmt.Sprint(round+100), "echo works")); s.report.State != shoal.JobSucceeded || string(s.out[0]) != "works\n" {
				t.Errorf("%+v", s)
			}
			b.runner.Forget(api.ForgetTask{Refs: refs})
		}
	})
}

func TestKillTheSupervisorUnderLoad(t *testing.T) {
	b := newBox(t, true)
	const tasks = 200
	for i := range tasks {
		command := "echo $SHOAL_JOB_ID >> ran; echo x"
		if i%40 == 0 {
			command += "; sleep 1000" // however fast the others are, this one is lost
		}
		b.runner.Start(order("1", command, func(o *api.TaskOrder) { o.Ref.Index = i }))
		if i%40 == 20 {
			b.says(ref("1", i-20, 1), "x")
			b.until("some have begun", func() bool { b.pump(); return len(b.state) > i/2 })
			_ = syscall.Kill(b.supervisorPID(), syscall.SIGKILL)
		}
	}
	lost := 0
	for i := range tasks {
		s := b.end(ref("1", i, 1))
		switch {
		case s.report.State == shoal.JobLost:
			lost++
		case s.report.State != shoal.JobSucceeded || string(s.out[0]) != "x\n":
			t.Errorf("%+v", s)
		}
	}
	if lost == 0 || lost == tasks {
		t.Errorf("%d were lost", lost)
	}
	ran, _ := os.ReadFile(filepath.Join(b.dir, "home-alice", "ran"))
	if n := len(strings.Fields(string(ran))); n > tasks || n < tasks-lost {
		t.Errorf("%d tasks, %d lost, ran %d times", tasks, lost, n)
	}
}

func TestHungSupervisorIsReplaced(t *testing.T) {
	b := newBox(t, true)
	o := order("1", "echo ready; sleep 1000")
	b.runner.Start(o)
	b.says(o.Ref, "ready")
	must(t, b.runner.Close())
	b.cfg.helloTime = time.Second
	pid := b.supervisorPID()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	// The signal is only on its way: until it is there the supervisor may still say hello.
	b.until("the supervisor stands still", func() bool { return standsStill(pid) })
	opened := make(chan error, 1)
	go func() { var err error; b.runner, err = Open(b.cfg); opened <- err }()
	must(t, <-opened)
	if s := b.end(o.Ref); s.report.State != shoal.JobLost {
		t.Errorf("%+v", s.report)
	}
}

// standsStill reports whether every thread of a process is stopped.
func standsStill(pid int) bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if _, after, ok := strings.Cut(string(b), ") "); err != nil || !ok || !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return err == nil && len(files) > 0
}

func TestSupervisorThatCannotBeStarted(t *testing.T) {
	b := newBox(t, true, func(c *Config) { c.Agent = "/nonexistent/agent"; c.helloTime, c.startTime = time.Second, time.Second })
	o := order("1", "echo never")
	b.runner.Start(o)
	if s := b.end(o.Ref); s.report.State != shoal.JobLost || !strings.Contains(s.report.Reason, "could not start it") {
		t.Errorf("%+v", s.report)
	}
}

func TestOneRunnerAtATime(t *testing.T) {
	b := newBox(t, false)
	if _, err := Open(b.cfg); shoal.KindOf(err) != shoal.KindConflict {
		t.Errorf("a second one: %v", err)
	}
}

func TestIdleCostsNothing(t *testing.T) {
	b := newBox(t, true)
	b.run(order("1", "true"))
	b.until("the supervisor has gone", func() bool {
		lock, err := b.runner.supervisorLock()
		if err == nil {
			lock.Close()
		}
		return err == nil
	})
	// The next task brings another.
	if s := b.run(order("2", "echo again")); string(s.out[0]) != "again\n" {
		t.Errorf("%+v", s)
	}
	// Without a Runner it goes as well, once its tasks have ended, and their ends are there.
	o := order("3", "echo ready; sleep 0.3; exit 3")
	b.runner.Start(o)
	b.says(o.Ref, "ready")
	must(t, b.runner.Close())
	r := &Runner{cfg: b.cfg}
	b.until("the supervisor has gone", func() bool {
		lock, err := r.supervisorLock()
		if err == nil {
			lock.Close()
		}
		return err == nil
	})
	b.open()
	if s := b.end(o.Ref); s.report.ExitCode != 3 {
		t.Errorf("%+v", s.report)
	}
}

// TestRoomOfALostTask: a scratch directory that served another task before goes with a task that is lost, without
// another supervisor.
func TestRoomOfALostTask(t *testing.T) {
	b := newBox(t, true)
	first := b.run(order("1", `echo $SHOAL_SCRATCH`))
	b.run(order("2", "true"))
	o := order("3", `echo here $SHOAL_SCRATCH; echo full > $SHOAL_SCRATCH/file; sleep 600`)
	b.runner.Start(o)
	b.says(o.Ref, "here")
	own := strings.TrimSpace(string(first.out[0]))
	room := strings.TrimSpace(strings.TrimPrefix(string(b.of(o.Ref).out[0]), "here"))
	if filepath.Dir(room) != filepath.Dir(own) || room == b.cfg.ScratchOf("3.0.1") {
		t.Errorf("it is not in a directory that was there before: %q", room)
	}
	b.until("it is not empty", func() bool { _, err := os.Stat(filepath.Join(room, "file")); return err == nil })
	kill(t, b.supervisorPID())
	if s := b.end(o.Ref); s.report.State != shoal.JobLost {
		t.Errorf("%+v", s.report)
	}
	if _, err := os.Stat(room); err == nil {
		t.Error("its scratch directory stays")
	}
}

// TestRoomThatTakesLong: what lost tasks have left is removed in its own time, while nobody waits for it who has the machine to
// report on. A mount stands for what takes long.
func TestRoomThatTakesLong(t *testing.T) {
	b := newBox(t, true)
	o := order("1", `mkdir $SHOAL_SCRATCH/sub; echo $SHOAL_SCRATCH; sleep 600`)
	b.runner.Start(o)
	b.says(o.Ref, "\n")
	room := strings.TrimSpace(string(b.of(o.Ref).out[0]))
	if err := unix.Mount("tmpfs", room+"/sub", "tmpfs", 0, "size=1M"); err != nil {
		need.Missing(t, "a small file system cannot be mounted: "+err.Error())
	}
	kill(t, b.supervisorPID())
	b.end(o.Ref)
	if _, err := os.Lstat(room); err == nil {
		t.Error("it is removed before the end is told")
	}
	left, _ := filepath.Glob(b.cfg.Scratch + "/*/sub")
	for _, at := range left {
		must(t, unix.Unmount(at, unix.MNT_DETACH))
	}
	must(t, b.runner.Close())
	b.open() // which removes what is left
	b.until("nothing is left", func() bool { left, _ := filepath.Glob(b.cfg.Scratch + "/" + gonePrefix + "*"); return len(left) == 0 })
}

func TestRecordsOfForgottenAttempts(t *testing.T) {
	dir := t.TempDir()
	r := plain(t, dir)
	done := func(i int) shoal.AttemptRef {
		a := ref("1", i, 1)
		r.Start(order("1", "true", func(o *api.TaskOrder) { o.Ref = a }))
		name, _ := tasks.FileName(a)
		rec, err := tasks.NewRecord(dir, name, r.attempts[a].start.Spare, tasks.Line{Accepted: &tasks.Accepted{Ref: a, User: "alice"}})
		must(t, err)
		must(t, rec.Write(tasks.Line{Ended: &tasks.Result{State: shoal.JobSucceeded}}))
		rec.Close()
		r.takeEnd(tasks.EndedEvent{Ref: a, Result: tasks.Result{State: shoal.JobSucceeded}})
		return a
	}
	first := done(0)
	r.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{first}})
	second := done(1)
	if files, _ := filepath.Glob(filepath.Join(dir, "*"+tasks.RecordFile)); len(files) != 1 || filepath.Base(files[0]) != "1.1.1.rec" {
		t.Errorf("the first one's record did not become the second one's: %v", files)
	}
	r.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{second}})
	third := done(2)
	fourth := done(3)
	r.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{fourth}})
	must(t, r.forgotten.close()) // it is killed
	r = plain(t, dir)
	must(t, r.adopt(nil))
	if r.attempts[third] == nil || len(r.attempts) != 1 {
		t.Errorf("the next one knows of %v", r.attempts)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*"+tasks.RecordFile)); len(files) != 1 || filepath.Base(files[0]) != "1.2.1.rec" {
		t.Errorf("it has %v", files)
	}
	r.Start(order("1", "true", func(o *api.TaskOrder) { o.Ref = fourth }))
	if r.attempts[fourth] != nil {
		t.Error("one that was forgotten starts again")
	}
}
