package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/clock"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
)

func host() access.Subject { return access.Subject{Host: true} }

func size(n int) api.ScaleRequest { return api.ScaleRequest{Size: n} }

func wantKind(t *testing.T, err error, kind shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != kind {
		t.Errorf("error %v, want kind %s", err, kind)
	}
}

func TestScale(t *testing.T) {
	in(t, fake.Config{}, lab(func(p *shoal.Pool) { p.Size.Max = 4 }), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		_, err := e.ScalePool(ctx, host(), "lab", size(5))
		wantKind(t, err, shoal.KindInvalid)
		if !strings.Contains(shoal.HintOf(err), "size.max") {
			t.Errorf("hint %q", shoal.HintOf(err))
		}
		_, err = e.ScalePool(ctx, host(), "lab", size(-1))
		wantKind(t, err, shoal.KindInvalid)
		_, err = e.ScalePool(ctx, host(), "nope", size(1))
		wantKind(t, err, shoal.KindNotFound)
		_, err = e.ScalePool(ctx, access.Subject{User: "bob", Role: shoal.RoleMember}, "lab", size(1))
		wantKind(t, err, shoal.KindDenied)

		if _, err := e.ScalePool(ctx, host(), "lab", api.ScaleRequest{Size: 3, For: shoal.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		later(5 * time.Second)
		w.want("ready", w.is("ready"), 3)
		later(50 * time.Minute)
		w.want("ready though idle", w.is("ready"), 3)
		later(15 * time.Minute)
		w.want("machines after the time", len(w.machines()), 0)
		var p shoal.Pool
		w.view(func(tx *store.Tx) (err error) { p, err = tx.Pools().Get("lab"); return err })
		if p.Fixed != nil {
			t.Errorf("%+v", p)
		}
		if _, err := e.ScalePool(ctx, host(), "lab", size(2)); err != nil {
			t.Fatal(err)
		}
		later(5 * time.Second)
		w.want("ready", w.is("ready"), 2)
		if _, err := e.ScalePool(ctx, host(), "lab", api.ScaleRequest{Auto: true}); err != nil {
			t.Fatal(err)
		}
		later(31 * time.Minute)
		w.want("machines", len(w.machines()), 0)
	})
}

// A pool made smaller by hand keeps people where they are, and takes the cordon back when it grows again.
func TestShrinkUnderPeople(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.wait(crowd(16)...)
		later(5 * time.Second)
		w.seat()
		w.want("ready", w.is("ready"), 2)
		for _, n := range []int{1, 2} {
			if _, err := w.engine.Load().ScalePool(t.Context(), host(), "lab", size(n)); err != nil {
				t.Fatal(err)
			}
			later(time.Hour)
			w.want("ready", w.is("ready"), n)
			w.want("draining", w.is("draining"), 2-n)
		}
	})
}

// setClock sets the server's clock. The bubble's own cannot be set, so what is on record is moved the other way.
func (w *world) setClock(by time.Duration) {
	w.t.Helper()
	var other time.Duration
	k := clock.New(clock.Config{Store: w.db, Wall: func() time.Time { return time.Now().Add(other) }})
	other = -by
	if err := k.Keep(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.ahead.Add(int64(by))
}

// A clock that is put forward past a deadline ends nothing, and one that is put back keeps nothing for longer.
func TestDrainWhileTheClockIsSet(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		if _, err := w.engine.Load().Drain(t.Context(), host(), id, api.DrainRequest{Deadline: shoal.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		later(20 * time.Minute)
		w.setClock(26 * time.Hour)
		later(20 * time.Minute)
		w.want("draining after the clock was put forward", w.is("draining"), 1)
		w.setClock(-100 * time.Hour)
		later(18 * time.Minute)
		w.want("draining after the clock was put back", w.is("draining"), 1)
		later(3 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineGone || !strings.Contains(m.Reason, "deadline") {
			t.Errorf("%+v", m)
		}
		w.bill()
	})
}

func TestDrain(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		m, err := e.Drain(ctx, host(), id, api.DrainRequest{Reason: "new disks"})
		if err != nil || m.Shown() != "draining" || m.Accepts() {
			t.Fatalf("%+v %v", m, err)
		}
		later(3 * time.Hour)
		w.want("draining", w.is("draining"), 1)
		if m, err = e.Undrain(ctx, host(), id); err != nil || m.Shown() != "ready" {
			t.Fatalf("%+v %v", m, err)
		}
		if _, err = e.Drain(ctx, host(), id, api.DrainRequest{Deadline: shoal.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		later(59 * time.Minute)
		w.want("draining", w.is("draining"), 1)
		w.wait("bob") // and a new one comes for others
		later(5 * time.Second)
		w.want("ready", w.is("ready"), 1)
		later(2 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineGone || !strings.Contains(m.Reason, "deadline") {
			t.Errorf("%+v", m)
		}
		hello := fmt.Sprintf("%s: shoal: this machine, %s, ", id, id)
		told := []string{hello + "was drained by the host: new disks. It takes nobody new; you can stay.", hello + "stays after all."}
		for _, left := range []string{"1h", "15m", "5m", "1m"} {
			told = append(told, hello+"ends in "+left+", at 04:00 UTC, with all that runs on it: drained by the host. Please save your work and log out; your next login leads to another machine.")
		}
		if w.mu.Lock(); !slices.Equal(w.told, told) {
			t.Errorf("people there were told %q", w.told)
		}
		w.mu.Unlock()
		_, err = e.Drain(ctx, host(), id, api.DrainRequest{})
		wantKind(t, err, shoal.KindConflict)
		_, err = e.Drain(ctx, host(), "m-none", api.DrainRequest{})
		wantKind(t, err, shoal.KindNotFound)
		_, err = e.Drain(ctx, access.Subject{User: "bob"}, id, api.DrainRequest{})
		wantKind(t, err, shoal.KindDenied)
		w.bill()
	})
}

// An empty machine that an operator keeps clear goes when she says so; a pool does not say that it goes by itself. One that is gone
// has nothing more to come.
func TestWhyDrained(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		later(time.Hour)
		id := w.machines()[0].ID
		at := time.Now()
		if _, err := e.Drain(ctx, host(), id, api.DrainRequest{}); err != nil {
			t.Fatal(err)
		}
		w.put(lab())
		later(40 * time.Minute)
		pool, err := e.WhyPool(ctx, "lab")
		if err != nil || strings.Contains(fmt.Sprint(pool), "nobody is on 1 machine") {
			t.Errorf("%+v, %v", pool, err)
		}
		if why, err := e.WhyMachine(ctx, id); err != nil || !why.Since.Equal(at) || !strings.Contains(fmt.Sprint(why.Reasons), "whoever drained it decides") {
			t.Errorf("%+v, %v; it is so since %s", why, err, at)
		}
		if _, err := e.Drain(ctx, host(), id, api.DrainRequest{Deadline: shoal.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		later(time.Minute)
		if why, err := e.WhyMachine(ctx, id); err != nil || len(why.Reasons) > 0 || !strings.Contains(why.Sentence, "it was drained and is empty") {
			t.Errorf("%+v, %v", why, err)
		}
	})
}

// A drain with a deadline is over when the machine is empty.
func TestDrainEmpty(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		later(5 * time.Second)
		id := w.machines()[0].ID
		if _, err := w.engine.Load().Drain(t.Context(), host(), id, api.DrainRequest{Deadline: shoal.Duration(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		later(10 * time.Second)
		if m := w.get(id); m.State != shoal.MachineGone {
			t.Errorf("%+v", m)
		}
		w.want("ready", w.is("ready"), 1)
	})
}

func TestDeleteMachine(t *testing.T) {
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		err := e.DeleteMachine(ctx, host(), id, false)
		wantKind(t, err, shoal.KindConflict)
		if err := e.DeleteMachine(ctx, host(), id, true); err != nil {
			t.Fatal(err)
		}
		if err := e.DeleteMachine(ctx, host(), id, true); err != nil {
			t.Error("again:", err)
		}
		later(2 * time.Second)
		if m := w.get(id); m.State != shoal.MachineGone {
			t.Errorf("%+v", m)
		}
		w.view(func(tx *store.Tx) error {
			stranded, err := tx.StrandedSessions()
			if len(stranded) != 1 {
				t.Errorf("%+v", stranded)
			}
			return err
		})
		w.bill()
	})
}

func TestDeletePool(t *testing.T) {
	in(t, fake.Config{}, lab(min1, func(p *shoal.Pool) { p.Default = true }), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		for range 2 {
			if err := e.DeletePool(ctx, host(), "lab"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := e.ScalePool(ctx, host(), "lab", size(1))
		wantKind(t, err, shoal.KindConflict)
		later(time.Hour)
		w.want("draining", w.is("draining"), 1)
		w.leave()
		later(time.Minute)
		w.want("machines", len(w.machines()), 0)
		w.view(func(tx *store.Tx) error {
			pools, err := tx.Pools().List()
			if len(pools) != 0 {
				t.Errorf("%+v", pools)
			}
			return err
		})
		wantKind(t, e.DeletePool(ctx, host(), "lab"), shoal.KindNotFound)
	})
}

func TestEndpointsOfAMachine(t *testing.T) {
	endpoints := func(p *shoal.Pool) {
		p.Endpoints = []shoal.Endpoint{{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389, Ready: &shoal.Probe{}}}
	}
	in(t, fake.Config{}, lab(min1, endpoints), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		later(5 * time.Second)
		m := w.machines()[0]
		report := func(ill string) []string {
			t.Helper()
			got, err := e.Endpoints(ctx, m.ID, 1, []api.EndpointReport{{Name: "desktop", Ill: ill, Since: time.Now()}, {Name: "unheard-of", Ill: "x"}})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		_, err := e.Endpoints(ctx, m.ID, 2, nil)
		wantKind(t, err, shoal.KindConflict)
		if got := report(""); len(got) != 0 || len(w.get(m.ID).Ill) != 0 {
			t.Errorf("%q", got)
		}
		if got := report("nothing listens"); len(got) != 1 || !strings.Contains(got[0], "desktop on machine "+string(m.ID)) {
			t.Errorf("%q", got)
		}
		if got := report("nothing listens"); len(got) != 0 {
			t.Errorf("it is told again: %q", got)
		}
		why, err := e.WhyMachine(ctx, m.ID)
		if err != nil || !strings.Contains(fmt.Sprint(why.Reasons), "desktop does not answer there") || len(w.events("endpointIll")) != 1 {
			t.Errorf("%+v %v", why, err)
		}
		later(10 * time.Second)
		w.want("machines, while it may answer again", len(w.machines()), 2) // its place is not counted on
		report("")
		if got := w.get(m.ID).Ill; len(got) != 0 || len(w.events("endpointWell")) != 1 {
			t.Errorf("%+v", got)
		}
		report("nothing listens")
		w.put(lab(min1))
		later(10 * time.Second)
		if got := w.get(m.ID).Ill; len(got) != 0 {
			t.Errorf("of an endpoint that is no more: %+v", got)
		}
	})
}

func TestAgents(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		e, ctx := w.engine.Load(), t.Context()
		later(5 * time.Second)
		m := w.machines()[0]
		wantKind(t, e.Joined(ctx, m.ID, 2, "key"), shoal.KindConflict)
		wantKind(t, e.Joined(ctx, "m-none", 1, "key"), shoal.KindNotFound)
		wantKind(t, e.Boot(ctx, m.ID, 2, api.BootReport{Ready: true}), shoal.KindConflict)
		if err := e.Boot(ctx, m.ID, 1, api.BootReport{Ready: true}); err != nil {
			t.Error("again:", err)
		}
		e.Seen(m.ID, &shoal.Load{CPUPercent: 50})
		e.Seen(m.ID, &shoal.Load{CPUPercent: 51})
		later(time.Minute)
		if m := w.get(m.ID); m.Load.CPUPercent < 50 {
			t.Errorf("%+v", m.Load)
		}
		why, err := e.WhyMachine(ctx, m.ID)
		if err != nil || !strings.Contains(why.Sentence, "ready") || len(why.Reasons) == 0 || len(why.Events) == 0 {
			t.Errorf("%+v %v", why, err)
		}
		why, err = e.WhyPool(ctx, "lab")
		if err != nil || !strings.Contains(why.Sentence, "1 machine (1 ready): it keeps 1 machine at least") || len(why.Events) == 0 {
			t.Errorf("%+v %v", why, err)
		}
		_, err = e.WhyPool(ctx, "nope")
		wantKind(t, err, shoal.KindNotFound)
		_, err = e.WhyMachine(ctx, "m-none")
		wantKind(t, err, shoal.KindNotFound)
		wantKind(t, e.DeleteMachine(ctx, access.Subject{User: "bob"}, m.ID, true), shoal.KindDenied)
	})
}
