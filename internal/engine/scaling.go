package engine

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
)

// elastic is what the engine remembers of a pool for package scale.
type elastic struct {
	read    bool // what is on record has been read
	samples []scale.Sample
	changed time.Time   // when a rule last changed the pool
	last    api.Scaling // the last that is on record
	spent   shoal.Ceiling
	spentAt time.Time
	// revision is the latest that is on record.
	revision api.Revision
}

// How often decisions that change nothing go on record, and how long after a month began its cost is still read anew.
const (
	scalingEvery = time.Minute
	spentEvery   = time.Minute
	changedFor   = 7 * 24 * time.Hour // the longest cooldown
)

// remembered is what is remembered of a pool, at first from what is on record. A copy: the pass may not come to its end.
func (j *judging) remembered(p shoal.Pool) (elastic, error) {
	m := j.mem.elastic[p.Name]
	if !m.read {
		records, err := j.Tx.Scalings(p.Name, j.now.Add(-changedFor), 10_000)
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
		revisions, err := j.Tx.Revisions(p.Name, 1)
		if err != nil {
			return m, err
		}
		if len(revisions) > 0 {
			m.revision = revisions[0]
		}
	}
	return m, nil
}

// elasticOf is the same, with what the pool's machines have cost.
func (j *judging) elasticOf(p shoal.Pool) (elastic, error) {
	m, err := j.remembered(p)
	if err != nil || p.Scale.Cost == (shoal.Ceiling{}) {
		return m, err
	}
	if j.now.Sub(m.spentAt).Abs() >= spentEvery { // the clock may have been put back
		if m.spent, err = scalings.Spent(j.Tx, p, j.now); err != nil {
			return m, err
		}
		m.spentAt = j.now
	}
	j.due(m.spentAt.Add(spentEvery), j.now)
	return m, nil
}

// elasticState adds what is remembered to a pool's state.
func (j *judging) elasticState(s *scale.State, m elastic) {
	s.Samples, s.Changed, s.Spent = m.samples, m.changed, m.spent
	if h, ok := j.mem.holds[s.Pool.Name]; ok { // what the provider said; fleet sees to machines that fail
		s.Held = scale.Hold{Until: j.wall(h.Until), Reason: h.Reason}
	}
}

// remember keeps a pool's figures and puts a decision on record: one that changes something, or, once a minute at
// most, one that comes of other figures or has other reasons than the last.
func (j *judging) remember(s scale.State, d scale.Decision, m elastic) {
	sample := scale.SampleOf(s, j.now)
	m.samples = scale.Keep(m.samples, s.Pool, sample)
	if n := len(m.samples); n > 0 && (sample.Machines > 0 || sample.Queue > 0) {
		j.due(m.samples[n-1].At.Add(scale.SampleEvery), j.now)
	}
	r := scalings.Of(s, d, sample, j.now)
	if d.Rule != "" && r.Acts() {
		m.changed = j.now
	}
	switch {
	case r.Acts():
	case scalings.Same(r, m.last, len(s.Pool.Scale.Rules) > 0):
		j.elastics[s.Pool.Name] = m
		return
	case j.now.Sub(m.last.At).Abs() < scalingEvery:
		j.due(m.last.At.Add(scalingEvery), j.now)
		j.elastics[s.Pool.Name] = m
		return
	}
	m.last = r
	j.elastics[s.Pool.Name] = m
	j.scalings = append(j.scalings, func(tx *store.Tx) error { return tx.PutScaling(s.Pool.Name, r) })
}

// wholeState is a pool as package scale wants to see it, with what is remembered of it.
func (j *judging) wholeState(p shoal.Pool) (scale.State, elastic, error) {
	m, err := j.elasticOf(p)
	if err != nil {
		return scale.State{}, m, err
	}
	roll, err := j.rolloutOf(p)
	if err != nil {
		return scale.State{}, m, err
	}
	j.age(p, roll)
	s := j.state(p)
	s.Rollout = roll
	j.elasticState(&s, m)
	return s, m, nil
}
