package engine_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
)

// liar says of all machines what is not so, in lists of which it says that they are whole.
type liar struct {
	provider.Provider
	says *atomic.Value // a phase; "gone": it leaves them out; "": it tells the truth
}

func (l liar) Observe(ctx context.Context) (provider.Observation, error) {
	o, err := l.Provider.Observe(ctx)
	switch says := l.says.Load().(provider.Phase); says {
	case "":
	case "gone":
		o.Machines = nil
	default:
		for i := range o.Machines {
			o.Machines[i].Phase = says
		}
	}
	return o, err
}

// Whatever a provider says of a machine whose agent answers, it stays; once the agent is silent the provider is believed.
func TestProviderLies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fake.Config{}, lab())
		w.wait("alice")
		later(5 * time.Second)
		w.seat()
		id := w.machines()[0].ID
		var says atomic.Value
		says.Store(provider.Phase(""))
		w.stop()
		w.around = func(p provider.Provider) provider.Provider { return liar{p, &says} }
		w.start()
		later(time.Minute)
		for _, lie := range []provider.Phase{"gone", provider.PhaseFailed, provider.PhaseStopped} {
			says.Store(lie)
			later(10 * time.Minute)
			if m := w.get(id); m.State != shoal.MachineReady || m.Wanted != shoal.WantRun || !strings.Contains(m.Reason, "nothing is concluded") {
				t.Errorf("it is said to be %s: %+v", lie, m)
			}
			says.Store(provider.Phase(""))
			later(2 * time.Minute)
			if m := w.get(id); m.State != shoal.MachineReady || m.Reason != "" {
				t.Errorf("after it was said to be %s: %+v", lie, m)
			}
		}
		w.want("Deletes", w.calls(fake.OpDelete), 0)
		says.Store(provider.Phase("gone"))
		later(2 * time.Minute)
		w.cloud.Vanish(id)
		later(5 * time.Second)
		if m := w.get(id); m.State != shoal.MachineGone {
			t.Errorf("now it is true: %+v", m)
		}
		w.bill()
	})
}
