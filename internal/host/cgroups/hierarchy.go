package cgroups

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Weights within a slice, in thousandths of a processor's: logins come before the same user's tasks. Those of slices: see Shares.
const loginWeight = 4000

// Limits of users and tasks.
const (
	defaultPids = 4096
	taskPids    = 1024 // for each processor of a task, or part of one
	// A slice leaves this much of the machine's memory, or an eighth, to the machine's own processes.
	memoryReserve = 64 << 20
)

// hierarchy is one mounted cgroup file system, with the controllers of ours in it.
type hierarchy struct {
	dir         string // the Parent in it
	home        string // version 1: the group this process is in
	v2          bool
	controllers []string // of cpu, cpuacct, memory, pids, devices
}

// wanted are the controllers that we use. Rules for devices have a hierarchy of their own in version 1, which costs every task
// a group more; version 2 needs none.
func wanted(cfg Config) []string {
	if cfg.Devices {
		return []string{"cpu", "cpuacct", "memory", "pids", "devices"}
	}
	return []string{"cpu", "cpuacct", "memory", "pids"}
}

// find lists the hierarchies that hold a controller of ours.
func find(cfg Config) ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot find the control groups: %w", err)
	}
	defer f.Close()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot find the control groups: %w", err)
	}
	return parse(f, string(own), cfg.Parent, wanted(cfg)), nil
}

// parse reads mountinfo and the process's own cgroup file. Of a controller that is mounted twice the first counts.
func parse(mountinfo io.Reader, own, parent string, wanted []string) []hierarchy {
	var found []hierarchy
	var seen []string
	scan := bufio.NewScanner(mountinfo)
	for scan.Scan() {
		left, right, ok := strings.Cut(scan.Text(), " - ")
		fields, tail := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		mount := unescape(fields[4])
		h := hierarchy{dir: filepath.Join(mount, parent)}
		var offered []string
		switch tail[0] {
		case "cgroup2":
			h.v2 = true
			offered = strings.Fields(read(filepath.Join(mount, "cgroup.controllers")))
		case "cgroup":
			offered = strings.Split(tail[2], ",")
			h.home = ownGroup(own, offered, mount, unescape(fields[3]))
		default:
			continue
		}
		for _, c := range wanted {
			if slices.Contains(offered, c) && !slices.Contains(seen, c) {
				h.controllers = append(h.controllers, c)
				seen = append(seen, c)
			}
		}
		if len(h.controllers) > 0 {
			found = append(found, h)
		}
	}
	return found
}

// ownGroup is the directory of the group that /proc/self/cgroup names, the mount itself if it is not to be seen.
func ownGroup(own string, controllers []string, mount, root string) string {
	for line := range strings.Lines(own) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || !slices.Contains(controllers, strings.Split(parts[1], ",")[0]) {
			continue
		}
		if rel, err := filepath.Rel(root, parts[2]); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(mount, rel)
		}
	}
	return mount
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func (h hierarchy) has(controller string) bool { return slices.Contains(h.controllers, controller) }

// open makes the parent, and sees whether groups can be made below it.
func (h hierarchy) open() error {
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return err
	}
	if err := unix.Access(h.dir, unix.W_OK); err != nil {
		return fmt.Errorf("%s: %w", h.dir, err)
	}
	if h.v2 {
		return enable(h.dir, h.controllers)
	}
	return nil
}

// enable hands controllers down to a group's children.
func enable(dir string, controllers []string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	have := strings.Fields(read(file))
	for _, c := range controllers {
		if slices.Contains(have, c) {
			continue
		}
		if err := write(file, "+"+c); err != nil {
			return err
		}
	}
	return nil
}

// setting is a value for a control file. An optional one is for kernels that have the file.
type setting struct {
	file, value string
	optional    bool
}

// set writes settings into the files of a group.
func (h hierarchy) set(dir string, settings []setting) error {
	for _, s := range settings {
		err := write(filepath.Join(dir, s.file), s.value)
		if err != nil && !s.optional {
			return err
		}
	}
	return nil
}

// weight is a share of the processor in thousandths of one.
func weight(h hierarchy, milli int64) []setting {
	switch {
	case !h.has("cpu"):
		return nil
	case h.v2:
		return []setting{{file: "cpu.weight", value: strconv.FormatInt(min(max(milli/10, 1), 10_000), 10)}}
	}
	return []setting{{file: "cpu.shares", value: strconv.FormatInt(min(max(milli*1024/1000, 2), 262_144), 10)}}
}

// sliceSettings are those of a user's slice.
func (t *Tree) sliceSettings(h hierarchy, atLeast int64) []setting {
	s := weight(h, sliceWeight)
	s = append(s, memoryLimit(h, max(t.userMemory(), atLeast))...)
	if h.has("pids") {
		s = append(s, setting{file: "pids.max", value: strconv.Itoa(t.pids())})
	}
	return s
}

// taskSettings are those of a task's leaf.
func (t *Tree) taskSettings(h hierarchy, r shoal.Resources) []setting {
	cpus := int64(r.CPUs)
	if cpus <= 0 {
		cpus = 1000
	}
	s := weight(h, cpus)
	if r.Memory > 0 {
		s = append(s, memoryLimit(h, int64(r.Memory))...)
	}
	if h.has("pids") {
		s = append(s, setting{file: "pids.max", value: strconv.FormatInt(min(int64(t.pids()), taskPids*((cpus+999)/1000)), 10)})
	}
	return s
}

// memoryLimit bounds memory and swap together; zero or less, or no bound, sets nothing.
func memoryLimit(h hierarchy, bytes int64) []setting {
	if !h.has("memory") || bytes <= 0 || bytes == math.MaxInt64 {
		return nil
	}
	value := strconv.FormatInt(bytes, 10)
	if h.v2 {
		return []setting{{file: "memory.max", value: value}, {file: "memory.swap.max", value: "0", optional: true}}
	}
	// The kernel wants memory to be the smaller at every moment: one of the two orders does, whether
	// the limit rises or falls.
	return []setting{{file: "memory.memsw.limit_in_bytes", value: value, optional: true},
		{file: "memory.limit_in_bytes", value: value},
		{file: "memory.memsw.limit_in_bytes", value: value, optional: true}}
}

func (t *Tree) pids() int {
	if t.cfg.Pids > 0 {
		return t.cfg.Pids
	}
	return defaultPids
}

// userMemory is what one user may have, zero if the machine's memory is not known. It is nearly all:
// who is alone shall have the machine. For several see Balance.
func (t *Tree) userMemory() int64 {
	if t.memory == 0 {
		return math.MaxInt64 // all there is: no limit needs to be raised
	}
	return t.memory - min(t.memory/8, memoryReserve)
}

// visibleMemory is the least limit that the kernel shows, or the host's memory.
func (t *Tree) visibleMemory() int64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	total := int64(info.Totalram) * int64(info.Unit)
	for _, h := range t.hierarchies {
		if h.v2 || !h.has("memory") {
			continue
		}
		for line := range strings.Lines(read(filepath.Join(h.dir, "memory.stat"))) {
			if v, ok := strings.CutPrefix(line, "hierarchical_memory_limit "); ok {
				if n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil && n > 0 {
					total = min(total, n)
				}
			}
		}
	}
	return total
}
