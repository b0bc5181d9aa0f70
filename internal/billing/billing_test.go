package billing_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/billing"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// told are the codes of events about budgets, in order.
func told(t *testing.T, db *store.DB) (codes []string) {
	storetest.View(t, db, func(tx *store.Tx) error {
		all, err := tx.Events(0, 0)
		for _, e := range all {
			if strings.HasPrefix(e.Code, "budget") {
				codes = append(codes, e.Code+" "+e.Name)
			}
		}
		return err
	})
	return codes
}

// run has a keeper run until stop is called.
func run(t *testing.T, db *store.DB) (k *billing.Keeper, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	k = billing.New(db, slog.New(slog.DiscardHandler), nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = k.Run(ctx) }()
	return k, func() { cancel(); <-done }
}

// A budget is warned of, spent, told of once although the server starts anew, refuses what is new, is raised, and is
// whole again in the next month.
func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t)
		start := time.Now().UTC()
		storetest.Update(t, db, func(tx *store.Tx) error {
			for _, u := range []shoal.User{{Name: "alice"}, {Name: "bob", Budget: shoal.Budget{PerMonth: 1e6, Currency: "EUR", Stop: true}}, {Name: "carol"}} {
				if _, err := tx.Users().Put(u); err != nil {
					return err
				}
			}
			if _, err := tx.Groups().Put(shoal.Group{Name: "research", Members: []shoal.UserName{"alice", "bob"}, Budget: shoal.Budget{PerMonth: 3, Currency: "EUR", Stop: true}}); err != nil {
				return err
			}
			if err := tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: "m-1", Pool: "lab", Machine: "m-1", Start: start, Price: shoal.Price{PerHour: 1, Currency: "EUR"}}); err != nil {
				return err
			}
			return tx.OpenInterval(store.Interval{Kind: shoal.ObjectSession, ID: "s-1", Pool: "lab", Machine: "m-1", User: "alice", Start: start})
		})
		k, stop := run(t, db)
		refused := func(user shoal.UserName, want bool) {
			t.Helper()
			err := k.Refuse(t.Context(), user)
			if (err != nil) != want {
				t.Errorf("%s after %s: %v", user, time.Since(start), err)
			}
			if err != nil && (shoal.KindOf(err) != shoal.KindExhausted || !strings.Contains(err.Error(), "group research has spent") || shoal.HintOf(err) == "") {
				t.Errorf("refused with %v, hint %q", err, shoal.HintOf(err))
			}
			if held := k.Held(user); (held != "") != want || want && !strings.Contains(held, "group research has spent") {
				t.Errorf("%s after %s is held: %q", user, time.Since(start), held)
			}
		}
		expect := func(want ...string) {
			t.Helper()
			if got := told(t, db); !slices.Equal(got, want) {
				t.Errorf("after %s it has been told %v, want %v", time.Since(start), got, want)
			}
		}
		time.Sleep(2 * time.Hour)
		expect()
		time.Sleep(30 * time.Minute)
		expect("budgetWarning research")
		refused("alice", false)
		time.Sleep(31 * time.Minute)
		expect("budgetWarning research", "budgetSpent research")
		refused("alice", true)
		refused("bob", true) // he is of the group as well
		refused("carol", false)
		refused("", false) // the host
		stop()
		k, stop = run(t, db)
		time.Sleep(10 * time.Minute)
		expect("budgetWarning research", "budgetSpent research")
		refused("alice", true)
		storetest.Update(t, db, func(tx *store.Tx) error {
			g, err := tx.Groups().Get("research")
			if err != nil {
				return err
			}
			g.Budget.PerMonth = 500
			_, err = tx.Groups().Put(g)
			return err
		})
		time.Sleep(5 * time.Second)
		refused("alice", false)
		stop()
		time.Sleep(29 * 24 * time.Hour)
		k, stop = run(t, db)
		time.Sleep(time.Minute) // more than the larger budget is spent, and January is not over
		expect("budgetWarning research", "budgetSpent research", "budgetSpent research")
		refused("alice", true)
		stop()
		time.Sleep(3 * 24 * time.Hour)
		k, stop = run(t, db)
		time.Sleep(time.Minute)
		refused("alice", false)
		all, err := k.Standings(t.Context())
		if err != nil || len(all) != 2 || all[0].Spent >= 31*24 || all[0].Spent <= 0 {
			t.Errorf("%+v, %v", all, err)
		}
		stop()
	})
}

// Of a budget of which most and all is spent between two looks, or that is made when it is spent already, it is told that all is; one
// that is warned of, and then made smaller than what is spent, is told of again.
func TestBudgetJumps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t)
		start := time.Now().UTC()
		put := func(most float64) {
			storetest.Update(t, db, func(tx *store.Tx) error {
				_, err := tx.Users().Put(shoal.User{Name: "alice", Budget: shoal.Budget{PerMonth: most, Currency: "EUR"}})
				return err
			})
			time.Sleep(2 * time.Minute)
		}
		storetest.Update(t, db, func(tx *store.Tx) error {
			if err := tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: "m-1", Pool: "lab", Machine: "m-1", Start: start, Price: shoal.Price{PerHour: 1, Currency: "EUR"}}); err != nil {
				return err
			}
			return tx.OpenInterval(store.Interval{Kind: shoal.ObjectSession, ID: "s-1", Pool: "lab", Machine: "m-1", User: "alice", Start: start})
		})
		_, stop := run(t, db)
		time.Sleep(10 * time.Hour)
		put(5)
		put(12)
		put(8)
		stop()
		if got, want := told(t, db), []string{"budgetSpent alice", "budgetWarning alice", "budgetSpent alice"}; !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	})
}

// Without budgets nothing is done, and nobody is refused.
func TestNoBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := storetest.Open(t)
		k, stop := run(t, db)
		time.Sleep(time.Hour)
		if err := k.Refuse(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		stop()
	})
}

// giveUp ends what logs too much.
type giveUp struct {
	left int
	end  func()
}

func (g *giveUp) Write(b []byte) (int, error) {
	if g.left--; g.left < 0 {
		g.end()
	}
	return len(b), nil
}

// A store that cannot be read is asked again now and then, and the trouble is told once.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		db := storetest.OpenAt(t, path)
		storetest.Update(t, db, func(tx *store.Tx) error {
			_, err := tx.Users().Put(shoal.User{Name: "bob", Budget: shoal.Budget{PerMonth: 1, Currency: "EUR", Stop: true}})
			return err
		})
		ctx, cancel := context.WithCancel(t.Context())
		log := &giveUp{left: 5, end: cancel}
		k := billing.New(db, slog.New(slog.NewTextHandler(log, nil)), nil)
		done := make(chan struct{})
		go func() { defer close(done); _ = k.Run(ctx) }()
		time.Sleep(10 * time.Second)
		show := storetest.Hide(t, path, "users")
		time.Sleep(10 * time.Minute)
		show()
		if log.left < 4 {
			t.Errorf("%d lines are logged about it", 5-log.left)
		}
		time.Sleep(time.Minute)
		cancel()
		<-done
	})
}
