package mounts

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mounted is a line of a table of mounts.
type mounted struct {
	dev    string // major:minor of the file system
	fsType string
}

// mountTable reads what is mounted where for a process, without touching it; of mounts on top of each other the uppermost.
func mountTable(pid int) (map[string]mounted, error) {
	name := "self"
	if pid > 0 {
		name = strconv.Itoa(pid)
	}
	b, err := os.ReadFile("/proc/" + name + "/mountinfo")
	if err != nil {
		return nil, err
	}
	all := map[string]mounted{}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range bytes.Lines(b) {
		left, right, _ := strings.Cut(string(line), " - ")
		f, tail := strings.Fields(left), strings.Fields(right)
		if len(f) > 4 && len(tail) > 0 {
			all[unescape.Replace(f[4])] = mounted{f[2], tail[0]}
		}
	}
	return all, nil
}

// startTime is when a process started, in clock ticks since boot; zero if there is no such process, or it has ended and nobody
// has asked how.
func startTime(pid int) uint64 {
	if pid <= 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; the fields after it are fixed.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64)
	return n
}
