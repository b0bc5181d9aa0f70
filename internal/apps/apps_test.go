package apps_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/apps"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// broker gives seats on m-1, or refuses them.
type broker struct {
	mu     sync.Mutex
	refuse string
	asked  []route.Request
	closed []string
	done   chan struct{}
}

func (b *broker) Login(_ context.Context, r route.Request, _ string, progress func(string)) (route.Target, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, r)
	if b.refuse != "" {
		return route.Target{}, &route.Refusal{Reason: shoal.Reason{Code: "x", Sentence: b.refuse}}
	}
	progress("machine m-1 is ready")
	return route.Target{Session: "s-1", User: r.User, Pool: r.Pool, Machine: "m-1", Done: b.done}, nil
}

func (b *broker) Closed(_ shoal.SessionID, part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = append(b.closed, part)
}

func (b *broker) set(refuse string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = refuse
}

// world is the service on a store, with a machine that a test plays.
type world struct {
	unkept atomic.Bool // what is on record does not fit the clock
	t      *testing.T
	path   string // of the store
	db     *store.DB
	broker *broker
	sent   chan api.Record
	*apps.Apps
	stop func()
}

func inWorld(t *testing.T, test func(*testing.T, *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		w := &world{t: t, path: path, db: storetest.OpenAt(t, path), broker: &broker{done: make(chan struct{})}, sent: make(chan api.Record, 100)}
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			_, err1 := tx.Users().Put(shoal.User{Name: "alice"})
			_, err2 := tx.Pools().Put(shoal.Pool{Name: "lab", Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute)}},
				Endpoints: []shoal.Endpoint{{Name: "web", Protocol: shoal.ProtocolHTTP, Command: "serve", Env: map[string]string{"KEY": "SECRET"}}}})
			_, err3 := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady, Address: "192.0.2.7:22", Health: shoal.HealthUp})
			_, err4 := tx.Sessions().Put(shoal.Session{ID: "s-1", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionActive})
			return errors.Join(err1, err2, err3, err4)
		})
		w.start()
		t.Cleanup(func() { w.stop() })
		test(t, w)
	})
}

func (w *world) start() {
	w.Apps = apps.New(apps.Config{Store: w.db, Broker: w.broker, Send: func(_ shoal.MachineID, r api.Record) bool { w.sent <- r; return true },
		Keep: func(context.Context) error {
			if w.unkept.Load() {
				return errors.New("the clock cannot be compared")
			}
			return nil
		}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	service := w.Apps
	go func() { defer close(done); _ = service.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	synctest.Wait()
}

func (w *world) open() shoal.App {
	w.t.Helper()
	p, err := w.Open(w.t.Context(), "alice", "lab", "web", "")
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return p
}

func (w *world) get(id shoal.AppID) shoal.App {
	w.t.Helper()
	p, err := w.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) says(r api.AppReport) {
	w.t.Helper()
	if err := w.Report(w.t.Context(), "m-1", []api.AppReport{r}); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) machine(change func(*shoal.Machine)) {
	w.t.Helper()
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		m, err := tx.Machines().Get("m-1")
		if err == nil {
			change(&m)
			_, err = tx.Machines().Put(m)
		}
		return err
	})
}

// What a machine is told is kept until the machine has it: no longer, for it holds secrets.
func TestOrderIsForgotten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		if r := <-w.sent; r.App == nil || r.App.ID != p.ID || r.App.Command != "serve" || r.App.Env["KEY"] != "SECRET" || r.App.Env["SHOAL_POOL"] != "lab" {
			t.Errorf("%+v", r.App)
		}
		all, err := w.Orders(t.Context(), "m-1")
		if err != nil || len(all) != 1 || all[0].Command != "serve" {
			t.Errorf("%+v, %v", all, err)
		}
		w.says(api.AppReport{ID: p.ID, State: shoal.AppStarting, Progress: "it is started"})
		if p := w.get(p.ID); p.State != shoal.AppStarting || p.Progress != "it is started" {
			t.Errorf("%+v", p)
		}
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		all, err = w.Orders(t.Context(), "m-1")
		if err != nil || len(all) != 1 || all[0].Command != "" || len(all[0].Env) != 0 {
			t.Errorf("%+v, %v", all, err)
		}
		if p := w.get(p.ID); p.Address != "192.0.2.7:700" {
			t.Errorf("%+v", p)
		}
		w.says(api.AppReport{ID: p.ID, State: shoal.AppStarting}) // old news
		if p := w.get(p.ID); p.State != shoal.AppRunning {
			t.Errorf("%+v", p)
		}
	})
}

// Find knows those that live, without a look into the store.
func TestFind(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		find := func() (shoal.App, bool) { return w.Find(t.Context(), "alice", "lab", "web", "") }
		if p, ok := find(); ok {
			t.Errorf("%+v", p)
		}
		p := w.open()
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		if got, ok := find(); !ok || got.State != shoal.AppRunning || got.Address == "" {
			t.Errorf("%+v, %t", got, ok)
		}
		w.stop()
		w.start() // another server
		if got, ok := find(); !ok || got.ID != p.ID {
			t.Errorf("%+v, %t", got, ok)
		}
		if last := w.broker.asked[len(w.broker.asked)-1]; last.Machine != "m-1" {
			t.Errorf("it asks for a seat by %+v", last)
		}
		if err := w.Stop(t.Context(), p.ID, "alice stopped it"); err != nil {
			t.Fatal(err)
		}
		if got, ok := find(); ok {
			t.Errorf("%+v", got)
		}
		if all, err := w.Orders(t.Context(), "m-1"); err != nil || len(all) != 0 {
			t.Errorf("%+v, %v", all, err)
		}
		w.says(api.AppReport{ID: p.ID, State: shoal.AppFailed, Reason: "signal 15", Log: "x"})
		if p := w.get(p.ID); p.State != shoal.AppEnded || p.Reason != "alice stopped it" || p.Log != "" || p.Stopping {
			t.Errorf("%+v", p)
		}
		if len(w.broker.closed) == 0 || w.broker.closed[len(w.broker.closed)-1] != string(p.ID) {
			t.Errorf("closed: %v", w.broker.closed)
		}
	})
}

// A server without kernels lives while its user does something with it, which the front end sees by its address.
func TestUsedByAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		if _, ok := w.At("alice", ""); ok {
			t.Error("one without an address is found")
		}
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		address := w.get(p.ID).Address
		for range 36 {
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			id, ok := w.At("alice", address)
			if !ok || id != p.ID {
				t.Fatalf("at %s is %q, %t: %+v", address, id, ok, w.get(p.ID))
			}
			w.Used(id, time.Now())
		}
		if p := w.get(p.ID); p.Stopping {
			t.Errorf("%+v", p)
		}
		if id, ok := w.At("mallory", address); ok {
			t.Errorf("%s is mallory's", id)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if p := w.get(p.ID); !p.Stopping {
			t.Errorf("nobody uses it, and it lives: %+v", p)
		}
		w.says(api.AppReport{ID: p.ID, State: shoal.AppEnded})
		if id, ok := w.At("alice", address); ok {
			t.Errorf("%s has ended", id)
		}
	})
}

// Who uses an app while nothing can be ended has used it.
func TestUsedMeanwhile(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		time.Sleep(10 * time.Minute)
		w.unkept.Store(true)
		used := time.Now()
		w.Used(p.ID, used)
		time.Sleep(5 * time.Minute)
		w.unkept.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if p := w.get(p.ID); !p.LastActivity.Equal(used.UTC().Round(0)) {
			t.Errorf("it was used last at %s, not at %s", p.LastActivity, used)
		}
	})
}

// A kernel keeps an app, unless its endpoint says for how long; its user is told before.
func TestIdleKernel(t *testing.T) {
	for _, limit := range []time.Duration{0, 12 * time.Hour} {
		t.Run(limit.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { w.idleKernel(limit) })
		})
	}
}

func (w *world) idleKernel(limit time.Duration) {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		p, err := tx.Pools().Get("lab")
		p.Endpoints[0].IdleEnd, p.Scale.Idle.Warn = shoal.Duration(limit), shoal.Duration(5*time.Minute)
		_, err2 := tx.Pools().Put(p)
		return errors.Join(err, err2)
	})
	p := w.open()
	w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
	for len(w.sent) > 0 {
		<-w.sent
	}
	kernel := func(last time.Time) {
		w.t.Helper()
		if _, err := w.Activity(w.t.Context(), p.ID, api.AppActivity{Kernels: 1, LastActivity: last}); err != nil {
			w.t.Fatal(err)
		}
	}
	began, told := time.Now(), 0
	kernel(began)
	for time.Since(began) < 14*time.Hour && w.get(p.ID).Live() && !w.get(p.ID).Stopping {
		if p := w.get(p.ID); limit == 0 && !p.Ends.IsZero() || limit > 0 && time.Since(began) > time.Minute && p.Ends.Sub(began).Round(time.Minute) != limit {
			w.t.Fatalf("after %s it ends at %s", time.Since(began), p.Ends)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if p := w.get(p.ID); p.Live() && !p.Stopping {
			kernel(began) // it lives, and nobody uses it
		}
		for len(w.sent) > 0 {
			if r := <-w.sent; r.Message != nil && r.Message.User == "alice" && strings.Contains(r.Message.Text, "It ends at") {
				told++
			}
		}
	}
	switch over := time.Since(began); {
	case limit == 0 && (over < 14*time.Hour || told != 0):
		w.t.Errorf("it ended after %s; she was told %d times", over, told)
	case limit > 0 && (over < limit || over > limit+20*time.Minute || told != 1):
		w.t.Errorf("it ended after %s; she was told %d times", over, told)
	}
}

// A machine that does not answer makes an app unknown, not ended; nor is it idle then.
func TestUnknown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		w.machine(func(m *shoal.Machine) { m.Health = shoal.HealthUnknown })
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if p := w.get(p.ID); !p.Unknown || p.State != shoal.AppRunning || p.Stopping {
			t.Errorf("%+v", p)
		}
		w.machine(func(m *shoal.Machine) { m.Health = shoal.HealthUp })
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := w.get(p.ID); p.Unknown || !p.Stopping {
			t.Errorf("%+v", p)
		}
	})
}

// An app that runs without a seat, because its user has too many, goes on, and gets one when there is.
func TestRefusedSeat(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		w.stop()
		w.broker.set("you have too many connections")
		w.start()
		time.Sleep(10 * time.Minute)
		if p := w.get(p.ID); p.State != shoal.AppRunning {
			t.Errorf("%+v", p)
		}
		w.broker.set("")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.machine(func(m *shoal.Machine) { m.State, m.Reason = shoal.MachineFailed, "its disk broke" })
		close(w.broker.done)
		synctest.Wait()
		if p := w.get(p.ID); p.State != shoal.AppFailed || p.Reason != "machine m-1 is failed: its disk broke; open it again and it starts on another" {
			t.Errorf("%+v", p)
		}
		w.broker.set("pool lab takes nobody")
		again, err := w.Open(t.Context(), "alice", "lab", "web", "")
		if err != nil || again.ID == p.ID {
			t.Fatalf("%+v, %v", again, err)
		}
		synctest.Wait()
		if p := w.get(again.ID); p.State != shoal.AppFailed || p.Reason != "pool lab takes nobody" {
			t.Errorf("%+v", p)
		}
	})
}

// One that ends because its machine does is told so.
func TestMachineThatEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 700})
		w.machine(func(m *shoal.Machine) {
			m.State, m.Wanted, m.Reason = shoal.MachineStopping, shoal.WantDelete, "drained by oscar"
		})
		w.says(api.AppReport{ID: p.ID, State: shoal.AppFailed, Reason: "it was ended by signal 15 (SIGTERM)", ExitCode: 143})
		if p := w.get(p.ID); p.State != shoal.AppFailed || p.Reason != "machine m-1 is ending: drained by oscar; open it again and it starts on another" || p.ExitCode != 0 {
			t.Errorf("%+v", p)
		}
	})
}

// While the store cannot tell how its machine is, an app whose session is over is neither lost nor stopped.
func TestMachineOfWhichNothingIsKnown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p := w.open()
		w.says(api.AppReport{ID: p.ID, State: shoal.AppRunning, Port: 40000})
		show := storetest.Hide(t, w.path, "machines")
		close(w.broker.done)
		synctest.Wait()
		show()
		if p := w.get(p.ID); p.State != shoal.AppRunning || p.Stopping {
			t.Errorf("it is %+v", p)
		}
		w.machine(func(m *shoal.Machine) { m.State, m.Reason = shoal.MachineFailed, "it burns" })
		time.Sleep(2 * time.Minute)
		if p := w.get(p.ID); p.State != shoal.AppFailed || !strings.Contains(p.Reason, "it burns") {
			t.Errorf("it is %s: %s", p.State, p.Reason)
		}
	})
}

// What runs on a machine without being known is ended; another machine's word counts for nothing.
func TestStrangers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.says(api.AppReport{ID: "a-zzzzzz", State: shoal.AppRunning, Port: 700})
		if r := <-w.sent; r.StopApp == nil || r.StopApp.ID != "a-zzzzzz" {
			t.Errorf("%+v", r)
		}
		p := w.open()
		<-w.sent
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			_, err := tx.Machines().Put(shoal.Machine{ID: "m-2", Pool: "lab", State: shoal.MachineReady, Address: "192.0.2.8:22"})
			return err
		})
		if err := w.Report(t.Context(), "m-2", []api.AppReport{{ID: p.ID, State: shoal.AppRunning, Port: 700}}); err != nil {
			t.Fatal(err)
		}
		if p := w.get(p.ID); p.State != shoal.AppStarting || p.Address != "" {
			t.Errorf("%+v", p)
		}
	})
}

// A new app waits for the end of the one in whose place it comes, but not for ever.
func TestInPlaceOfAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.open()
		w.says(api.AppReport{ID: first.ID, State: shoal.AppRunning, Port: 700})
		if err := w.Stop(t.Context(), first.ID, "stopped"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		go func() {
			time.Sleep(3 * time.Second)
			_ = w.Report(context.Background(), "m-1", []api.AppReport{{ID: first.ID, State: shoal.AppEnded}})
		}()
		second, err := w.Open(t.Context(), "alice", "lab", "web", "")
		if took := time.Since(began); err != nil || second.ID == first.ID || took != 3*time.Second {
			t.Fatalf("after %v %+v, %v", took, second, err)
		}
		synctest.Wait()
		if err := w.Stop(t.Context(), second.ID, "stopped"); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if third, err := w.Open(t.Context(), "alice", "lab", "web", ""); err != nil || third.ID == second.ID || time.Since(began) > 30*time.Second {
			t.Errorf("after %v %+v, %v", time.Since(began), third, err)
		}
	})
}
