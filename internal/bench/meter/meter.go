// Package meter reads what processes and local machines have used of this host.
package meter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Time is what the server and all in its machines have used.
func Time(server int, machines map[string]bool) (time.Duration, error) {
	total, err := Ticks(server)
	if err != nil {
		return 0, err
	}
	pids, err := machineProcesses(machines)
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		t, err := Ticks(pid)
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

// Ticks reads the processor time of a process, its ended children included.
func Ticks(pid int) (int64, error) {
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

// Memory reads what each machine's control group is charged, in MiB.
func Memory(machines map[string]bool) ([]float64, error) {
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
