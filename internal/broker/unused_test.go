package broker_test

import (
	"strings"
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

// A session of which nothing is used ends after the pool's time; its user is told before, and what she does puts it off.
func TestUnusedSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told sent
		w := newWorldWith(t, storetest.Open(t), shoal.Pool{Seats: 4, Size: shoal.Size{Max: 1},
			Scale: shoal.Scale{Idle: shoal.Idle{Warn: shoal.Duration(5 * time.Minute), Unused: shoal.Duration(2 * time.Hour)}}}, broker.Config{Send: told.send})
		w.machine("m-1", shoal.MachineReady)
		target, err := w.Login(t.Context(), route.Request{User: user(0), Pool: "lab"}, "ssh-1", nil)
		if err != nil {
			t.Fatal(err)
		}
		id := target.Session
		used := time.Now()
		pass := func(d time.Duration, inUse string, pins ...shoal.Pin) { // the agent reports each minute
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); later(time.Minute) {
				u := api.UserActivity{User: user(0), Connections: 1, InUse: inUse, Pins: pins}
				if inUse != "" {
					used = time.Now()
				} else {
					u.Unused = shoal.Duration(max(time.Since(used), time.Second))
				}
				w.activity("m-1", u)
			}
		}
		ends := func(want bool, what string) {
			t.Helper()
			if s := w.session(id); s.Ends.IsZero() == want {
				t.Errorf("%s: it ends %v", what, s.Ends)
			}
		}
		pass(9*time.Minute, "")
		ends(false, "a short pause")
		pass(10*time.Minute, "")
		ends(true, "a longer one")
		if s := w.session(id); s.Ending != "session" || s.Ends.Sub(used).Round(time.Minute) != 2*time.Hour {
			t.Errorf("it ends %s after it was used: %+v", s.Ends.Sub(used), s)
		}
		if _, err := w.Login(t.Context(), route.Request{User: user(0), Pool: "lab"}, "ssh-2", nil); err != nil {
			t.Fatal(err)
		}
		ends(false, "she logs in once more")
		w.Closed(id, "ssh-2")
		pass(time.Minute, "python3 runs")
		ends(false, "a program")
		pass(24*time.Hour, "python3 runs")
		ends(false, "a program that runs for a day")
		pass(24*time.Hour, "", shoal.Pin{Kind: "desktop", Count: 1})
		ends(false, "a desktop, which has a rule of its own")
		used = time.Now()
		pass(time.Hour, "")
		target.Used()
		pass(30*time.Minute, "")
		if s := w.session(id); s.Ends.Sub(used).Round(time.Minute) != 3*time.Hour {
			t.Errorf("what goes through counts: %+v", s)
		}
		if got := told.take(); got != "" {
			t.Errorf("she is told %q", got)
		}
		pass(86*time.Minute, "")
		if got := told.take(); strings.Count(got, "It ends at") != 1 || !strings.Contains(got, "keep-awake") {
			t.Errorf("she is told %q", got)
		}
		before := w.session(id).Ends
		keep := func(d time.Duration) shoal.Session { // shows at once
			s, err := w.KeepAwake(t.Context(), id, d)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if s := keep(3 * time.Hour); s.KeepUntil.IsZero() || !s.Ends.Equal(s.KeepUntil) {
			t.Errorf("it is put off: %+v", s)
		}
		if s := keep(0); !s.Ends.Equal(before) {
			t.Errorf("that is taken back: it ends at %s, not %s", s.Ends, before)
		}
		keep(3 * time.Hour)
		pass(3*time.Hour-7*time.Minute, "")
		if got := told.take(); got != "" {
			t.Errorf("while she keeps it awake: %q", got)
		}
		later(10 * time.Minute) // her agent is silent: unknown is not idle
		if got := told.take(); strings.Contains(got, "end what") {
			t.Errorf("nothing is known, and it is ended: %q", got)
		}
		pass(2*time.Minute, "")
		if got := told.take(); strings.Count(got, "It ends at") != 1 || strings.Contains(got, "end what") {
			t.Errorf("she has not been told yet that it ends: %q", got)
		}
		pass(6*time.Minute, "")
		if got := told.take(); !strings.Contains(got, "end what "+string(user(0))+" has on m-1 unused for 1h59m") {
			t.Errorf("in the end: %q", got)
		}
		w.Closed(id, "ssh-1")
		w.activity("m-1")
		later(time.Minute)
		if s := w.session(id); s.Live() || !s.Ends.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// A machine that is to end with whoever is there shows at its sessions.
func TestMachineThatEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shoal.Pool{Seats: 4, Size: shoal.Size{Max: 1}})
		w.machine("m-1", shoal.MachineReady)
		target, err := w.Login(t.Context(), route.Request{User: user(0), Pool: "lab"}, "ssh-1", nil)
		if err != nil {
			t.Fatal(err)
		}
		set := func(at time.Time) {
			storetest.Update(t, w.db, func(tx *store.Tx) error {
				m, err := tx.Machines().Get("m-1")
				if err == nil {
					m.EndsAt = at
					_, err = tx.Machines().Put(m)
				}
				return err
			})
			later(time.Minute)
		}
		at := time.Now().Add(6 * time.Hour).UTC().Round(0)
		set(at)
		if s := w.session(target.Session); s.Ending != "machine" || !s.Ends.Equal(at) {
			t.Errorf("%+v", s)
		}
		why, err := w.WhySession(t.Context(), target.Session)
		if err != nil || !strings.Contains(why.Reasons[len(why.Reasons)-1].Sentence, "machine m-1 ends at") {
			t.Errorf("%+v %v", why, err)
		}
		set(time.Time{})
		if s := w.session(target.Session); s.Ending != "" || !s.Ends.IsZero() {
			t.Errorf("it stays after all: %+v", s)
		}
	})
}
