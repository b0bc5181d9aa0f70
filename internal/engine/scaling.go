package engine

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/usage"
)

// elastic is what the engine remembers of a pool for package scale.
type elastic struct {
	read    bool // what is on record has been read
	samples []scale.Sample
	changed time.Time   // when a rule last changed the pool
	last    api.Scaling // the last that is on record
	spent   shoal.Ceiling
	spentAt time.Time
}

// How often decisions that change nothing go on record, and how long after a month began its cost is still read anew.
const (
	scalingEvery = time.Minute
	spentEvery   = time.Minute
	changedFor   = 7 * 24 * time.Hour // the longest cooldown
)

// elasticOf is what is remembered of a pool, brought up to date. A copy: the pass may not come to its end.
func (j *judging) elasticOf(p shoal.Pool) (elastic, error) {
	m := j.mem.elastic[p.Name]
	if !m.read {
		records, err := j.tx.Scalings(p.Name, j.now.Add(-changedFor), 10_000)
		if err != nil {
			return m, err
		}
		m.read = true
		if len(records) > 0 {
			m.last = records[0]
		}
		if i := slices.IndexFunc(records, func(s api.Scaling) bool { return s.Rule != "" && s.Acts() }); i >= 0 {
			m.changed = records[i].At
		}
	}
	if p.Scale.Cost == (shoal.Ceiling{}) {
		return m, nil
	}
	if at := m.spentAt.Add(spentEvery); !j.now.Before(at) {
		var err error
		if m.spent, err = spent(j.tx, p, j.now); err != nil {
			return m, err
		}
		m.spentAt = j.now
	}
	j.due(m.spentAt.Add(spentEvery), j.now)
	return m, nil
}

// spent is what the machines of a pool have cost since the day and the month began, where its clock is.
func spent(tx *store.Tx, p shoal.Pool, now time.Time) (shoal.Ceiling, error) {
	y, mo, d := now.In(p.Scale.Zone()).Date()
	day := time.Date(y, mo, d, 0, 0, 0, 0, p.Scale.Zone())
	month := time.Date(y, mo, 1, 0, 0, 0, 0, p.Scale.Zone())
	intervals, err := tx.IntervalsSince(month)
	if err != nil {
		return shoal.Ceiling{}, err
	}
	intervals = slices.DeleteFunc(intervals, func(i store.Interval) bool {
		return i.Kind != shoal.ObjectMachine || i.Pool != p.Name || i.Price.Currency != p.Price.Currency
	})
	cost := func(since time.Time) float64 {
		return usage.Bill(usage.Input{Intervals: intervals, Since: since, Until: now}, usage.ByPool).Total.Cost
	}
	return shoal.Ceiling{PerDay: cost(day), PerMonth: cost(month)}, nil
}

// elasticState adds what is remembered to a pool's state.
func (j *judging) elasticState(s *scale.State, m elastic) {
	s.Samples, s.Changed, s.Spent = m.samples, m.changed, m.spent
	if h, ok := j.mem.holds[s.Pool.Name]; ok { // what the provider said; fleet sees to machines that fail
		s.Held = scale.Hold{Until: h.Until, Reason: h.Reason}
	}
}

// remember keeps a pool's figures and puts a decision on record: one that changes something, or, once a minute at
// most, one that comes of other figures or has other reasons than the last.
func (j *judging) remember(s scale.State, d scale.Decision, m elastic) {
	sample := scale.SampleOf(s, j.now)
	if longest := scale.Longest(s.Pool); longest > 0 {
		if n := len(m.samples); n == 0 || j.now.Sub(m.samples[n-1].At) >= scale.SampleEvery {
			from := j.now.Add(-longest - 2*scale.SampleEvery)
			kept := slices.DeleteFunc(slices.Clone(m.samples), func(x scale.Sample) bool { return x.At.Before(from) })
			m.samples = append(kept, sample)
		}
		if sample.Machines > 0 || sample.Queue > 0 {
			j.due(m.samples[len(m.samples)-1].At.Add(scale.SampleEvery), j.now)
		}
	} else {
		m.samples = nil
	}
	r := scalingOf(s, d, sample, j.now)
	if d.Rule != "" && r.Acts() {
		m.changed = j.now
	}
	switch {
	case r.Acts():
	case same(r, m.last, len(s.Pool.Scale.Rules) > 0):
		j.elastics[s.Pool.Name] = m
		return
	case j.now.Sub(m.last.At) < scalingEvery:
		j.due(m.last.At.Add(scalingEvery), j.now)
		j.elastics[s.Pool.Name] = m
		return
	}
	m.last = r
	j.elastics[s.Pool.Name] = m
	j.scalings = append(j.scalings, func(tx *store.Tx) error { return tx.PutScaling(s.Pool.Name, r) })
}

// scalingOf is the record of a decision.
func scalingOf(s scale.State, d scale.Decision, x scale.Sample, now time.Time) api.Scaling {
	n := max(x.Machines, 1)
	r := api.Scaling{At: now, Sessions: x.Sessions - s.Waiting, Waiting: s.Waiting, Queue: x.Queue, CPU: x.CPU / n, Memory: x.Memory / n, GPU: x.GPU / n,
		SpentDay: s.Spent.PerDay, Window: scale.BoundsOf(s.Pool, now).Window, Rule: d.Rule,
		Created: d.Create, Retired: len(d.Retire), Drained: len(d.Cordon), Restored: len(d.Restore), Reasons: d.Reasons}
	for _, m := range s.Machines {
		if m.Alive() {
			r.Machines++
		}
		if m.Alive() && len(m.Cordons) == 0 && m.Wanted == shoal.WantRun {
			r.Open++
		}
	}
	r.Sentence = scale.Sentence(d)
	return r
}

// same reports whether a record says what another says. Loads matter only to rules.
func same(a, b api.Scaling, loads bool) bool {
	if loads && (a.CPU != b.CPU || a.Memory != b.Memory || a.GPU != b.GPU) {
		return false
	}
	return a.Machines == b.Machines && a.Open == b.Open && a.Sessions == b.Sessions && a.Waiting == b.Waiting && a.Queue == b.Queue &&
		a.Window == b.Window && a.Rule == b.Rule && !b.Acts() && slices.Equal(a.Reasons, b.Reasons)
}

// wholeState is a pool as package scale wants to see it, with what is remembered of it.
func (j *judging) wholeState(p shoal.Pool) (scale.State, elastic, error) {
	m, err := j.elasticOf(p)
	if err != nil {
		return scale.State{}, m, err
	}
	s := j.state(p)
	j.elasticState(&s, m)
	return s, m, nil
}
