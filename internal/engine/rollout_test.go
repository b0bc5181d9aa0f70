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
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
)

func image(name string) func(*shoal.Pool) { return func(p *shoal.Pool) { p.Image = name } }

func most(n int) func(*shoal.Pool) { return func(p *shoal.Pool) { p.Size.Max = n } }

// rollout is how the rollout of the pool stands.
func (w *world) rollout() api.RolloutStatus {
	w.t.Helper()
	r, err := w.engine.Load().Rollout(w.t.Context(), host(), "lab")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) steer(action string, revision int) api.RolloutStatus {
	w.t.Helper()
	r, err := w.engine.Load().SteerRollout(w.t.Context(), host(), "lab", api.RolloutRequest{Action: action, Revision: revision})
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// why is all that is said of a machine.
func (w *world) why(id shoal.MachineID) string {
	w.t.Helper()
	why, err := w.engine.Load().WhyMachine(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprint(why.Reasons)
}

// made counts machines that run, by their image.
func (w *world) made(name string) (n int) {
	for _, m := range w.machines() {
		if m.Image == name && m.State == shoal.MachineReady {
			n++
		}
	}
	return n
}

// seats says on machines of which image people have their sessions.
func (w *world) seats() (on []string) {
	w.view(func(tx *store.Tx) error {
		all, err := tx.LiveSessions()
		for _, s := range all {
			m, err := tx.Machines().Get(s.Machine)
			if err != nil {
				return err
			}
			on = append(on, m.Image)
		}
		return err
	})
	slices.Sort(on)
	return on
}

// Machines with people on them are replaced as the people leave, the new ones first, and never more than one above the most.
func TestRolloutAtUsersPace(t *testing.T) {
	in(t, fake.Config{}, lab(most(2)), func(t *testing.T, w *world) {
		w.wait(crowd(12)...)
		later(5 * time.Second)
		w.seat()
		w.put(lab(most(2), image("better")))
		for range 60 {
			later(10 * time.Second)
			if n := len(w.machines()); n > 3 {
				t.Fatalf("%d machines", n)
			}
		}
		r := w.rollout()
		if r.State != api.RolloutRunning || r.New != 1 || r.Old != 2 || r.Draining != 2 || !strings.Contains(r.Sentence, "2 of them take nobody new") {
			t.Errorf("%+v", r)
		}
		w.wait("newcomer")
		later(5 * time.Second)
		w.seat()
		if on := w.seats(); len(on) != 13 || on[0] != "better" || on[1] != "host" {
			t.Errorf("people are on %v", on)
		}
		w.leave()
		later(5 * time.Minute)
		w.want("old machines", w.made("host"), 0)
		if r := w.rollout(); r.State != api.RolloutDone || len(r.Revisions) != 2 || r.Revisions[0].Done.IsZero() || r.Revisions[1].Shape.Image != "host" {
			t.Errorf("%+v", r)
		}
		w.want("events of its beginning", len(w.events("rolloutBegan")), 1)
		w.want("and of its end", len(w.events("rolloutDone")), 1)
		w.bill()
	})
}

// Where new machines do not become ready, the rollout stops by itself and says so; the old ones go on taking people. What
// was before is had again.
func TestRolloutStops(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		w.broken.Store(true)
		w.put(lab(min1, image("bad")))
		later(10 * time.Minute)
		if r := w.rollout(); r.State != api.RolloutStopped || r.Failed != 3 || !strings.Contains(r.Sentence, "the probe could not log in") {
			t.Errorf("%+v", r)
		}
		w.want("machines that were tried", w.ever(), 4)
		why, err := w.engine.Load().WhyPool(t.Context(), "lab")
		if err != nil || !slices.ContainsFunc(why.Reasons, func(r shoal.Reason) bool {
			return r.Code == "rollout" && strings.Contains(r.Sentence, "has stopped, since 3 new machines")
		}) {
			t.Errorf("%+v %v", why, err)
		}
		w.want("events", len(w.events("rolloutStopped")), 1)
		if m := w.get(id); !m.Accepts() {
			t.Errorf("%+v", m)
		}
		w.steer("undo", 0)
		later(time.Minute)
		if r := w.rollout(); r.State != api.RolloutDone || r.New != 1 || r.Revisions[0].N != 3 || r.Revisions[0].Shape.Image != "host" {
			t.Errorf("%+v", r)
		}
		w.want("machines that were tried", w.ever(), 4)
		w.broken.Store(false)
		w.steer("undo", 2) // the bad one is good now
		later(time.Minute)
		w.want("ready ones of the image", w.made("bad"), 1)
		if m := w.get(id); m.Accepts() || m.State != shoal.MachineReady {
			t.Errorf("%+v", m)
		}
		w.bill()
	})
}

// A stopped rollout goes on when somebody says that what was wrong is mended; a paused one waits for that.
func TestRolloutPause(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		later(5 * time.Second)
		w.steer("pause", 0)
		w.put(lab(min1, image("better"), func(p *shoal.Pool) { p.Paused = &shoal.Pause{By: "the host"} }))
		later(10 * time.Minute)
		if r := w.rollout(); r.State != api.RolloutPaused || r.Old != 1 || w.ever() != 1 {
			t.Errorf("%+v", r)
		}
		if why := w.why(w.machines()[0].ID); !strings.Contains(why, "it is replaced when nobody is on it, once the rollout goes on, which is paused") {
			t.Error(why)
		}
		w.broken.Store(true)
		w.steer("resume", 0)
		later(10 * time.Minute)
		if r := w.rollout(); r.State != api.RolloutStopped || w.ever() != 4 {
			t.Errorf("%+v", r)
		}
		w.broken.Store(false)
		w.steer("resume", 0)
		later(2 * time.Minute)
		if r := w.rollout(); r.State != api.RolloutDone || r.New != 1 {
			t.Errorf("%+v", r)
		}
		e, ctx := w.engine.Load(), t.Context()
		_, err := e.SteerRollout(ctx, host(), "lab", api.RolloutRequest{Action: "stop"})
		wantKind(t, err, shoal.KindInvalid)
		_, err = e.SteerRollout(ctx, host(), "lab", api.RolloutRequest{Action: "undo", Revision: 7})
		wantKind(t, err, shoal.KindConflict)
		_, err = e.SteerRollout(ctx, access.Subject{User: "bob"}, "lab", api.RolloutRequest{Action: "pause"})
		wantKind(t, err, shoal.KindDenied)
		_, err = e.Rollout(ctx, host(), "none")
		wantKind(t, err, shoal.KindNotFound)
	})
}

// An old machine on which nobody is goes sooner than others, and its hour is said.
func TestRolloutHour(t *testing.T) {
	in(t, fake.Config{}, lab(min1), func(t *testing.T, w *world) {
		later(30 * time.Second)
		m := w.machines()[0]
		w.put(lab(image("better")))
		later(10 * time.Second)
		if why, at := w.why(m.ID), m.IdleAt.Add(time.Minute).Format("15:04:05 MST"); !strings.Contains(why, "it goes at "+at+" unless somebody comes") {
			t.Errorf("not at %s: %s", at, why)
		}
		later(time.Minute)
		w.want("ready", w.is("ready"), 0)
	})
}

// With a deadline who is still on an old machine is told several times, and moved; never without notice.
func TestRolloutDeadline(t *testing.T) {
	deadline := func(d time.Duration) func(*shoal.Pool) {
		return func(p *shoal.Pool) { p.Rollout.Deadline = shoal.Duration(d) }
	}
	in(t, fake.Config{}, lab(), func(t *testing.T, w *world) {
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		w.put(lab(image("better")))
		later(3 * time.Hour)
		if m := w.get(id); m.OldSince.IsZero() || !m.EndsAt.IsZero() || m.Shown() != "draining" {
			t.Errorf("%+v", m)
		}
		// The change is older than the deadline that somebody gives it now: people have notice all the same.
		w.put(lab(image("better"), deadline(2*time.Hour)))
		later(14 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineReady {
			t.Errorf("%+v", m)
		}
		w.steer("pause", 0)
		later(time.Hour)
		if m := w.get(id); m.State != shoal.MachineReady || !m.EndsAt.IsZero() {
			t.Errorf("%+v", m)
		}
		w.steer("resume", 0)
		later(16 * time.Minute)
		if m := w.get(id); m.State != shoal.MachineGone || !strings.Contains(m.Reason, "deadline of its rollout") {
			t.Errorf("%+v", m)
		}
		w.want("new machines there have been", w.ever(), 2)
		var told []string
		for _, s := range w.told {
			_, s, _ = strings.Cut(s, "this machine, "+string(id)+", ")
			s, _, _ = strings.Cut(s, ",")
			told = append(told, s)
		}
		want := []string{"ends in 15m", "ends in 5m", "stays after all.", "ends in 15m", "ends in 5m", "ends in 1m"}
		if !slices.Equal(told, want) {
			t.Errorf("people there were told %q", w.told)
		}
		w.bill()
	})
}
