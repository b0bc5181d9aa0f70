package engine_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/clock"
	"github.com/shoal-pool/shoal/internal/engine"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// world is an engine at work on a store and a fake provider whose machines have fake agents, within a bubble.
type world struct {
	t      *testing.T
	db     *store.DB
	cloud  *fake.Provider
	around func(provider.Provider) provider.Provider // decorates the provider; nil: as it is
	engine atomic.Pointer[engine.Engine]
	stop   func()
	broken atomic.Bool // agents say that the boot failed
	mute   atomic.Bool // agents never say anything
	blind  atomic.Bool // agents do not look again when they are asked to
	looks  atomic.Int64
	ahead  atomic.Int64 // by how much the server's clock was set, nanoseconds

	mu   sync.Mutex
	gone []shoal.MachineID
	told []string
}

func newWorld(t *testing.T, cfg fake.Config, pools ...shoal.Pool) *world {
	return newWorldAt(t, storetest.Open(t), cfg, pools...)
}

func newWorldAt(t *testing.T, db *store.DB, cfg fake.Config, pools ...shoal.Pool) *world {
	w := &world{t: t, db: db}
	cfg.Booted = w.agent
	w.cloud = fake.New(cfg)
	for _, p := range pools {
		w.put(p)
	}
	w.start()
	t.Cleanup(func() { w.stop(); w.cloud.Close() })
	return w
}

func lab(change ...func(*shoal.Pool)) shoal.Pool {
	p := shoal.Pool{Name: "lab", Provider: "fake", Image: "host", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch}, Seats: 8, Size: shoal.Size{Max: 10},
		Machine: shoal.Resources{CPUs: 1000, Memory: 1 << 30}, Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute)}}}
	for _, c := range change {
		c(&p)
	}
	return p
}

func min1(p *shoal.Pool) { p.Size.Min = 1 }

func (w *world) put(p shoal.Pool) {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error { _, err := tx.Pools().Put(p); return err })
}

// start starts an engine, and tells it of the agents that are there.
func (w *world) start() {
	p := provider.Provider(w.cloud)
	if w.around != nil {
		p = w.around(p)
	}
	e := engine.New(engine.Config{Store: w.db, Providers: map[string]provider.Provider{"fake": p}, Control: map[string]engine.Control{"fake": {URL: "unix:///control"}},
		JoinToken: func(id shoal.MachineID, epoch int) string { return fmt.Sprintf("token of %s, %d", id, epoch) },
		Keep:      clock.New(clock.Config{Store: w.db, Wall: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }}).Keep,
		Gone: func(id shoal.MachineID) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.gone = append(w.gone, id)
		},
		Look: func(id shoal.MachineID, which string) {
			w.looks.Add(1)
			if !w.blind.Load() {
				w.engine.Load().Looked(id, which)
			}
		},
		Tell: func(id shoal.MachineID, text string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, string(id)+": "+text)
		}})
	w.engine.Store(e)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = e.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
}

// agent is a machine's agent: it joins, says that it is ready, and keeps its stream open.
func (w *world) agent(ctx context.Context, spec provider.MachineSpec) {
	var on *engine.Engine
	for joined := false; ctx.Err() == nil; {
		e := w.engine.Load()
		var err error
		wait := 50 * time.Millisecond
		switch {
		case !joined:
			err = e.Joined(ctx, spec.ID, spec.Join.Epoch, "ssh-ed25519 "+string(spec.ID))
			joined = err == nil
		case w.mute.Load():
		case on != e:
			on = e
			e.Connected(spec.ID, true)
		default:
			r := api.BootReport{Ready: true}
			if w.broken.Load() {
				r = api.BootReport{Error: "the probe could not log in"}
			}
			if err = e.Boot(ctx, spec.ID, spec.Join.Epoch, r); err == nil {
				e.Seen(spec.ID, nil)
				wait = 10 * time.Second
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	w.engine.Load().Connected(spec.ID, false)
}

func (w *world) view(fn func(*store.Tx) error) { w.t.Helper(); storetest.View(w.t, w.db, fn) }

// machines are the machines that are not gone.
func (w *world) machines() (all []shoal.Machine) {
	w.t.Helper()
	w.view(func(tx *store.Tx) (err error) { all, err = tx.LiveMachines(); return err })
	return all
}

// is counts machines by what is shown of them.
func (w *world) is(shown string) (n int) {
	w.t.Helper()
	for _, m := range w.machines() {
		if m.Shown() == shown {
			n++
		}
	}
	return n
}

// unknown counts machines whose agent is not heard from.
func (w *world) unknown() (n int) {
	w.t.Helper()
	for _, m := range w.machines() {
		if m.Health == shoal.HealthUnknown {
			n++
		}
	}
	return n
}

func (w *world) get(id shoal.MachineID) (m shoal.Machine) {
	w.t.Helper()
	w.view(func(tx *store.Tx) (err error) { m, err = tx.Machines().Get(id); return err })
	return m
}

// ever counts all machines there have been.
func (w *world) ever() (n int) {
	w.t.Helper()
	w.view(func(tx *store.Tx) error { all, err := tx.Machines().List(); n = len(all); return err })
	return n
}

// listed is how many machines the provider has.
func (w *world) listed() int {
	w.t.Helper()
	o, err := w.cloud.Observe(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return len(o.Machines)
}

// wait makes logins of users wait for a seat.
func (w *world) wait(users ...string) {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		for _, u := range users {
			s := shoal.Session{ID: shoal.SessionID("s-" + u), User: shoal.UserName(u), Pool: "lab", State: shoal.SessionWaiting, Since: time.Now()}
			if _, err := tx.Sessions().Put(s); err != nil {
				return err
			}
		}
		return nil
	})
	w.engine.Load().Wake()
}

// seat puts everybody who waits on machines, as the broker does.
func (w *world) seat() {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		if err != nil {
			return err
		}
		machines, err := tx.LiveMachines()
		if err != nil {
			return err
		}
		taken := map[shoal.MachineID]int{}
		for _, s := range sessions {
			taken[s.Machine]++
		}
		for _, s := range sessions {
			if s.State != shoal.SessionWaiting {
				continue
			}
			i := slices.IndexFunc(machines, func(m shoal.Machine) bool { return m.Accepts() && taken[m.ID] < 8 })
			if i < 0 {
				continue
			}
			taken[machines[i].ID]++
			s.State, s.Machine, s.Parts = shoal.SessionActive, machines[i].ID, []shoal.Part{{ID: "p"}}
			if _, err := tx.Sessions().Put(s); err != nil {
				return err
			}
		}
		return nil
	})
}

// leave ends all sessions.
func (w *world) leave() {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		if err != nil {
			return err
		}
		for _, s := range sessions {
			s.State = shoal.SessionEnded
			if _, err := tx.Sessions().Put(s); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *world) calls(op fake.Op) (n int) {
	for _, c := range w.cloud.Calls() {
		if c.Op == op {
			n++
		}
	}
	return n
}

// want checks a number.
func (w *world) want(what string, got, want int) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%s: %d, want %d; machines: %s", what, got, want, w.show())
	}
}

func (w *world) show() (s string) {
	for _, m := range w.machines() {
		s += fmt.Sprintf("\n%s %s wanted %s health %s: %s", m.ID, m.Shown(), m.Wanted, m.Health, m.Reason)
	}
	return s
}

// bill checks that there is an interval for each start of a machine, open while it lives only.
func (w *world) bill() {
	w.t.Helper()
	w.view(func(tx *store.Tx) error {
		intervals, err := tx.IntervalsSince(time.Time{})
		if err != nil {
			return err
		}
		open := map[string]int{}
		for _, i := range intervals {
			if i.Kind == shoal.ObjectMachine && i.End.IsZero() {
				open[i.ID]++
			}
		}
		all, err := tx.Machines().List()
		for _, m := range all {
			lives := m.State == shoal.MachineBooting || m.State == shoal.MachineReady || m.State == shoal.MachineStopping
			if want := map[bool]int{true: 1}[lives && !m.Started.IsZero()]; open[string(m.ID)] != want {
				w.t.Errorf("machine %s is %s and has %d open intervals", m.ID, m.State, open[string(m.ID)])
			}
		}
		return err
	})
}

func (w *world) events(code string) (all []shoal.Event) {
	w.t.Helper()
	w.view(func(tx *store.Tx) error {
		events, err := tx.Events(0, 10_000)
		for _, e := range events {
			if e.Code == code {
				all = append(all, e)
			}
		}
		return err
	})
	return all
}
