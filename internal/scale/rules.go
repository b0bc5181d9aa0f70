package scale

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
)

// Sample is what was measured of a pool at a moment. Loads are sums over its machines, in percent of one.
type Sample struct {
	At       time.Time `json:"at"`
	Machines int       `json:"machines,omitempty"` // that run
	Sessions int       `json:"sessions,omitempty"`
	Queue    int       `json:"queue,omitempty"` // tasks that wait
	CPU      int       `json:"cpu,omitempty"`
	Memory   int       `json:"memory,omitempty"`
	GPU      int       `json:"gpu,omitempty"`
}

// SampleOf measures a pool as it is.
func SampleOf(s State, now time.Time) Sample {
	x := Sample{At: now, Sessions: s.Waiting}
	for _, m := range s.Machines {
		x.Sessions += m.Sessions
		if m.State != shoal.MachineReady {
			continue
		}
		x.Machines++
		x.CPU += m.Load.CPUPercent
		x.GPU += m.Load.GPUPercent
		if m.Resources.Memory > 0 {
			x.Memory += int(100 * m.Load.Memory / m.Resources.Memory)
		}
	}
	for _, q := range s.Queue {
		x.Queue += q.Tasks
	}
	return x
}

// Longest is the longest window of a pool's rules: for so long samples are needed. 0: it has no rules.
func Longest(p shoal.Pool) time.Duration {
	var d time.Duration
	for _, r := range p.Scale.Rules {
		d = max(d, time.Duration(r.Window), time.Second)
	}
	return d
}

// SampleEvery is how often a pool with rules is measured.
const SampleEvery = time.Minute

// Keep adds a sample to those of a pool, a minute apart, and drops those that its rules do not ask for, and those of a
// clock that was put back since.
func Keep(samples []Sample, p shoal.Pool, x Sample) []Sample {
	longest := Longest(p)
	if longest == 0 {
		return nil
	}
	if n := len(samples); n > 0 && !samples[n-1].At.After(x.At) && x.At.Sub(samples[n-1].At) < SampleEvery {
		return samples
	}
	from := x.At.Add(-longest - 2*SampleEvery)
	return append(slices.DeleteFunc(slices.Clone(samples), func(o Sample) bool { return o.At.Before(from) || o.At.After(x.At) }), x)
}

// total is what a rule's metric comes to for the whole pool; known is false where too few samples cover its window.
func (p *plan) total(r shoal.Rule) (value float64, known bool) {
	all := append(slices.Clone(p.Samples), SampleOf(p.State, p.now))
	from := p.now.Add(-time.Duration(r.Window))
	if first := all[0].At; first.After(from.Add(SampleEvery)) && r.Window > 0 {
		return 0, false
	}
	var figures []float64
	for _, x := range all {
		if x.At.Before(from) || x.At.After(p.now) {
			continue
		}
		n := 0
		switch r.Metric {
		case shoal.MetricQueue:
			n = x.Queue
		case shoal.MetricCPU:
			n = x.CPU
		case shoal.MetricMemory:
			n = x.Memory
		case shoal.MetricGPU:
			n = x.GPU
		default:
			n = x.Sessions
		}
		figures = append(figures, float64(n))
	}
	switch r.Aggregate {
	case "min":
		return slices.Min(figures), true
	case "max":
		return slices.Max(figures), true
	case "last":
		return figures[len(figures)-1], true
	}
	sum := 0.0
	for _, f := range figures {
		sum += f
	}
	return sum / float64(len(figures)), true
}

// figure is what a metric comes to for each of so many machines.
func (p *plan) figure(r shoal.Rule, total float64, machines int) float64 {
	switch r.Metric {
	case shoal.MetricQueue:
		return total
	case shoal.MetricSeats:
		return 100 * total / float64(max(machines, 1)*max(p.Pool.Seats, 1))
	}
	return total / float64(max(machines, 1))
}

// fires reports whether a rule holds for so many machines.
func (p *plan) fires(r shoal.Rule, total float64, machines int) bool {
	f := p.figure(r, total, machines)
	return r.Above != nil && f > *r.Above || r.Below != nil && f < *r.Below
}

// target is what rules want of a pool that serves with so many machines: at least low, at most high (-1: no wish).
// Unknown: some figure is not known.
type target struct {
	low, high int
	rule      string // that wants it, in words
	unknown   bool
}

// wish asks the rules. Any rule may make the pool larger, and the largest wish counts; it is made smaller only if
// all that could agree, and then by the least.
func (p *plan) wish(machines int) target {
	t := target{high: -1}
	shrinks, agreed := 0, 0
	for _, r := range p.Pool.Scale.Rules {
		total, known := p.total(r)
		if !r.Grows() {
			shrinks++
		}
		if !known {
			t.unknown = true
			continue
		}
		if machines == 0 && r.Metric != shoal.MetricQueue || !p.fires(r, total, machines) {
			continue
		}
		to := machines + r.By.Of(machines)
		if !r.Grows() {
			to = machines - r.By.Of(machines)
		}
		if r.To != nil {
			to = *r.To
		}
		says := words(r, p.figure(r, total, machines))
		switch {
		case r.Grows():
			if to > machines && to > t.low {
				t.low, t.rule = to, says
			}
		default:
			agreed++
			if to = max(to, 0); to < machines && to > t.high {
				t.high = to
				if t.low == 0 {
					t.rule = says
				}
			}
		}
	}
	if t.low > 0 || agreed < shrinks {
		t.high = -1
	}
	return t
}

func words(r shoal.Rule, figure float64) string {
	units := map[shoal.Metric]string{shoal.MetricSessions: " sessions on a machine", shoal.MetricSeats: "% of the seats are taken", shoal.MetricQueue: " tasks wait",
		shoal.MetricCPU: "% of the processors are busy", shoal.MetricMemory: "% of the memory is used", shoal.MetricGPU: "% of the GPUs are busy"}
	bound, than := r.Above, "more than"
	if r.Below != nil {
		bound, than = r.Below, "less than"
	}
	over := ""
	if r.Window > 0 {
		over = fmt.Sprintf(" over %s", r.Window)
	}
	return fmt.Sprintf("%s%s%s, %s %s", number(figure), units[r.Metric], over, than, number(*bound))
}

func number(f float64) string { return strconv.FormatFloat(float64(int64(f*10+0.5))/10, 'f', -1, 64) }

// wanted reports whether some rule would make a pool of so many machines larger, or may: a figure is not known. It is
// what is asked before a machine goes, so that none goes that would come back.
func (p *plan) wanted(machines int) bool {
	for _, r := range p.Pool.Scale.Rules {
		if !r.Grows() {
			continue
		}
		total, known := p.total(r)
		if !known {
			return machines < max(p.Pool.Size.Default, p.atFirst)
		}
		if r.To != nil && machines >= *r.To || machines == 0 && r.Metric != shoal.MetricQueue && total == 0 {
			continue
		}
		if p.fires(r, total, machines) {
			return true
		}
	}
	return false
}

// cool reports whether a rule may change the pool now.
func (p *plan) cool() bool {
	var longest time.Duration
	for _, r := range p.Pool.Scale.Rules {
		longest = max(longest, time.Duration(r.Cooldown))
	}
	at := p.Changed.Add(longest)
	if p.Changed.IsZero() || !p.now.Before(at) || p.Changed.After(p.now) { // the clock was put back
		return true
	}
	p.due(at)
	return false
}

// followRules makes the pool smaller where its rules want it: empty machines go, and those with the fewest sessions
// take nobody new. What is needed, and the last that takes people, stays.
func (p *plan) followRules() {
	if p.fixed || len(p.Pool.Scale.Rules) == 0 {
		return
	}
	t := p.wish(len(p.serving))
	if t.high < 0 || !p.cool() {
		return
	}
	candidates := slices.Clone(p.serving)
	slices.SortStableFunc(candidates, byWorth)
	code := "rule"
	for _, m := range candidates {
		last := !slices.ContainsFunc(p.serving, func(x *Machine) bool { return x != m && x.Accepts() })
		if len(p.serving) <= t.high || m.pending() || !m.mayGo() && (last || m.Tasks > 0) {
			continue
		}
		if !p.enough(p.thereWithout(m)) || last && p.running() > 1 {
			continue
		}
		if !m.mayGo() && len(m.Cordons) > 0 {
			continue // what a rollout left is taken from it first
		}
		p.Rule = t.rule
		if m.mayGo() {
			p.retire(m, code, "%s", t.rule)
			continue
		}
		p.Cordon = append(p.Cordon, Change{m.ID, shoal.Reason{Code: code, Sentence: t.rule}})
		p.serving = slices.DeleteFunc(p.serving, func(x *Machine) bool { return x == m })
	}
}

// running counts the machines that run and are not retired.
func (p *plan) running() (n int) {
	for i := range p.Machines {
		if m := &p.Machines[i]; m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && !p.retired(m.ID) {
			n++
		}
	}
	return n
}

// byRules is how many further machines the rules want.
func (p *plan) byRules() int {
	if len(p.Pool.Scale.Rules) == 0 {
		return 0
	}
	n := len(p.serving)
	t := p.wish(n)
	more := 0
	if t.unknown {
		more = p.Pool.Size.Default - n
	}
	if t.low > n && p.cool() && p.Rule == "" {
		if more = max(more, t.low-n); more > 0 {
			p.need.rule = t.rule
		}
	}
	return max(more, 0)
}
