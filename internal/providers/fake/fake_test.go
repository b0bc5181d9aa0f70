package fake_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
)

func spec(id shoal.MachineID) provider.MachineSpec {
	return provider.MachineSpec{ID: id, Pool: "lab", Token: string(id)}
}

func phases(t *testing.T, p *fake.Provider) (map[shoal.MachineID]provider.Phase, bool) {
	t.Helper()
	o, err := p.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[shoal.MachineID]provider.Phase{}
	for _, m := range o.Machines {
		out[m.ID] = m.Phase
	}
	return out, o.Complete
}

func TestBootsAndStopsOnFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var agents atomic.Int32
		p := fake.New(fake.Config{BootTime: time.Minute, StopTime: 10 * time.Second,
			Booted: func(ctx context.Context, _ provider.MachineSpec) { agents.Add(1); <-ctx.Done(); agents.Add(-1) }})
		defer p.Close()
		expect := func(want provider.Phase, running int32) {
			t.Helper()
			synctest.Wait()
			if got, _ := phases(t, p); got["m-1"] != want || agents.Load() != running {
				t.Errorf("it is %q with %d agents, want %q with %d", got["m-1"], agents.Load(), want, running)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
		}
		must(p.Create(t.Context(), spec("m-1")))
		time.Sleep(59 * time.Second)
		expect(provider.PhaseCreating, 0)
		time.Sleep(2 * time.Second)
		expect(provider.PhaseRunning, 1)
		must(p.Stop(t.Context(), "m-1"))
		expect(provider.PhaseStopping, 0)
		time.Sleep(11 * time.Second)
		expect(provider.PhaseStopped, 0)
		must(p.Start(t.Context(), spec("m-1")))
		time.Sleep(61 * time.Second)
		expect(provider.PhaseRunning, 1)
		if !p.Kill("m-1", "the power failed") {
			t.Error("there was nothing to kill")
		}
		expect(provider.PhaseFailed, 0)
		must(p.Delete(t.Context(), "m-1"))
		expect(provider.PhaseStopping, 0)
		time.Sleep(11 * time.Second)
		expect("", 0)
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := fake.New(fake.Config{Capacity: 2})
		defer p.Close()
		broken := provider.Errorf(provider.Transient, "the network is down")
		p.Fail(fake.OpCreate, 1, broken)
		if err := p.Create(t.Context(), spec("m-1")); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		p.FailHalfway(1)
		if err := p.Create(t.Context(), spec("m-1")); err == nil {
			t.Error("it should have broken off")
		}
		time.Sleep(time.Hour)
		if got, _ := phases(t, p); got["m-1"] != provider.PhaseCreating {
			t.Errorf("a half-made machine is %q", got["m-1"])
		}
		for _, id := range []shoal.MachineID{"m-1", "m-2"} {
			if err := p.Create(t.Context(), spec(id)); err != nil {
				t.Error(err)
			}
		}
		full, ok := errors.AsType[*provider.Error](p.Create(t.Context(), spec("m-3")))
		if !ok || full.Code != provider.NoCapacity {
			t.Errorf("a third of two: %v", full)
		}
		time.Sleep(time.Second)
		p.Partial(true)
		if got, complete := phases(t, p); complete || len(got) != 1 {
			t.Errorf("half a list has %d machines, complete %t", len(got), complete)
		}
		p.Partial(false)
		p.Vanish("m-1")
		if got, complete := phases(t, p); !complete || len(got) != 1 {
			t.Errorf("after one vanished: %v, complete %t", got, complete)
		}
		p.Delay(fake.OpDelete, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Delete(ctx, "m-2"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a slow call ended with %v", err)
		}
	})
}
