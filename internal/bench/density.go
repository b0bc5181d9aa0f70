package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// crowdOfMachines is how many machines one host must carry.
const crowdOfMachines = 100

// density starts 100 machines, leaves them idle, and removes them.
func density(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "density")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	size := fmt.Sprintf("{min: 0, max: %d}", crowdOfMachines)
	config := "providerConfig: {memoryOvercommit: 4}\n"
	if err := w.Apply(ctx, 1, rig.Pool("many", "interactive", "{cpus: 1, memory: 512MiB}", size, 8, config)); err != nil {
		return err
	}
	var readies []float64
	for i := range 2 { // each round takes a minute: two are enough to see whether one was an accident
		start := time.Now()
		if _, err := w.Shoal(ctx, "pool", "scale", "many", "--size", strconv.Itoa(crowdOfMachines)); err != nil {
			return err
		}
		if _, err := w.Ready(ctx, "many", crowdOfMachines, 5*time.Minute); err != nil {
			return err
		}
		readies = append(readies, time.Since(start).Seconds())
		if i == 0 {
			if err := w.Empty(ctx, "many"); err != nil {
				return err
			}
		}
	}
	b.add(Row{Measure: "100 machines, from pool scale to all ready", Unit: "s", Ours: readies}.judge(atMost("ours", 60)))
	return idleCost(ctx, b, w)
}

// idleCost measures the memory and the processor time of 100 machines where nobody is.
func idleCost(ctx context.Context, b *bench, w *world) error {
	time.Sleep(20 * time.Second) // what follows a start is over
	list, err := w.Machines(ctx, "many")
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, m := range list {
		ours[string(m.ID)] = true
	}
	memory, err := machineMemory(ours)
	if err != nil {
		return err
	}
	b.add(Row{Measure: "an idle machine's memory, by its control group", Unit: "MiB", Ours: memory}.judge(atMost("ours", 10)))
	var share []float64
	for range b.rounds {
		before, err := processorTime(w.Server.Process.Pid, ours)
		if err != nil {
			return err
		}
		const window = 60 * time.Second
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(window):
		}
		after, err := processorTime(w.Server.Process.Pid, ours)
		if err != nil {
			return err
		}
		share = append(share, 100*(after-before).Seconds()/window.Seconds())
	}
	b.add(Row{Measure: "control plane and 100 idle machines: processor time", Unit: "% of a core", Ours: share}.judge(atMost("ours", 0.5)))
	return nil
}

// processorTime is what the server and all in its machines have used.
func processorTime(server int, machines map[string]bool) (time.Duration, error) {
	total, err := ticks(server)
	if err != nil {
		return 0, err
	}
	pids, err := machineProcesses(machines)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		t, err := ticks(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		total += t
	}
	return time.Duration(total) * time.Second / 100, nil // USER_HZ is 100 on Linux
}

// ticks reads the processor time of a process, its ended children included.
func ticks(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, os.ErrNotExist
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 15 {
		return 0, fmt.Errorf("cannot read /proc/%d/stat", pid)
	}
	var total int64
	for _, i := range []int{11, 12, 13, 14} { // utime stime cutime cstime
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// machineProcesses are the processes of some local machines: those in a control group below the machine's.
func machineProcesses(machines map[string]bool) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cgroup"))
		if err != nil || !within(string(b), machines) {
			continue // it has ended, or is another's
		}
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// within reports whether a process's control groups are those of one of the machines: /shoal-…/m-…/box.
func within(groups string, machines map[string]bool) bool {
	for part := range strings.SplitSeq(groups, "/") {
		if machines[part] {
			return true
		}
	}
	return false
}

// machineMemory reads what each machine's control group is charged, in MiB.
func machineMemory(machines map[string]bool) ([]float64, error) {
	var all []float64
	for _, pattern := range []string{"/sys/fs/cgroup/memory/shoal-*/m-*/memory.usage_in_bytes", "/sys/fs/cgroup/shoal-*/m-*/memory.current"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if !machines[filepath.Base(filepath.Dir(f))] {
				continue
			}
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			n, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
			if err != nil {
				return nil, err
			}
			all = append(all, n/(1<<20))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no machine's control group was found")
	}
	return all, nil
}
