package batch_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// states are those of a job's tasks by index: "1:succeeded 2:failed".
func (w *world) states(id shoal.JobID) string {
	w.t.Helper()
	all, err := w.Tasks(w.ctx, alice, id, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var words []string
	for _, a := range all {
		words = append(words, fmt.Sprintf("%d:%s", a.Index, a.State))
	}
	return strings.Join(words, " ")
}

// failing makes tasks fail whose reference is listed, and others take a minute.
func failing(list ...string) func(api.TaskOrder) script {
	return func(o api.TaskOrder) script {
		s := script{takes: time.Minute}
		for _, f := range list {
			if f == o.Ref.String() {
				s.exit = 3
			}
		}
		return s
	}
}

// Jobs wait for an end of any kind, or for a failure.
func TestConditions(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = failing("1/0#1")
		w.machine("m-1")
		w.machine("m-2")
		bad, good := w.submit(shoal.JobSpec{}), w.submit(shoal.JobSpec{})
		after := func(j shoal.Job, c shoal.Condition) shoal.Job {
			return w.submit(shoal.JobSpec{After: []shoal.Dependency{{Job: string(j.ID), Condition: c}}})
		}
		var got []string
		var all []shoal.Job
		for _, j := range []shoal.Job{bad, good} {
			for _, c := range []shoal.Condition{shoal.AfterOK, shoal.AfterAny, shoal.AfterFailed} {
				all = append(all, after(j, c))
			}
		}
		settle(time.Second)
		w.restart(time.Second)
		for _, j := range all {
			end := w.ended(j.ID).Job
			got = append(got, string(end.State)+" "+end.Reason)
		}
		want := []string{"cancelled job 1, which had to succeed first, failed", "succeeded ", "succeeded ",
			"succeeded ", "succeeded ", "cancelled job 2, which had to fail first, succeeded"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		late, err := w.Submit(w.ctx, alice, shoal.JobSpec{Command: "true", After: []shoal.Dependency{{Job: "2", Condition: shoal.AfterFailed}}}, "")
		if shoal.KindOf(err) != shoal.KindConflict {
			t.Errorf("after what has ended otherwise: %+v, %v", late, err)
		}
	})
}

// Tasks of one job wait for each other by name; those behind one that failed are cancelled, and a retry
// goes on where it broke. The server is restarted in between.
func TestDifferentTasks(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		var mu sync.Mutex
		var commands []string
		w.play = func(o api.TaskOrder) script {
			mu.Lock()
			defer mu.Unlock()
			commands = append(commands, o.Command)
			return failing("1/2#1")(o)
		}
		w.machine("m-1")
		w.machine("m-2")
		j, err := w.Submit(w.ctx, alice, shoal.JobSpec{Tasks: []shoal.TaskSpec{
			{Name: "fetch", Command: "fetch"}, {Name: "clean", Command: "clean", After: []string{"fetch"}},
			{Name: "train", Command: "train", After: []string{"clean"}}, {Name: "plot", Command: "plot", After: []string{"train", "fetch"}},
			{Name: "notes", Command: "notes"}}}, "")
		if err != nil {
			t.Fatal(err)
		}
		settle(30 * time.Second)
		if got := w.states(j.ID); got != "0:running 1:queued 2:queued 3:queued 4:running" {
			t.Errorf("at first: %s", got)
		}
		settle(time.Minute)
		w.restart(time.Second)
		settle(time.Second)
		if got := w.states(j.ID); got != "0:succeeded 1:running 2:queued 3:queued 4:succeeded" {
			t.Errorf("then: %s", got)
		}
		end := w.ended(j.ID)
		if got := w.states(j.ID); got != "0:succeeded 1:succeeded 2:failed 3:cancelled 4:succeeded" || end.Job.State != shoal.JobFailed || end.ExitCode != 3 {
			t.Errorf("at last: %s, %+v", got, end)
		}
		if a := w.history(j.ID, 3); len(a) != 1 || a[0].Reason != "task train, which had to succeed first, failed" {
			t.Errorf("the task behind: %+v", a)
		}
		again, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{})
		if err != nil || again.Counts.Queued+again.Counts.Starting != 2 || again.Counts.Succeeded != 3 {
			t.Fatalf("retried: %+v, %v", again, err)
		}
		w.restart(time.Second)
		end = w.ended(j.ID)
		if end.Job.State != shoal.JobSucceeded || end.Job.Counts != (shoal.Counts{Succeeded: 5}) || len(w.history(j.ID, 3)) != 2 {
			t.Errorf("ended %+v", end)
		}
		if diff := cmp.Diff([]string{"fetch", "notes", "clean", "train", "train", "plot"}, commands); diff != "" {
			if diff := cmp.Diff([]string{"notes", "fetch", "clean", "train", "train", "plot"}, commands); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// Arrays wait for each other task by task.
func TestCorresponding(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = failing("1/2#1")
		w.machine("m-1")
		w.machine("m-2")
		each := func(j shoal.Job, c shoal.Condition) []shoal.Dependency {
			return []shoal.Dependency{{Job: string(j.ID), Task: shoal.Corresponding, Condition: c}}
		}
		prep := w.submit(shoal.JobSpec{Array: "1-4"})
		train := w.submit(shoal.JobSpec{Array: "1-5", After: each(prep, ""), Priority: "high"})
		clean := w.submit(shoal.JobSpec{Array: "1-5", After: each(train, shoal.AfterAny), Priority: "high"})
		settle(time.Second)
		settle(time.Minute)
		w.restart(time.Second)
		settle(2 * time.Minute)
		if got := w.states(train.ID); !strings.HasPrefix(got, "1:succeeded 2:cancelled") {
			t.Errorf("then: %s", got)
		}
		if end := w.ended(clean.ID); end.Job.State != shoal.JobSucceeded {
			t.Errorf("ended %+v", end)
		}
		if end := w.ended(train.ID).Job; end.Counts != (shoal.Counts{Succeeded: 4, Cancelled: 1}) || end.Started.After(w.job(prep.ID).Ended) {
			t.Errorf("ended %+v", end)
		}
		a := w.history(train.ID, 2)
		if len(a) != 1 || a[0].Reason != "task 1/2, which had to succeed first, failed" {
			t.Errorf("attempts %+v", a)
		}
		// What waits for a job that is cancelled as a whole ends as it says.
		prep = w.submit(shoal.JobSpec{Array: "1-1000"})
		train = w.submit(shoal.JobSpec{Array: "1-1000", After: each(prep, "")})
		clean = w.submit(shoal.JobSpec{Array: "1-1000", After: each(prep, shoal.AfterFailed)})
		settle(90 * time.Second)
		if _, err := w.Cancel(w.ctx, alice, prep.ID); err != nil {
			t.Fatal(err)
		}
		if end := w.ended(train.ID).Job; end.Counts.Cancelled < 990 || end.Counts.Succeeded == 0 || end.State != shoal.JobCancelled {
			t.Errorf("ended %+v", end)
		}
		if _, err := w.Cancel(w.ctx, alice, clean.ID); err != nil {
			t.Fatal(err)
		}
		if end := w.ended(clean.ID).Job; end.Counts.Total() != 1000 {
			t.Errorf("ended %+v", end)
		}
	})
}

// After so many failures the rest is cancelled.
func TestMaxFails(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = failing("1/2#1", "1/4#1", "1/4#2")
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-100", MaxFails: 2})
		end := w.ended(j.ID)
		if end.Job.State != shoal.JobFailed || end.Job.Counts != (shoal.Counts{Succeeded: 2, Failed: 2, Cancelled: 96}) || end.ExitCode != 3 ||
			!strings.HasPrefix(end.Job.Reason, "2 tasks failed, and the job allows no more; 98 of 100 tasks did not succeed; the first is 1/2") {
			t.Errorf("ended %+v", end)
		}
		again, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{Tasks: "2,4,50"})
		if err != nil || again.Counts.Queued+again.Counts.Starting != 3 || again.Counts.Cancelled != 95 {
			t.Fatalf("retried: %+v, %v", again, err)
		}
		w.restart(time.Second)
		end = w.ended(j.ID)
		if end.Job.Counts != (shoal.Counts{Succeeded: 4, Failed: 1, Cancelled: 95}) {
			t.Errorf("ended %+v", end)
		}
		if _, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{Tasks: "1"}); shoal.KindOf(err) != shoal.KindConflict {
			t.Errorf("retried what succeeded: %v", err)
		}
		if _, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{Tasks: "7777"}); shoal.KindOf(err) != shoal.KindNotFound {
			t.Errorf("retried what is not there: %v", err)
		}
		if _, err := w.Retry(w.ctx, bob, j.ID, api.RetryRequest{}); shoal.KindOf(err) != shoal.KindNotFound {
			t.Errorf("retried by another: %v", err)
		}
		again, err = w.Retry(w.ctx, alice, j.ID, api.RetryRequest{})
		if err != nil || again.Counts.Queued+again.Counts.Starting != 96 || again.Counts.Succeeded != 4 {
			t.Fatalf("retried: %+v, %v", again, err)
		}
		if _, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{}); shoal.KindOf(err) != shoal.KindConflict {
			t.Errorf("retried what has not ended: %v", err)
		}
		if end = w.ended(j.ID); end.Job.Counts != (shoal.Counts{Succeeded: 100}) || end.Job.State != shoal.JobSucceeded {
			t.Errorf("ended %+v", end)
		}
	})
}

// A job of long ago, whose rows were packed, goes on like any other.
func TestRetryPacked(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			s := failing("1/3#1", "1/7#1")(o)
			s.out = o.Ref.String()
			return s
		}
		w.machine("m-1")
		w.machine("m-2")
		j := w.submit(shoal.JobSpec{Array: "1-50"})
		pack := func() {
			settle(time.Hour)
			for n := 1; n > 0; {
				var err error
				if n, err = w.db.Pack(w.ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		settle(10 * time.Minute)
		pack() // while it runs
		w.restart(time.Second)
		if end := w.ended(j.ID); end.Job.Counts != (shoal.Counts{Succeeded: 48, Failed: 2}) {
			t.Errorf("ended %+v", end)
		}
		pack()
		if _, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{Tasks: "7"}); err != nil {
			t.Fatal(err)
		}
		w.restart(time.Second)
		if end := w.ended(j.ID); end.Job.Counts != (shoal.Counts{Succeeded: 49, Failed: 1}) || end.ExitCode != 3 {
			t.Errorf("ended %+v", end)
		}
		pack()
		if _, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{}); err != nil {
			t.Fatal(err)
		}
		if end := w.ended(j.ID); end.Job.State != shoal.JobSucceeded || end.Job.Counts != (shoal.Counts{Succeeded: 50}) {
			t.Errorf("ended %+v", end)
		}
		for index, want := range map[int]string{1: "1/1#1", 3: "1/3#1\n--- attempt 2 of task 1/3 ---\n1/3#2", 7: "1/7#1\n--- attempt 2 of task 1/7 ---\n1/7#2"} {
			if got := w.output(j.ID, index, true); got != want {
				t.Errorf("output of %d: %q, want %q", index, got, want)
			}
		}
	})
}

// Single tasks can be cancelled, whether they run, wait, or wait to start again.
func TestCancelTasks(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		w.play = failing("1/1#1")
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-20", Retries: 5})
		settle(time.Second)
		got, err := w.CancelTasks(w.ctx, alice, j.ID, "1,5-8,20")
		if err != nil || got.Counts != (shoal.Counts{Running: 1, Queued: 14, Cancelled: 5}) {
			t.Fatalf("cancelled: %+v, %v", got, err)
		}
		w.restart(time.Second)
		if end := w.ended(j.ID); end.Job.Counts != (shoal.Counts{Succeeded: 14, Cancelled: 6}) || end.Job.State != shoal.JobCancelled {
			t.Errorf("ended %+v: %s", end, w.states(j.ID))
		}
		if a := w.history(j.ID, 5); len(a) != 1 || a[0].Reason != "cancelled by alice" || a[0].Machine != "" {
			t.Errorf("attempts %+v", a)
		}
		if _, err := w.CancelTasks(w.ctx, alice, j.ID, "3"); err != nil {
			t.Errorf("of a job that has ended: %v", err)
		}
		_, err = w.CancelTasks(w.ctx, alice, j.ID, "3,21")
		kind(t, err, shoal.KindNotFound)
	})
}

// What is refused leaves the job, and what is counted of its user, as they were.
func TestRefusedChangesNothing(t *testing.T) {
	bubble(t, shoal.Pool{Limits: shoal.Limits{PerUser: shoal.PerUser{Jobs: 1}}}, func(w *world) {
		w.machine("m-1")
		j := w.submit(shoal.JobSpec{Array: "1-200001"})
		settle(time.Minute)
		before := w.job(j.ID)
		_, err := w.CancelTasks(w.ctx, alice, j.ID, "150001")
		kind(t, err, shoal.KindInvalid)
		settle(time.Minute)
		if got := w.job(j.ID); got.Next > before.Next+100 || got.Counts.Cancelled != 0 || len(w.history(j.ID, 150001)) != 0 {
			t.Errorf("the tasks that are too far behind left %+v, next is %d", got.Counts, got.Next)
		}
		if _, err := w.Cancel(w.ctx, alice, j.ID); err != nil {
			t.Fatal(err)
		}
		w.ended(j.ID)
		w.play = failing("2/2#1")
		j = w.submit(shoal.JobSpec{Array: "1-2"})
		w.ended(j.ID)
		_, err = w.Retry(w.ctx, alice, j.ID, api.RetryRequest{Tasks: "1"})
		kind(t, err, shoal.KindConflict)
		w.submit(shoal.JobSpec{}) // as many jobs as she may have
	})
}

// Who asks for no requeueing is told what became of the task; causes decide what is tried again.
func TestCauses(t *testing.T) {
	bubble(t, shoal.Pool{Machine: shoal.Resources{CPUs: 1000, Memory: 4 << 30}}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			s := script{takes: time.Minute}
			if o.Command == "fail" {
				s.exit = 1
			}
			return s
		}
		big := func(m *shoal.Machine) { m.Resources.Memory = 4 << 30 }
		w.machine("m-1", big)
		j := w.submit(shoal.JobSpec{Command: "fail", Retries: 3, Retry: &shoal.Retry{On: []shoal.Cause{shoal.CauseOOM}}})
		if end := w.ended(j.ID); end.Job.State != shoal.JobFailed || len(w.history(j.ID, 0)) != 1 {
			t.Errorf("not to be tried again: %+v", end)
		}
		j = w.submit(shoal.JobSpec{Requeue: "never", Retries: 3})
		settle(time.Second)
		w.put("m-1", state(shoal.MachineGone))
		end := w.ended(j.ID)
		a := w.history(j.ID, 0)
		if end.Job.State != shoal.JobFailed || end.ExitCode != 125 || len(a) != 1 || a[0].Cause != shoal.CauseMachineLost || a[0].Failures != 0 {
			t.Errorf("not to be queued again: %+v, %+v", end, a)
		}
	})
}

// A task that ran out of memory gets more, up to what a machine has.
func TestMemoryGrows(t *testing.T) {
	bubble(t, shoal.Pool{Machine: shoal.Resources{CPUs: 1000, Memory: 4 << 30}}, func(w *world) {
		w.play = func(o api.TaskOrder) script {
			s := script{takes: time.Minute}
			if o.Resources.Memory < 3<<30 {
				s.signal, s.cause = 9, shoal.CauseOOM
			}
			return s
		}
		w.machine("m-1", func(m *shoal.Machine) { m.Resources.Memory = 4 << 30 })
		j := w.submit(shoal.JobSpec{Command: "eat", Retries: 3, Retry: &shoal.Retry{On: []shoal.Cause{shoal.CauseOOM}, Memory: 2}, Resources: shoal.Resources{Memory: 1 << 30}})
		end := w.ended(j.ID)
		a := w.history(j.ID, 0)
		if end.Job.State != shoal.JobSucceeded || len(a) != 3 || a[1].Memory != 2<<30 || a[2].Memory != 4<<30 || !strings.Contains(a[1].Reason, "the 2GiB it was given") {
			t.Errorf("ended %+v after %+v", end, a)
		}
	})
}

// The release command runs on each machine that ran something, after the end, whatever the end was.
func TestRelease(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		var mu sync.Mutex
		released := map[string]int{}
		w.play = func(o api.TaskOrder) script {
			if o.Release {
				mu.Lock()
				defer mu.Unlock()
				released[o.Command+" "+o.Env["SHOAL_NODES"]]++
				return script{takes: 30 * time.Second, exit: 1}
			}
			return failing("1/1#1")(o)
		}
		w.machine("m-1")
		w.machine("m-2")
		j := w.submit(shoal.JobSpec{Array: "1-4", Release: "tidy"})
		settle(90 * time.Second)
		w.restart(time.Second)
		w.put("m-2", state(shoal.MachineStopped))
		end := w.ended(j.ID)
		if end.Job.State != shoal.JobFailed || end.Job.Counts != (shoal.Counts{Succeeded: 3, Failed: 1}) || end.ExitCode != 3 {
			t.Errorf("ended %+v", end)
		}
		w.restart(time.Second)
		settle(time.Minute)
		if diff := cmp.Diff(map[string]int{"tidy m-1": 1}, released); diff != "" {
			t.Error(diff)
		}
		if got := w.states(j.ID); got != "1:failed 2:succeeded 3:succeeded 4:succeeded" {
			t.Errorf("tasks %s", got)
		}
		events := 0
		storetest.View(t, w.db, func(tx *store.Tx) error {
			all, err := tx.Events(0, 0)
			for _, e := range all {
				if e.Code == "releaseFailed" && strings.Contains(e.Sentence, "the release command of job 1 failed on machine m-1") {
					events++
				}
			}
			return err
		})
		if live := w.job(j.ID); events != 1 || !live.State.Ended() {
			t.Errorf("%d events", events)
		}
		if _, err := w.Retry(w.ctx, alice, j.ID, api.RetryRequest{}); err != nil {
			t.Fatal(err)
		}
		if end := w.ended(j.ID); end.Job.State != shoal.JobSucceeded {
			t.Errorf("ended %+v", end)
		}
		settle(time.Minute)
		if released["tidy m-1"] != 2 {
			t.Errorf("released %v", released)
		}
	})
}

// Ten million tasks are one row, taken at once.
func TestTenMillion(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		began := time.Now()
		j := w.submit(shoal.JobSpec{Array: "0-9999999"})
		if j.Counts.Queued != 10_000_000 || time.Since(began) > 0 {
			t.Errorf("submitted %+v", j)
		}
		w.machine("m-1")
		settle(10 * time.Second)
		if got := w.job(j.ID); got.Counts.Succeeded < 8 {
			t.Errorf("running %+v", got)
		}
		if end, err := w.Cancel(w.ctx, alice, j.ID); err != nil || end.Counts.Cancelled < 9_999_900 {
			t.Errorf("cancelled %+v, %v", end, err)
		}
		w.ended(j.ID)
	})
}
