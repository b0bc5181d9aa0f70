package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// Run runs the suite. open returns a new, empty store that ends with the test.
func Run(t *testing.T, open func(testing.TB) *store.DB) {
	for _, c := range []struct {
		name string
		test func(*testing.T, *store.DB)
	}{
		{"objects", testObjects}, {"revisions", testRevisions}, {"rollback", testRollback}, {"panic", testPanic},
		{"goexit", testGoexit}, {"misuse", testMisuse}, {"snapshot", testSnapshot}, {"group", testGroup},
		{"pages", testPages}, {"jobs", testJobs}, {"attempts", testAttempts}, {"events", testEvents},
		{"watch", testWatch}, {"trim", testTrim}, {"changed", testChanged}, {"intervals", testIntervals},
		{"queue", testQueue}, {"labels", testLabels}, {"items", testItems}, {"pack", testPack}, {"past", testPast},
		{"event range", testEventRange}, {"nodes", testNodes},
		{"credentials", testCredentials}, {"settings", testSettings}, {"context", testContext}, {"people mark", testPeopleMark},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func wantKind(t testing.TB, err error, kind shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != kind {
		t.Fatalf("error %v, want one of kind %s", err, kind)
	}
}

func testObjects(t *testing.T, db *store.DB) {
	pool := shoal.Pool{Name: "lab", Provider: "local", Seats: 8, Machine: shoal.Resources{CPUs: 500, Memory: 1 << 30},
		ProviderConfig: map[string]any{"a": "b"}, Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(time.Hour)}}}
	var stored shoal.Pool
	Update(t, db, func(tx *store.Tx) (err error) {
		if _, err := tx.Pools().Get("lab"); shoal.KindOf(err) != shoal.KindNotFound || err.Error() != `no pool "lab"` {
			t.Errorf("before: %v", err)
		}
		stored, err = tx.Pools().Put(pool)
		return err
	})
	if stored.Rev == 0 || stored.Created.IsZero() || stored.Updated.IsZero() || stored.Rev != db.Rev() {
		t.Errorf("meta %+v at revision %d", stored.Meta, db.Rev())
	}
	View(t, db, func(tx *store.Tx) error {
		got, err := tx.Pools().Get("lab")
		if diff := cmp.Diff(stored, got); diff != "" {
			t.Errorf("what was stored is not what comes back:\n%s", diff)
		}
		return err
	})
	Update(t, db, func(tx *store.Tx) error {
		for _, name := range []shoal.UserName{"zoe", "alice", "bob"} {
			if _, err := tx.Users().Insert(shoal.User{Name: name}); err != nil {
				return err
			}
		}
		_, err := tx.Users().Insert(shoal.User{Name: "bob"})
		wantKind(t, err, shoal.KindConflict)
		_, err = tx.Users().Put(shoal.User{})
		wantKind(t, err, shoal.KindInvalid)
		wantKind(t, tx.Users().Delete("nobody"), shoal.KindNotFound)
		return tx.Users().Delete("zoe")
	})
	View(t, db, func(tx *store.Tx) error {
		all, err := tx.Users().List()
		if len(all) != 2 || all[0].Name != "alice" || all[1].Name != "bob" {
			t.Errorf("users %+v", all)
		}
		return err
	})
}

func testRevisions(t *testing.T, db *store.DB) {
	var first, second shoal.Machine
	Update(t, db, func(tx *store.Tx) (err error) {
		first, err = tx.Machines().Put(shoal.Machine{ID: "m-1", State: shoal.MachineRequested})
		return err
	})
	Update(t, db, func(tx *store.Tx) (err error) {
		m := first
		m.State = shoal.MachineBooting
		second, err = tx.Machines().Put(m)
		return err
	})
	if second.Rev <= first.Rev || !second.Created.Equal(first.Created) {
		t.Errorf("first %+v, second %+v", first.Meta, second.Meta)
	}
	err := db.Update(context.Background(), func(tx *store.Tx) error {
		m := first
		m.State = shoal.MachineFailed
		_, err := tx.Machines().Put(m)
		return err
	})
	wantKind(t, err, shoal.KindConflict)
	Update(t, db, func(tx *store.Tx) error { // who only knows the revision changes nothing else of its history
		bare := second
		bare.Meta = shoal.Meta{Rev: second.Rev}
		same, err := tx.Machines().Put(bare)
		if same.Rev != second.Rev || !same.Created.Equal(second.Created) {
			t.Errorf("put with its revision alone: %+v", same.Meta)
		}
		return err
	})
	before := db.Rev()
	Update(t, db, func(tx *store.Tx) error {
		same, err := tx.Machines().Put(second)
		if same.Rev != second.Rev {
			t.Errorf("an unchanged object got revision %d", same.Rev)
		}
		return err
	})
	if db.Rev() != before {
		t.Error("an unchanged object changed the store")
	}
	err = db.Update(context.Background(), func(tx *store.Tx) error {
		if err := tx.Machines().Delete("m-1"); err != nil {
			return err
		}
		_, err := tx.Machines().Put(second)
		return err
	})
	wantKind(t, err, shoal.KindConflict)
	View(t, db, func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if rev != db.Rev() {
			t.Errorf("a view sees revision %d of %d", rev, db.Rev())
		}
		return err
	})
}

func testRollback(t *testing.T, db *store.DB) {
	rev := db.Rev()
	mine := errors.New("mine")
	err := db.Update(context.Background(), func(tx *store.Tx) error {
		if _, err := tx.Users().Put(shoal.User{Name: "alice"}); err != nil {
			return err
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectUser, Name: "alice", Code: "made"})
		return mine
	})
	if err != mine {
		t.Errorf("error %v, want the closure's own", err)
	}
	if db.Rev() != rev {
		t.Errorf("revision moved from %d to %d", rev, db.Rev())
	}
	View(t, db, func(tx *store.Tx) error {
		_, err := tx.Users().Get("alice")
		wantKind(t, err, shoal.KindNotFound)
		events, err := tx.Events(0, 0)
		if len(events) != 0 {
			t.Errorf("events %+v", events)
		}
		return err
	})
}

func testPanic(t *testing.T, db *store.DB) {
	err := db.Update(context.Background(), func(tx *store.Tx) error {
		if _, err := tx.Users().Put(shoal.User{Name: "alice"}); err != nil {
			return err
		}
		panic("oh")
	})
	wantKind(t, err, shoal.KindInternal)
	Update(t, db, func(tx *store.Tx) error {
		_, err := tx.Users().Get("alice")
		wantKind(t, err, shoal.KindNotFound)
		return nil
	})
}

// A goroutine that ends within its closure (t.Fatal does that) takes nobody along.
func testGoexit(t *testing.T, db *store.DB) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := &sync.Once{} // anything; the point is that the closure never returns
		_ = db.Update(context.Background(), func(tx *store.Tx) error {
			t.Do(goexit)
			return nil
		})
	}()
	<-done
	Update(t, db, func(tx *store.Tx) error {
		_, err := tx.Users().Put(shoal.User{Name: "alice"})
		return err
	})
}

func testMisuse(t *testing.T, db *store.DB) {
	err := db.View(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Users().Put(shoal.User{Name: "alice"})
		return err
	})
	if err == nil {
		t.Error("a View wrote")
	}
	var kept *store.Tx
	Update(t, db, func(tx *store.Tx) error { kept = tx; return nil })
	if _, err := kept.Users().List(); err == nil {
		t.Error("a transaction was used after its end")
	}
}

func testSnapshot(t *testing.T, db *store.DB) {
	put := func(name shoal.UserName) {
		Update(t, db, func(tx *store.Tx) error {
			_, err := tx.Users().Put(shoal.User{Name: name})
			return err
		})
	}
	put("alice")
	View(t, db, func(tx *store.Tx) error {
		before, err := tx.Users().List()
		if err != nil {
			return err
		}
		put("bob")
		after, err := tx.Users().List()
		if len(before) != 1 || len(after) != 1 {
			t.Errorf("a view saw %d, then %d users", len(before), len(after))
		}
		return err
	})
}

// Many at once, every fourth failing: exactly the others are there, and each has a revision of its own.
func testGroup(t *testing.T, db *store.DB) {
	const n = 200
	mine := errors.New("mine")
	var wg sync.WaitGroup
	revs := make([]shoal.Rev, n)
	for i := range n {
		wg.Go(func() {
			err := db.Update(context.Background(), func(tx *store.Tx) error {
				u, err := tx.Users().Insert(shoal.User{Name: shoal.UserName(fmt.Sprintf("u%03d", i))})
				revs[i] = u.Rev
				if err == nil && i%4 == 0 {
					err = mine
				}
				return err
			})
			if (i%4 == 0) != (err == mine) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	View(t, db, func(tx *store.Tx) error {
		all, err := tx.Users().List()
		if len(all) != n*3/4 {
			t.Errorf("%d users, want %d", len(all), n*3/4)
		}
		seen := map[shoal.Rev]bool{}
		for _, u := range all {
			var i int
			fmt.Sscanf(string(u.Name), "u%d", &i)
			if i%4 == 0 || u.Rev != revs[i] || seen[u.Rev] {
				t.Errorf("user %s has revision %d, its update saw %d", u.Name, u.Rev, revs[i])
			}
			seen[u.Rev] = true
		}
		return err
	})
}

func testPages(t *testing.T, db *store.DB) {
	Update(t, db, func(tx *store.Tx) error {
		for i := range 10 {
			state := shoal.MachineReady
			if i%2 == 1 {
				state = shoal.MachineGone
			}
			if _, err := tx.Machines().Put(shoal.Machine{ID: shoal.MachineID(fmt.Sprintf("m-%d", i)), Pool: "lab", State: state}); err != nil {
				return err
			}
			s := shoal.Session{ID: shoal.SessionID(fmt.Sprintf("s-%d", i)), User: "alice", Machine: "m-0", State: shoal.SessionActive}
			if i >= 5 {
				s.State, s.User = shoal.SessionEnded, "bob"
			}
			if _, err := tx.Sessions().Put(s); err != nil {
				return err
			}
		}
		return nil
	})
	View(t, db, func(tx *store.Tx) error {
		var got []shoal.MachineID
		cursor := ""
		for {
			items, next, err := tx.MachinesPage(store.MachineFilter{Pool: "lab"}, cursor, 2)
			if err != nil {
				return err
			}
			for _, m := range items {
				got = append(got, m.ID)
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if want := []shoal.MachineID{"m-8", "m-6", "m-4", "m-2", "m-0"}; !slices.Equal(got, want) {
			t.Errorf("machines %v, want %v", got, want)
		}
		all, _, err := tx.MachinesPage(store.MachineFilter{Gone: true}, "", 0)
		live, _ := tx.LiveMachines()
		if len(all) != 10 || len(live) != 5 {
			t.Errorf("%d machines, %d live", len(all), len(live))
		}
		mine, _, _ := tx.SessionsPage(store.SessionFilter{User: "alice"}, "", 100)
		ended, _, _ := tx.SessionsPage(store.SessionFilter{State: shoal.SessionEnded}, "", 100)
		there, _, _ := tx.SessionsPage(store.SessionFilter{Machine: "m-0", Ended: true}, "", 100)
		sessions, _ := tx.LiveSessions()
		if len(mine) != 5 || len(ended) != 5 || len(there) != 10 || len(sessions) != 5 {
			t.Errorf("sessions: %d hers, %d ended, %d there, %d live", len(mine), len(ended), len(there), len(sessions))
		}
		_, _, bad := tx.SessionsPage(store.SessionFilter{}, "x'", 100)
		wantKind(t, bad, shoal.KindInvalid)
		return err
	})
}

func testJobs(t *testing.T, db *store.DB) {
	Update(t, db, func(tx *store.Tx) error {
		for i := range 12 {
			id, err := tx.NextJobID()
			if err != nil {
				return err
			}
			j := shoal.Job{ID: id, User: "alice", State: shoal.JobQueued, Spec: shoal.JobSpec{Pool: "lab", Name: "sweep"}}
			if i == 3 {
				j.State = shoal.JobFailed
			}
			if _, err := tx.Jobs().Insert(j); err != nil {
				return err
			}
		}
		return nil
	})
	View(t, db, func(tx *store.Tx) error {
		active, err := tx.ActiveJobs()
		if len(active) != 11 || active[0].ID != "1" || active[10].ID != "12" {
			t.Errorf("%d active jobs: %v", len(active), active)
		}
		var each []shoal.JobID
		stop := errors.New("stop")
		if err := tx.EachActiveJob(func(j shoal.Job) error {
			if each = append(each, j.ID); len(each) == 10 {
				return stop
			}
			return nil
		}); err != stop || each[0] != "1" || each[3] != "5" {
			t.Errorf("each active job: %v, %v", each, err)
		}
		items, next, _ := tx.JobsPage(store.JobFilter{User: "alice", Pool: "lab", Name: "sweep"}, "", 5)
		if len(items) != 5 || items[0].ID != "12" || next != "8" {
			t.Errorf("%d jobs from %s, next %s", len(items), items[0].ID, next)
		}
		failed, next, _ := tx.JobsPage(store.JobFilter{State: shoal.JobFailed}, "", 5)
		if len(failed) != 1 || failed[0].ID != "4" || next != "" {
			t.Errorf("failed %v, next %q", failed, next)
		}
		for _, id := range []shoal.JobID{"", "x", "-1", "01", "99"} {
			_, err := tx.Jobs().Get(id)
			wantKind(t, err, shoal.KindNotFound)
		}
		return err
	})
}

func testContext(t *testing.T, db *store.DB) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantKind(t, db.Update(ctx, func(*store.Tx) error { t.Error("ran"); return nil }), shoal.KindCancelled)
	wantKind(t, db.View(ctx, func(*store.Tx) error { t.Error("ran"); return nil }), shoal.KindCancelled)
}
