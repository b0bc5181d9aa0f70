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

// Those who were there when the record begins have their seats, and wait for none.
func TestReplayBeginsAsItWas(t *testing.T) {
	t.Parallel()
	past := []scale.Past{{At: start(), Sessions: 10, Machines: 2}, {At: start().Add(time.Hour), Machines: 2}}
	r := scale.Replay(pool(), past, start().Add(3*time.Hour), time.Minute)
	if r.Waits != 0 || r.Made != 0 || r.Most != 2 {
		t.Errorf("%+v", r)
	}
	if h := r.MachineHours; h < 2.9 || h > 3.2 { // half an hour after they have gone there is no machine
		t.Errorf("%v hours", h)
	}
}

// A metric rule counts processors and no people: it crowds them while they do little, and ends machines with people on them.
func TestReplayMetric(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) time.Time { return start().Add(d) }
	past := []scale.Past{{At: at(0)}, {At: at(time.Hour), Sessions: 20, Machines: 3, CPU: 10}, {At: at(2 * time.Hour), Sessions: 20, Machines: 3, CPU: 270},
		{At: at(150 * time.Minute), Sessions: 40, Machines: 3, CPU: 270}, {At: at(3 * time.Hour), Sessions: 40, Machines: 3, CPU: 10}, {At: at(5 * time.Hour)}}
	r := scale.ReplayMetric(pool(), past, at(6*time.Hour), time.Minute)
	if r.Most < 3 || r.Ended == 0 || r.Crowded < 0.2 || r.Waits != 0 || r.Waited != 0 {
		t.Errorf("%+v", r)
	}
	if ours := scale.Replay(pool(), past, at(6*time.Hour), time.Minute); ours.Ended != 0 || ours.Crowded != 0 {
		t.Errorf("by demand: %+v", ours)
	}
}
