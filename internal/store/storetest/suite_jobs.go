package storetest

import (
	compare "cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// insertJob stores a job with the next number.
func insertJob(t testing.TB, db *store.DB, j shoal.Job) shoal.Job {
	t.Helper()
	Update(t, db, func(tx *store.Tx) (err error) {
		if j.ID, err = tx.NextJobID(); err != nil {
			return err
		}
		j, err = tx.Jobs().Insert(j)
		return err
	})
	return j
}

// The queue has each job that has not ended, in short, and what is in it is what its row says.
func testQueue(t *testing.T, db *store.DB) {
	no := false
	full := shoal.JobSpec{Name: "train", Pool: "lab", Command: "true", Array: "1-10", Nodes: shoal.Fixed(2), Resources: shoal.Resources{CPUs: 1500, Memory: 1 << 30, GPUs: 1},
		Workdir: "/x", Env: map[string]string{"A": "b"}, TimeLimit: shoal.Duration(time.Hour), Retries: 3, Preemptible: &no, Priority: "high", Labels: map[string]string{"a": "b"},
		After: []shoal.Dependency{{Job: "7", Condition: shoal.AfterAny}}, Tasks: []shoal.TaskSpec{{Name: "a", Command: "c", After: []string{"b"}}}, MaxRunning: 4}
	a := insertJob(t, db, shoal.Job{User: "alice", State: shoal.JobQueued, Spec: full, Counts: shoal.Counts{Queued: 10}, Blocked: true, Submitted: time.Unix(5, 7).UTC(), Items: 10})
	b := insertJob(t, db, shoal.Job{User: "bob", State: shoal.JobQueued, Spec: shoal.JobSpec{Pool: "lab"}, Counts: shoal.Counts{Queued: 1}})
	c := insertJob(t, db, shoal.Job{User: "bob", State: shoal.JobSucceeded, Spec: shoal.JobSpec{Pool: "lab"}, Counts: shoal.Counts{Succeeded: 1}, Ended: time.Unix(9, 0)})
	Update(t, db, func(tx *store.Tx) (err error) {
		a.State, a.Next, a.Cancel, a.Blocked, a.Started = shoal.JobRunning, 7, true, false, time.Unix(6, 0).UTC()
		a.Counts = shoal.Counts{Queued: 3, Starting: 1, Running: 1, Succeeded: 1, Failed: 2, Cancelled: 1, TimedOut: 1}
		if a, err = tx.Jobs().Put(a); err != nil {
			return err
		}
		b.State = shoal.JobFailed
		if b, err = tx.Jobs().Put(b); err != nil {
			return err
		}
		c.State, c.Ended = shoal.JobQueued, time.Time{} // tried again
		c, err = tx.Jobs().Put(c)
		return err
	})
	View(t, db, func(tx *store.Tx) error {
		active, err := tx.ActiveJobs()
		if len(active) != 2 || active[0].ID != a.ID || active[1].ID != c.ID {
			t.Fatalf("active: %+v", active)
		}
		want := a
		want.Created, want.Updated = time.Time{}, time.Time{}
		want.Spec = shoal.JobSpec{Pool: "lab", Array: "1-10", Nodes: shoal.Fixed(2), Resources: full.Resources, TimeLimit: full.TimeLimit, Retries: 3, Preemptible: &no,
			Priority: "high", After: full.After, Tasks: []shoal.TaskSpec{{Name: "a", After: []string{"b"}}}, MaxRunning: 4}
		if diff := cmp.Diff(want, active[0]); diff != "" {
			t.Errorf("in short:\n%s", diff)
		}
		running, _, err2 := tx.JobsPage(store.JobFilter{State: shoal.JobRunning, User: "alice"}, "", 10)
		queued, _, err3 := tx.JobsPage(store.JobFilter{State: shoal.JobQueued}, "", 10)
		failed, _, err4 := tx.JobsPage(store.JobFilter{State: shoal.JobFailed}, "", 10)
		if len(running) != 1 || running[0].ID != a.ID || len(queued) != 1 || queued[0].ID != c.ID || len(failed) != 1 || failed[0].ID != b.ID {
			t.Errorf("by state: %v %v %v", running, queued, failed)
		}
		for _, e := range []error{err2, err3, err4} {
			if e != nil {
				t.Error(e)
			}
		}
		return err
	})
}

func testLabels(t *testing.T, db *store.DB) {
	var ids []shoal.JobID
	for i := range 6 {
		user := shoal.UserName([]string{"alice", "bob"}[i%2])
		j := insertJob(t, db, shoal.Job{User: user, State: shoal.JobQueued, Spec: shoal.JobSpec{Pool: "lab", ExternalID: fmt.Sprint("x", i/2), Labels: map[string]string{"run": "7", "n": fmt.Sprint(i)}}})
		ids = append(ids, j.ID)
	}
	err := db.Update(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Jobs().Insert(shoal.Job{ID: "99", User: "alice", State: shoal.JobQueued, Spec: shoal.JobSpec{ExternalID: "x1"}})
		return err
	})
	wantKind(t, err, shoal.KindConflict)
	View(t, db, func(tx *store.Tx) error {
		run := store.Label{Key: "run", Value: "7"}
		hers, next, err := tx.JobsPage(store.JobFilter{User: "alice", Label: run}, "", 2)
		if err != nil || len(hers) != 2 || hers[0].ID != ids[4] || next == "" {
			t.Errorf("hers: %v, next %q, %v", hers, next, err)
		}
		rest, next, err := tx.JobsPage(store.JobFilter{User: "alice", Label: run}, next, 2)
		if err != nil || len(rest) != 1 || rest[0].ID != ids[0] || next != "" {
			t.Errorf("the rest: %v, next %q, %v", rest, next, err)
		}
		all, _, err := tx.JobsPage(store.JobFilter{Label: run, State: shoal.JobQueued}, "", 10)
		if err != nil || len(all) != 6 || all[0].ID != ids[5] {
			t.Errorf("all: %v, %v", all, err)
		}
		named, _, err := tx.JobsPage(store.JobFilter{ExternalID: "x1"}, "", 10)
		if err != nil || len(named) != 2 {
			t.Errorf("by externalId: %v, %v", named, err)
		}
		id, found, err := tx.JobCalled("bob", "x2")
		if id != ids[5] || !found {
			t.Errorf("job %s, %t", id, found)
		}
		for _, c := range []struct {
			first, last shoal.JobID
			want        bool
		}{{ids[3], ids[3], true}, {ids[0], ids[2], false}, {ids[0], ids[5], true}} {
			if got, err := tx.HasLabel(store.Label{Key: "n", Value: "3"}, c.first, c.last); got != c.want || err != nil {
				t.Errorf("%v: %t, %v", c, got, err)
			}
		}
		return err
	})
	Update(t, db, func(tx *store.Tx) error { return tx.Jobs().Delete(ids[5]) })
	View(t, db, func(tx *store.Tx) error {
		active, err := tx.ActiveJobs()
		has, _ := tx.HasLabel(store.Label{Key: "n", Value: "5"}, ids[5], ids[5])
		if _, found, _ := tx.JobCalled("bob", "x2"); len(active) != 5 || has || !found {
			t.Errorf("after its end: %d active, label %t, name %t", len(active), has, found)
		}
		return err
	})
}

func testItems(t *testing.T, db *store.DB) {
	var items []shoal.Item
	for i := range 1000 {
		items = append(items, shoal.Item(fmt.Sprintf(`{"i":%d,"x":"%s"}`, i, strings.Repeat("y", i%7*1000))))
	}
	Update(t, db, func(tx *store.Tx) error { return tx.PutItems("5", items) })
	View(t, db, func(tx *store.Tx) error {
		for _, i := range append([]int{0, 999, 255, 256, 257}, rand.Perm(1000)...) {
			if got, found, err := tx.Item("5", i); err != nil || !found || string(got) != string(items[i]) {
				t.Fatalf("item %d: %.50s, %t, %v", i, got, found, err)
			}
		}
		for _, c := range []struct {
			job shoal.JobID
			at  int
		}{{"5", 1000}, {"5", -1}, {"6", 0}} {
			if _, found, err := tx.Item(c.job, c.at); found || err != nil {
				t.Errorf("%v: %t, %v", c, found, err)
			}
		}
		return nil
	})
}

func cmpAttempts(a, b shoal.Attempt) int { return compare.Or(a.Index-b.Index, a.Attempt-b.Attempt) }

// everything is all that can be asked about the attempts of a job.
func everything(t testing.TB, db *store.DB, job shoal.JobID, indexes int) map[string]any {
	t.Helper()
	all := map[string]any{}
	View(t, db, func(tx *store.Tx) error {
		put := func(name string, v any, err error) {
			if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
				t.Errorf("%s: %v", name, err)
			}
			all[name] = v
		}
		attempts, err := tx.Attempts(job, 0, 0)
		put("all", attempts, err)
		for _, from := range []int{7, 4095, indexes - 3} {
			attempts, err = tx.Attempts(job, from, 10)
			put(fmt.Sprint("from ", from), attempts, err)
		}
		failures, err := tx.Failures(job, 0)
		put("failures", failures, err)
		for _, since := range []int64{0, 700} {
			ended, err := tx.LooseAttemptsSince(time.Unix(since, 0))
			if err != nil {
				return err
			}
			packed, err := tx.PackedBetween(time.Unix(since, 0), time.Unix(1e9, 0))
			ended = append(ended, packed...)
			slices.SortFunc(ended, cmpAttempts)
			put(fmt.Sprint("since ", since), ended, err)
		}
		for i := 0; i < indexes; i += 211 {
			ref := shoal.TaskRef{Job: job, Index: i}
			history, err := tx.History(ref)
			put(fmt.Sprint("history ", i), history, err)
			last, err := tx.Attempt(ref)
			put(fmt.Sprint("last ", i), last, err)
		}
		return nil
	})
	return all
}

// randomAttempts are the attempts at one task: most often one that succeeded.
func randomAttempts(r *rand.Rand, job shoal.JobID, index int) []shoal.Attempt {
	placed := time.Unix(100, 0).Add(time.Duration(r.Int64N(900e9)))
	a := shoal.Attempt{State: shoal.JobSucceeded, Cause: shoal.CauseExit, Machine: shoal.MachineID(fmt.Sprint("m-", r.IntN(3))), Epoch: 1 + r.IntN(2), User: "alice", Pool: "lab",
		Placed: placed.UTC(), Started: placed.Add(time.Duration(r.Int64N(1e9))).UTC(), StdoutBytes: r.Int64N(1e6), StderrBytes: r.Int64N(2), MaxMemory: shoal.Bytes(r.Int64N(1e10)), CPUTime: shoal.Duration(r.Int64N(1e12)),
		Backfilled: r.IntN(2) == 0}
	a.Job, a.Index, a.Attempt = job, index, 1
	a.Ended = a.Started.Add(time.Duration(r.Int64N(1e12))).UTC()
	kept := int64(5)
	switch r.IntN(40) {
	case 0:
		a.GPUs = []int{1}
	case 1:
		a.Reason = "odd"
	case 2:
		a.Cause, a.TruncatedAt = "", &kept
	case 3:
		a.Members = []shoal.Member{{Machine: "m-1"}, {Machine: "m-2"}}
	case 4:
		a.Started = time.Time{}
	case 5:
		a.Memory = 1 << 30
	case 6:
		a.State, a.ExitCode = shoal.JobFailed, 3
	case 7, 8:
		b := a
		a.State = shoal.JobLost
		b.Attempt = 2
		return []shoal.Attempt{a, b}
	case 9:
		a.State, a.Ended, a.Cause = shoal.JobRunning, time.Time{}, ""
	case 10:
		return nil
	}
	return []shoal.Attempt{a}
}

// Packing changes nothing that can be seen, also in several steps and with attempts that come after it.
func testPack(t *testing.T, db *store.DB) {
	r := rand.New(rand.NewPCG(1, 2))
	const indexes = 9000
	job := insertJob(t, db, shoal.Job{User: "alice", State: shoal.JobRunning, Spec: shoal.JobSpec{Pool: "lab", Array: "0-8999"}, Counts: shoal.Counts{Succeeded: indexes}})
	put := func(from, to, step int) {
		Update(t, db, func(tx *store.Tx) error {
			for i := from; i < to; i += step {
				for _, a := range randomAttempts(r, job.ID, i) {
					if err := tx.PutAttempt(a); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	check := func(what string, least int) {
		t.Helper()
		before := everything(t, db, job.ID, indexes)
		n, err := db.Pack(context.Background())
		if err != nil || n < least {
			t.Errorf("%s: %d packed, %v", what, n, err)
		}
		after := everything(t, db, job.ID, indexes)
		for name := range before {
			if !reflect.DeepEqual(before[name], after[name]) {
				t.Fatalf("%s: packing changed %s:\n%.2000s", what, name, cmp.Diff(before[name], after[name]))
			}
		}
	}
	put(0, 2700, 1)
	put(4096, 4296, 1)
	check("while it goes on", 1900)
	put(2700, 4096, 9)
	put(4300, indexes, 9)
	check("more of it", 0)
	Update(t, db, func(tx *store.Tx) error { // a packed task is tried again
		a := randomAttempts(r, job.ID, 0)
		for len(a) != 1 || a[0].State != shoal.JobSucceeded {
			a = randomAttempts(r, job.ID, 0)
		}
		a[0].Attempt, a[0].State = 2, shoal.JobFailed
		return tx.PutAttempt(a[0])
	})
	check("with one tried again", 0)
	Update(t, db, func(tx *store.Tx) (err error) {
		job.State = shoal.JobFailed
		job, err = tx.Jobs().Put(job)
		return err
	})
	check("after its end", 400)
	if n, err := db.Pack(context.Background()); n != 0 || err != nil {
		t.Errorf("nothing is left, and %d were packed, %v", n, err)
	}
	View(t, db, func(tx *store.Tx) error {
		from, to := time.Unix(500, 0), time.Unix(501, 0)
		some, err := tx.PackedBetween(from, to)
		n, err2 := tx.CountPacked(from, to)
		if len(some) == 0 || n < len(some) || err2 != nil {
			t.Errorf("%d between, counted %d, %v", len(some), n, err2)
		}
		for _, a := range some {
			if !a.Ended.After(from) || !a.Placed.Before(to) {
				t.Errorf("%v is not between", a)
			}
		}
		return err
	})
	if n, err := db.TrimAttempts(context.Background(), job.ID); n == 0 || err != nil {
		t.Errorf("%d trimmed, %v", n, err)
	}
	View(t, db, func(tx *store.Tx) error {
		left, err := tx.Attempts(job.ID, 0, 0)
		if len(left) != 0 {
			t.Errorf("%d attempts are left", len(left))
		}
		return err
	})
}

// Of jobs of long ago it is known that they were and how they ended.
func testPast(t *testing.T, db *store.DB) {
	end := time.Unix(1000, 0).UTC()
	old := insertJob(t, db, shoal.Job{User: "alice", State: shoal.JobFailed, Ended: end, Spec: shoal.JobSpec{Pool: "lab", ExternalID: "mine", Labels: map[string]string{"a": "b"}}, Counts: shoal.Counts{Failed: 1}})
	recent := insertJob(t, db, shoal.Job{User: "alice", State: shoal.JobFailed, Ended: end.Add(time.Hour), Spec: shoal.JobSpec{Pool: "lab"}})
	insertJob(t, db, shoal.Job{User: "alice", State: shoal.JobQueued, Spec: shoal.JobSpec{Pool: "lab"}})
	Update(t, db, func(tx *store.Tx) error {
		if err := tx.PutItems(old.ID, []shoal.Item{shoal.Item("1")}); err != nil {
			return err
		}
		return tx.PutAttempt(attempt(old.ID, 0, 1, shoal.JobFailed, "m-1"))
	})
	View(t, db, func(tx *store.Tx) error {
		jobs, err := tx.JobsEndedBefore(end.Add(time.Minute), 10)
		if len(jobs) != 1 || jobs[0].ID != old.ID {
			t.Errorf("%v", jobs)
		}
		return err
	})
	past := store.PastJob{ID: old.ID, User: "alice", Pool: "lab", External: "mine", State: shoal.JobFailed, ExitCode: 3, Ended: end, Counts: shoal.Counts{Failed: 1}}
	Update(t, db, func(tx *store.Tx) error { return tx.ForgetJobs([]store.PastJob{past}) })
	View(t, db, func(tx *store.Tx) error {
		_, err := tx.Jobs().Get(old.ID)
		wantKind(t, err, shoal.KindNotFound)
		got, found, err := tx.PastJob(old.ID)
		if diff := cmp.Diff(past, got); diff != "" || !found {
			t.Errorf("found %t:\n%s", found, diff)
		}
		if j := got.Job(); j.ID != old.ID || j.State != shoal.JobFailed || j.Spec.ExternalID != "mine" {
			t.Errorf("%+v", j)
		}
		if _, found, _ := tx.PastJob(recent.ID); found {
			t.Error("a recent job is past")
		}
		id, found, _ := tx.JobCalled("alice", "mine")
		attempts, _ := tx.Attempts(old.ID, 0, 0)
		_, item, _ := tx.Item(old.ID, 0)
		if id != old.ID || !found || len(attempts) != 0 || item {
			t.Errorf("called %s, %t; %d attempts, item %t", id, found, len(attempts), item)
		}
		return err
	})
}

// An event about several jobs is found by each of them, and by no other.
func testEventRange(t *testing.T, db *store.DB) {
	Update(t, db, func(tx *store.Tx) error {
		for _, r := range [][2]shoal.JobID{{"3", "9"}, {"15", "400"}} {
			if err := tx.EventAboutJobs(shoal.Event{Code: "jobsSubmitted", User: "alice"}, r[0], r[1]); err != nil {
				return err
			}
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectJob, Name: "9", Code: "jobEnded"})
		return nil
	})
	check := func(want map[string]int) {
		t.Helper()
		View(t, db, func(tx *store.Tx) error {
			for name, n := range want {
				if got, err := tx.EventsAbout(shoal.ObjectJob, name, 5); err != nil || len(got) != n {
					t.Errorf("job %s: %v, %v", name, got, err)
				}
			}
			return nil
		})
	}
	check(map[string]int{"2": 0, "3": 1, "9": 2, "10": 0, "14": 0, "15": 1, "100": 1, "400": 1, "401": 0, "x": 0})
	if _, err := db.TrimEvents(context.Background(), 1, time.Time{}); err != nil {
		t.Fatal(err)
	}
	check(map[string]int{"3": 0, "9": 1, "100": 0})
}

// An attempt with several nodes is found on each of their machines while it lives.
func testNodes(t *testing.T, db *store.DB) {
	a := attempt("7", 0, 1, shoal.JobStarting, "m-1")
	a.Members = []shoal.Member{{Machine: "m-1"}, {Machine: "m-2"}, {Machine: "m-3"}}
	put := func() { Update(t, db, func(tx *store.Tx) error { return tx.PutAttempt(a) }) }
	check := func(want int) {
		t.Helper()
		View(t, db, func(tx *store.Tx) error {
			for _, m := range []shoal.MachineID{"m-1", "m-2", "m-3"} {
				if on, err := tx.LiveAttemptsOn(m); err != nil || len(on) != want {
					t.Errorf("on %s: %v, %v", m, on, err)
				}
			}
			machines, err := tx.MachinesWithTasksOf("alice")
			if len(machines) != 3*want {
				t.Errorf("machines %v", machines)
			}
			return err
		})
	}
	put()
	a.State = shoal.JobRunning
	put()
	check(1)
	a.State, a.Ended = shoal.JobSucceeded, time.Unix(300, 0)
	put()
	check(0)
}
