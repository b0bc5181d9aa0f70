package batch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// What ran on a machine that is no more as it was starts again elsewhere, before what never started.
func TestMachineLost(t *testing.T) {
	for name, change := range map[string]func(*shoal.Machine){
		"stopped": state(shoal.MachineStopped),
		"failed":  func(m *shoal.Machine) { m.State, m.Reason = shoal.MachineFailed, "it burned" },
		"gone":    state(shoal.MachineGone),
		"booting": state(shoal.MachineBooting),
		"anew":    func(m *shoal.Machine) { m.Epoch++ },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, shoal.Pool{}, func(w *world) {
				w.play = func(o api.TaskOrder) script {
					return script{takes: time.Minute, out: fmt.Sprintf("%d.%d 12345678", o.Ref.Index, o.Ref.Attempt)}
				}
				a := w.machine("m-1")
				j := w.submit(shoal.JobSpec{Array: "1-3"})
				settle(40 * time.Second)
				a.die()
				w.put("m-1", change, func(m *shoal.Machine) { m.Cordons = []shoal.Cordon{{}} })
				settle(time.Second)
				if got := w.job(j.ID); got.Counts != (shoal.Counts{Queued: 3}) || got.Next != 1 {
					t.Errorf("lost %+v", got)
				}
				tasks, err := w.Tasks(w.ctx, alice, j.ID, 1, 1)
				if err != nil || len(tasks) != 1 || tasks[0].State != shoal.JobQueued || !strings.Contains(tasks[0].Reason, "its machine m-1 ") {
					t.Errorf("task %+v, %v", tasks, err)
				}
				w.restart(time.Minute)
				w.machine("m-2")
				settle(30 * time.Second)
				if got := w.history(j.ID, 1); len(got) != 2 || got[0].State != shoal.JobLost || got[0].Cause != shoal.CauseMachineLost || got[0].Failures != 0 || *got[0].TruncatedAt != got[0].StdoutBytes {
					t.Errorf("attempts %+v", got)
				}
				if end := w.ended(j.ID); end.Job.State != shoal.JobSucceeded || end.ExitCode != 0 {
					t.Errorf("ended %+v", end)
				}
				if got := w.output(j.ID, 1, true); got != "1.1 12\n--- attempt 2 of task 1/1 ---\n1.2 12345678" {
					t.Errorf("output %q", got)
				}
			})
		})
	}
}

// A machine that is silent, drained or about to stop keeps what runs there.
func TestMachineKept(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(api.TaskOrder) script { return script{takes: time.Hour} }
		a := w.machine("m-1")
		j := w.submit(shoal.JobSpec{})
		settle(time.Minute)
		a.disconnect()
		w.put("m-1", func(m *shoal.Machine) {
			m.Health, m.State, m.Wanted = shoal.HealthDown, shoal.MachineStopping, shoal.WantStop
		})
		settle(2 * time.Hour)
		if got := w.job(j.ID); got.State != shoal.JobRunning {
			t.Errorf("with its machine away: %+v", got)
		}
		a.connect(w.ctx, w.Batch)
		if end := w.ended(j.ID); end.Job.State != shoal.JobSucceeded || a.started() != 1 {
			t.Errorf("ended %+v after %d starts", end, a.started())
		}
	})
}

// quiet makes a machine whose agent only notes what it is sent: the test reports for it.
func (w *world) quiet(id shoal.MachineID) *agent {
	a := w.machine(id)
	a.mu.Lock()
	a.play = func(api.TaskOrder) script { return script{takes: 1000 * time.Hour} }
	a.mute = true
	a.mu.Unlock()
	return a
}

func (w *world) report(id shoal.MachineID, reports []api.TaskReport, pieces ...api.Output) []api.Resend {
	w.t.Helper()
	resend, err := w.Report(w.ctx, id, reports, pieces)
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return resend
}

func ref(job shoal.JobID, index, attempt int) shoal.AttemptRef {
	return shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: job, Index: index}, Attempt: attempt}
}

func (a *agent) take() []api.Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.records
	a.records = nil
	return all
}

// News of older attempts, of tasks of other machines and of tasks that never were change nothing.
func TestFence(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		one, two := w.quiet("m-1"), w.quiet("m-2")
		j := w.submit(shoal.JobSpec{Array: "1-2"})
		settle(time.Second)
		w.report("m-1", []api.TaskReport{{Ref: ref("1", 1, 1), State: shoal.JobRunning}}, api.Output{Ref: ref("1", 1, 1), Stream: "stdout", Data: []byte("one")})
		w.put("m-1", state(shoal.MachineFailed))
		settle(time.Second)
		w.put("m-3", state(shoal.MachineReady))
		settle(time.Second)
		if a := w.history(j.ID, 1); len(a) != 2 || a[1].Machine != "m-3" {
			t.Fatalf("attempts %+v", a)
		}
		one.take()
		two.take()
		before := w.job(j.ID)
		lies := []api.TaskReport{
			{Ref: ref("1", 1, 1), State: shoal.JobRunning}, {Ref: ref("1", 1, 1), State: shoal.JobSucceeded}, // late
			{Ref: ref("1", 1, 2), State: shoal.JobSucceeded}, // it is m-3's
			{Ref: ref("1", 1, 3), State: shoal.JobSucceeded}, // it never was
			{Ref: ref("9", 0, 1), State: shoal.JobFailed}, {Ref: ref("../x", 0, 1), State: shoal.JobRunning},
			{Ref: ref("1", 1, 2), State: "dancing"}, {Ref: ref("1", 2, 1), State: shoal.JobQueued},
		}
		w.report("m-1", lies, api.Output{Ref: ref("1", 1, 1), Stream: "stdout", Offset: 3, Data: []byte("late")}, api.Output{Ref: ref("1", 1, 2), Stream: "stdout", Data: []byte("lie")},
			api.Output{Ref: ref("../../etc", 1, 2), Stream: "stdout", Data: []byte("lie")}, api.Output{Ref: ref("1", 2, 1), Stream: "/etc/passwd", Data: []byte("lie")})
		if after := w.job(j.ID); after.Rev != before.Rev {
			t.Errorf("changed from %+v to %+v", before, after)
		}
		if a := w.history(j.ID, 1); a[0].State != shoal.JobLost || a[0].StdoutBytes != 3 || a[1].State != shoal.JobStarting {
			t.Errorf("attempts %+v", a)
		}
		var forgotten, stopped []shoal.AttemptRef
		for _, r := range one.take() {
			if r.Forget != nil {
				forgotten = append(forgotten, r.Forget.Refs...)
			}
			if r.Stop != nil {
				stopped = append(stopped, r.Stop.Ref)
			}
		}
		if !slices.Equal(forgotten, []shoal.AttemptRef{ref("1", 1, 1), ref("1", 1, 2), ref("1", 1, 3), ref("9", 0, 1)}) ||
			!slices.Equal(stopped, []shoal.AttemptRef{ref("1", 1, 1), ref("../x", 0, 1)}) {
			t.Errorf("told to forget %v and to stop %v", forgotten, stopped)
		}
		w.report("m-3", []api.TaskReport{{Ref: ref("1", 1, 2), State: shoal.JobSucceeded}})
		w.report("m-3", []api.TaskReport{{Ref: ref("1", 1, 2), State: shoal.JobFailed, ExitCode: 1}, {Ref: ref("1", 1, 2), State: shoal.JobRunning}})
		if got := w.job(j.ID); got.Counts != (shoal.Counts{Starting: 1, Succeeded: 1}) {
			t.Errorf("counts %+v", got.Counts)
		}
	})
}

// An end is recorded only with all its output; what is missing is asked for, and not for ever.
func TestGaps(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.quiet("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-2"})
		settle(time.Second)
		r := ref("1", 1, 1)
		piece := func(offset int64, data string) api.Output {
			return api.Output{Ref: r, Stream: "stdout", Offset: offset, Data: []byte(data)}
		}
		if got := w.report("m-1", nil, piece(0, "abc"), piece(0, "abc"), piece(1, "bcd"), piece(7, "hi"), piece(9, "jk")); len(got) != 1 || got[0].Offset != 4 {
			t.Errorf("asked for %+v", got)
		}
		if got := w.output(j.ID, 1, false); got != "abcd" {
			t.Errorf("output %q", got)
		}
		end := api.TaskReport{Ref: r, State: shoal.JobSucceeded, StdoutBytes: 9, StderrBytes: 2}
		if got := w.report("m-1", []api.TaskReport{end}, piece(7, "hi")); len(got) != 2 || got[0].Stream != "stderr" || got[1].Offset != 4 {
			t.Errorf("asked for %+v", got)
		}
		if s := w.history(j.ID, 1)[0].State; s.Ended() {
			t.Errorf("ended without its output: %s", s)
		}
		w.report("m-1", nil, piece(4, "efg"), piece(7, "hi"))
		w.report("m-1", nil, api.Output{Ref: r, Stream: "stderr", Data: []byte("no")})
		if a := w.history(j.ID, 1)[0]; a.State != shoal.JobSucceeded || a.StdoutBytes != 9 || a.StderrBytes != 2 || a.TruncatedAt != nil {
			t.Errorf("ended as %+v", a)
		}
		if got := w.output(j.ID, 1, true); got != "abcdefghi" {
			t.Errorf("output %q", got)
		}
		settle(time.Second)
		r = ref("1", 2, 1)
		w.report("m-1", []api.TaskReport{{Ref: r, State: shoal.JobSucceeded, StdoutBytes: 1 << 40}}, piece(0, "xyz"))
		settle(30 * time.Second)
		if s := w.job(j.ID).State; s.Ended() {
			t.Errorf("ended without its output: %s", s)
		}
		settle(time.Minute)
		if a := w.history(j.ID, 2)[0]; a.State != shoal.JobSucceeded || a.StdoutBytes != 3 || a.TruncatedAt == nil || *a.TruncatedAt != 3 {
			t.Errorf("with output that never comes: %+v", a)
		}
		if got := w.output(j.ID, 2, true); got != "xyz" {
			t.Errorf("output %q", got)
		}
	})
}

// What an agent says is bounded by what can be.
func TestOddReports(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.quiet("m-1")
		for i, c := range []struct {
			report api.TaskReport
			state  shoal.JobState
			exit   int
		}{
			{api.TaskReport{State: shoal.JobSucceeded, ExitCode: 4}, shoal.JobFailed, 4},
			{api.TaskReport{State: shoal.JobFailed}, shoal.JobFailed, 125},
			{api.TaskReport{State: shoal.JobFailed, Cause: shoal.CauseSetupFailed, Reason: strings.Repeat("ü", 5000)}, shoal.JobFailed, 125},
			{api.TaskReport{State: shoal.JobFailed, Signal: 11, ExitCode: 139, Reason: "\xff"}, shoal.JobFailed, 139},
			{api.TaskReport{State: shoal.JobTimedOut, Signal: 15, Started: time.Now().Add(-time.Hour), Ended: time.Now().Add(time.Hour)}, shoal.JobTimedOut, 143},
			{api.TaskReport{State: shoal.JobFailed, ExitCode: -5, Signal: -1, StdoutBytes: -4, MaxMemory: -1}, shoal.JobFailed, 125},
		} {
			j := w.submit(shoal.JobSpec{})
			settle(time.Second)
			c.report.Ref = ref(j.ID, 0, 1)
			w.report("m-1", []api.TaskReport{c.report})
			end := w.ended(j.ID)
			a := w.history(j.ID, 0)[0]
			if end.Job.State != c.state || end.ExitCode != c.exit || a.Started.After(a.Ended) || a.Ended.Before(a.Placed) || a.Ended.After(time.Now()) || len(a.Reason) > 2100 || a.Reason == "" {
				t.Errorf("%d: %s with %d, %+v", i, end.Job.State, end.ExitCode, a)
			}
		}
	})
}

// An agent that says a task was cancelled, which nobody asked for, lost it: it starts again, ever
// later, and a machine that loses everything does not keep the server busy.
func TestUnaskedEnd(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		a := w.quiet("m-1")
		j := w.submit(shoal.JobSpec{})
		for n := 1; n <= 12; n++ {
			began := time.Now()
			for len(w.history(j.ID, 0)) < n {
				settle(10 * time.Millisecond)
			}
			if d := time.Since(began); n > 3 && d < time.Second || d > 70*time.Second {
				t.Errorf("attempt %d came after %v", n, d)
			}
			if n == 6 {
				if why, err := w.WhyJob(w.ctx, alice, j.ID); err != nil || !strings.HasPrefix(why.Sentence, "1 of 1 task") && !strings.HasPrefix(why.Sentence, "it is") {
					t.Errorf("why: %+v, %v", why, err)
				}
			}
			w.report("m-1", []api.TaskReport{{Ref: ref(j.ID, 0, n), State: shoal.JobCancelled}})
		}
		if why, err := w.WhyJob(w.ctx, alice, j.ID); err != nil || !strings.HasPrefix(why.Sentence, "it waits: 1 task ended early and is tried again, the next in ") {
			t.Errorf("why: %+v, %v", why, err)
		}
		if _, err := w.Cancel(w.ctx, alice, j.ID); err != nil {
			t.Error(err)
		}
		if end := w.ended(j.ID); end.Job.State != shoal.JobCancelled || a.started() != 12 {
			t.Errorf("ended %+v after %d starts", end, a.started())
		}
		settle(time.Hour)
		if n := len(w.history(j.ID, 0)); n != 13 {
			t.Errorf("%d attempts on record", n)
		}
	})
}

// The agent enforces time limits; one that does not is reminded.
func TestTimeLimit(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(api.TaskOrder) script { return script{takes: 10 * time.Hour} }
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{TimeLimit: shoal.Duration(time.Hour), Retries: 3})
		settle(time.Second)
		w.restart(time.Second)
		end := w.ended(j.ID)
		if end.Job.State != shoal.JobTimedOut || end.ExitCode != 143 || time.Since(end.Job.Started) > time.Hour+2*time.Minute || time.Since(end.Job.Started) < time.Hour+time.Minute {
			t.Errorf("ended after %v: %+v", time.Since(end.Job.Started), end)
		}
	})
}

// When the clock was set, what runs is moved along, once, whatever the server does meanwhile; until that is done nothing ends for its
// time limit.
func TestClockSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var moved time.Duration
		var fault error
		set := func(w *world, to time.Duration, err error) {
			mu.Lock()
			moved, fault = to, err
			mu.Unlock()
			w.put("m-1", func(m *shoal.Machine) { m.LastSeen = time.Now() }) // whoever moves all else changes machines
			settle(5 * time.Second)
		}
		w := newWorld(t, storetest.Open(t), t.TempDir(), shoal.Pool{}, func(c *batch.Config) {
			c.Moved = func(context.Context) (time.Duration, error) {
				mu.Lock()
				defer mu.Unlock()
				return moved, fault
			}
		})
		w.play = func(api.TaskOrder) script { return script{takes: 10 * time.Hour} }
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{TimeLimit: shoal.Duration(2 * time.Hour)})
		began := time.Now()
		ages := func(want time.Duration) {
			t.Helper()
			a, j := w.history(j.ID, 0)[0], w.job(j.ID)
			for name, at := range map[string]time.Time{"placed": a.Placed, "started": a.Started, "job submitted": j.Submitted, "job started": j.Started, "job since": j.Since} {
				if age := time.Since(at); (age - want).Abs() > 2*time.Second {
					t.Errorf("after %s: %s %s ago, not %s", time.Since(began), name, age, want)
				}
			}
		}
		settle(10 * time.Minute)
		set(w, -time.Hour, nil) // put back: what began 10 minutes ago would begin in 50
		ages(time.Since(began) + time.Hour)
		w.restart(time.Second)
		settle(time.Minute)
		ages(time.Since(began) + time.Hour)
		set(w, time.Hour, nil) // what would be of the future begins now
		ages(5 * time.Second)
		set(w, 0, nil)
		ages(time.Hour + 10*time.Second)
		was := w.history(j.ID, 0)[0].Placed
		set(w, 2*time.Minute, nil)
		ages(time.Hour + 15*time.Second - 2*time.Minute)
		storetest.View(t, w.db, func(tx *store.Tx) error { // for the bill
			all, err := tx.IntervalsSince(time.Time{})
			if len(all) != 1 || all[0].Kind != shoal.ObjectTask || all[0].ID != "1/0#1@m-1" || all[0].User != "alice" || !all[0].Start.Equal(was) || all[0].End.Sub(was) != 2*time.Minute {
				t.Errorf("%+v", all)
			}
			return err
		})
		set(w, 0, nil)
		set(w, 0, errors.New("the store is away"))
		settle(2 * time.Hour)
		if j := w.job(j.ID); j.State != shoal.JobRunning {
			t.Errorf("it is not known what its times are, and it is %s", j.State)
		}
		set(w, 0, nil)
		settle(3 * time.Minute)
		if j := w.job(j.ID); j.State != shoal.JobTimedOut {
			t.Errorf("at last it is %s", j.State)
		}
	})
}

func TestPoolDeleted(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(api.TaskOrder) script { return script{takes: time.Hour} }
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-5"})
		settle(time.Second)
		storetest.Update(t, w.db, func(tx *store.Tx) error { return tx.Pools().Delete("lab") })
		if end := w.ended(j.ID); end.Job.State != shoal.JobCancelled || end.Job.Reason != "pool lab was deleted" {
			t.Errorf("ended %+v", end)
		}
	})
}

func TestGPUs(t *testing.T) {
	machine := shoal.Resources{CPUs: 8000, Memory: 8 << 30, GPUs: 4}
	bubble(t, shoal.Pool{Machine: machine}, func(w *world) {
		held := map[string]shoal.AttemptRef{}
		w.play = func(o api.TaskOrder) script {
			for _, g := range strings.Split(o.Env["SHOAL_GPUS"], ",") {
				if g != "" {
					held[g+o.Env["SHOAL_NODES"]] = o.Ref
				}
			}
			if o.Env["CUDA_VISIBLE_DEVICES"] != o.Env["SHOAL_GPUS"] {
				t.Errorf("CUDA sees %q", o.Env["CUDA_VISIBLE_DEVICES"])
			}
			return script{takes: time.Hour}
		}
		w.machine("m-1", func(m *shoal.Machine) { m.Resources = machine })
		w.submit(shoal.JobSpec{Resources: shoal.Resources{GPUs: 1}})
		settle(time.Second)
		w.restart(time.Second)
		w.submit(shoal.JobSpec{Resources: shoal.Resources{GPUs: 2}})
		w.submit(shoal.JobSpec{})
		w.submit(shoal.JobSpec{Resources: shoal.Resources{GPUs: 1}})
		settle(time.Second)
		if len(held) != 4 {
			t.Errorf("held: %v", held)
		}
	})
}

// While the disk is full nothing that was acknowledged is lost, agents are told to try again, and
// everything goes on by itself once there is space.
func TestFullDisk(t *testing.T) {
	dir := need.Disk(t, "3m")
	synctest.Test(t, func(t *testing.T) {
		db := storetest.OpenAt(t, filepath.Join(dir, "store.db"))
		w := newWorld(t, db, filepath.Join(dir, "output"), shoal.Pool{})
		want := strings.Repeat("x", 100_000)
		w.play = func(api.TaskOrder) script { return script{takes: time.Minute, out: want} }
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-3"})
		settle(20 * time.Second)
		empty := storetest.Fill(t, db, dir)
		if _, err := w.Submit(w.ctx, alice, shoal.JobSpec{Command: strings.Repeat("y", 60_000)}, ""); shoal.KindOf(err) != shoal.KindUnavailable || shoal.HintOf(err) == "" {
			t.Errorf("submitted on a full disk: %v", err)
		}
		_, err := w.Report(w.ctx, "m-1", nil, []api.Output{{Ref: ref(j.ID, 1, 1), Stream: "stderr", Data: make([]byte, 1<<20)}})
		if shoal.KindOf(err) != shoal.KindUnavailable || shoal.HintOf(err) == "" {
			t.Errorf("output on a full disk: %v", err)
		}
		settle(10 * time.Minute)
		if got := w.job(j.ID); got.State != shoal.JobRunning || got.Counts.Succeeded != 0 {
			t.Errorf("on a full disk: %+v", got)
		}
		empty()
		if end := w.ended(j.ID); end.Job.State != shoal.JobSucceeded {
			t.Errorf("with space again: %+v", end)
		}
		for i := 1; i <= 3; i++ {
			if w.output(j.ID, i, true) != want || len(w.history(j.ID, i)) != 1 {
				t.Errorf("task %d: output or attempts are wrong", i)
			}
		}
	})
}

// Agents that repeat, reorder and hold back, machines that die, a server that is ended and started
// at any moment, jobs cancelled and submitted meanwhile: every task ends as it should, no attempt
// is run twice, no task by two machines at once unless the first was given up, and every output
// is exact.
func TestChaos(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bubble(t, shoal.Pool{}, func(w *world) { chaos(w, seed) }) })
	}
}

func chaos(w *world, seed uint64) {
	t, rnd := w.t, rand.New(rand.NewPCG(seed, 7))
	out := func(r shoal.AttemptRef) string { return strings.Repeat(r.String()+" ", 1+r.Index%5) }
	w.play = func(o api.TaskOrder) script {
		s := script{takes: time.Duration(1+o.Ref.Index%7) * 700 * time.Millisecond, out: out(o.Ref)}
		if o.Ref.Index%6 == 1 && o.Ref.Attempt < 2 {
			s.exit = 1
		}
		return s
	}
	w.faults = 0.15
	machines := 0
	add := func() { machines++; w.machine(shoal.MachineID(fmt.Sprintf("m-%d", machines))) }
	for range 4 {
		add()
	}
	var jobs []shoal.JobID
	cancelled := map[shoal.JobID]bool{}
	for range 60 {
		switch rnd.IntN(8) {
		case 0, 1:
			s := shoal.JobSpec{Command: "true", Array: fmt.Sprintf("0-%d", rnd.IntN(20)), Retries: 3}
			if len(jobs) > 0 && rnd.IntN(3) == 0 {
				if id := jobs[rnd.IntN(len(jobs))]; !cancelled[id] {
					s.After = []shoal.Dependency{{Job: string(id)}}
				}
			}
			j, err := w.Submit(w.ctx, alice, s, "")
			if err != nil && shoal.KindOf(err) != shoal.KindConflict {
				t.Fatal(err)
			}
			if err == nil {
				jobs = append(jobs, j.ID)
			}
		case 2:
			w.restart(time.Duration(rnd.IntN(3000)) * time.Millisecond)
		case 3:
			id := shoal.MachineID(fmt.Sprintf("m-%d", 1+rnd.IntN(machines)))
			w.agents[id].die()
			w.put(id, state(shoal.MachineFailed))
			add()
		case 4:
			a := w.agents[shoal.MachineID(fmt.Sprintf("m-%d", 1+rnd.IntN(machines)))]
			a.disconnect()
			time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			a.connect(w.ctx, w.Batch)
		case 5:
			if len(jobs) > 0 && rnd.IntN(3) == 0 {
				id := jobs[rnd.IntN(len(jobs))]
				if _, err := w.Cancel(w.ctx, alice, id); err != nil {
					t.Fatal(err)
				}
				cancelled[id] = true
			}
		}
		time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
	}
	for _, a := range w.agents {
		a.mu.Lock()
		a.faults = 0
		a.mu.Unlock()
	}
	for _, id := range jobs {
		end := w.ended(id)
		if end.Job.State != shoal.JobSucceeded && end.Job.State != shoal.JobCancelled && !cancelled[id] {
			t.Errorf("job %s ended as %+v", id, end.Job)
		}
		check(w, end.Job, out)
	}
	for _, a := range w.agents {
		for r, n := range a.starts {
			if n != 1 {
				t.Errorf("%s was started %d times on %s", r, n, a.id)
			}
		}
	}
}

// check holds a job that ended against its rows and its output.
func check(w *world, j shoal.Job, out func(shoal.AttemptRef) string) {
	t := w.t
	tasks, err := w.Tasks(w.ctx, alice, j.ID, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var counts shoal.Counts
	for _, a := range tasks {
		counts.Add(a.State, 1)
		if a.State != shoal.JobSucceeded {
			continue
		}
		history := w.history(j.ID, a.Index)
		want := ""
		for i, h := range history {
			text := out(h.AttemptRef)
			if i > 0 {
				want += fmt.Sprintf("\n--- attempt %d of task %s ---\n", h.Attempt, h.TaskRef)
			}
			if h.Attempt != i+1 || !h.State.Ended() || h.StdoutBytes > int64(len(text)) || i > 0 && h.Placed.Before(history[i-1].Ended) {
				t.Errorf("attempts of %s: %+v", a.TaskRef, history)
				return
			}
			want += text[:h.StdoutBytes]
		}
		if last := history[len(history)-1]; last.StdoutBytes != int64(len(out(last.AttemptRef))) {
			t.Errorf("%s lacks output", last.AttemptRef)
		}
		if got := w.output(j.ID, a.Index, true); got != want {
			t.Errorf("output of %s: %q, want %q", a.TaskRef, got, want)
		}
	}
	if counts != j.Counts {
		t.Errorf("job %s counts %+v, its tasks are %+v", j.ID, j.Counts, counts)
	}
}

var errClient = errors.New("the client went away")

// A reader that fails ends its own request only; one in the middle of a long output may go on from there.
func TestReaderFails(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		want := strings.Repeat("0123456789", 20_000)
		w.play = func(api.TaskOrder) script { return script{takes: time.Minute, out: want} }
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{})
		got := ""
		for tries := 0; ; tries++ {
			n := 0
			err := w.read(w.ctx, alice, shoal.TaskRef{Job: j.ID, Index: -1}, output.Stdout, int64(len(got)), true, func(p []byte) error {
				if n++; n > 2 {
					return errClient
				}
				got += string(p)
				return nil
			})
			if err == nil {
				break
			}
			if !errors.Is(err, errClient) || tries > 10 {
				t.Fatal(err)
			}
		}
		if got != want {
			t.Errorf("%d bytes, want %d", len(got), len(want))
		}
	})
}
