package sched

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Dump writes everything that Apply builds, in one order.
func (s *State) Dump() string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, j := range s.jobs {
		add("job %+v queued=%v", j.Job, j.queued)
	}
	for t, r := range s.tasks {
		add("task %v %+v", t, r)
	}
	for name, p := range s.pools {
		for _, m := range p.machines {
			add("machine %+v", m)
		}
		for m, r := range p.used {
			add("used %s %s %+v", name, m, r)
		}
		for u, r := range p.use {
			add("use %s %s %+v", name, u, r)
		}
		for priority, users := range p.queues {
			for _, u := range slices.Sorted(maps.Keys(users)) {
				for shape, b := range users[u] {
					n := 0
					for i, e := range b.entries {
						if e.job == nil {
							continue
						}
						n++
						if i > 0 && b.entries[i-1].number >= e.number {
							add("DISORDER %v", b.entries)
						}
						add("bucket %s %d %s %+v %s", name, priority, u, shape, e.job.ID)
					}
					if n != b.live || n == 0 {
						add("BUCKET of %d says %d", n, b.live)
					}
				}
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Running lists what was started and has not ended.
func (s *State) Running() []Task { return slices.Collect(maps.Keys(s.tasks)) }
