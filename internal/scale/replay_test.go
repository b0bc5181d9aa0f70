package scale_test

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

func TestKeep(t *testing.T) {
	t.Parallel()
	p := pool(rules(over5m(above(shoal.MetricCPU, 70))))
	var samples []scale.Sample
	for s := range 3600 {
		samples = scale.Keep(samples, p, scale.Sample{At: start().Add(time.Duration(s) * time.Second)})
	}
	if n := len(samples); n != 8 || samples[7].At != start().Add(59*time.Minute) {
		t.Errorf("%d samples: %+v", n, samples)
	}
	samples = scale.Keep(samples, p, scale.Sample{At: start().Add(57*time.Minute + time.Second)}) // the clock was put back
	if n := len(samples); n != 7 || samples[6].At != start().Add(57*time.Minute+time.Second) {
		t.Errorf("after the clock was put back %d samples: %+v", n, samples)
	}
	if scale.Keep(samples, pool(), scale.Sample{At: start()}) != nil {
		t.Error("without rules nothing is kept")
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return start().Add(d) }
	past := []scale.Past{{At: at(0)}, {At: at(time.Hour), Sessions: 10, Machines: 2}, {At: at(3 * time.Hour), Sessions: 3, Machines: 2}, {At: at(4 * time.Hour)}}
	byDemand := scale.Replay(pool(), past, at(8*time.Hour), time.Minute)
	// Ten sessions want two machines of eight seats; half an hour after the last has gone there is none.
	if byDemand.Most != 2 || byDemand.Made != 2 || byDemand.Waits != 10 || byDemand.Waited != 10*time.Minute || byDemand.Was != 6 || byDemand.WasMost != 2 || byDemand.Fixed != 2 {
		t.Errorf("by demand: %+v", byDemand)
	}
	if h := byDemand.MachineHours; h < 6 || h > 7.2 {
		t.Errorf("by demand: %v hours", h)
	}
	spare := scale.Replay(pool(sized(1, 10, 8)), past, at(8*time.Hour), time.Minute)
	if spare.Waits > 2 || spare.MachineHours <= byDemand.MachineHours {
		t.Errorf("with eight spare seats: %+v", spare)
	}
	none := scale.Replay(pool(sized(0, 0, 0)), past, at(8*time.Hour), time.Minute)
	if none.MachineHours != 0 || none.Waited != 23*time.Hour {
		t.Errorf("with no machine at all: %+v", none)
	}
	if got := scale.Replay(shoal.Pool{}, nil, start(), 0); got != (scale.Replayed{}) {
		t.Errorf("of nothing: %+v", got)
	}
}
