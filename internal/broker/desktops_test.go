package broker_test

import (
	"strings"
	"sync"
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

// sent are the records that agents were told.
type sent struct {
	mu  sync.Mutex
	all []string
}

func (s *sent) send(id shoal.MachineID, r api.Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Message != nil:
		s.all = append(s.all, "tell "+string(r.Message.User)+": "+r.Message.Text)
	case r.EndDesktop != nil:
		s.all = append(s.all, "end the desktop of "+string(r.EndDesktop.User)+" on "+string(id))
	case r.EndUnused != nil:
		s.all = append(s.all, "end what "+string(r.EndUnused.User)+" has on "+string(id)+" unused for "+r.EndUnused.Unused.String())
	}
	return true
}

func (s *sent) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := strings.Join(s.all, "\n")
	s.all = nil
	return all
}

func desktop(u shoal.UserName) api.UserActivity {
	return api.UserActivity{User: u, Pins: []shoal.Pin{{Kind: "desktop", Count: 1}}}
}

// A desktop to which nobody is connected ends after the pool's time; her user is told before, and who comes back keeps it.
func TestIdleDesktop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told sent
		w := newWorldWith(t, storetest.Open(t), shoal.Pool{Seats: 4, Size: shoal.Size{Max: 1}, Scale: shoal.Scale{Idle: shoal.Idle{Warn: shoal.Duration(5 * time.Minute)}},
			Endpoints: []shoal.Endpoint{{Name: "desktop", Protocol: shoal.ProtocolRDP, IdleEnd: shoal.Duration(12 * time.Hour)}}}, broker.Config{Send: told.send})
		w.machine("m-1", shoal.MachineReady)
		login := func(part string) route.Target {
			t.Helper()
			target, err := w.Login(t.Context(), route.Request{User: user(0), Pool: "lab", Kind: shoal.ProtocolRDP}, part, nil)
			if err != nil {
				t.Fatal(err)
			}
			return target
		}
		id := login("rdp-1").Session
		w.activity("m-1", desktop(user(0)))
		later(24 * time.Hour)
		if s := w.session(id); !s.Ends.IsZero() || told.take() != "" {
			t.Errorf("while she is connected it is to end: %+v", s)
		}
		w.Closed(id, "rdp-1")
		later(time.Minute)
		if s := w.session(id); s.Ending != "desktop" || s.Ends.Sub(s.LeftDesktop) != 12*time.Hour {
			t.Errorf("%+v", s)
		}
		why, err := w.WhySession(t.Context(), id)
		if err != nil || !strings.Contains(why.Reasons[len(why.Reasons)-1].Sentence, "her desktop ends at") {
			t.Errorf("%+v %v", why, err)
		}
		later(11*time.Hour + 57*time.Minute)
		if got := told.take(); strings.Count(got, "It ends at") != 1 || !strings.HasPrefix(got, "tell "+string(user(0))) {
			t.Errorf("she is told %q", got)
		}
		login("rdp-2")
		later(time.Hour)
		if s := w.session(id); !s.Ends.IsZero() || told.take() != "" {
			t.Errorf("it is used again, and is to end: %+v", s)
		}
		w.Closed(id, "rdp-2")
		if _, err := w.KeepAwake(t.Context(), id, 20*time.Hour); err != nil {
			t.Fatal(err)
		}
		later(19 * time.Hour)
		if got := told.take(); got != "" {
			t.Errorf("while she keeps it awake: %q", got)
		}
		later(61 * time.Minute)
		got := told.take()
		if !strings.Contains(got, "end the desktop of "+string(user(0))+" on m-1") || strings.Count(got, "end the desktop") > 2 {
			t.Errorf("in the end: %q", got)
		}
		w.activity("m-1") // nothing of hers is left
		later(time.Minute)
		if s := w.session(id); s.Live() || !s.Ends.IsZero() {
			t.Errorf("%+v", s)
		}
		if told.take(); told.take() != "" {
			t.Error("it is ended again")
		}
	})
}

// Where no pool says so, nothing ends, and nothing is looked for.
func TestDesktopStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told sent
		w := newWorldWith(t, storetest.Open(t), shoal.Pool{Seats: 4, Size: shoal.Size{Max: 1}, Endpoints: []shoal.Endpoint{{Name: "desktop", Protocol: shoal.ProtocolRDP}}}, broker.Config{Send: told.send})
		w.machine("m-1", shoal.MachineReady)
		w.activity("m-1", desktop(user(0)))
		later(30 * time.Hour)
		if all := w.live(); len(all) != 1 || !all[0].Ends.IsZero() || told.take() != "" {
			t.Errorf("%+v", all)
		}
		storetest.View(t, w.db, func(tx *store.Tx) error {
			events, err := tx.EventsAbout(shoal.ObjectSession, string(w.live()[0].ID), 10)
			if len(events) != 1 {
				t.Errorf("%+v", events)
			}
			return err
		})
	})
}
