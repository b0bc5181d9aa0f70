package scale

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Policy says what should become of a pool, as Decide does.
type Policy func(s State, now time.Time) Decision

// Metric is the autoscaling of the article's service: the load of the processors over five minutes, told three minutes
// late; one machine more above 75 %, one fewer below 25 %, five minutes apart, and never fewer than one. It knows
// nothing of people: the youngest machine goes, with whoever is on it.
func Metric() Policy {
	var last time.Time
	return func(s State, now time.Time) Decision {
		next := now.Truncate(time.Minute).Add(time.Minute)
		d := Decision{Next: next, Because: shoal.Reason{Code: "metric", Sentence: "the processors are busy"}}
		var live []Machine
		for _, m := range s.Machines {
			if m.Alive() && m.Wanted == shoal.WantRun {
				live = append(live, m)
			}
		}
		if len(live) < 1 {
			d.Create = 1
			return d
		}
		sum, n := 0, 0
		for _, x := range s.Samples {
			if age := now.Sub(x.At); age >= 3*time.Minute && age < 8*time.Minute && x.Machines > 0 {
				sum, n = sum+x.CPU/x.Machines, n+1
			}
		}
		if n < 4 || now.Sub(last) < 5*time.Minute {
			return d
		}
		load := sum / n
		switch {
		case load > 75 && len(live) < s.Pool.Size.Max:
			d.Create, last = 1, now
		case load < 25 && len(live) > 1 && load*len(live)/(len(live)-1) <= 75:
			victim := slices.MaxFunc(live, func(a, b Machine) int { return a.Since.Compare(b.Since) })
			d.Retire = []Change{{Machine: victim.ID, Reason: shoal.Reason{Code: "metric", Sentence: "the processors are idle"}}}
			last = now
		}
		return d
	}
}

// Measured is a pool whose processors are measured for as long as Metric looks back.
func Measured(p shoal.Pool) shoal.Pool {
	p.Scale.Rules = []shoal.Rule{{Metric: shoal.MetricCPU, Window: shoal.Duration(8 * time.Minute)}}
	return p
}
