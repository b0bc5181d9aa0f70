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

// Time is what the server and all in its machines have used. The machines' control groups count in nanoseconds: ticks of
// 10 ms, summed over the hundreds of processes of idle machines, would say more of the ticks than of the machines.
func Time(server int, machines map[string]bool) (time.Duration, error) {
	ticks, err := Ticks(server)
	if err != nil {
		return 0, err
	}
	total := time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 on Linux
	found := 0
	for _, m := range []struct {
		pattern, key string
		unit         time.Duration
	}{
		{"/sys/fs/cgroup/cpuacct/shoal-*/m-*/cpuacct.usage", "", time.Nanosecond},
		{"/sys/fs/cgroup/shoal-*/m-*/cpu.stat", "usage_usec ", time.Microsecond},
	} {
		counts, err := read(m.pattern, m.key, machines)
		if err != nil {
			return 0, err
		}
		for _, n := range counts {
			total += time.Duration(n) * m.unit
		}
		found += len(counts)
	}
	if found < len(machines) {
		return 0, fmt.Errorf("the control groups of %d of %d machines were not found", len(machines)-found, len(machines))
	}
	return total, nil
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

// Memory reads what each machine's control group is charged, in MiB.
func Memory(machines map[string]bool) ([]float64, error) {
	var all []float64
	for _, pattern := range []string{"/sys/fs/cgroup/memory/shoal-*/m-*/memory.usage_in_bytes", "/sys/fs/cgroup/shoal-*/m-*/memory.current"} {
		counts, err := read(pattern, "", machines)
		if err != nil {
			return nil, err
		}
		for _, n := range counts {
			all = append(all, float64(n)/(1<<20))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no machine's control group was found")
	}
	return all, nil
}

// read returns the number after key in each of the files whose control group, the directory they are in, is one of the machines'.
func read(pattern, key string, machines map[string]bool) ([]int64, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	var all []int64
	for _, f := range files {
		if !machines[filepath.Base(filepath.Dir(f))] {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		_, text, found := strings.Cut(string(b), key)
		word, _, _ := strings.Cut(text, "\n")
		n, err := strconv.ParseInt(word, 10, 64)
		if !found || err != nil {
			return nil, fmt.Errorf("cannot read %s", f)
		}
		all = append(all, n)
	}
	return all, nil
}
