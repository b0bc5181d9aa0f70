// Package cgroup keeps the control groups of local machines, on version 1,
// version 2 and the hybrid of both.
//
// Each machine has a parent group, which holds its limits, and below it a child
// named box, which becomes the root of the machine's own cgroup namespace. Root
// in the machine may write in box and below; the parent it cannot even name, so
// whatever it writes, the parent's limits stay.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Box is the name of the group that a machine sees as its root.
const Box = "box"

// Limits bound a machine. Zero means unbounded.
type Limits struct {
	MilliCPU int64
	Memory   int64 // bytes, swap included
	Pids     int64
}

// Tree is the groups of one provider: a directory of the same name in every
// hierarchy. Its methods may be called concurrently for different machines.
type Tree struct {
	name        string
	hierarchies []hierarchy
}

// hierarchy is one mounted cgroup file system.
type hierarchy struct {
	dir         string   // mount point
	controllers []string // of version 1; a named hierarchy has "name=…"
	v2          bool
}

// Open finds the hierarchies of this host. It makes nothing.
func Open(name string) (*Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot find the control groups: %w", err)
	}
	defer f.Close()
	t := &Tree{name: name, hierarchies: parseMounts(f)}
	for _, c := range []string{"memory", "pids"} {
		if !t.has(c) {
			return nil, fmt.Errorf("cannot limit machines: no control group hierarchy offers %q; "+
				"mount cgroup2 at /sys/fs/cgroup, or the version 1 hierarchies below it", c)
		}
	}
	return t, nil
}

// parseMounts reads the cgroup mounts out of mountinfo, each set of controllers once.
func parseMounts(r io.Reader) []hierarchy {
	var found []hierarchy
	seen := map[string]bool{}
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		left, right, ok := strings.Cut(scan.Text(), " - ")
		fields, tail := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		h := hierarchy{dir: unescape(fields[4])}
		switch tail[0] {
		case "cgroup2":
			h.v2 = true
		case "cgroup":
			for o := range strings.SplitSeq(tail[2], ",") {
				if o != "rw" && o != "ro" && o != "none" && o != "xattr" && !strings.HasPrefix(o, "release_agent=") {
					h.controllers = append(h.controllers, o)
				}
			}
		default:
			continue
		}
		key := strings.Join(h.controllers, ",")
		if !seen[key] {
			seen[key] = true
			found = append(found, h)
		}
	}
	return found
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// has reports whether some hierarchy offers a controller.
func (t *Tree) has(controller string) bool {
	for _, h := range t.hierarchies {
		if h.offers(controller) {
			return true
		}
	}
	return false
}

// offers reports whether the hierarchy has a controller.
func (h hierarchy) offers(controller string) bool {
	if !h.v2 {
		return slices.Contains(h.controllers, controller)
	}
	b, _ := os.ReadFile(filepath.Join(h.dir, "cgroup.controllers"))
	return slices.Contains(strings.Fields(string(b)), controller)
}

// Path is the box of a machine as runc wants it: absolute in every hierarchy.
func (t *Tree) Path(machine string) string { return "/" + t.name + "/" + machine + "/" + Box }

// ReadOnly lists what must not be writable in a machine although it is a control group:
// the device rules of version 1.
func ReadOnly() []string { return []string{"/sys/fs/cgroup/devices"} }

// Make makes the parent group of a machine with its limits. Making it again sets them again.
func (t *Tree) Make(machine string, l Limits) error {
	for _, h := range t.hierarchies {
		if err := h.make(t.name, machine, l); err != nil {
			return fmt.Errorf("cannot limit machine %s: %w", machine, err)
		}
	}
	return nil
}

func (h hierarchy) make(name, machine string, l Limits) error {
	root := filepath.Join(h.dir, name)
	dir := filepath.Join(root, machine)
	if !h.v2 {
		if !h.offers("cpu") && !h.offers("memory") && !h.offers("pids") {
			return nil // runc makes what it needs there
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return h.limit1(dir, l)
	}
	wanted := []string{}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if h.offers(c) {
			wanted = append(wanted, c)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{h.dir, root, dir} {
		if err := enable(d, wanted); err != nil {
			return err
		}
	}
	return h.limit2(dir, wanted, l)
}

// enable hands controllers down to a group's children.
func enable(dir string, controllers []string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	have, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(strings.Fields(string(have)), c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return write(file, strings.Join(missing, " "))
}

// period is the span over which processor time is counted; the kernel's default.
const period = 100_000 // µs

// limit1 writes the limits into version 1's files.
func (h hierarchy) limit1(dir string, l Limits) error {
	var files []setting
	if h.offers("cpu") && l.MilliCPU > 0 {
		files = append(files, setting{"cpu.cfs_period_us", strconv.Itoa(period)},
			setting{"cpu.cfs_quota_us", strconv.FormatInt(quota(l.MilliCPU), 10)})
	}
	if h.offers("memory") && l.Memory > 0 {
		bytes := strconv.FormatInt(l.Memory, 10)
		// With swap accounting the sum may not be below the first, so a change needs the
		// right order; a machine's limits never change while it lives.
		files = append(files, setting{"memory.limit_in_bytes", bytes})
		if _, err := os.Stat(filepath.Join(dir, "memory.memsw.limit_in_bytes")); err == nil {
			files = append(files, setting{"memory.memsw.limit_in_bytes", bytes})
		}
	}
	if h.offers("pids") && l.Pids > 0 {
		files = append(files, setting{"pids.max", strconv.FormatInt(l.Pids, 10)})
	}
	return writeAll(dir, files)
}

// limit2 writes the limits into version 2's files.
func (h hierarchy) limit2(dir string, controllers []string, l Limits) error {
	var files []setting
	if slices.Contains(controllers, "cpu") && l.MilliCPU > 0 {
		files = append(files, setting{"cpu.max", fmt.Sprintf("%d %d", quota(l.MilliCPU), period)})
	}
	if slices.Contains(controllers, "memory") && l.Memory > 0 {
		files = append(files, setting{"memory.max", strconv.FormatInt(l.Memory, 10)})
		if _, err := os.Stat(filepath.Join(dir, "memory.swap.max")); err == nil {
			files = append(files, setting{"memory.swap.max", "0"})
		}
	}
	if slices.Contains(controllers, "pids") && l.Pids > 0 {
		files = append(files, setting{"pids.max", strconv.FormatInt(l.Pids, 10)})
	}
	return writeAll(dir, files)
}

// quota is the processor time per period; the kernel takes no less than a millisecond.
func quota(milli int64) int64 { return max(milli*period/1000, 1000) }

type setting struct{ file, value string }

func writeAll(dir string, settings []setting) error {
	for _, s := range settings {
		if err := write(filepath.Join(dir, s.file), s.value); err != nil {
			return err
		}
	}
	return nil
}

// write writes into an existing control file; os.WriteFile would try to create one.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Joinable makes a group without limits and returns the files into which a process writes its number to be in it.
func (t *Tree) Joinable(group string) ([]string, error) {
	var files []string
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.dir, t.name, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if slices.Contains(h.controllers, "cpuset") {
			continue // there a new group takes nobody until it is told of processors
		}
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files, nil
}

// List names the machines that have a group in any hierarchy.
func (t *Tree) List() ([]string, error) {
	var names []string
	for _, h := range t.hierarchies {
		entries, err := os.ReadDir(filepath.Join(h.dir, t.name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	return names, nil
}

// Memory is what a machine uses now, in bytes; zero if that cannot be read.
func (t *Tree) Memory(machine string) int64 {
	for _, h := range t.hierarchies {
		name := "memory.usage_in_bytes"
		if h.v2 {
			name = "memory.current"
		}
		b, err := os.ReadFile(filepath.Join(h.dir, t.name, machine, name))
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			return n
		}
	}
	return 0
}

// Kill ends every process of a machine and waits until none is left or ctx ends.
func (t *Tree) Kill(ctx context.Context, machine string) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		left, err := t.killOnce(machine)
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot end machine %s: %d processes are still there: %w", machine, left, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// killOnce sends SIGKILL to all there are, and says how many that were. Where there is a freezer
// they are frozen meanwhile, so that none forks past us and no number is used anew.
func (t *Tree) killOnce(machine string) (int, error) {
	t.freeze(machine, frozen)
	defer t.freeze(machine, thawed)
	seen := map[int]bool{}
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.dir, t.name, machine)
		if h.v2 {
			_ = write(filepath.Join(dir, "cgroup.kill"), "1") // absent before Linux 5.14
		}
		for _, pid := range processes(dir) {
			seen[pid] = true
		}
	}
	for pid := range seen {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return len(seen), fmt.Errorf("cannot end process %d of machine %s: %w", pid, machine, err)
		}
	}
	return len(seen), nil
}

// freeze stops or resumes a machine's processes where version 1's freezer is there. A machine may have frozen
// groups of its own, which a signal does not reach: resuming goes down to each.
func (t *Tree) freeze(machine, state string) {
	for _, h := range t.hierarchies {
		if !h.offersFreezer() {
			continue
		}
		top := filepath.Join(h.dir, t.name, machine)
		if state == frozen {
			_ = write(filepath.Join(top, "freezer.state"), state)
			continue
		}
		_ = filepath.WalkDir(top, func(dir string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = write(filepath.Join(dir, "freezer.state"), state) // groups may vanish while we look
			}
			return nil
		})
	}
}

const (
	frozen = "FROZEN"
	thawed = "THAWED"
)

func (h hierarchy) offersFreezer() bool { return !h.v2 && slices.Contains(h.controllers, "freezer") }

// processes lists those of a group and all below it.
func processes(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // groups may vanish while we look
		}
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// Remove removes the groups of a machine, children first. Its processes must have ended;
// the kernel may need a moment to see that, which is waited for until ctx ends.
func (t *Tree) Remove(ctx context.Context, machine string) error {
	for _, h := range t.hierarchies {
		if err := remove(ctx, filepath.Join(h.dir, t.name, machine)); err != nil {
			return fmt.Errorf("cannot remove the control groups of machine %s: %w", machine, err)
		}
	}
	return nil
}

func remove(ctx context.Context, dir string) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := removeOnce(dir)
		if err == nil || !errors.Is(err, unix.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// removeOnce removes a group and those below it.
func removeOnce(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeOnce(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// Close removes the provider's own group where no machine is left in it.
func (t *Tree) Close() error {
	for _, h := range t.hierarchies {
		err := unix.Rmdir(filepath.Join(h.dir, t.name))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cannot remove control group %s: %w", filepath.Join(h.dir, t.name), err)
		}
	}
	return nil
}
