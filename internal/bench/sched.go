package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/shoal-pool/shoal/internal/rig"
)

// passRows takes the scheduler's own benchmark of a pass over 10,000 machines and 100,000 waiting tasks.
func passRows(ctx context.Context, b *bench) error {
	names := map[string]string{
		"machines=10000,jobs=1,tasks=100000,shapes=1,users=1":                 "one array",
		"machines=10000,jobs=100000,tasks=1,shapes=5000,users=50":             "5,000 shapes, of which only the last fits",
		"machines=10000,jobs=100000,tasks=1,shapes=5000,users=1,hopeless":     "5,000 shapes, all but the last larger than a machine",
		"machines=10000,jobs=100000,tasks=1,shapes=5000,users=50,nodes=16":    "5,000 shapes, all but the last gangs of 16",
		"machines=10000,jobs=250000,tasks=1,shapes=5000,users=50,limits,each": "250,000 jobs with time limits, 50 users with all shapes",
	}
	values := map[string][]float64{}
	line := regexp.MustCompile(`(?m)^BenchmarkPass/(\S+?)-\d+\s.*?([\d.]+) p99-ms`)
	for range b.rounds {
		out, err := rig.Output(exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkPass$", "-benchtime", "300x", "./internal/sched"))
		if err != nil {
			return err
		}
		for _, m := range line.FindAllStringSubmatch(out, -1) {
			ms, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return err
			}
			values[m[1]] = append(values[m[1]], ms)
		}
	}
	for key, what := range names {
		if len(values[key]) == 0 {
			return fmt.Errorf("the benchmark has no case %s", key)
		}
		b.add(Row{Measure: "a scheduling pass, 99th percentile: " + what, Unit: "ms", Ours: values[key],
			Note: "10,000 machines; 100,000 tasks wait unless said otherwise"}.judge(atMost("ours", 50)))
	}
	return nil
}
