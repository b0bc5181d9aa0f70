package main

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
)

// loadMeter measures the machine by its own control groups: /proc shows the host's.
type loadMeter struct {
	at   time.Time
	used time.Duration
}

// read returns the load since the call before.
func (l *loadMeter) read(have shoal.Resources) shoal.Load {
	var out shoal.Load
	now := time.Now()
	used, ok := cpuUsed()
	if ok && !l.at.IsZero() && have.CPUs > 0 && now.After(l.at) && used >= l.used {
		out.CPUPercent = int(float64(used-l.used) / float64(now.Sub(l.at)) * 1000 / float64(have.CPUs) * 100)
	}
	if ok {
		l.at, l.used = now, used
	}
	out.Memory = shoal.Bytes(firstNumber("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory.current"))
	out.Processes = int(firstNumber("/sys/fs/cgroup/pids/pids.current", "/sys/fs/cgroup/pids.current"))
	return out
}

// cpuUsed is the processor time that the machine has used.
func cpuUsed() (time.Duration, bool) {
	if n := firstNumber("/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage"); n > 0 {
		return time.Duration(n), true
	}
	b, err := os.ReadFile("/sys/fs/cgroup/cpu.stat")
	if err != nil {
		return 0, false
	}
	rest, ok := bytes.CutPrefix(b, []byte("usage_usec "))
	if !ok {
		return 0, false
	}
	l, _, _ := bytes.Cut(rest, []byte("\n"))
	n, err := strconv.ParseInt(string(l), 10, 64)
	return time.Duration(n) * time.Microsecond, err == nil
}

// firstNumber is the number in the first of the files that can be read, zero if none can.
func firstNumber(paths ...string) int64 {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}
