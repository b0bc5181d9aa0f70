package fleet

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Settle brings times of a machine that lie in the future back to now: the clock was put back since they were
// written, and what is counted from them would be long in coming. What is billed stays as it was written.
func Settle(m shoal.Machine, now time.Time) shoal.Machine {
	for _, t := range []*time.Time{&m.Since, &m.ReadyAt, &m.IdleAt, &m.OldSince} {
		if t.After(now) {
			*t = now
		}
	}
	if slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Since.After(now) }) {
		m.Cordons = slices.Clone(m.Cordons)
		for i := range m.Cordons {
			if c := &m.Cordons[i]; c.Since.After(now) {
				c.Since = now
			}
		}
	}
	return m
}
