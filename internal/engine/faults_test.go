package engine_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/provider"
)

// counter counts observations.
type counter struct {
	provider.Provider
	n *atomic.Int64
}

func (c counter) Observe(ctx context.Context) (provider.Observation, error) {
	c.n.Add(1)
	return c.Provider.Observe(ctx)
}

// hanging never comes back from its first Create until it is released, whatever its context says.
type hanging struct {
	provider.Provider
	first   *atomic.Bool
	release chan struct{}
}

func (h *hanging) Create(ctx context.Context, s provider.MachineSpec) error {
	if h.first.Swap(false) {
		<-h.release
		return context.DeadlineExceeded
	}
	return h.Provider.Create(ctx, s)
}

// tripwire calls cut before or after the k-th effect.
type tripwire struct {
	provider.Provider
	mu    *sync.Mutex
	left  *int
	after bool
	cut   func()
}

func (w tripwire) trip(do func() error) error {
	w.mu.Lock()
	*w.left--
	now := *w.left == 0
	w.mu.Unlock()
	if now && !w.after {
		w.cut()
		return context.Canceled
	}
	err := do()
	if now {
		w.cut()
		return context.Canceled // it was done, and nobody heard
	}
	return err
}

func (w tripwire) Create(ctx context.Context, s provider.MachineSpec) error {
	return w.trip(func() error { return w.Provider.Create(ctx, s) })
}

func (w tripwire) Delete(ctx context.Context, id shoal.MachineID) error {
	return w.trip(func() error { return w.Provider.Delete(ctx, id) })
}

// Killed before or after any of its effects, an engine that is started again makes nothing twice,
// leaves nothing behind, and comes to the same end.
func TestKilledAtAnyEffect(t *testing.T) {
	const effects = 6 // three machines made, three deleted
	for k := 1; k <= effects; k++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d after %v", k, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { killAt(t, k, after) })
			})
		}
	}
}

func killAt(t *testing.T, k int, after bool) {
	w := newWorld(t, fake.Config{}, lab())
	w.stop()
	left, dead := k, make(chan struct{})
	var mu sync.Mutex
	w.around = func(p provider.Provider) provider.Provider {
		return tripwire{p, &mu, &left, after, sync.OnceFunc(func() { close(dead) })}
	}
	w.start()
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		<-dead
		w.stop()
		time.Sleep(3 * time.Second) // a server is down for a moment
		w.start()
	}()
	w.wait(crowd(20)...)
	later(20 * time.Second)
	w.want("ready", w.is("ready"), 3)
	w.want("machines ever", w.ever(), 3)
	w.want("at the provider", w.listed(), 3)
	w.bill()
	w.leave()
	later(time.Hour)
	<-restarted
	w.want("machines", len(w.machines()), 0)
	w.want("at the provider", w.listed(), 0)
	w.want("machines ever", w.ever(), 3)
	w.bill()
}

// Killed at any moment and started again, an engine comes to the same end.
func TestKilledAtAnyTime(t *testing.T) {
	for at := 0; at < 2600; at += 130 { // milliseconds; machines boot after 1000 and are deleted after 2000
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fake.Config{StopTime: 200 * time.Millisecond}, lab())
				w.cloud.Delay(fake.OpCreate, 300*time.Millisecond)
				w.cloud.Delay(fake.OpDelete, 100*time.Millisecond)
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					time.Sleep(time.Duration(at) * time.Millisecond)
					w.stop()
					time.Sleep(700 * time.Millisecond)
					w.start()
				}()
				if _, err := w.engine.Load().ScalePool(t.Context(), host(), "lab", size(4)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
				if _, err := w.engine.Load().ScalePool(t.Context(), host(), "lab", size(1)); err != nil {
					t.Fatal(err)
				}
				<-stopped
				later(time.Minute)
				w.want("ready", w.is("ready"), 1)
				w.want("machines", len(w.machines()), 1)
				w.want("at the provider", w.listed(), 1)
				if n := w.ever(); n > 5 {
					t.Errorf("%d machines were made", n)
				}
				w.bill()
			})
		})
	}
}

// While the disk is full nothing is done that cannot be put on record; once there is space all is made good.
func TestFullDisk(t *testing.T) {
	dir := need.Disk(t, "2m")
	synctest.Test(t, func(t *testing.T) {
		w := newWorldAt(t, storetest.OpenAt(t, filepath.Join(dir, "store.db")), fake.Config{}, lab(min1))
		later(5 * time.Second)
		id := w.machines()[0].ID
		empty := storetest.Fill(t, w.db, dir)
		creates := w.calls(fake.OpCreate)
		w.cloud.Kill(id, "its host burned")
		later(2 * time.Minute)
		w.want("creates on a full disk", w.calls(fake.OpCreate), creates)
		empty()
		later(10 * time.Second)
		if m := w.get(id); !strings.Contains(m.Reason, "burned") {
			t.Errorf("%+v", m)
		}
		w.want("ready", w.is("ready"), 1)
		w.bill()
	})
}

// After a restart machines that run are as they were; those whose agents do not come back are unknown,
// and nobody's machine is taken for idle before its agent has spoken.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab())
		w.wait(crowd(16)...)
		later(5 * time.Second)
		w.want("ready", w.is("ready"), 2)
		w.leave()
		later(25 * time.Minute)
		w.stop()
		w.mute.Store(true)
		time.Sleep(time.Hour)
		w.start()
		later(time.Second)
		w.want("ready", w.is("ready"), 2)
		later(time.Minute)
		w.want("ready", w.is("ready"), 2)
		w.want("unknown", w.unknown(), 2)
		w.mute.Store(false)
		later(10 * time.Second)
		w.want("ready", w.is("ready"), 2)
		later(20 * time.Second)
		w.want("machines", len(w.machines()), 0)
	})
}
