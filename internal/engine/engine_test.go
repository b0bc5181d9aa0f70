package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// in runs a test in a bubble.
func in(t *testing.T, cfg fake.Config, pool shoal.Pool, test func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, cfg, pool)) })
}

func later(d time.Duration) { time.Sleep(d); synctest.Wait() }

func crowd(n int) (users []string) {
	for i := range n {
		users = append(users, fmt.Sprintf("u%02d", i))
	}
	return users
}

// Fifty users at once wake seven machines, no more; when they have gone and the idle time is over, so have
// the machines.
func TestFromZeroAndBack(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		later(time.Second)
		w.want("machines", w.ever(), 0)
		w.wait(crowd(50)...)
		later(500 * time.Millisecond)
		w.want("booting", w.is("booting"), 7)
		later(2 * time.Second)
		w.want("ready", w.is("ready"), 7)
		m := w.machines()[0]
		if m.HostKey == "" || m.Address == "" || m.ProviderID == "" || m.Health != shoal.HealthUp || m.Started.IsZero() || m.ReadyAt.IsZero() {
			t.Errorf("%+v", m)
		}
		w.seat()
		later(time.Hour)
		w.want("ready with people", w.is("ready"), 7)
		w.want("machines ever", w.ever(), 7)
		w.bill()
		w.leave()
		later(29 * time.Minute)
		w.want("ready", w.is("ready"), 7)
		later(3 * time.Minute)
		w.want("machines", len(w.machines()), 0)
		w.want("at the provider", w.listed(), 0)
		w.want("told", len(w.gone), 7)
		w.bill()
		for code, n := range map[string]int{"machineRequested": 7, "machineBooting": 7, "machineReady": 7, "machineStopping": 7, "machineGone": 7} {
			if all := w.events(code); len(all) != n || all[0].Sentence == "" {
				t.Errorf("%s: %+v", code, all)
			}
		}
	})
}

// Tasks that wait wake machines too, and hold those they run on.
func TestTasks(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		job := shoal.Job{ID: "1", User: "u", State: shoal.JobQueued, Counts: shoal.Counts{Queued: 3}, Spec: shoal.JobSpec{Pool: "lab", Resources: shoal.Resources{CPUs: 500, Memory: 1 << 20}}}
		storetest.Update(t, w.db, func(tx *store.Tx) error { _, err := tx.Jobs().Put(job); return err })
		w.engine.Load().Wake()
		later(3 * time.Second)
		w.want("ready", w.is("ready"), 2)
		busy := w.machines()[0].ID
		a := shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1"}, Attempt: 1}, User: "u", Pool: "lab", Machine: busy, State: shoal.JobRunning, Placed: time.Now()}
		job.Counts = shoal.Counts{Running: 1}
		storetest.Update(t, w.db, func(tx *store.Tx) error {
			_, err := tx.Jobs().Put(job)
			return errors.Join(err, tx.PutAttempt(a))
		})
		later(time.Hour)
		w.want("machines", len(w.machines()), 1)
		if m := w.machines()[0]; m.ID != busy || !m.IdleAt.IsZero() {
			t.Errorf("%+v", m)
		}
	})
}

// An idle engine does next to nothing.
func TestIdleIsSilent(t *testing.T) {
	var observes atomic.Int64
	counting := func(p provider.Provider) provider.Provider { return counter{p, &observes} }
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab(func(p *shoal.Pool) { p.Size = shoal.Size{Min: 10, Max: 10} }))
		w.stop()
		w.around = counting
		w.start()
		later(time.Minute)
		w.want("ready", w.is("ready"), 10)
		rev := w.db.Rev()
		observes.Store(0)
		later(time.Hour)
		if n := w.db.Rev() - rev; n > 80 { // ten machines, when they were last seen, every ten minutes
			t.Errorf("%d changes of the store in an idle hour", n)
		}
		if n := observes.Load(); n > 65 {
			t.Errorf("%d observations in an idle hour", n)
		}
	})
}

// Machines that cannot boot are tried ever more slowly, and the pool says why it waits.
func TestBootFailures(t *testing.T) {
	in(t, fake.Config{}, lab(func(p *shoal.Pool) { p.Repair.Tries = 100 }), func(t *testing.T, w *world) {
		w.broken.Store(true)
		w.wait("alice")
		later(10 * time.Minute)
		if n := w.ever(); n < 6 || n > 15 {
			t.Errorf("%d machines were tried in ten minutes", n)
		}
		why, err := w.engine.Load().WhyPool(t.Context(), "lab")
		if err != nil || !strings.Contains(fmt.Sprint(why.Reasons), "in a row failed") || !strings.Contains(fmt.Sprint(why.Reasons), "the probe could not log in") {
			t.Errorf("%+v %v", why, err)
		}
		if w.listed() > 1 {
			t.Errorf("%d machines are left at the provider", w.listed())
		}
		w.broken.Store(false)
		later(3 * time.Minute)
		w.want("ready", w.is("ready"), 1)
		w.bill()
	})
}

// After so many failures as the pool has tries there are no more machines, until somebody says that it is mended, or the
// pool is changed, or half an hour is over.
func TestTriesEnd(t *testing.T) {
	three := func(p *shoal.Pool) { p.Repair.Tries = 3 }
	in(t, fake.Config{}, lab(three), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		w.broken.Store(true)
		w.wait("alice")
		later(25 * time.Minute)
		w.want("machines that were tried", w.ever(), 4) // and one that waits
		why, err := e.WhyPool(ctx, "lab")
		if err != nil || !strings.Contains(fmt.Sprint(why.Reasons), "no more are made, since 3 machines in a row failed, the last one: the probe could not log in") {
			t.Errorf("%+v %v", why, err)
		}
		if _, err := e.SteerRollout(ctx, host(), "lab", api.RolloutRequest{Action: "resume"}); err != nil {
			t.Fatal(err)
		}
		later(10 * time.Minute)
		w.want("machines that were tried, with three more", w.ever(), 7)
		w.put(lab(three, func(p *shoal.Pool) { p.Image = "new" }))
		later(10 * time.Minute)
		w.want("machines that were tried, with three of another image", w.ever(), 11)
		w.broken.Store(false)
		later(30 * time.Minute)
		w.want("ready", w.is("ready"), 1)
		w.bill()
	})
}

// A machine whose agent is never heard from fails at its deadline.
func TestBootDeadline(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.mute.Store(true)
		w.wait("alice")
		later(4 * time.Minute)
		w.want("booting", w.is("booting"), 1)
		later(70 * time.Second)
		w.mute.Store(false)
		later(10 * time.Second)
		w.want("ready", w.is("ready"), 1)
		if all := w.events("machineFailed"); len(all) != 1 || !strings.Contains(all[0].Sentence, "not ready after 5m") {
			t.Errorf("%+v", all)
		}
	})
}

// While the provider cannot be observed nothing is concluded, not even from silence.
func TestOutage(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		later(5 * time.Second)
		id := w.machines()[0].ID
		w.cloud.Fail(fake.OpObserve, -1, provider.Errorf(provider.Transient, "the cloud is away"))
		later(time.Minute)
		w.engine.Load().Connected(id, false)
		later(time.Hour)
		if m := w.get(id); m.State != shoal.MachineReady || m.Health != shoal.HealthUnknown {
			t.Errorf("%+v", m)
		}
		w.want("machines", w.ever(), 1)
		why, err := w.engine.Load().WhyPool(t.Context(), "lab")
		if err != nil || !strings.Contains(fmt.Sprint(why.Reasons), "the cloud is away") {
			t.Errorf("%+v %v", why, err)
		}
		w.cloud.Fail(fake.OpObserve, 0, nil)
		later(time.Minute)
		if m := w.get(id); m.Health != shoal.HealthDown || m.State != shoal.MachineReady {
			t.Errorf("%+v", m)
		}
		later(10 * time.Minute) // nobody was there: it is replaced
		if m := w.get(id); m.State != shoal.MachineGone {
			t.Errorf("%+v", m)
		}
		w.want("ready", w.is("ready"), 1)
	})
}

// A silent machine with somebody on it is left alone; it comes back as it was.
func TestDownAndBack(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		later(5 * time.Minute)
		heard := time.Now()
		w.engine.Load().Seen(id, nil)
		w.engine.Load().Connected(id, false)
		later(time.Second)
		if m := w.get(id); m.Health != shoal.HealthUp {
			t.Errorf("at once: %+v", m)
		}
		later(10 * time.Second)
		if m := w.get(id); m.Health != shoal.HealthUnknown || !m.LastSeen.Equal(heard) {
			t.Errorf("soon: %+v", m)
		}
		later(3 * time.Hour)
		if m := w.get(id); m.Health != shoal.HealthDown || m.State != shoal.MachineReady {
			t.Errorf("after hours: %+v", m)
		}
		why, err := w.engine.Load().WhyMachine(t.Context(), id)
		says := "its agent was last heard at " + heard.UTC().Format("2006-01-02 15:04 MST") + "; it gets nobody new, and who is connected can stay"
		if err != nil || len(why.Reasons) != 2 || why.Reasons[1].Sentence != says {
			t.Errorf("%+v, %v; want %q", why.Reasons, err, says)
		}
		w.engine.Load().Connected(id, true)
		later(time.Second)
		if m := w.get(id); m.Health != shoal.HealthUp || len(m.Cordons) > 0 {
			t.Errorf("back: %+v", m)
		}
		if len(w.events("machineDown")) != 1 || len(w.events("machineUp")) != 1 {
			t.Error("no word of it")
		}
	})
}

// Who waits does not wait for a seat on a machine that did not answer somebody, though its agent's stream is open.
func TestSuspect(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		later(5 * time.Second)
		id := w.machines()[0].ID
		w.engine.Load().Suspect(id, time.Now().Add(time.Minute))
		later(5 * time.Second)
		w.want("machines while nobody waits", w.ever(), 1)
		w.wait("alice")
		later(5 * time.Second)
		w.want("ready, another for who waits", w.is("ready"), 2)
		pool, err := w.engine.Load().WhyPool(t.Context(), "lab")
		machine, err2 := w.engine.Load().WhyMachine(t.Context(), id)
		for _, why := range []api.Why{pool, machine} {
			if !strings.Contains(fmt.Sprint(why.Reasons), "did not answer somebody who was to have a seat there") {
				t.Errorf("%+v, %v, %v", why.Reasons, err, err2)
			}
		}
		later(time.Minute)
		w.wait("bob")
		later(5 * time.Second)
		w.want("machines, now that it is suspected no longer", w.ever(), 2)
	})
}

// late shows machines as they were a while ago.
type late struct {
	provider.Provider
	by time.Duration
}

func (l late) Observe(ctx context.Context) (provider.Observation, error) {
	o, err := l.Provider.Observe(ctx)
	time.Sleep(l.by)
	return o, err
}

// A machine whose agent went first is gone as soon as its provider shows that, not at the next look of an idle engine.
func TestDeathTakesAMoment(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.stop()
		w.around = func(p provider.Provider) provider.Provider { return late{p, 2 * time.Second} }
		w.start()
		w.wait("alice")
		later(10 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		later(10 * time.Minute) // the engine is idle
		w.engine.Load().Connected(id, false)
		later(time.Second) // while that is looked into
		w.cloud.Kill(id, "its first process has ended")
		later(15 * time.Second)
		if m := w.get(id); m.State != shoal.MachineGone {
			t.Errorf("%+v", m)
		}
	})
}

// A list with holes hides machines; they are not gone.
func TestHalfLists(t *testing.T) {
	in(t, fake.Config{}, lab(func(p *shoal.Pool) { p.Size.Min = 4 }), func(t *testing.T, w *world) {
		later(5 * time.Second)
		w.cloud.Partial(true)
		later(time.Hour)
		w.want("ready", w.is("ready"), 4)
		w.want("machines ever", w.ever(), 4)
	})
}

// What the provider says is gone is gone at once, what failed is replaced, and what nobody knows is removed.
func TestReality(t *testing.T) {
	in(t, fake.Config{}, lab(func(p *shoal.Pool) { p.Size.Min = 3 }), func(t *testing.T, w *world) {
		later(5 * time.Second)
		all := w.machines()
		w.cloud.Vanish(all[0].ID)
		w.cloud.Kill(all[1].ID, "its host burned")
		w.cloud.Appear(provider.MachineSpec{ID: "m-stray1", Token: "t", Pool: "lab"})
		later(2 * time.Second)
		if m := w.get(all[0].ID); m.State != shoal.MachineGone {
			t.Errorf("vanished: %+v", m)
		}
		if m := w.get(all[1].ID); m.State == shoal.MachineReady || !strings.Contains(m.Reason, "burned") {
			t.Errorf("killed: %+v", m)
		}
		later(2 * time.Minute)
		w.want("ready", w.is("ready"), 3)
		w.want("at the provider", w.listed(), 3)
		w.bill()
	})
}

// Where the provider is full, requests wait until it has room, and say so.
func TestNoCapacity(t *testing.T) {
	in(t, fake.Config{Capacity: 2}, lab(), func(t *testing.T, w *world) {
		w.wait(crowd(32)...)
		later(time.Minute)
		w.want("ready", w.is("ready"), 2)
		w.want("requested", w.is("requested"), 2)
		if n := w.calls(fake.OpCreate); n > 12 {
			t.Errorf("%d creates within a minute", n)
		}
		for _, m := range w.machines() {
			if m.State == shoal.MachineRequested && !strings.Contains(m.Reason, "in use") {
				t.Errorf("%+v", m)
			}
		}
		w.cloud.SetCapacity(0)
		later(3 * time.Minute)
		w.want("ready", w.is("ready"), 4)
		w.bill()
	})
}

// A quota's own time is respected.
func TestUntil(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		err := provider.Errorf(provider.Quota, "no more today")
		err.Until = time.Now().Add(time.Hour)
		w.cloud.Fail(fake.OpCreate, 1, err)
		w.wait("alice")
		later(59 * time.Minute)
		w.want("creates", w.calls(fake.OpCreate), 1)
		later(2 * time.Minute)
		w.want("ready", w.is("ready"), 1)
	})
}

// What is never going to work is said and tried slowly; what may is tried again.
func TestCreateErrors(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.cloud.Fail(fake.OpCreate, 1, provider.Errorf(provider.Invalid, "there is no such image"))
		w.wait("alice")
		later(500 * time.Millisecond)
		if all := w.events("machineFailed"); len(all) != 1 || !strings.Contains(all[0].Sentence, "no such image") {
			t.Errorf("%+v", all)
		}
		w.cloud.Fail(fake.OpCreate, 3, errors.New("connection reset"))
		later(time.Minute)
		w.want("ready", w.is("ready"), 1)
		w.want("machines ever", w.ever(), 2)
	})
}

func TestHalfMade(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.cloud.FailHalfway(1)
		w.wait("alice")
		later(time.Minute)
		w.want("ready", w.is("ready"), 1)
		w.want("machines ever", w.ever(), 1)
	})
}

// One call that hangs holds up its own machine only.
func TestHungCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{Capabilities: provider.Capabilities{Stop: true, Parallel: 1}}, lab(func(p *shoal.Pool) { p.Size.Min = 5 }))
		w.stop()
		release := make(chan struct{})
		var first atomic.Bool
		first.Store(true)
		w.around = func(p provider.Provider) provider.Provider { return &hanging{p, &first, release} }
		w.start()
		later(10 * time.Minute)
		w.want("ready", w.is("ready"), 4)
		close(release)
		later(time.Minute)
		w.want("ready", w.is("ready"), 5)
	})
}

// A hundred machines are there soon, though the provider takes ten at a time.
func TestHundred(t *testing.T) {
	in(t, fake.Config{Capabilities: provider.Capabilities{Stop: true, Parallel: 10}}, lab(func(p *shoal.Pool) { p.Size.Max = 100 }), func(t *testing.T, w *world) {
		w.cloud.Delay(fake.OpCreate, 100*time.Millisecond)
		if _, err := w.engine.Load().ScalePool(t.Context(), host(), "lab", size(100)); err != nil {
			t.Fatal(err)
		}
		later(10 * time.Second)
		w.want("ready", w.is("ready"), 100)
		w.want("creates", w.calls(fake.OpCreate), 100)
		if _, err := w.engine.Load().ScalePool(t.Context(), host(), "lab", size(0)); err != nil {
			t.Fatal(err)
		}
		later(10 * time.Second)
		w.want("machines", len(w.machines()), 0)
		w.want("at the provider", w.listed(), 0)
	})
}

// A pool whose machines would be other ones now replaces them when they are empty, the new one first.
func TestRollout(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		later(5 * time.Second)
		old := w.machines()[0].ID
		w.put(lab(min1, func(p *shoal.Pool) { p.Image = "better" }))
		w.engine.Load().Wake()
		later(5 * time.Minute)
		all := w.machines()
		w.want("machines", len(all), 1)
		if all[0].ID == old || all[0].Image != "better" {
			t.Errorf("%+v", all[0])
		}
		w.cloud.Outdate("there are new packages")
		later(5 * time.Minute)
		if now := w.machines(); len(now) != 1 || now[0].ID == all[0].ID {
			t.Errorf("%+v", now)
		}
		if len(w.events("machineOutdated")) != 1 {
			t.Error("no word of it")
		}
		w.bill()
	})
}
