package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/broker"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// agents stands for the machines' agents: they answer, but for those listed as silent.
type agents struct {
	mu     sync.Mutex
	silent map[shoal.MachineID]bool
}

func (a *agents) AccountsReady(ctx context.Context, m shoal.MachineID, _ shoal.Rev) error {
	a.mu.Lock()
	silent := a.silent[m]
	a.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// world is a broker at work on a store, within a bubble.
type world struct {
	t      *testing.T
	db     *store.DB
	agents *agents
	cfg    broker.Config
	*broker.Broker
	stop func()
	wg   sync.WaitGroup
}

func newWorld(t *testing.T, pool shoal.Pool) *world { return newWorldAt(t, storetest.Open(t), pool) }

func newWorldAt(t *testing.T, db *store.DB, pool shoal.Pool) *world {
	return newWorldWith(t, db, pool, broker.Config{})
}

func newWorldWith(t *testing.T, db *store.DB, pool shoal.Pool, cfg broker.Config) *world {
	w := &world{t: t, db: db, cfg: cfg, agents: &agents{silent: map[shoal.MachineID]bool{}}}
	pool.Name, pool.Uses = "lab", []shoal.Use{shoal.UseInteractive}
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		for i := range 60 {
			if _, err := tx.Users().Put(shoal.User{Name: user(i)}); err != nil {
				return err
			}
		}
		_, err := tx.Pools().Put(pool)
		return err
	})
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.cfg.Store, w.cfg.Accounts = w.db, w.agents
	w.Broker = broker.New(w.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	w.wg.Go(func() { _ = w.Run(ctx) })
	w.stop = func() { cancel(); w.wg.Wait() }
}

func user(i int) shoal.UserName { return shoal.UserName(fmt.Sprintf("u%02d", i)) }

func (w *world) machine(id shoal.MachineID, state shoal.MachineState, change ...func(*shoal.Machine)) {
	w.t.Helper()
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		m, err := tx.Machines().Get(id)
		if err != nil {
			m = shoal.Machine{ID: id, Pool: "lab", Wanted: shoal.WantRun, Address: string(id) + ":22"}
		}
		m.State, m.Since, m.Health = state, time.Now(), shoal.HealthUp
		for _, c := range change {
			c(&m)
		}
		_, err = tx.Machines().Put(m)
		return err
	})
}

func (w *world) login(u shoal.UserName, part string) route.Target {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // of the bubble's clock
	defer cancel()
	t, err := w.Login(ctx, route.Request{User: u, Pool: "lab", Source: "test"}, part, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

func (w *world) session(id shoal.SessionID) (s shoal.Session) {
	w.t.Helper()
	storetest.View(w.t, w.db, func(tx *store.Tx) (err error) { s, err = tx.Sessions().Get(id); return err })
	return s
}

func (w *world) live() (all []shoal.Session) {
	w.t.Helper()
	storetest.View(w.t, w.db, func(tx *store.Tx) (err error) { all, err = tx.LiveSessions(); return err })
	return all
}

func (w *world) activity(m shoal.MachineID, users ...api.UserActivity) {
	w.t.Helper()
	if err := w.Activity(context.Background(), m, api.Activity{Users: users}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func tmux(u shoal.UserName) api.UserActivity {
	return api.UserActivity{User: u, Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}}
}

// later lets time pass and everything settle.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Fifty users at once and no machine: fifty rows in state waiting, seated in order of arrival as
// machines become ready, never more than there are seats.
func TestFiftyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 10}})
		var mu sync.Mutex
		var order []shoal.UserName
		var wg sync.WaitGroup
		told := map[shoal.UserName]bool{}
		for i := range 50 {
			wg.Go(func() {
				tell := func(string) { mu.Lock(); told[user(i)] = true; mu.Unlock() }
				_, err := w.Login(t.Context(), route.Request{User: user(i), Pool: "lab", Arrived: time.Unix(int64(i), 0)}, "p", tell)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("user %d: %v", i, err)
				}
				order = append(order, user(i))
			})
		}
		later(time.Second)
		if n := len(w.live()); n != 50 {
			t.Errorf("%d sessions wait, want 50", n)
		}
		mu.Lock()
		if len(told) != 50 {
			t.Errorf("after a second %d of 50 know what they wait for", len(told))
		}
		mu.Unlock()
		for i := range 7 {
			w.machine(shoal.MachineID(fmt.Sprintf("m-%d", i)), shoal.MachineReady)
			later(time.Second)
			mu.Lock()
			if want := min(8*(i+1), 50); len(order) != want {
				t.Errorf("with %d machines %d are seated, want %d", i+1, len(order), want)
			}
			batch := slices.Clone(order[8*i:])
			mu.Unlock()
			slices.Sort(batch)
			for k, u := range batch {
				if u != user(8*i+k) {
					t.Errorf("machine %d got %v: not in order of arrival", i, batch)
					break
				}
			}
		}
		wg.Wait()
		perMachine := map[shoal.MachineID]int{}
		for _, s := range w.live() {
			perMachine[s.Machine]++
			if s.State != shoal.SessionActive || len(s.Parts) != 1 || perMachine[s.Machine] > 8 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// Where the pool may not grow the rest wait with their position, and a seat that becomes free goes
// to the first.
func TestPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 1, Size: shoal.Size{Max: 1}})
		w.machine("m-1", shoal.MachineReady)
		first := w.login(user(0), "p0")
		var mu sync.Mutex
		last := map[int]string{}
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := 1; i <= 3; i++ {
			time.Sleep(time.Millisecond)
			wg.Go(func() {
				c := t.Context()
				if i == 1 {
					c = ctx
				}
				_, err := w.Login(c, route.Request{User: user(i), Pool: "lab"}, "p", func(s string) { mu.Lock(); last[i] = s; mu.Unlock() })
				if (err != nil) != (i == 1) {
					t.Errorf("user %d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		later(2 * time.Second)
		says := func(i int, text string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(last[i], text) {
				t.Errorf("user %d was told %q, want %q", i, last[i], text)
			}
		}
		says(3, "you are 3rd in line")
		why, err := w.WhyLogin(t.Context(), user(5), "")
		if err != nil || !strings.Contains(why.Sentence, "4th in line") {
			t.Errorf("why: %+v, %v", why, err)
		}
		if why, err = w.WhyLogin(t.Context(), user(2), ""); err != nil || why.Sentence != "a login of u02 waits: all 1 seat of 1 machine of pool lab are taken; you are 2nd in line" {
			t.Errorf("why of who waits: %+v, %v", why, err)
		}
		cancel() // the first of them goes away
		later(2 * time.Second)
		says(3, "you are 2nd in line")
		says(2, "you are 1st in line")
		if err := w.End(t.Context(), first.Session); err != nil {
			t.Fatal(err)
		}
		select {
		case <-first.Done:
		default:
			t.Error("the front end was not told that the session ended")
		}
		later(2 * time.Second)
		says(2, "machine m-1 is ready")
		for _, s := range w.live() {
			if s.User == user(2) {
				w.Closed(s.ID, "p")
			}
		}
		synctest.Wait() // the agent looks once that is on record
		w.activity("m-1")
		later(15 * time.Second)
		says(3, "machine m-1 is ready")
		wg.Wait()
	})
}

func TestStickyAndDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		w.machine("m-2", shoal.MachineReady)
		a := w.login("u00", "p1")
		w.login("u01", "p")
		w.Closed(a.Session, "p1")
		w.activity(a.Machine, tmux("u00"))
		w.machine(a.Machine, shoal.MachineReady, func(m *shoal.Machine) {
			m.Cordons = []shoal.Cordon{{Owner: shoal.CordonOperator}}
		})
		if s := w.session(a.Session); s.State != shoal.SessionDisconnected || len(s.Pins) != 1 {
			t.Errorf("after the connection closed: %+v", s)
		}
		later(time.Hour)
		again := w.login("u00", "p2")
		if again.Machine != a.Machine || again.Session != a.Session {
			t.Errorf("came back to %+v, was on %+v", again, a)
		}
		if other := w.login("u02", "p"); other.Machine == a.Machine {
			t.Error("somebody new was put on a draining machine")
		}
	})
}

func TestEndsWhenNothingLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		for name, c := range map[string]struct {
			before, after []api.UserActivity
			report        bool
			ended         bool
		}{
			"known to have nothing":         {ended: true},
			"a report says nothing":         {before: []api.UserActivity{tmux("u00")}, report: true, ended: true},
			"tmux lives":                    {before: []api.UserActivity{tmux("u00")}},
			"tmux was seen after the close": {report: true, after: []api.UserActivity{tmux("u00")}},
			"only a task lives": {report: true, ended: true,
				after: []api.UserActivity{{User: "u00", Pins: []shoal.Pin{{Kind: "task", Count: 1}}}}},
		} {
			a := w.login("u00", "p1")
			w.activity("m-1", c.before...)
			w.Closed(a.Session, "p1")
			synctest.Wait()
			if c.report {
				w.activity("m-1", c.after...)
			}
			later(15 * time.Second)
			if s := w.session(a.Session); (s.State == shoal.SessionEnded) != c.ended {
				t.Errorf("%s: %+v", name, s)
			}
			_ = w.End(t.Context(), a.Session)
			w.activity("m-1")
		}
	})
}

// A machine that is not heard from, or whose agent never told, ends nobody's session.
func TestUnknownIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		a := w.login("u00", "p1")
		w.activity("m-1", tmux("u00"))
		w.stop()
		w.start() // a new server: the part is stale, what lives there unknown
		later(time.Hour)
		if s := w.session(a.Session); s.State != shoal.SessionDisconnected || len(s.Parts) != 0 {
			t.Fatalf("after the restart: %+v", s)
		}
		w.machine("m-1", shoal.MachineReady, func(m *shoal.Machine) { m.Health = shoal.HealthUnknown })
		w.activity("m-1")
		later(time.Hour)
		if s := w.session(a.Session); s.State != shoal.SessionDisconnected {
			t.Fatalf("while the machine is unknown: %+v", s)
		}
		w.machine("m-1", shoal.MachineReady)
		w.activity("m-1")
		later(20 * time.Second)
		if s := w.session(a.Session); s.State != shoal.SessionEnded {
			t.Fatalf("once its agent told: %+v", s)
		}
	})
}

// A connection that the former server carries on holds its session until it ends, through further servers too.
func TestCarriedConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		a := w.login("u00", "p1")
		connected := api.UserActivity{User: "u00", Connections: 1}
		w.activity("m-1", connected)
		for range 2 {
			w.stop()
			w.start()
			later(time.Second)
			w.activity("m-1", connected)
			later(time.Minute)
			if s := w.session(a.Session); s.State != shoal.SessionDisconnected || !strings.Contains(s.Reason, "connection") {
				t.Fatalf("while it is open: %+v", s)
			}
		}
		w.activity("m-1")
		later(20 * time.Second)
		if s := w.session(a.Session); s.State != shoal.SessionEnded {
			t.Fatalf("once it has ended: %+v", s)
		}
		b := w.login("u00", "p2")
		w.activity("m-1", connected)
		w.Closed(b.Session, "p2")
		w.activity("m-1", connected) // a link that is kept for the next
		later(20 * time.Second)
		if s := w.session(b.Session); s.State != shoal.SessionEnded {
			t.Errorf("her next, through this server: %+v", s)
		}
	})
}

func TestRestartWithdrawsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		ctx, cancel := context.WithCancel(t.Context())
		go w.Login(ctx, route.Request{User: "u00", Pool: "lab"}, "p", nil)
		later(time.Second)
		w.stop()
		cancel()
		if n := len(w.live()); n != 1 {
			t.Fatalf("%d wait", n)
		}
		w.start()
		later(time.Second)
		if all := w.live(); len(all) != 0 {
			t.Errorf("still wait: %+v", all)
		}
	})
}

func TestKeepAwake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		a := w.login("u00", "p1")
		if _, err := w.KeepAwake(t.Context(), a.Session, 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := w.KeepAwake(t.Context(), a.Session, -1); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("a negative lease: %v", err)
		}
		w.Closed(a.Session, "p1")
		w.activity("m-1")
		later(time.Hour + 59*time.Minute)
		w.activity("m-1")
		if s := w.session(a.Session); !s.Live() {
			t.Fatalf("within the lease: %+v", s)
		}
		why, _ := w.WhySession(t.Context(), a.Session)
		if len(why.Reasons) != 1 || why.Reasons[0].Code != "keepAwake" {
			t.Errorf("why: %+v", why)
		}
		later(2 * time.Minute)
		if s := w.session(a.Session); s.Live() {
			t.Errorf("after the lease: %+v", s)
		}
	})
}

func TestMachineGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		a := w.login("u00", "p1")
		w.machine("m-1", shoal.MachineFailed, func(m *shoal.Machine) { m.Reason = "the host went down" })
		later(2 * time.Second)
		s := w.session(a.Session)
		if s.State != shoal.SessionEnded || !strings.Contains(s.Reason, "the host went down") {
			t.Errorf("%+v", s)
		}
		select {
		case <-a.Done:
		default:
			t.Error("the front end was not told")
		}
		storetest.View(t, w.db, func(tx *store.Tx) error {
			all, err := tx.IntervalsSince(time.Time{})
			if len(all) != 1 || all[0].End.IsZero() || all[0].User != "u00" {
				t.Errorf("intervals %+v", all)
			}
			return err
		})
	})
}

// A machine whose agent does not make the account is left after half a minute; others are not held up.
func TestSilentMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}, Placement: shoal.PlaceSpread})
		w.machine("m-1", shoal.MachineReady)
		w.machine("m-2", shoal.MachineReady)
		w.agents.silent["m-1"] = true
		start := time.Now()
		var told []string
		a, err := w.Login(t.Context(), route.Request{User: "u00", Pool: "lab"}, "p", func(s string) { told = append(told, s) })
		if err != nil || a.Machine != "m-2" {
			t.Fatalf("%+v, %v", a, err)
		}
		if d := time.Since(start); d < 29*time.Second || d > 35*time.Second {
			t.Errorf("it took %v", d)
		}
		if !strings.Contains(strings.Join(told, "|"), "/new asks for another") {
			t.Errorf("told %q", told)
		}
		start = time.Now()
		if b := w.login("u01", "p"); b.Machine != "m-2" || time.Since(start) > time.Second {
			t.Errorf("the next went to %s after %v", b.Machine, time.Since(start))
		}
		later(time.Second)
		if n := len(w.live()); n != 2 {
			t.Errorf("%d sessions live: %+v", n, w.live())
		}
	})
}

// Where the only free seat is on a machine that does not answer, and the pool may grow, she waits for another.
func TestSilentMachineAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var suspects atomic.Int64
		w := newWorldWith(t, storetest.Open(t), shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}}, broker.Config{Suspect: func(id shoal.MachineID, until time.Time) {
			if id == "m-1" && time.Until(until) > 30*time.Second {
				suspects.Add(1)
			}
		}})
		w.machine("m-1", shoal.MachineReady)
		w.agents.silent["m-1"] = true
		went := make(chan route.Target, 1)
		go func() { went <- w.login("u00", "p") }()
		later(35 * time.Second)
		if live := w.live(); suspects.Load() != 1 || len(live) != 1 || live[0].State != shoal.SessionWaiting {
			t.Fatalf("the machine was named a suspect %d times; %+v", suspects.Load(), live)
		}
		w.machine("m-2", shoal.MachineBooting)
		later(2 * time.Minute) // that it is no suspect any more does not matter
		w.machine("m-2", shoal.MachineReady)
		later(2 * time.Second)
		if a := <-went; a.Machine != "m-2" {
			t.Errorf("%+v", a)
		}
		storetest.View(t, w.db, func(tx *store.Tx) error {
			all, err := tx.IntervalsSince(time.Time{})
			for _, i := range all {
				if i.Machine == "m-1" && i.End.After(i.Start) || i.Machine == "" {
					t.Errorf("a machine on which she never was is on her bill: %+v", i)
				}
			}
			return err
		})
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			if _, err := tx.Users().Put(shoal.User{Name: "off", Disabled: true}); err != nil {
				return err
			}
			_, err := tx.Pools().Put(shoal.Pool{Name: "night", Uses: []shoal.Use{shoal.UseBatch}})
			return err
		})
		for _, c := range []struct {
			req  route.Request
			code string
		}{
			{route.Request{User: "u00", Pool: "nix"}, "noPool"},
			{route.Request{User: "u00", Pool: "night"}, "notInteractive"},
			{route.Request{User: "nobody", Pool: "lab"}, "noUser"},
			{route.Request{User: "off", Pool: "lab"}, "noUser"},
			{route.Request{User: "u00", Pool: "lab", Machine: "m-9"}, "noMachine"},
		} {
			_, err := w.Login(t.Context(), c.req, "p", nil)
			r, ok := errors.AsType[*route.Refusal](err)
			if !ok || r.Reason.Code != c.code {
				t.Errorf("%+v: %v, want %s", c.req, err, c.code)
			}
		}
		if n := len(w.live()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

// A pool whose machines fail one after another refuses with the reason instead of waiting for ever.
func TestHopeless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		result := make(chan error, 1)
		start := time.Now()
		go func() {
			_, err := w.Login(t.Context(), route.Request{User: "u00", Pool: "lab"}, "p", nil)
			result <- err
		}()
		later(time.Second)
		w.machine("m-1", shoal.MachineFailed, func(m *shoal.Machine) { m.Reason = "no image /images/none" })
		err := <-result
		r, ok := errors.AsType[*route.Refusal](err)
		if !ok || !strings.Contains(r.Error(), "no image /images/none") {
			t.Errorf("%v", err)
		}
		if d := time.Since(start); d < 50*time.Second || d > 70*time.Second {
			t.Errorf("after %v", d)
		}
		for i := range 3 {
			w.machine(shoal.MachineID(fmt.Sprintf("m-2%d", i)), shoal.MachineFailed, func(m *shoal.Machine) { m.Reason = "no image" })
		}
		start = time.Now()
		_, err = w.Login(t.Context(), route.Request{User: "u00", Pool: "lab"}, "p", nil)
		if err == nil || time.Since(start) > 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// Two logins of one user at the same moment are one session with two parts.
func TestTwoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 1, Size: shoal.Size{Max: 1}})
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				if _, err := w.Login(t.Context(), route.Request{User: "u00", Pool: "lab"}, fmt.Sprint(i), nil); err != nil {
					t.Error(err)
				}
			})
		}
		later(time.Second)
		w.machine("m-1", shoal.MachineReady)
		wg.Wait()
		all := w.live()
		if len(all) != 1 || len(all[0].Parts) != 5 {
			t.Errorf("%+v", all)
		}
	})
}

// What lives on a machine without a session is given one.
func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		w.machine("m-1", shoal.MachineReady)
		w.activity("m-1", tmux("u00"), tmux("nobody"))
		all := w.live()
		if len(all) != 1 || all[0].User != "u00" || all[0].State != shoal.SessionDisconnected || !all[0].Found {
			t.Fatalf("%+v", all)
		}
		a := w.login("u00", "p")
		if a.Session != all[0].ID || w.session(a.Session).Found {
			t.Errorf("%+v %+v", a, w.session(a.Session))
		}
		// What is found of somebody who has logged in there may well be hers.
		if err := w.End(t.Context(), a.Session); err != nil {
			t.Fatal(err)
		}
		w.activity("m-1", tmux("u00"))
		if all = w.live(); len(all) != 1 || all[0].ID == a.Session || all[0].Found {
			t.Errorf("%+v", all)
		}
	})
}

// A client that goes away while its seat is being stored gives the seat back.
func TestGoneWhileSeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 1, Size: shoal.Size{Max: 1}})
		w.machine("m-1", shoal.MachineReady)
		release := make(chan struct{})
		go w.db.Update(t.Context(), func(*store.Tx) error { <-release; return nil }) // the pass waits behind it
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() {
			_, err := w.Login(ctx, route.Request{User: "u00", Pool: "lab"}, "p", nil)
			result <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-result; shoal.KindOf(err) != shoal.KindCancelled {
			t.Errorf("%v", err)
		}
		close(release)
		later(time.Second)
		if all := w.live(); len(all) != 0 {
			t.Errorf("left: %+v", all)
		}
		w.login("u01", "p") // the seat is free
	})
}

// A client that goes away while it is told what it waits for gives back the seat that it was given meanwhile.
func TestGoneWithASeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 60, Size: shoal.Size{Max: 1}})
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan struct{})
		for i := range 40 {
			all.Go(func() {
				target, err := w.Login(ctx, route.Request{User: user(i), Pool: "lab"}, "p", func(string) { <-told })
				if err == nil {
					w.Closed(target.Session, "p")
				}
			})
		}
		later(time.Second)
		w.machine("m-1", shoal.MachineReady)
		later(time.Second)
		cancel()
		close(told)
		all.Wait()
		later(time.Second)
		w.activity("m-1")
		later(15 * time.Second)
		if left := w.live(); len(left) != 0 {
			t.Errorf("%d sessions are left, as %+v", len(left), left[0])
		}
	})
}

// A connection that is closed and comes again under its name, as a front end does whose way to the machine broke, is on record,
// however late it is recorded that it was closed.
func TestAgainUnderItsName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 1}})
		w.machine("m-1", shoal.MachineReady)
		first, other := w.login("u00", "p"), w.login("u01", "q")
		release := make(chan struct{})
		go w.db.Update(t.Context(), func(*store.Tx) error { <-release; return nil })
		synctest.Wait()
		w.Closed(other.Session, "q") // it is being recorded, behind the other
		synctest.Wait()
		w.Closed(first.Session, "p")
		again := make(chan route.Target, 1)
		go func() {
			target, err := w.Login(t.Context(), route.Request{User: "u00", Pool: "lab"}, "p", nil)
			if err != nil {
				t.Error(err)
			}
			again <- target
		}()
		synctest.Wait()
		close(release)
		if target := <-again; target.Session != first.Session {
			t.Errorf("%+v after %+v", target, first)
		}
		later(3 * time.Second)
		if s := w.session(first.Session); s.State != shoal.SessionActive || len(s.Parts) != 1 {
			t.Errorf("a session with a connection is %s, its parts are %+v", s.State, s.Parts)
		}
	})
}

// A client that goes away the moment it gets its seat leaves nothing behind, however that falls.
func TestWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 8, Size: shoal.Size{Max: 3}})
		var wg sync.WaitGroup
		for i := range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				_, err := w.Login(ctx, route.Request{User: user(i), Pool: "lab"}, "p", nil)
				if err == nil {
					for _, s := range w.live() {
						if s.User == user(i) {
							w.Closed(s.ID, "p")
						}
					}
				}
			})
			go func() {
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
				if i == 10 {
					w.machine("m-1", shoal.MachineReady)
				}
				cancel()
			}()
		}
		wg.Wait()
		later(time.Second)
		w.activity("m-1")
		later(15 * time.Second)
		if all := w.live(); len(all) != 0 {
			t.Errorf("left: %+v", all)
		}
	})
}
