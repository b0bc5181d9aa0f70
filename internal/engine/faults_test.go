package engine_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
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
