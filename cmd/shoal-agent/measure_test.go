package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	group := func(file string) int64 {
		b, err := os.ReadFile(w.group(id, file))
		if err != nil {
			t.Fatal(err)
		}
		v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	t.Logf("memory once ready: %d KiB in all, of which kernel %d", group("memory/memory.usage_in_bytes")>>10, group("memory/memory.kmem.usage_in_bytes")>>10)
	before := group("cpuacct/cpuacct.usage")
	time.Sleep(130 * time.Second) // two heartbeats
	t.Logf("processor time of two idle minutes: %s", time.Duration(group("cpuacct/cpuacct.usage")-before))
	t.Logf("memory then: %d KiB in all, of which kernel %d", group("memory/memory.usage_in_bytes")>>10, group("memory/memory.kmem.usage_in_bytes")>>10)
	t.Log(w.in(id, "cat /proc/1/status /proc/$(pgrep -f 'agent run'|head -1)/status | grep -E 'Name|Threads|ctxt|RssAnon'; for p in 1 $(pgrep -f 'agent run'|head -1) $(pgrep -o -x sshd); do grep -E '^(Rss|Anonymous|Private_Dirty)' /proc/$p/smaps_rollup | tr '\n' ' '; echo; done"))
}

// group is a file of a machine's control group, version 1.
func (w *world) group(id, file string) string {
	controller, name, _ := strings.Cut(file, "/")
	found, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", controller, "shoal-*", id, name))
	if len(found) != 1 {
		w.t.Fatalf("the control group of %s: %v", id, found)
	}
	return found[0]
}
