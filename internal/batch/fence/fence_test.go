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
		v := fence.Judge(answered, nil, now, r)
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
		r := fence.For(time.Duration(rapid.Int64Range(int64(fence.Shortest), int64(fence.Longest)).Draw(t, "lease")))
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		rate := rapid.Float64Range(0.9, 1.1).Draw(t, "rate of the agent's clock")
		sent := start.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "sent")))
		answered := sent.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "under way")))
		// The agent kills at the end of its lease, and all is gone after the grace.
		gone := sent.Add(time.Duration(float64(r.Lease+r.Grace) / rate))
		now := start.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "now")))
		v := fence.Judge(map[shoal.MachineID]time.Time{"m": answered}, nil, now, r)
		if v.Over["m"] && now.Before(gone) {
			t.Fatalf("taken for over at %v, gone at %v", now, gone)
		}
	})
}

// Machines that their provider misses, too, are no part of a mass disconnect.
func TestMissedByTheProviderToo(t *testing.T) {
	r := fence.Default()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	answered, machines := map[shoal.MachineID]time.Time{}, map[shoal.MachineID]shoal.Machine{}
	for _, id := range []shoal.MachineID{"m-1", "m-2", "m-3", "m-4"} {
		answered[id], machines[id] = now, shoal.Machine{ID: id}
	}
	for _, id := range []shoal.MachineID{"m-1", "m-2"} {
		answered[id] = now.Add(-r.Over())
	}
	if v := fence.Judge(answered, machines, now, r); len(v.Over) != 0 || len(v.Frozen) != 2 {
		t.Errorf("two of four that only their server misses: %+v", v)
	}
	for _, id := range []shoal.MachineID{"m-1", "m-2"} {
		machines[id] = shoal.Machine{ID: id, Health: shoal.HealthDown, Cordons: []shoal.Cordon{{Owner: shoal.CordonProvider, Reason: "its node n1 does not answer"}}}
	}
	if v := fence.Judge(answered, machines, now, r); !v.Over["m-1"] || !v.Over["m-2"] || len(v.Frozen) != 0 {
		t.Errorf("two of four that their provider misses, too: %+v", v)
	}
}

// A machine that is older than its server may have been given a longer lease by a former one.
func TestHeard(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	r := fence.For(fence.Shortest)
	older, newer := shoal.Machine{Started: began.Add(-time.Hour)}, shoal.Machine{Started: began.Add(time.Second)}
	for _, answered := range []time.Time{{}, began.Add(time.Minute)} {
		if at := r.Heard(older, answered, began).Add(r.Over()); at.Before(began.Add(fence.Default().Over())) {
			t.Errorf("an older machine is over at %v", at)
		}
	}
	if at := r.Heard(newer, began.Add(time.Minute), began); !at.Equal(began.Add(time.Minute)) {
		t.Errorf("a newer machine is heard of at %v", at)
	}
}
