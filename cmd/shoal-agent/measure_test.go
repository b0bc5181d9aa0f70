package main_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// TestMeasure prints how long machines take to become ready and what they hold then. It asserts nothing;
// SHOAL_MEASURE says how many machines.
func TestMeasure(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("SHOAL_MEASURE"))
	if n == 0 {
		t.Skip("a measurement: set SHOAL_MEASURE to a number of machines")
	}
	w := newWorld(t)
	w.machine("m-first", team(7)) // the image is made once
	var took []time.Duration
	for i := range n {
		began := time.Now()
		w.machine(fmt.Sprintf("m-%d", i), team(7))
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("Create to ready: median %s of %v", took[n/2], took)
	id := fmt.Sprintf("m-%d", n-1)
	t.Logf("memory: %s", w.in(id, "cat /sys/fs/cgroup/memory/memory.usage_in_bytes; grep -E '^total_(rss|cache|mapped_file) ' /sys/fs/cgroup/memory/memory.stat; cat /sys/fs/cgroup/memory/memory.kmem.usage_in_bytes; for p in 1 $(pgrep -f 'agent run') $(pgrep -o sshd); do tr '\\0' ' ' </proc/$p/cmdline; grep -E 'Rss|Private|Anonymous:' /proc/$p/smaps_rollup | tr '\\n' ' '; echo; done"))
}
