package usage

import (
	"math/bits"
	"time"
)

// shareIdle divides what nobody used of a pool among those who used it, by how much they did, to the nanosecond. Of a
// pool that nobody used it stays nobody's.
func (l *Ledger) shareIdle() {
	users := map[rowKey][]rowKey{} // of the idle row of each pool
	for _, k := range l.sortedKeys() {
		idle := rowKey{KeyIdle, k.currency, k.pool}
		if k != idle && l.rows[idle] != nil && l.rows[k].used() > 0 {
			users[idle] = append(users[idle], k)
		}
	}
	for idle, keys := range users {
		var total time.Duration
		for _, k := range keys {
			total += l.rows[k].used()
		}
		whole := *l.rows[idle]
		left, spent := whole.idle, 0.0
		for i, k := range keys {
			r := l.rows[k]
			part, cost := portion(whole.idle, r.used(), total), whole.cost*float64(r.used())/float64(total)
			if i == len(keys)-1 { // takes what cannot be divided
				part, cost = left, whole.cost-spent
			}
			left, spent = left-part, spent+cost
			r.add(sums{idle: part, cost: cost})
		}
		delete(l.rows, idle)
	}
}

// portion is d·part/whole, rounded down; part is not above whole.
func portion(d, part, whole time.Duration) time.Duration {
	high, low := bits.Mul64(uint64(d), uint64(part)) //nolint:gosec // none is below zero
	q, _ := bits.Div64(high, low, uint64(whole))     //nolint:gosec // part ≤ whole, so it fits
	return time.Duration(q)                          //nolint:gosec // at most d
}

// mergePools puts what one key used in several pools into one row.
func (l *Ledger) mergePools() {
	merged := make(map[rowKey]*sums, len(l.rows))
	for _, k := range l.sortedKeys() {
		s := l.rows[k]
		k.pool = ""
		if merged[k] == nil {
			merged[k] = &sums{}
		}
		merged[k].add(*s)
	}
	l.rows = merged
}

func (s *sums) used() time.Duration { return s.session + s.task }

func (s *sums) add(o sums) {
	s.session, s.task, s.idle, s.cost = s.session+o.session, s.task+o.task, s.idle+o.idle, s.cost+o.cost
}
