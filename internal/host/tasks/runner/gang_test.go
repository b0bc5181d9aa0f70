package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// ready waits until an attempt is told to be ready to begin.
func (b *box) ready(ref shoal.AttemptRef) {
	b.t.Helper()
	b.until(ref.String()+" is ready", func() bool { b.pump(); return b.of(ref).report.State == shoal.JobStarting })
}

// An order with Hold gets ready, says so, and begins when it comes without.
func TestHold(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		o := order("1", "cat p; echo begun", func(o *api.TaskOrder) {
			o.Hold, o.Prepare, o.Outputs, o.TimeLimit = true, "echo prepared > p", []string{"out"}, shoal.Duration(time.Minute)
		})
		b.runner.Start(o)
		b.ready(o.Ref)
		home, _ := b.cfg.Lookup("alice")
		if _, err := os.Stat(filepath.Join(home.Home, "out")); err != nil {
			t.Error(err)
		}
		b.runner.Start(o) // again, as in a Snapshot
		// Another Runner knows it, and says it again.
		must(t, b.runner.Close())
		b.open()
		b.of(o.Ref).report = api.TaskReport{}
		b.runner.Want([]api.TaskOrder{o})
		b.ready(o.Ref)
		if s := b.of(o.Ref); slices.Contains(s.states, shoal.JobRunning) || len(s.out[0]) != 0 {
			t.Errorf("it did not wait: %v %q", s.states, s.out[0])
		}
		o.Hold = false
		before := time.Now()
		b.runner.Want([]api.TaskOrder{o})
		s := b.end(o.Ref)
		if s.report.State != shoal.JobSucceeded || string(s.out[0]) != "prepared\nbegun\n" || s.report.Started.Before(before) {
			t.Errorf("%+v %q", s.report, s.out[0])
		}
		// What is cancelled or fails before it begins never begins.
		o = order("2", "echo begun", func(o *api.TaskOrder) { o.Hold = true })
		b.runner.Start(o)
		b.ready(o.Ref)
		b.runner.Stop(api.StopOrder{Ref: o.Ref, State: shoal.JobCancelled})
		if s := b.end(o.Ref); s.report.State != shoal.JobCancelled || len(s.out[0]) != 0 {
			t.Errorf("%+v", s.report)
		}
		o = order("3", "echo begun", func(o *api.TaskOrder) { o.Hold, o.Prepare = true, "echo no >&2; exit 3" })
		b.runner.Start(o)
		if s := b.end(o.Ref); s.report.Cause != shoal.CauseSetupFailed || s.report.Reason != "prepare ended with exit code 3: no" {
			t.Errorf("%+v", s.report)
		}
	})
}

// A held attempt whose supervisor is killed was not begun, and is lost rather than begun twice.
func TestHoldAndSupervisorKilled(t *testing.T) {
	b := newBox(t, true)
	o := order("1", "echo begun", func(o *api.TaskOrder) { o.Hold = true })
	b.runner.Start(o)
	b.ready(o.Ref)
	kill(t, b.supervisorPID())
	if s := b.end(o.Ref); s.report.State != shoal.JobLost || len(s.out[0]) != 0 {
		t.Errorf("%+v", s.report)
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	must(t, err)
	must(t, p.Kill())
}

// An idle order keeps its place without a process until it is stopped, and what others have started in it ends with it.
func TestIdle(t *testing.T) {
	b := newBox(t, true)
	o := order("1", "echo never", func(o *api.TaskOrder) {
		o.Idle, o.Files = true, map[string]string{"hostfile": "m-1\n"}
	})
	b.runner.Start(o)
	b.until("it runs", func() bool { b.pump(); return b.of(o.Ref).report.State == shoal.JobRunning })
	guest := startAs(t, firstUID, "trap '' TERM; exec sleep 1000")
	b.until("it ignores the signal", func() bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", guest.Process.Pid))
		return err == nil && string(name) == "sleep\n"
	})
	must(t, b.cfg.Groups.Find(firstUID, "1.0.1").Add(guest.Process.Pid))
	b.runner.Stop(api.StopOrder{Ref: o.Ref, State: shoal.JobCancelled})
	s := b.end(o.Ref)
	if s.report.State != shoal.JobCancelled || len(s.out[0]) != 0 || s.report.Started.IsZero() {
		t.Errorf("%+v", s.report)
	}
	if err := guest.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("what was started in it ended by %v", err)
	}
	if left := processesOf(firstUID); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// A job is prepared once, whichever task comes first, and all its tasks find what that left in the job's directory.
func TestPrepareOnce(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		b.runner.cfg.jobTime = time.Hour
		dir := b.cfg.JobScratch("1")
		task := func(i int) api.TaskOrder {
			return order("1", "cat "+dir+"/p; touch "+dir+"/$SHOAL_TASK_INDEX", func(o *api.TaskOrder) {
				o.Ref.Index, o.Prepare = i, "sleep 0.1; echo once >> "+dir+"/p; echo said"
			})
		}
		var all []shoal.AttemptRef
		for i := range 5 {
			b.runner.Start(task(i))
			all = append(all, task(i).Ref)
		}
		said := 0
		for _, ref := range all {
			s := b.end(ref)
			said += strings.Count(string(s.out[0]), "said\n")
			if s.report.State != shoal.JobSucceeded || !strings.HasSuffix(string(s.out[0]), "once\n") || strings.Count(string(s.out[0]), "once") != 1 {
				t.Errorf("%s: %+v %q", ref, s.report, s.out[0])
			}
		}
		if said != 1 {
			t.Errorf("the preparation's output came %d times", said)
		}
		// It holds for tasks that come later, by another Runner and supervisor too.
		b.runner.Forget(api.ForgetTask{Refs: all})
		b.settleDown()
		must(t, b.runner.Close())
		b.open()
		if s := b.run(task(6)); string(s.out[0]) != "once\n" {
			t.Errorf("later: %q", s.out[0])
		}
		// The release command sees it, and takes it away.
		release := order("1", "ls "+dir, func(o *api.TaskOrder) { o.Ref.Index, o.Release, o.Prepare = -1, true, "echo again" })
		if s := b.run(release); s.report.State != shoal.JobSucceeded || !strings.Contains(string(s.out[0]), "p\n") || strings.Contains(string(s.out[0]), "again") {
			t.Errorf("release: %+v %q", s.report, s.out[0])
		}
		b.forgetAll()
		b.until("the job's directory is gone", func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) })
		if s := b.run(task(7)); string(s.out[0]) != "said\nonce\n" {
			t.Errorf("after the release: %q", s.out[0])
		}
	})
}

// settleDown waits until the supervisor has gone for want of work.
func (b *box) settleDown() {
	b.t.Helper()
	b.until("the supervisor has gone", func() bool {
		lock, err := b.runner.supervisorLock()
		if err == nil {
			lock.Close()
		}
		return err == nil
	})
}

// A preparation that fails does so for all that wait; the next task tries again. One that is cancelled leaves the
// others to do it.
func TestPrepareFails(t *testing.T) {
	b := newBox(t, true)
	dir := b.cfg.JobScratch("1")
	task := func(job string, i int, prepare string) api.TaskOrder {
		return order(job, "echo ran", func(o *api.TaskOrder) { o.Ref.Index, o.Prepare = i, prepare })
	}
	const failing = "sleep 0.3; for i in 1 2 3 4; do echo line $i >&2; done; exit 4"
	b.runner.Start(task("1", 0, failing))
	b.until("it is being prepared", func() bool { b.pump(); return b.of(ref("1", 0, 1)).report.State == shoal.JobRunning })
	b.runner.Start(task("1", 1, failing))
	for i := range 2 {
		r := b.end(ref("1", i, 1)).report
		if r.Cause != shoal.CauseSetupFailed || r.Reason != "prepare ended with exit code 4: line 2 | line 3 | line 4" {
			t.Errorf("%+v", r)
		}
	}
	if s := b.run(task("1", 2, "touch "+dir+"/p")); s.report.State != shoal.JobSucceeded {
		t.Errorf("%+v", s.report)
	}
	b.runner.Start(task("2", 0, "sleep 1000"))
	b.until("it is being prepared", func() bool { b.pump(); return b.of(ref("2", 0, 1)).report.State == shoal.JobRunning })
	b.runner.Start(task("2", 1, "echo by the second"))
	b.runner.Stop(api.StopOrder{Ref: ref("2", 0, 1), State: shoal.JobCancelled})
	if s := b.end(ref("2", 1, 1)); string(s.out[0]) != "by the second\nran\n" || b.end(ref("2", 0, 1)).report.State != shoal.JobCancelled {
		t.Errorf("%+v %q", s.report, s.out[0])
	}
}

// What a job left goes when it is over, after a while without tasks, and with a new start of the machine; an empty
// directory at once.
func TestJobDirectoriesGo(t *testing.T) {
	b := newBox(t, true)
	gone := func(job string) func() bool {
		return func() bool { _, err := os.Stat(b.cfg.JobScratch(shoal.JobID(job))); return os.IsNotExist(err) }
	}
	fill := func(job string) {
		b.run(order(job, "mkdir -p "+b.cfg.JobScratch(shoal.JobID(job))+"/a/b; touch "+b.cfg.JobScratch(shoal.JobID(job))+"/a/b/c"))
		b.runner.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{ref(job, 0, 1)}})
		if gone(job)() {
			t.Errorf("what job %s left is gone", job)
		}
	}
	b.run(order("1", "true"))
	b.runner.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{ref("1", 0, 1)}})
	if !gone("1")() {
		t.Error("an empty directory stays")
	}
	fill("2")
	b.runner.Forget(api.ForgetTask{Jobs: []shoal.JobID{"2"}})
	b.until("a job's directory goes with the job", gone("2"))
	fill("3")
	b.runner.mu.Lock()
	b.runner.cfg.jobTime = 50 * time.Millisecond
	b.runner.mu.Unlock()
	b.run(order("3", "true", func(o *api.TaskOrder) { o.Ref.Index = 1 }))
	b.runner.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{{TaskRef: shoal.TaskRef{Job: "3", Index: 1}, Attempt: 1}}})
	b.until("a job's directory goes after a while", gone("3"))
	b.runner.mu.Lock()
	b.runner.cfg.jobTime = time.Hour
	b.runner.mu.Unlock()
	fill("4")
	b.settleDown()
	must(t, b.runner.Close())
	b.open()
	if gone("4")() {
		t.Error("a new Runner has removed a job's directory")
	}
	must(t, b.runner.Close())
	must(t, os.RemoveAll(b.cfg.Run)) // as when the machine starts
	b.open()
	b.until("a job's directory goes with a new start", gone("4"))
}

// Files are the user's, and gone with the attempt.
func TestFiles(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		dir := b.cfg.FilesOf("1.0.1")
		o := order("1", fmt.Sprintf(`cd %s && stat -c '%%n %%a %%u' . * && cat hostfile && ./ssh && touch more && mkdir d`, dir), func(o *api.TaskOrder) {
			o.Files = map[string]string{"hostfile": "m-1 slots=2\n", "ssh": "#!/bin/sh\necho hello\n"}
		})
		s := b.run(o)
		if want := ". 700 28501\nhostfile 600 28501\nssh 700 28501\nm-1 slots=2\nhello\n"; string(s.out[0]) != want {
			t.Errorf("%+v: %q, want %q; %s", s.report, s.out[0], want, s.out[1])
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("they stay: %v", err)
		}
		for i, name := range []string{"../x", "a/b", "..", "."} {
			r := b.run(order(fmt.Sprint(i+2), "true", func(o *api.TaskOrder) { o.Files = map[string]string{name: "x"} })).report
			if r.Cause != shoal.CauseSetupFailed || !strings.Contains(r.Reason, "is not the name of a file") {
				t.Errorf("%+v", r)
			}
		}
	})
}
