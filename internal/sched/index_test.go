package sched

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
)

// An index finds the same machines as a look at each, in its order, however it came to be.
func TestIndex(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var x index
		there := map[int]slot{}
		all := make([]*machine, 400)
		for i := range all {
			all[i] = &machine{Machine: Machine{ID: shoal.MachineID(fmt.Sprintf("m-%03d", i))}}
		}
		draw := func() shoal.Resources {
			return shoal.Resources{CPUs: shoal.MilliCPU(rapid.IntRange(-1, 4).Draw(t, "cpus")), Memory: shoal.Bytes(rapid.IntRange(0, 4).Draw(t, "memory")), GPUs: rapid.IntRange(0, 1).Draw(t, "gpus")}
		}
		for i := range all {
			there[i] = slot{draw(), all[i]}
			x.insert(there[i])
		}
		for range rapid.IntRange(0, 400).Draw(t, "changes") {
			i := rapid.IntRange(0, len(all)-1).Draw(t, "machine")
			if s, ok := there[i]; ok {
				x.remove(s)
				delete(there, i)
			} else {
				there[i] = slot{draw(), all[i]}
				x.insert(there[i])
			}
		}
		q := draw()
		var want []slot
		for _, s := range there {
			if q.Fits(s.left) {
				want = append(want, s)
			}
		}
		slices.SortFunc(want, slot.compare)
		var got []*machine
		for m := range x.fitting(q) {
			got = append(got, m)
		}
		if !slices.EqualFunc(want, got, func(s slot, m *machine) bool { return s.machine == m }) {
			t.Fatalf("%v for %v, want %v", got, q, want)
		}
		for _, c := range x.chunks {
			if len(c.slots) == 0 || len(c.slots) > chunkSize {
				t.Fatalf("a chunk of %d", len(c.slots))
			}
		}
	})
}
