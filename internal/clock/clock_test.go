package clock

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// world is a store, and a wall clock that can be set.
type world struct {
	*testing.T
	db    *store.DB
	ahead time.Duration // of the right time
}

func (w *world) wall() time.Time { return time.Now().Add(w.ahead) }

// fill puts all on record that has begun, an hour ago, or ends in two.
func (w *world) fill() {
	began, ends := w.wall().UTC().Round(0).Add(-time.Hour), w.wall().UTC().Round(0).Add(2*time.Hour)
	storetest.Update(w.T, w.db, func(tx *store.Tx) error {
		p := shoal.Pool{Name: "lab", Fixed: &shoal.FixedSize{Size: 1, Until: ends}, Paused: &shoal.Pause{Since: began}}
		if _, err := tx.Pools().Insert(p); err != nil {
			return err
		}
		for _, m := range []shoal.Machine{
			{ID: "m-1", Pool: "lab", State: shoal.MachineReady, Since: began, Started: began, ReadyAt: began, IdleAt: began, OldSince: began, EndsAt: ends,
				Cordons: []shoal.Cordon{{Owner: shoal.CordonOperator, Since: began, Deadline: ends}}},
			{ID: "m-2", Pool: "lab", State: shoal.MachineGone, Since: began, Started: began, Stopped: began},
		} {
			if _, err := tx.Machines().Insert(m); err != nil {
				return err
			}
		}
		if _, err := tx.Sessions().Insert(shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionDisconnected, Since: began, Started: began, KeepUntil: ends,
			LeftDesktop: began, Ends: ends, Parts: []shoal.Part{{ID: "p", Since: began}}}); err != nil {
			return err
		}
		if _, err := tx.Apps().Insert(shoal.App{ID: "a-1", User: "alice", Pool: "lab", Session: "s-1", Machine: "m-1", State: shoal.AppRunning, Since: began, Started: began, LastActivity: began, Ends: ends}); err != nil {
			return err
		}
		return tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: "m-1/1", Pool: "lab", Machine: "m-1", Start: began})
	})
}

// ages are how long ago what is on record was, by the wall clock; times to come are negative.
func (w *world) ages() (live map[string]time.Duration, gone time.Time) {
	now, live := w.wall().Round(0), map[string]time.Duration{}
	storetest.View(w.T, w.db, func(tx *store.Tx) error {
		p, err := tx.Pools().Get("lab")
		if err != nil {
			return err
		}
		m, err := tx.Machines().Get("m-1")
		if err != nil {
			return err
		}
		old, err := tx.Machines().Get("m-2")
		if err != nil {
			return err
		}
		s, err := tx.Sessions().Get("s-1")
		if err != nil {
			return err
		}
		a, err := tx.Apps().Get("a-1")
		if err != nil {
			return err
		}
		bill, billed := time.Duration(0), []store.Interval{}
		if billed, err = tx.IntervalsSince(time.Time{}); err != nil {
			return err
		}
		for _, i := range billed {
			if i.End.IsZero() {
				i.End = now
			}
			bill += i.End.Sub(i.Start)
		}
		gone = old.Since
		for name, t := range map[string]time.Time{
			"pool set until": p.Fixed.Until, "pool paused": p.Paused.Since,
			"machine since": m.Since, "machine started": m.Started, "machine ready": m.ReadyAt, "machine idle": m.IdleAt, "machine old": m.OldSince,
			"machine ends": m.EndsAt, "cordon since": m.Cordons[0].Since, "cordon deadline": m.Cordons[0].Deadline,
			"session since": s.Since, "session started": s.Started, "session kept": s.KeepUntil, "desktop left": s.LeftDesktop, "session ends": s.Ends,
			"part since": s.Parts[0].Since, "app since": a.Since, "app started": a.Started, "app used": a.LastActivity, "app ends": a.Ends,
			"bill": now.Add(-bill),
		} {
			live[name] = now.Sub(t)
		}
		return err
	})
	return live, gone
}

// However often the clock is set, and however far, what began an hour ago, or ends in two, does so by the time that passes.
func TestKeep(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			w := &world{T: t, db: storetest.Open(t)}
			k := New(Config{Store: w.db, Wall: w.wall})
			w.fill()
			was, goneWas := w.ages()
			began := time.Now()
			jumps := 0
			for range 1 + r.IntN(8) {
				time.Sleep(time.Duration(r.Int64N(int64(time.Hour))))
				if r.IntN(2) == 0 {
					by := step + time.Second + time.Duration(r.Int64N(int64(1000*time.Hour)))
					if r.IntN(2) == 0 {
						by = -by
					}
					w.ahead += by
					jumps++
				}
				if err := k.Keep(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, k := range []*Keeper{k, New(Config{Store: w.db, Wall: w.wall})} { // whoever moves times of its own hears the same after a restart
				if moved, err := k.Moved(t.Context()); err != nil || moved != w.ahead {
					t.Errorf("seed %d: moved by %s in all, not %s: %v", seed, moved, w.ahead, err)
				}
			}
			live, gone := w.ages()
			for name, age := range live {
				if want := was[name] + time.Since(began); (age - want).Abs() > time.Second {
					t.Errorf("seed %d, %s: %s ago, not %s", seed, name, age, want)
				}
			}
			if !gone.Equal(goneWas) {
				t.Errorf("a machine that has gone was moved from %s to %s", goneWas, gone)
			}
			storetest.View(t, w.db, func(tx *store.Tx) error {
				events, err := tx.Events(0, 100)
				if len(events) != jumps {
					t.Errorf("%d events of %d jumps", len(events), jumps)
				}
				return err
			})
		})
	}
}

// What keeps a clock right by and by moves nothing.
func TestSlewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, db: storetest.Open(t)}
		w.fill()
		k := New(Config{Store: w.db, Wall: w.wall})
		rev := w.db.Rev()
		for range 1000 {
			time.Sleep(15 * time.Second)
			w.ahead += 20 * time.Millisecond
			if err := k.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if w.db.Rev() != rev {
			t.Error("something was moved")
		}
	})
}

// A server that starts notices what happened to the clock meanwhile, if it is the same boot; of another one it knows nothing.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name, boot string
		by, want   time.Duration
	}{
		{"put forward", "one", 3 * time.Hour, 3 * time.Hour},
		{"put back", "one", -3 * time.Hour, -3 * time.Hour},
		{"slewed", "one", 20 * time.Second, 0},
		{"another boot", "two", 3 * time.Hour, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{T: t, db: storetest.Open(t)}
				w.fill()
				boot, began := "one", time.Now()
				linux := func() (string, time.Duration, error) { return boot, time.Since(began), nil }
				if err := New(Config{Store: w.db, Wall: w.wall, Boot: linux}).Keep(t.Context()); err != nil {
					t.Fatal(err)
				}
				was, _ := w.ages()
				time.Sleep(10 * time.Minute)
				w.ahead, boot = c.by, c.boot
				k := New(Config{Store: w.db, Wall: w.wall, Boot: linux})
				for range 2 {
					if err := k.Keep(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				live, _ := w.ages()
				for name, age := range live {
					if want := was[name] + 10*time.Minute + c.by - c.want; (age - want).Abs() > time.Second {
						t.Errorf("%s: %s ago, not %s", name, age, want)
					}
				}
			})
		})
	}
}

// While nothing can be put on record nothing may be ended, and later all is made good, once.
func TestFullDisk(t *testing.T) {
	dir := need.Disk(t, "2m")
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, db: storetest.OpenAt(t, filepath.Join(dir, "store.db"))}
		w.fill()
		k := New(Config{Store: w.db, Wall: w.wall})
		if err := k.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		was, _ := w.ages()
		empty := storetest.Fill(t, w.db, dir)
		w.ahead = 5 * time.Hour
		for range 3 {
			if err := k.Keep(t.Context()); shoal.KindOf(err) != shoal.KindUnavailable {
				t.Errorf("on a full disk: %v", err)
			}
		}
		empty()
		for range 3 {
			if err := k.Keep(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		live, _ := w.ages()
		for name, age := range live {
			if (age - was[name]).Abs() > time.Minute {
				t.Errorf("%s: %s ago, not %s", name, age, was[name])
			}
		}
	})
}

// The kernel says which boot this is.
func TestLinux(t *testing.T) {
	a, before, err := Linux()
	if err != nil {
		t.Fatal(err)
	}
	b, after, err := Linux()
	if err != nil || a == "" || a != b || before <= 0 || after < before {
		t.Errorf("%q after %s, %q after %s, %v", a, before, b, after, err)
	}
}
