package storetest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

func goexit() { runtime.Goexit() }

func attempt(job shoal.JobID, index, n int, state shoal.JobState, machine shoal.MachineID) shoal.Attempt {
	a := shoal.Attempt{State: state, Machine: machine, User: "alice", Pool: "lab", Placed: time.Unix(100, 0).UTC()}
	a.Job, a.Index, a.Attempt = job, index, n
	if state.Ended() {
		a.Ended = time.Unix(200+int64(index), 0).UTC()
	}
	return a
}

func testAttempts(t *testing.T, db *store.DB) {
	put := func(all ...shoal.Attempt) {
		Update(t, db, func(tx *store.Tx) error {
			for _, a := range all {
				if err := tx.PutAttempt(a); err != nil {
					return err
				}
			}
			return nil
		})
	}
	put(attempt("7", 1, 1, shoal.JobStarting, "m-1"), attempt("7", 2, 1, shoal.JobRunning, "m-2"),
		attempt("7", 3, 1, shoal.JobFailed, "m-1"), attempt("7", 9, 1, shoal.JobTimedOut, "m-1"), attempt("8", 0, 1, shoal.JobRunning, "m-1"))
	put(attempt("7", 1, 1, shoal.JobLost, "m-1"), attempt("7", 1, 2, shoal.JobRunning, "m-2"))
	put(attempt("7", 1, 1, shoal.JobLost, "m-3")) // late news of an older attempt
	put(attempt("7", 4, 2, shoal.JobSucceeded, "m-1"), attempt("7", 4, 1, shoal.JobFailed, "m-1"))
	View(t, db, func(tx *store.Tx) error {
		refs := func(all []shoal.Attempt, err error) string {
			if err != nil {
				t.Error(err)
			}
			s := ""
			for _, a := range all {
				s += a.String() + " "
			}
			return s
		}
		history, err := tx.History(shoal.TaskRef{Job: "7", Index: 1})
		for _, c := range []struct{ what, got, want string }{
			{"history", refs(history, err), "7/1#1 7/1#2 "},
			{"attempts", refs(tx.Attempts("7", 0, 0)), "7/1#2 7/2#1 7/3#1 7/4#2 7/9#1 "},
			{"attempts from 2", refs(tx.Attempts("7", 2, 2)), "7/2#1 7/3#1 "},
			{"failures", refs(tx.Failures("7", 0)), "7/3#1 7/9#1 "},
			{"live", refs(tx.LiveAttempts()), "8/0#1 7/1#2 7/2#1 "},
			{"live on m-2", refs(tx.LiveAttemptsOn("m-2")), "7/1#2 7/2#1 "},
			{"since", refs(tx.LooseAttemptsSince(time.Unix(203, 0))), "7/4#1 7/4#2 7/9#1 8/0#1 7/1#2 7/2#1 "},
		} {
			if c.got != c.want {
				t.Errorf("%s: %s, want %s", c.what, c.got, c.want)
			}
		}
		latest, err := tx.Attempt(shoal.TaskRef{Job: "7", Index: 1})
		if diff := cmp.Diff(attempt("7", 1, 2, shoal.JobRunning, "m-2"), latest); diff != "" {
			t.Error(diff)
		}
		_, missing := tx.Attempt(shoal.TaskRef{Job: "7", Index: 5})
		wantKind(t, missing, shoal.KindNotFound)
		_, missing = tx.Attempts("x", 0, 0)
		wantKind(t, missing, shoal.KindNotFound)
		return err
	})
	Update(t, db, func(tx *store.Tx) error {
		wantKind(t, tx.PutAttempt(attempt("7", 1, 0, shoal.JobRunning, "m-1")), shoal.KindInvalid)
		return nil
	})
}

func emit(t testing.TB, db *store.DB, name string) {
	t.Helper()
	Update(t, db, func(tx *store.Tx) error {
		tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: name, Code: "test", Sentence: "it happened"})
		return nil
	})
}

func testEvents(t *testing.T, db *store.DB) {
	for _, name := range []string{"a", "b", "a", "c"} {
		emit(t, db, name)
	}
	View(t, db, func(tx *store.Tx) error {
		all, err := tx.Events(0, 0)
		if err != nil || len(all) != 4 || all[0].Time.IsZero() {
			t.Fatalf("events %+v, %v", all, err)
		}
		some, err := tx.Events(all[1].Rev, 1)
		if len(some) != 1 || some[0] != all[2] {
			t.Errorf("after the second: %+v", some)
		}
		about, err := tx.EventsAbout(shoal.ObjectPool, "a", 1)
		if len(about) != 1 || about[0] != all[2] {
			t.Errorf("about a: %+v", about)
		}
		from, err := tx.EventsFrom(all[0].Time)
		if from != all[0].Rev-1 {
			t.Errorf("from the start: %d", from)
		}
		later, err := tx.EventsFrom(all[3].Time.Add(time.Hour))
		if later != db.Rev() {
			t.Errorf("from later: %d", later)
		}
		return err
	})
}

// Writers race with watchers that start at any moment; every watcher sees every event once, in order.
func testWatch(t *testing.T, db *store.DB) {
	const writers, each, watchers = 4, 50, 3
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				emit(t, db, fmt.Sprintf("%d/%d", w, i))
			}
		})
	}
	for range watchers {
		wg.Go(func() {
			seen := map[string]bool{}
			var last shoal.Rev
			for e, err := range db.Watch(ctx, 0) {
				if err != nil || e.Rev <= last || seen[e.Name] {
					t.Errorf("event %+v, %v after %d", e, err, last)
					return
				}
				last, seen[e.Name] = e.Rev, true
				if len(seen) == writers*each {
					return
				}
			}
			t.Errorf("the watch ended after %d events", len(seen))
		})
	}
	wg.Wait()
	cancel()
	for range db.Watch(ctx, db.Rev()) {
		t.Error("an event after the end of the context")
	}
	testWatchOthers(t, db)
}

// Who does not want events about jobs gets none.
func testWatchOthers(t *testing.T, db *store.DB) {
	since := db.Rev()
	Update(t, db, func(tx *store.Tx) error {
		for _, kind := range []shoal.ObjectKind{shoal.ObjectJob, shoal.ObjectUser, shoal.ObjectJob, shoal.ObjectSession} {
			tx.Event(shoal.Event{Kind: kind, Name: "1", Code: "other"})
		}
		return nil
	})
	var kinds []shoal.ObjectKind
	for e, err := range db.WatchOthers(t.Context(), since) {
		if kinds = append(kinds, e.Kind); err != nil || e.Kind == shoal.ObjectSession {
			break
		}
	}
	if !slices.Equal(kinds, []shoal.ObjectKind{shoal.ObjectUser, shoal.ObjectSession}) {
		t.Errorf("others than about jobs are about %v", kinds)
	}
}

func testTrim(t *testing.T, db *store.DB) {
	for i := range 10 {
		emit(t, db, fmt.Sprint(i))
	}
	n, err := db.TrimEvents(context.Background(), 3, time.Time{})
	if err != nil || n != 7 {
		t.Errorf("%d trimmed, %v", n, err)
	}
	View(t, db, func(tx *store.Tx) error {
		all, err := tx.Events(0, 0)
		if len(all) != 3 || all[0].Name != "7" {
			t.Errorf("left: %+v", all)
		}
		return err
	})
	Update(t, db, func(tx *store.Tx) error {
		for i, state := range []shoal.SessionState{shoal.SessionEnded, shoal.SessionActive, shoal.SessionEnded} {
			if _, err := tx.Sessions().Put(shoal.Session{ID: shoal.SessionID(fmt.Sprint("s-", i)), State: state}); err != nil {
				return err
			}
		}
		_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", State: shoal.MachineGone})
		return err
	})
	for age, want := range map[time.Duration]int64{-time.Hour: 0, time.Hour: 3} {
		if n, err := db.TrimHistory(context.Background(), time.Now().Add(age)); err != nil || (age < 0 && n != want) {
			t.Errorf("%d trimmed, %v", n, err)
		}
	}
	View(t, db, func(tx *store.Tx) error {
		left, _, err := tx.SessionsPage(store.SessionFilter{Ended: true}, "", 0)
		if len(left) != 1 || left[0].State != shoal.SessionActive {
			t.Errorf("left: %+v", left)
		}
		return err
	})
	if n, err = db.TrimEvents(context.Background(), 100, time.Now().Add(time.Hour)); err != nil || n != 3 {
		t.Errorf("%d trimmed by age, %v", n, err)
	}
}

func testChanged(t *testing.T, db *store.DB) {
	ch := db.Changed()
	Update(t, db, func(tx *store.Tx) error { _, err := tx.Users().List(); return err })
	select {
	case <-ch:
		t.Error("an update that changed nothing woke somebody")
	default:
	}
	emit(t, db, "a")
	select {
	case <-ch:
	default:
		t.Error("a change woke nobody")
	}
}

func testIntervals(t *testing.T, db *store.DB) {
	at := func(s int64) time.Time { return time.Unix(s, 0).UTC() }
	machine := store.Interval{Kind: shoal.ObjectMachine, ID: "m-1", Pool: "lab", Machine: "m-1", Start: at(100), Price: shoal.Price{PerHour: 0.4, Currency: "EUR"}}
	again := machine
	again.Start = at(150)
	session := store.Interval{Kind: shoal.ObjectSession, ID: "s-1", Pool: "lab", Machine: "m-1", User: "alice", Start: at(110)}
	Update(t, db, func(tx *store.Tx) error {
		for _, i := range []store.Interval{machine, machine, again, session} {
			if err := tx.OpenInterval(i); err != nil {
				return err
			}
		}
		wantKind(t, tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: "m-2"}), shoal.KindInvalid)
		if err := tx.CloseInterval(shoal.ObjectMachine, "m-1", at(200)); err != nil {
			return err
		}
		if err := tx.CloseInterval(shoal.ObjectMachine, "m-1", at(300)); err != nil { // already closed
			return err
		}
		if err := tx.OpenInterval(machine); err != nil { // told again after its end
			return err
		}
		again.Start = at(400)
		return tx.OpenInterval(again)
	})
	machine.End = at(200)
	for _, c := range []struct {
		since int64
		want  []store.Interval
	}{{0, []store.Interval{machine, again, session}}, {199, []store.Interval{machine, again, session}}, {200, []store.Interval{again, session}}} {
		View(t, db, func(tx *store.Tx) error {
			got, err := tx.IntervalsSince(at(c.since))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("since %d:\n%s", c.since, diff)
			}
			return err
		})
	}
	Update(t, db, func(tx *store.Tx) error { return tx.MoveOpenIntervals(-5*time.Second, at(500)) })
	again.Start, session.Start = at(395), at(105)
	View(t, db, func(tx *store.Tx) error {
		got, err := tx.IntervalsSince(at(0))
		if diff := cmp.Diff([]store.Interval{machine, again, session}, got); diff != "" {
			t.Errorf("after what is open was moved:\n%s", diff)
		}
		return err
	})
	Update(t, db, func(tx *store.Tx) error { return tx.MoveOpenIntervals(time.Hour, at(4200)) }) // from 600
	before, beforeIt := again, session
	before.End, beforeIt.End, again.Start, session.Start = at(600), at(600), at(4200), at(4200)
	View(t, db, func(tx *store.Tx) error {
		got, err := tx.IntervalsSince(at(0))
		if diff := cmp.Diff([]store.Interval{machine, before, again, beforeIt, session}, got); diff != "" {
			t.Errorf("after the clock was put forward:\n%s", diff)
		}
		return err
	})
}

func testCredentials(t *testing.T, db *store.DB) {
	ctx := context.Background()
	c := store.Credentials{DB: db}
	wantKind(t, c.SetPasswordHash(ctx, "alice", "h"), shoal.KindNotFound)
	Update(t, db, func(tx *store.Tx) error { _, err := tx.Users().Put(shoal.User{Name: "alice"}); return err })
	if err := c.SetPasswordHash(ctx, "alice", "h"); err != nil {
		t.Fatal(err)
	}
	hash, err := c.PasswordHash(ctx, "alice")
	u, err2 := c.User(ctx, "alice")
	if hash != "h" || err != nil || !u.HasPassword || err2 != nil {
		t.Errorf("hash %q, %v; user %+v, %v", hash, err, u, err2)
	}
	if err := c.SetPasswordHash(ctx, "alice", ""); err != nil {
		t.Fatal(err)
	}
	if hash, _ := c.PasswordHash(ctx, "alice"); hash != "" {
		t.Errorf("hash %q after its removal", hash)
	}
	if err := c.PutToken(ctx, "h1", "api", "alice", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := c.PutToken(ctx, "h2", "api", "alice", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if u, err := c.TokenUser(ctx, "h1", "api"); err != nil || u.Name != "alice" {
		t.Errorf("user %+v, %v", u, err)
	}
	for _, bad := range [][2]string{{"h2", "api"}, {"h3", "api"}, {"h1", "join"}} {
		_, err := c.TokenUser(ctx, bad[0], bad[1])
		wantKind(t, err, shoal.KindNotFound)
	}
	Update(t, db, func(tx *store.Tx) error { return tx.DeleteTokens("alice") })
	_, err = c.TokenUser(ctx, "h1", "api")
	wantKind(t, err, shoal.KindNotFound)
}

func testSettings(t *testing.T, db *store.DB) {
	Update(t, db, func(tx *store.Tx) error { return tx.SetSetting("a", "1") })
	Update(t, db, func(tx *store.Tx) error {
		v, err := tx.Setting("a")
		if v != "1" {
			t.Errorf("setting %q", v)
		}
		if err := tx.SetSetting("a", ""); err != nil {
			return err
		}
		v, _ = tx.Setting("a")
		if v != "" {
			t.Errorf("setting %q after its removal", v)
		}
		return err
	})
}

func testPeopleMark(t *testing.T, db *store.DB) {
	seen := map[store.PeopleMark]string{}
	look := func(what string, new bool) {
		t.Helper()
		var m store.PeopleMark
		View(t, db, func(tx *store.Tx) (err error) { m, err = tx.PeopleMark(); return err })
		if was, old := seen[m]; old == new {
			t.Errorf("%s: the mark is that of %q: %v", what, was, old)
		}
		seen[m] = what
	}
	look("nothing", true)
	put := func(name shoal.UserName) func(*store.Tx) error {
		return func(tx *store.Tx) error { _, err := tx.Users().Put(shoal.User{Name: name}); return err }
	}
	Update(t, db, put("alice"))
	look("alice", true)
	Update(t, db, put("alice"))
	look("alice again, the same", false)
	Update(t, db, put("bob"))
	look("bob", true)
	Update(t, db, func(tx *store.Tx) error { return tx.Users().Delete("bob") })
	look("without bob", false) // which is what was there before him
	Update(t, db, func(tx *store.Tx) error { return tx.SetSetting("x", "1") })
	look("something else", false)
	Update(t, db, put("bob"))
	Update(t, db, func(tx *store.Tx) error { return tx.Users().Delete("alice") })
	look("bob instead of alice", true)
	Update(t, db, func(tx *store.Tx) error { _, err := tx.Groups().Put(shoal.Group{Name: "g"}); return err })
	look("a group", true)
	Update(t, db, func(tx *store.Tx) error { _, err := tx.Pools().Put(shoal.Pool{Name: "lab"}); return err })
	look("a pool", true)
}
