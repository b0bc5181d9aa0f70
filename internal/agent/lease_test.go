package agent

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// fakeFence notes until when tasks may run.
type fakeFence struct {
	mu    sync.Mutex
	until time.Duration
}

func (f *fakeFence) Renew(until time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = until
}

func (f *fakeFence) at() time.Duration {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.until
}

const leaseLength = 3 * time.Minute

// leased is a booted house with a lease, and the time that its clock shows.
func leased(t *testing.T, change ...func(*api.Snapshot)) (*house, *fakeFence, func() time.Duration) {
	snap := snapshot(5)
	snap.Heartbeat, snap.Lease = shoal.Duration(time.Hour), shoal.Duration(leaseLength)
	for _, c := range change {
		c(&snap)
	}
	h, f := newHouse(t, snap), &fakeFence{}
	h.host.booted = true
	began := time.Now()
	clock := func() time.Duration { return time.Since(began) }
	h.start(func(c *Config) { c.Fence, c.Uptime = f, clock })
	synctest.Wait()
	return h, f, clock
}

func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, f, clock := leased(t)
		for range 20 {
			if left := f.at() - clock(); left < leaseLength/2 {
				t.Fatalf("with a control plane that answers, %s of the lease are left", left)
			}
			time.Sleep(leaseLength / 5)
		}
		n := len(h.reports())
		if n < 10 || n > 20 {
			t.Errorf("in four leases it reported %d times", n)
		}
		h.end()
	})
}

// What is to run is not begun before a report was answered: what the stream says may be old.
func TestOrdersBeforeTheFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, f, _ := leased(t, func(s *api.Snapshot) { s.Tasks = []api.TaskOrder{{Ref: ref(1)}} })
		time.Sleep(5 * time.Second)
		if got := h.tasks.heard(); !slices.Equal(got, []string{"want 1"}) {
			t.Errorf("tasks heard %q", got)
		}
		if got := h.reports(); len(got) < 2 || got[0].Load != nil || got[0].Boot != nil {
			t.Errorf("the first report, which asks for an answer only, is missing: %+v", got)
		}
		if _, streams := h.control.counts(); streams != 1 || f.at() == 0 {
			t.Errorf("after %d streams the lease ends at %s", streams, f.at())
		}
		h.end()
	})
}

// When no report was answered for the length of the lease, orders that come all the same are not carried out; those of
// a stream that begins after an answer are.
func TestStaleOrdersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, _ := leased(t)
		h.tasks.heard()
		h.control.mu.Lock()
		h.control.refuse = 1 << 30
		h.control.mu.Unlock()
		time.Sleep(2 * leaseLength)
		_, before := h.control.counts()
		h.control.send(&api.Record{Run: &api.TaskOrder{Ref: ref(2)}})
		time.Sleep(time.Minute)
		if got := h.tasks.heard(); len(got) != 0 {
			t.Errorf("after the lease tasks heard %q", got)
		}
		if _, streams := h.control.counts(); streams != before {
			t.Error("a stream was opened before a report was answered")
		}
		h.control.mu.Lock()
		h.control.refuse, h.control.snap.Tasks = 0, []api.TaskOrder{{Ref: ref(4)}}
		h.control.mu.Unlock()
		time.Sleep(time.Minute)
		if got := h.tasks.heard(); !slices.Equal(got, []string{"want 1"}) {
			t.Errorf("then tasks heard %q", got)
		}
		if _, streams := h.control.counts(); streams != before+1 {
			t.Errorf("%d streams were opened", streams-before)
		}
		h.control.send(&api.Record{Run: &api.TaskOrder{Ref: ref(5)}})
		if got := h.tasks.heard(); !slices.Equal(got, []string{"start " + ref(5).String()}) {
			t.Errorf("at last tasks heard %q", got)
		}
		h.end()
	})
}

// A machine that stood still for longer than the lease finds a report answered before it reads what the stream had
// brought meanwhile: that is dropped all the same.
func TestStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, _ := leased(t)
		h.tasks.heard()
		a := h.agent
		a.lease.mu.Lock()
		gaps := a.lease.gaps
		a.lease.mu.Unlock()
		time.Sleep(time.Second)
		a.answered(a.cfg.Uptime() + 2*leaseLength) // as if that had been the first since
		if a.fresh(gaps) {
			t.Error("orders of a stream from before are still good")
		}
		synctest.Wait()
		time.Sleep(10 * time.Second)
		if got := h.tasks.heard(); len(got) != 1 || !strings.HasPrefix(got[0], "want") {
			t.Errorf("a new stream made tasks hear %q", got)
		}
		h.end()
	})
}
