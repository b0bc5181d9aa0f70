package scale_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

// drawRules are rules of which none that is for above a bound overlaps one that is for below it: such are refused.
func drawRules(t *rapid.T) (all []shoal.Rule) {
	for range rapid.IntRange(1, 4).Draw(t, "rules") {
		r := shoal.Rule{Metric: rapid.SampledFrom([]shoal.Metric{shoal.MetricSessions, shoal.MetricSeats, shoal.MetricCPU, shoal.MetricQueue}).Draw(t, "metric"),
			Aggregate: rapid.SampledFrom([]string{"average", "min", "max", "last"}).Draw(t, "aggregate")}
		if r.Metric.Measured() {
			r.Window = shoal.Duration(time.Duration(rapid.IntRange(1, 10).Draw(t, "window")) * time.Minute)
			r.Cooldown = shoal.Duration(time.Duration(rapid.IntRange(0, 10).Draw(t, "cooldown")) * time.Minute)
		}
		switch rapid.IntRange(0, 2).Draw(t, "step") {
		case 0:
			r.By = shoal.Step{Machines: rapid.IntRange(1, 3).Draw(t, "by")}
		case 1:
			r.By = shoal.Step{Percent: rapid.IntRange(10, 200).Draw(t, "percent")}
		case 2:
			r.To = ptr(rapid.IntRange(0, 10).Draw(t, "to"))
		}
		bound := float64(rapid.IntRange(0, 100).Draw(t, "bound"))
		if r.Metric == shoal.MetricSessions {
			bound /= 25
		}
		if rapid.Bool().Draw(t, "above") {
			r.Above = &bound
		} else {
			r.Below = &bound
		}
		all = append(all, r)
	}
	return all
}

// Whatever rules there are, and however they contradict each other: while what is asked for stays the same, a pool comes
// to rest.
func TestComesToRest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := pool(sized(0, 10, rapid.IntRange(0, 6).Draw(t, "spare")))
		p.Size.Min = rapid.IntRange(0, 3).Draw(t, "min")
		p.Seats = rapid.IntRange(1, 5).Draw(t, "seats")
		p.Scale.Idle.After = shoal.Duration(time.Duration(rapid.IntRange(1, 30).Draw(t, "idle")) * time.Minute)
		p.Scale.Rules = drawRules(t)
		past := []scale.Past{{At: start(), Sessions: rapid.IntRange(0, 30).Draw(t, "sessions"), CPU: rapid.IntRange(0, 800).Draw(t, "cpu"),
			Queue: queue(rapid.IntRange(0, 20).Draw(t, "tasks"), cpu(1))}}
		boot := time.Duration(rapid.IntRange(10, 300).Draw(t, "boot")) * time.Second
		early := scale.Replay(p, past, start().Add(2*time.Hour), boot)
		late := scale.Replay(p, past, start().Add(4*time.Hour), boot)
		if early.Made != late.Made {
			t.Fatalf("%d machines are made in two hours, and %d in four: %+v\n%+v", early.Made, late.Made, p.Scale.Rules, past)
		}
	})
}

// While machines that a rule asked for are on their way, another rule takes none that the first would miss: machines came and
// went for ever where one started before the last was gone.
func TestOnTheirWay(t *testing.T) {
	p := pool(sized(1, 10, 6))
	p.Seats = 4
	p.Scale.Rules = []shoal.Rule{
		{Metric: shoal.MetricQueue, Aggregate: "min", Window: shoal.Duration(3 * time.Minute), Below: ptr(48.0), By: shoal.Step{Percent: 22}},
		{Metric: shoal.MetricCPU, Aggregate: "last", Window: shoal.Duration(10 * time.Minute), Above: ptr(97.0), By: shoal.Step{Percent: 23},
			Cooldown: shoal.Duration(2 * time.Minute)},
	}
	past := []scale.Past{{At: start(), Sessions: 13, CPU: 794, Queue: queue(13, cpu(1))}}
	if got := scale.Replay(p, past, start().Add(4*time.Hour), 275*time.Second); got.Made > 12 {
		t.Errorf("%d machines are made of the ten that there may be", got.Made)
	}
}
