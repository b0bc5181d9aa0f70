package agent

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// Who led before is refused once another has answered, and is told of it; a new leader has the stream opened again.
func TestFormerLeader(t *testing.T) {
	lead, told := "7", ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told = r.Header.Get(api.LeadHeader)
		w.Header().Set(api.LeadHeader, lead)
		_, _ = w.Write([]byte("{}"))
	}))
	defer s.Close()
	c, err := newControl(Config{Join: provider.Join{Control: "http://control"}, Log: slog.New(slog.DiscardHandler),
		Dial: func(context.Context) (net.Conn, error) { return net.Dial("tcp", s.Listener.Addr().String()) }})
	if err != nil {
		t.Fatal(err)
	}
	anew := 0
	c.newLead = func() { anew++ }
	for _, step := range []struct {
		lead, told string
		refused    bool
		anew       int
	}{{"7", "", false, 0}, {"7", "7", false, 0}, {"9", "7", false, 1}, {"7", "9", true, 1}, {"", "9", false, 1}, {"x", "9", false, 1}, {"9", "9", false, 1}} {
		lead = step.lead
		_, err := c.report(t.Context(), api.Report{})
		if (shoal.KindOf(err) == shoal.KindUnavailable) != step.refused || !step.refused && err != nil || told != step.told || anew != step.anew {
			t.Errorf("answered by %q: %v, told %q, %d times anew; want %+v", step.lead, err, told, anew, step)
		}
	}
}

// A server that promises to be heard of and is silent is given up, one that promises nothing or is heard of is not.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		snap := snapshot(5)
		snap.Beat = shoal.Duration(2 * time.Second)
		h := newHouse(t, snap)
		h.start()
		h.reports()
		for range 10 {
			time.Sleep(2 * time.Second)
			h.control.send(&api.Record{})
		}
		if _, streams := h.control.counts(); streams != 1 {
			t.Errorf("%d streams to a server that is heard of", streams)
		}
		h.control.mu.Lock()
		h.control.snap.Beat = 0
		h.control.mu.Unlock()
		time.Sleep(10 * time.Second)
		if _, streams := h.control.counts(); streams != 2 {
			t.Errorf("%d streams after one was silent", streams)
		}
		time.Sleep(time.Hour)
		if _, streams := h.control.counts(); streams != 2 {
			t.Errorf("%d streams, the second promised nothing", streams)
		}
		h.end()
	})
}
