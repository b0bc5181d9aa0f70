package batch_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func TestOneTask(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		var order api.TaskOrder
		w.play = func(o api.TaskOrder) script { order = o; return script{takes: time.Minute, out: "hello world\n"} }
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Name: "greet", Env: map[string]string{"A": "b", "RANK": "7"}, Workdir: "/w", Prepare: "p", TimeLimit: shoal.Duration(time.Hour),
			Inputs: map[string]string{"data": "/in"}, Outputs: map[string]shoal.OutputDir{"model": {Path: "/out"}}})
		if j.ID != "1" || j.State != shoal.JobQueued || j.Counts.Queued != 1 || j.Spec.Pool != "lab" {
			t.Errorf("submitted %+v", j)
		}
		settle(time.Second)
		if got := w.job(j.ID); got.State != shoal.JobRunning || got.Counts != (shoal.Counts{Running: 1}) || got.Next != 1 || got.Started.IsZero() {
			t.Errorf("running %+v", got)
		}
		end := w.ended(j.ID)
		if end.ExitCode != 0 || end.Job.State != shoal.JobSucceeded || end.Job.Counts != (shoal.Counts{Succeeded: 1}) || end.Job.Reason != "" {
			t.Errorf("ended %+v", end)
		}
		if got := w.output(j.ID, -1, true); got != "hello world\n" {
			t.Errorf("output %q", got)
		}
		a := w.history(j.ID, 0)
		if len(a) != 1 || a[0].State != shoal.JobSucceeded || a[0].StdoutBytes != 12 || a[0].Ended.Sub(a[0].Started) != time.Minute || a[0].Epoch != 1 {
			t.Errorf("attempts %+v", a)
		}
		for name, value := range map[string]string{"A": "b", "RANK": "7", "SHOAL_JOB_NAME": "greet", "SHOAL_NODES": "m-1", "SHOAL_RESTART_COUNT": "0", "SHOAL_OUTPUT_MODEL": "/out/1"} {
			if order.Env[name] != value {
				t.Errorf("%s is %q, want %q", name, order.Env[name], value)
			}
		}
		order.Env = nil // see package launch
		want := api.TaskOrder{Ref: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1"}, Attempt: 1}, User: "alice", Command: "true", Workdir: "/w", Prepare: "p",
			Outputs: []string{"/out/1"}, Resources: shoal.Resources{CPUs: 1000, Memory: 512 << 20}, TimeLimit: shoal.Duration(time.Hour)}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Error(diff)
		}
		var events []string
		storetest.View(t, w.db, func(tx *store.Tx) error {
			all, err := tx.Events(0, 0)
			for _, e := range all {
				events = append(events, e.Code+": "+e.Sentence)
			}
			return err
		})
		wantEvents := []string{"jobSubmitted: alice submitted job 1 (greet) to pool lab: 1 task", "jobRunning: job 1 (greet) is running", "jobEnded: job 1 (greet) succeeded"}
		if diff := cmp.Diff(wantEvents, events); diff != "" {
			t.Error(diff)
		}
		settle(time.Second)
		w.agents["m-1"].mu.Lock()
		if len(w.agents["m-1"].tasks) != 0 {
			t.Error("the agent was not told to forget the attempt")
		}
		w.agents["m-1"].mu.Unlock()
	})
}

func TestArray(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			s := script{takes: time.Second, out: "task " + o.Env["SHOAL_ARRAY_INDEX"]}
			switch o.Ref.Index {
			case 4:
				s.exit = 3
			case 8:
				s.signal, s.cause = 9, shoal.CauseOOM
			}
			return s
		}
		w.machine("m-1")
		w.machine("m-2")
		j := w.submit(shoal.JobSpec{Array: "0-10:2,20"})
		settle(1500 * time.Millisecond)
		tasks, err := w.Tasks(w.ctx, alice, j.ID, 0, 0)
		if err != nil || len(tasks) != 7 {
			t.Fatalf("%d tasks, %v", len(tasks), err)
		}
		var got []string
		for _, a := range tasks {
			got = append(got, fmt.Sprintf("%s %s", a.TaskRef, a.State))
		}
		want := []string{"1/0 succeeded", "1/2 succeeded", "1/4 running", "1/6 running", "1/8 queued", "1/10 queued", "1/20 queued"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		end := w.ended(j.ID)
		if end.ExitCode != 3 || end.Job.State != shoal.JobFailed || end.Job.Counts != (shoal.Counts{Succeeded: 5, Failed: 2}) ||
			end.Job.Reason != "2 of 7 tasks did not succeed; the first is 1/4: it exited with 3" {
			t.Errorf("ended %+v", end)
		}
		if a := w.history(j.ID, 8)[0]; a.ExitCode != 137 || a.Reason != "it needed more memory than the 512MiB it asked for" {
			t.Errorf("out of memory: %+v", a)
		}
		if got := w.output(j.ID, 20, false); got != "task 20" {
			t.Errorf("output %q", got)
		}
		tasks, err = w.Tasks(w.ctx, alice, j.ID, 3, 2)
		if err != nil || len(tasks) != 2 || tasks[0].Index != 4 || tasks[1].Index != 6 {
			t.Errorf("a page of tasks: %+v, %v", tasks, err)
		}
		for index, k := range map[int]shoal.Kind{-1: shoal.KindInvalid, 3: shoal.KindNotFound} {
			kind(t, w.read(w.ctx, alice, shoal.TaskRef{Job: j.ID, Index: index}, output.Stdout, 0, false, nil), k)
		}
		kind(t, w.read(w.ctx, alice, shoal.TaskRef{Job: j.ID, Index: 4}, output.Stdout, -1, false, nil), shoal.KindInvalid)
	})
}

// A task that fails is tried again as often as the job says, and its output is that of all attempts.
func TestRetries(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			s := script{takes: time.Second, exit: 1, out: fmt.Sprintf("try %d\n", o.Ref.Attempt)}
			if o.Ref.Index == 1 && o.Ref.Attempt == 3 {
				s.exit = 0
			}
			return s
		}
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-2", Retries: 2})
		end := w.ended(j.ID)
		if end.ExitCode != 1 || end.Job.Counts != (shoal.Counts{Succeeded: 1, Failed: 1}) {
			t.Errorf("ended %+v", end)
		}
		if a := w.history(j.ID, 2); len(a) != 3 || a[2].Failures != 3 {
			t.Errorf("attempts %+v", a)
		}
		want := "try 1\n\n--- attempt 2 of task 1/1 ---\ntry 2\n\n--- attempt 3 of task 1/1 ---\ntry 3\n"
		for offset := range len(want) + 5 {
			got := ""
			err := w.read(w.ctx, alice, shoal.TaskRef{Job: j.ID, Index: 1}, output.Stdout, int64(offset), true, func(p []byte) error { got += string(p); return nil })
			if err != nil || got != want[min(offset, len(want)):] {
				t.Errorf("from %d: %q, %v", offset, got, err)
			}
		}
		for offset := range 3 { // nothing was written there, so there is nothing to tell apart
			err := w.read(w.ctx, alice, shoal.TaskRef{Job: j.ID, Index: 1}, output.Stderr, int64(offset), true, func(p []byte) error { t.Errorf("stderr holds %q", p); return nil })
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// Whoever follows gets what is written as it is written, over attempts and restarts, to the end.
func TestFollow(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			return script{takes: 4 * time.Second, out: "abcd", exit: 2 - o.Ref.Attempt}
		}
		j := w.submit(shoal.JobSpec{Retries: 1})
		var got []string
		done := make(chan error)
		start := time.Now()
		go func() {
			done <- w.read(w.ctx, alice, shoal.TaskRef{Job: j.ID, Index: -1}, output.Stdout, 0, true, func(p []byte) error {
				got = append(got, fmt.Sprintf("%s@%d", strings.TrimSpace(string(p)), int(time.Since(start).Seconds())))
				return nil
			})
		}()
		settle(10 * time.Second)
		w.machine("m-1")
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := []string{"a@11", "b@12", "c@13", "d@14", "--- attempt 2 of task 1/0 ---@14", "a@15", "b@16", "c@17", "d@18"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if time.Since(start) != 18*time.Second {
			t.Errorf("it ended after %v", time.Since(start))
		}
		never := w.submit(shoal.JobSpec{Resources: shoal.Resources{CPUs: 1000}, After: []shoal.Dependency{{Job: string(w.submit(shoal.JobSpec{}).ID)}}})
		go func() {
			done <- w.read(w.ctx, alice, shoal.TaskRef{Job: never.ID, Index: 0}, output.Stdout, 0, true, nil)
		}()
		settle(time.Millisecond)
		if _, err := w.Cancel(w.ctx, alice, never.ID); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("a job cancelled before it began: %v", err)
		}
		if n := w.Bells(); n != 0 {
			t.Errorf("%d bells are left", n)
		}
	})
}

func TestRefused(t *testing.T) {
	bubble(t, shoal.Pool{Machine: shoal.Resources{CPUs: 2000, Memory: 4 << 30, GPUs: 4}, Limits: shoal.Limits{PerUser: shoal.PerUser{GPUs: 2}}}, func(w *world) {
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			for _, p := range []shoal.Pool{{Name: "desk", Uses: []shoal.Use{shoal.UseInteractive}}, {Name: "old", Uses: []shoal.Use{shoal.UseBatch}, Deleting: true}} {
				if _, err := tx.Pools().Put(p); err != nil {
					return err
				}
			}
			return nil
		})
		w.submit(shoal.JobSpec{Name: "hers"})
		ok := func(change func(*shoal.JobSpec)) shoal.JobSpec {
			s := shoal.JobSpec{Pool: "lab", Command: "true"}
			change(&s)
			return s
		}
		for _, c := range []struct {
			name string
			by   access.Subject
			spec shoal.JobSpec
			kind shoal.Kind
			says string
		}{
			{"the host", access.Subject{Host: true}, ok(func(*shoal.JobSpec) {}), shoal.KindDenied, "a job runs as a user"},
			{"disabled", access.Subject{User: "dora"}, ok(func(*shoal.JobSpec) {}), shoal.KindDenied, "disabled"},
			{"no command", alice, shoal.JobSpec{Pool: "lab"}, shoal.KindInvalid, "no command"},
			{"no such pool", alice, ok(func(s *shoal.JobSpec) { s.Pool = "lob" }), shoal.KindNotFound, `no pool "lob"`},
			{"not for jobs", alice, ok(func(s *shoal.JobSpec) { s.Pool = "desk" }), shoal.KindInvalid, "not for jobs"},
			{"being deleted", alice, ok(func(s *shoal.JobSpec) { s.Pool = "old" }), shoal.KindConflict, "being deleted"},
			{"too large", alice, ok(func(s *shoal.JobSpec) { s.Resources = shoal.Resources{CPUs: 2500, Memory: 8 << 30, GPUs: 5} }), shoal.KindInvalid,
				"it asks for 2.5 processors and 8GiB of memory and 5 GPUs, and a machine of pool lab has 2 processors, 4GiB of memory and 4 GPUs"},
			{"more GPUs than one may hold", alice, ok(func(s *shoal.JobSpec) { s.Resources = shoal.Resources{GPUs: 3} }), shoal.KindInvalid, "a user may hold 2 GPUs"},
			{"two nodes", alice, ok(func(s *shoal.JobSpec) { s.Nodes = shoal.Fixed(2) }), shoal.KindInvalid, "2 machines at once, and pool lab has 0 at most"},
			{"secrets", alice, ok(func(s *shoal.JobSpec) { s.Secrets = map[string]string{"A": "b"} }), shoal.KindNotFound, `there is no secret "b"`},
			{"array", alice, ok(func(s *shoal.JobSpec) { s.Array = "5-1" }), shoal.KindInvalid, "ends before it begins"},
			{"outputs of one name", alice, ok(func(s *shoal.JobSpec) { s.Outputs = map[string]shoal.OutputDir{"a": {Path: "/a"}, "A": {Path: "/b"}} }), shoal.KindInvalid, "the same variable"},
			{"after nothing", alice, ok(func(s *shoal.JobSpec) { s.After = []shoal.Dependency{{Job: "99"}} }), shoal.KindNotFound, `no job "99"`},
			{"after another's private job", bob, ok(func(s *shoal.JobSpec) { s.After = []shoal.Dependency{{Job: "1"}} }), shoal.KindNotFound, `no job "1"`},
			{"after another's name", bob, ok(func(s *shoal.JobSpec) { s.After = []shoal.Dependency{{Job: "hers"}} }), shoal.KindNotFound, "no job of that name"},
		} {
			_, err := w.Submit(w.ctx, c.by, c.spec, "")
			text := fmt.Sprint(err)
			for _, m := range shoal.MistakesOf(err) {
				text += "\n" + m.Msg
			}
			if shoal.KindOf(err) != c.kind || !strings.Contains(text, c.says) {
				t.Errorf("%s: %v %s", c.name, shoal.KindOf(err), text)
			}
		}
		jobs, _, err := w.Jobs(w.ctx, oscar, store.JobFilter{}, "", 0)
		if err != nil || len(jobs) != 1 {
			t.Errorf("%d jobs, %v", len(jobs), err)
		}
	})
}

func TestDefaultPool(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		add := func(p shoal.Pool) {
			p.Uses, p.Machine = []shoal.Use{shoal.UseBatch}, shoal.Resources{CPUs: 1000, Memory: 1 << 30}
			storetest.Update(t, w.db, func(tx *store.Tx) error { _, err := tx.Pools().Put(p); return err })
		}
		if j := w.submit(shoal.JobSpec{}); j.Spec.Pool != "lab" {
			t.Errorf("the only pool: %s", j.Spec.Pool)
		}
		add(shoal.Pool{Name: "gym"})
		_, err := w.Submit(w.ctx, alice, shoal.JobSpec{Command: "true"}, "")
		kind(t, err, shoal.KindInvalid)
		w.put("m-9", func(m *shoal.Machine) { m.Pool = "gym" })
		there := alice
		there.Machine = "m-9"
		if j, err := w.Submit(w.ctx, there, shoal.JobSpec{Command: "true"}, ""); err != nil || j.Spec.Pool != "gym" {
			t.Errorf("from a machine: %s, %v", j.Spec.Pool, err)
		}
		add(shoal.Pool{Name: "track", Default: true})
		if j := w.submit(shoal.JobSpec{}); j.Spec.Pool != "track" {
			t.Errorf("the default pool: %s", j.Spec.Pool)
		}
	})
}

func TestKey(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		spec := shoal.JobSpec{Command: "true"}
		first, err := w.Submit(w.ctx, alice, spec, "k")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan shoal.Job)
		for range 10 {
			go func() {
				j, err := w.Submit(w.ctx, bob, spec, "k")
				if err != nil {
					t.Error(err)
				}
				done <- j
			}()
		}
		for range 10 {
			if j := <-done; j.ID != "2" {
				t.Errorf("bob's: job %s", j.ID)
			}
		}
		w.restart(time.Minute)
		if again, err := w.Submit(w.ctx, alice, spec, "k"); err != nil || again.ID != first.ID {
			t.Errorf("again: %+v, %v", again, err)
		}
		spec.Command = "false"
		_, err = w.Submit(w.ctx, alice, spec, "k")
		kind(t, err, shoal.KindConflict)
		time.Sleep(8 * 24 * time.Hour)
		if _, err := w.Submit(w.ctx, alice, spec, "other"); err != nil {
			t.Error(err)
		}
		if j, err := w.Submit(w.ctx, alice, spec, "k"); err != nil || j.ID != "4" {
			t.Errorf("after a week: %+v, %v", j, err)
		}
	})
}

func TestAfter(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			s := script{takes: time.Minute}
			if o.Command == "false" {
				s.exit = 1
			}
			return s
		}
		w.machine("m-1")
		w.machine("m-2")
		one := w.submit(shoal.JobSpec{Name: "prep"})
		two := w.submit(shoal.JobSpec{Name: "prep"})
		train := w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(one.ID)}, {Job: "prep"}}})
		if !train.Blocked || train.Reason != "waits for job 1 (prep) and 2 (prep)" {
			t.Errorf("submitted %+v", train)
		}
		if diff := cmp.Diff([]shoal.Dependency{{Job: string(one.ID)}, {Job: string(two.ID)}}, train.Spec.After); diff != "" {
			t.Error(diff)
		}
		settle(time.Second)
		w.restart(time.Second)
		if j := w.job(train.ID); j.State != shoal.JobQueued {
			t.Errorf("it did not wait: %+v", j)
		}
		if why, err := w.WhyJob(w.ctx, alice, train.ID); err != nil || why.Sentence != "it waits for job 1 (prep) (running); waits for job 2 (prep) (running)" {
			t.Errorf("why: %+v, %v", why, err)
		}
		if end := w.ended(train.ID); end.Job.State != shoal.JobSucceeded || end.Job.Started.Before(w.job(two.ID).Ended) {
			t.Errorf("ended %+v", end)
		}
		if j := w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(one.ID)}}}); j.Blocked {
			t.Errorf("waits for what has ended: %+v", j)
		}
		bad := w.submit(shoal.JobSpec{Command: "false", Name: "bad"})
		next := w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(bad.ID)}}})
		last := w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(next.ID)}}})
		if end := w.ended(last.ID); end.Job.State != shoal.JobCancelled || end.ExitCode != 125 || !strings.Contains(end.Job.Reason, "had to succeed first, was cancelled") {
			t.Errorf("ended %+v", end)
		}
		if j := w.job(next.ID); j.Reason != "job 5 (bad), which had to succeed first, failed" || j.Counts != (shoal.Counts{Cancelled: 1}) {
			t.Errorf("ended %+v", j)
		}
		// As Slurm does it: taken, and over.
		lost := w.submit(shoal.JobSpec{Dialect: "slurm", After: []shoal.Dependency{{Job: string(bad.ID)}}})
		if end := w.ended(lost.ID); end.Job.State != shoal.JobCancelled || end.Job.Reason != "job 5 (bad), which had to succeed first, failed" || end.Job.Counts != (shoal.Counts{Cancelled: 1}) {
			t.Errorf("ended %+v", end)
		}
		_, err := w.Submit(w.ctx, alice, shoal.JobSpec{Command: "true", After: []shoal.Dependency{{Job: string(bad.ID)}}}, "")
		kind(t, err, shoal.KindConflict)
	})
}

func TestCancel(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(api.TaskOrder) script { return script{takes: time.Hour, out: "12345678"} }
		w.machine("m-1")
		w.machine("m-2")
		j := w.submit(shoal.JobSpec{Array: "0-99999"})
		waiting := w.submit(shoal.JobSpec{})
		settle(30 * time.Minute)
		got, err := w.Cancel(w.ctx, alice, j.ID)
		if err != nil || !got.Cancel || got.Counts != (shoal.Counts{Running: 2, Cancelled: 99998}) {
			t.Errorf("cancelled %+v, %v", got, err)
		}
		end := w.ended(j.ID)
		if end.Job.State != shoal.JobCancelled || end.Job.Counts != (shoal.Counts{Cancelled: 100000}) || end.ExitCode != 143 || end.Job.Reason != "cancelled by alice" {
			t.Errorf("ended %+v", end)
		}
		if out := w.output(j.ID, 0, true); !strings.HasPrefix(out, "1234") {
			t.Errorf("output %q", out)
		}
		if tasks, err := w.Tasks(w.ctx, alice, j.ID, 99998, 0); err != nil || len(tasks) != 2 || tasks[1].State != shoal.JobCancelled {
			t.Errorf("tasks %+v, %v", tasks, err)
		}
		settle(time.Second)
		if s := w.job(waiting.ID).State; s != shoal.JobRunning {
			t.Errorf("the next job is %s", s)
		}
		if _, err := w.Cancel(w.ctx, oscar, waiting.ID); err != nil {
			t.Error(err)
		}
		if j := w.ended(waiting.ID).Job; j.Reason != "cancelled by oscar" {
			t.Errorf("ended %+v", j)
		}
		if again, err := w.Cancel(w.ctx, alice, j.ID); err != nil || again.State != shoal.JobCancelled {
			t.Errorf("cancelled again: %+v, %v", again, err)
		}
		_, err = w.Cancel(w.ctx, alice, "99")
		kind(t, err, shoal.KindNotFound)
		blocked := w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(w.submit(shoal.JobSpec{}).ID)}}})
		if err := w.CancelAs(w.ctx, blocked.ID); err != nil {
			t.Error(err)
		}
		if end := w.ended(blocked.ID); end.ExitCode != 125 || end.Job.State != shoal.JobCancelled {
			t.Errorf("ended %+v", end)
		}
	})
}

// What is cancelled while its machine's agent is away ends when the agent comes back, and what
// was to start again is on record as cancelled.
func TestCancelAway(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(o api.TaskOrder) script { return script{takes: time.Hour, exit: 1} }
		a := w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-2", Retries: 5})
		settle(90 * time.Minute) // one failed and waits before the other, which never started
		if got := w.job(j.ID); got.Counts.Queued != 1 || got.Next < 1 {
			t.Fatalf("running %+v", got)
		}
		a.disconnect()
		if _, err := w.Cancel(w.ctx, alice, j.ID); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if s := w.job(j.ID).State; s != shoal.JobRunning {
			t.Errorf("with its agent away: %s", s)
		}
		a.connect(w.ctx, w.Batch)
		if end := w.ended(j.ID); end.Job.Counts != (shoal.Counts{Cancelled: 2}) {
			t.Errorf("ended %+v", end)
		}
	})
}

func TestAccess(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.machine("m-1")
		private := w.submit(shoal.JobSpec{Name: "private"})
		shared := w.submit(shoal.JobSpec{Name: "shared", Share: "group"})
		w.ended(shared.ID)
		ref := func(j shoal.Job) shoal.TaskRef { return shoal.TaskRef{Job: j.ID, Index: 0} }
		read := func(by access.Subject, j shoal.Job) error {
			return w.read(w.ctx, by, ref(j), output.Stdout, 0, false, func([]byte) error { return nil })
		}
		for _, c := range []struct {
			by                 access.Subject
			sees, reads, finds int
		}{{alice, 2, 2, 2}, {bob, 0, 0, 0}, {carol, 1, 1, 1}, {oscar, 2, 0, 2}, {access.Subject{Host: true}, 2, 2, 2}} {
			sees, reads := 0, 0
			for _, j := range []shoal.Job{private, shared} {
				_, err := w.Job(w.ctx, c.by, j.ID)
				_, err2 := w.WhyJob(w.ctx, c.by, j.ID)
				_, err3 := w.Tasks(w.ctx, c.by, j.ID, 0, 0)
				_, err4 := w.Wait(w.ctx, c.by, j.ID)
				if err == nil {
					sees++
				}
				for _, e := range []error{err, err2, err3, err4} {
					if (e == nil) != (err == nil) || e != nil && shoal.KindOf(e) != shoal.KindNotFound {
						t.Errorf("%s, job %s: %v", c.by, j.ID, e)
					}
				}
				if read(c.by, j) == nil {
					reads++
				}
			}
			jobs, _, err := w.Jobs(w.ctx, c.by, store.JobFilter{}, "", 10)
			if sees != c.sees || reads != c.reads || len(jobs) != c.finds || err != nil {
				t.Errorf("%s sees %d, reads %d, finds %d, %v", c.by, sees, reads, len(jobs), err)
			}
			if c.by.User == "carol" || c.by.User == "bob" {
				_, err := w.Cancel(w.ctx, c.by, shared.ID)
				if k := shoal.KindOf(err); k != shoal.KindDenied && k != shoal.KindNotFound {
					t.Errorf("%s cancels: %v", c.by, err)
				}
			}
		}
	})
}

func TestPages(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		for i := range 25 {
			by := []access.Subject{alice, bob, carol}[i%3]
			if _, err := w.Submit(w.ctx, by, shoal.JobSpec{Command: "true"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		for by, want := range map[*access.Subject]int{&alice: 9, &bob: 8, &oscar: 25} {
			n, cursor := 0, ""
			for {
				jobs, next, err := w.Jobs(w.ctx, *by, store.JobFilter{}, cursor, 2)
				if err != nil || len(jobs) > 2 {
					t.Fatalf("%d jobs, %v", len(jobs), err)
				}
				n += len(jobs)
				if cursor = next; cursor == "" {
					break
				}
			}
			if n != want {
				t.Errorf("%s sees %d jobs, want %d", by, n, want)
			}
		}
	})
}

func TestWhy(t *testing.T) {
	bubble(t, shoal.Pool{Size: shoal.Size{Max: 4}}, func(w *world) {
		w.play = func(api.TaskOrder) script { return script{takes: time.Hour} }
		why := func(id shoal.JobID, want string) {
			t.Helper()
			settle(time.Second)
			got, err := w.WhyJob(w.ctx, alice, id)
			if err != nil || got.Sentence != want {
				t.Errorf("why: %q, %v\nwant %q", got.Sentence, err, want)
			}
		}
		j := w.submit(shoal.JobSpec{Array: "1-8"})
		why(j.ID, "it waits: pool lab has no machine; one is asked for")
		list, _, err := w.Jobs(w.ctx, alice, store.JobFilter{}, "", 0)
		if err != nil || len(list) != 1 || list[0].Reason != "pool lab has no machine; one is asked for" {
			t.Errorf("a list gives no reason: %+v, %v", list, err)
		}
		if got, err := w.Job(w.ctx, alice, j.ID); err != nil || got.Reason != list[0].Reason {
			t.Errorf("the job alone gives another reason: %q, %v", got.Reason, err)
		}
		w.put("m-0", state(shoal.MachineGone), func(m *shoal.Machine) { m.ReadyAt, m.Reason = time.Time{}, "there is no such image" })
		w.put("m-1", state(shoal.MachineBooting))
		why(j.ID, "it waits: pool lab has no machine ready; 1 is starting; machine m-0 did not start: there is no such image")
		w.machine("m-1")
		w.machine("m-2")
		w.machine("m-3")
		w.machine("m-4", func(m *shoal.Machine) { m.Cordons = []shoal.Cordon{{Owner: shoal.CordonOperator}} })
		why(j.ID, "3 of 8 tasks run, 5 wait: 3 of 4 machines of pool lab are full; 1 is draining")
		other := w.submit(shoal.JobSpec{})
		why(other.ID, "it waits: 3 of 4 machines of pool lab are full; 1 is draining; 5 tasks were there before it")
		if _, err := w.Cancel(w.ctx, alice, other.ID); err != nil {
			t.Fatal(err)
		}
		why(other.ID, "it was cancelled: cancelled by alice")
		w.agents["m-1"].disconnect()
		if _, err := w.Cancel(w.ctx, alice, j.ID); err != nil {
			t.Fatal(err)
		}
		why(j.ID, "it is being cancelled (cancelled by alice): 1 task still to be ended")
	})
}
