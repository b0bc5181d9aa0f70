package fence_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/fence"
)

func TestJudge(t *testing.T) {
	r := fence.Default()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	over := r.Over()
	for _, c := range []struct {
		name         string
		silent       []time.Duration
		over, frozen int
		next         time.Duration
	}{
		{"all heard of", []time.Duration{0, time.Minute, time.Second}, 0, 0, over - time.Minute},
		{"one of three", []time.Duration{over, 0, 0}, 1, 0, over},
		{"not yet", []time.Duration{over - time.Second}, 0, 0, time.Second},
		{"one of four", []time.Duration{over, 0, 0, 0}, 1, 0, over},
		{"two of four", []time.Duration{over, over, 0, 0}, 0, 2, over},
		{"two of four, one later", []time.Duration{over, over - time.Minute, 0, 0}, 0, 1, time.Minute},
		{"two of four, at different times", []time.Duration{over, over + time.Hour, 0, 0}, 2, 0, over},
		{"three of ten", []time.Duration{over, over, over, 0, 0, 0, 0, 0, 0, 0}, 3, 0, over},
		{"four of ten", []time.Duration{over, over, over, over, 0, 0, 0, 0, 0, 0}, 0, 4, over},
		{"all", []time.Duration{over, over, over, over}, 0, 4, 0},
	} {
		answered := map[shoal.MachineID]time.Time{}
		for i, d := range c.silent {
			answered[shoal.MachineID(fmt.Sprint(i))] = now.Add(-d)
		}
		v := fence.Judge(answered, now, r)
		next := time.Duration(0)
		if !v.Next.IsZero() {
			next = v.Next.Sub(now)
		}
		if len(v.Over) != c.over || len(v.Frozen) != c.frozen || next != c.next {
			t.Errorf("%s: %+v, next in %v", c.name, v, next)
		}
	}
}

// Whatever the rates of the clocks, within the margin, and however late a report and its answer come:
// a task is never taken for over before its agent has ended it.
func TestNeverBeforeTheAgent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := fence.Default()
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		rate := rapid.Float64Range(0.9, 1.1).Draw(t, "rate of the agent's clock")
		sent := start.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "sent")))
		answered := sent.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "under way")))
		// The agent kills at the end of its lease, and all is gone after the grace.
		gone := sent.Add(time.Duration(float64(r.Lease+r.Grace) / rate))
		now := start.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "now")))
		v := fence.Judge(map[shoal.MachineID]time.Time{"m": answered}, now, r)
		if v.Over["m"] && now.Before(gone) {
			t.Fatalf("taken for over at %v, gone at %v", now, gone)
		}
	})
}
