package cgroups

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// None reports whether g is the zero Group.
func (g Group) None() bool { return g.t == nil }

func (g Group) dir(h hierarchy) string { return filepath.Join(h.dir, g.rel) }

// Files are those to which a starting process writes its own pid.
func (g Group) Files() []string {
	if g.t == nil {
		return nil
	}
	var out []string
	for _, h := range g.t.hierarchies {
		out = append(out, filepath.Join(g.dir(h), "cgroup.procs"))
	}
	return out
}

// Add moves a process into the group.
func (g Group) Add(pid int) error {
	for _, f := range g.Files() {
		if err := write(f, strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("cannot put process %d into its control group: %w", pid, err)
		}
	}
	return nil
}

// Spawn calls fork so that the process it starts is born in the group. The calling goroutine must be locked to its
// thread unless the group Stays, where fork is called on another. fork is to use attr, which Spawn adds to; it is not kept.
func (g Group) Spawn(attr *syscall.SysProcAttr, fork func() error) error {
	if g.t == nil {
		return fork()
	}
	if g.Stays() {
		return g.slot.station.do(fork)
	}
	moved := 0
	var err error
	for _, h := range g.t.hierarchies {
		if h.v2 {
			var fd int
			if fd, err = unix.Open(g.dir(h), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
				defer unix.Close(fd)
				attr.UseCgroupFD, attr.CgroupFD = true, fd
			}
		} else {
			err = g.write(h, "tasks", "0") // 0: the thread that writes
		}
		if err != nil {
			break
		}
		moved++
	}
	if err == nil {
		err = fork()
	} else {
		err = fmt.Errorf("cannot enter control group %s: %w", g.rel, err)
	}
	for _, h := range g.t.hierarchies[:moved] {
		if !h.v2 {
			err = errors.Join(err, g.t.goHome(h))
		}
	}
	return err
}

// goHome takes the calling thread back to where its process is.
func (t *Tree) goHome(h hierarchy) error {
	err := t.enter(h.home)
	if err != nil && h.home != h.dir {
		err = t.enter(h.dir)
	}
	return err
}

// enter moves the calling thread into a group that stays. The file is kept open.
func (t *Tree) enter(dir string) error {
	path := filepath.Join(dir, "tasks")
	t.mu.Lock()
	fd, ok := t.doors[path]
	t.mu.Unlock()
	if !ok {
		var err error
		if fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		t.mu.Lock()
		t.doors[path] = fd
		t.mu.Unlock()
	}
	if _, err := unix.Pwrite(fd, []byte("0"), 0); err != nil { // 0: the thread that writes
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Pids lists the group's processes.
func (g Group) Pids() ([]int, error) {
	if g.t == nil {
		return nil, nil
	}
	// A process is in the group of each hierarchy, unless somebody moved it; one is asked.
	return others(processes(g.dir(g.t.hierarchies[0]))), nil
}

// processes lists those of a group.
func processes(dir string) []int {
	var pids []int
	fd, err := unix.Open(filepath.Join(dir, "cgroup.procs"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var b strings.Builder
	for buf := make([]byte, 4096); ; {
		n, err := unix.Read(fd, buf)
		if n <= 0 || err != nil {
			break
		}
		b.Write(buf[:n])
	}
	for f := range strings.FieldsSeq(b.String()) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killTime is how long Kill waits for processes to be gone. Longer takes one that waits for a file
// server, and that may take for ever.
const killTime = 3 * time.Second

// Kill ends all processes of the group and waits until they are gone, for some seconds at most.
func (g Group) Kill() error {
	if g.t == nil {
		return nil
	}
	g.spoil()
	g.stopForks()
	deadline := time.Now().Add(killTime)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		left := g.signal(unix.SIGKILL)
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return shoal.Errorf(shoal.KindUnavailable, "cannot end %d processes of control group %s: they do not go away", left, g.rel)
		}
		time.Sleep(wait)
	}
}

// stopForks keeps the processes of the group from starting others.
func (g Group) stopForks() {
	for _, h := range g.t.hierarchies {
		if h.v2 {
			_ = write(filepath.Join(g.dir(h), "cgroup.kill"), "1") // absent before Linux 5.14
		}
		if h.has("pids") {
			_ = write(filepath.Join(g.dir(h), "pids.max"), "0") // without it the signals reach them all the same, later
		}
	}
}

// Signal sends a signal to all processes of the group.
func (g Group) Signal(sig syscall.Signal) {
	if g.t != nil {
		g.signal(sig)
	}
}

// signal says how many processes there were.
func (g Group) signal(sig syscall.Signal) int {
	n := 0
	for _, h := range g.t.hierarchies {
		pids := others(processes(g.dir(h)))
		for _, pid := range pids {
			_ = unix.Kill(pid, sig) // what has just ended is as well
		}
		n = max(n, len(pids))
	}
	return n
}

// Weaken leaves the group the least share of the processor, and its slice as well if nobody else is in it: what has
// to go does not slow down who comes. The slice weighs as before once its user gets another leaf.
func (g Group) Weaken() error {
	if g.t == nil {
		return nil
	}
	g.spoil()
	var failed error
	for _, h := range g.t.hierarchies {
		if !h.has("cpu") {
			continue
		}
		dir := g.dir(h)
		failed = errors.Join(failed, h.set(dir, weight(h, 0)))
		if slice := filepath.Dir(dir); h.onlyWeak(slice) {
			failed = errors.Join(failed, h.set(slice, weight(h, 0)))
		}
	}
	g.t.mu.Lock()
	delete(g.t.slices, g.uid())
	g.t.mu.Unlock()
	return failed
}

// onlyWeak reports whether all groups of a slice that have processes have the least share.
func (h hierarchy) onlyWeak(slice string) bool {
	entries, err := os.ReadDir(slice)
	if err != nil {
		return false
	}
	for _, e := range entries {
		dir := filepath.Join(slice, e.Name())
		least := weight(h, 0)[0]
		if e.IsDir() && number(read(filepath.Join(dir, least.file))) > number(least.value) && len(others(processes(dir))) > 0 {
			return false
		}
	}
	return true
}

// Usage reads what was used.
func (g Group) Usage() (Usage, error) {
	var u Usage
	if g.t == nil {
		return u, nil
	}
	for _, h := range g.t.hierarchies {
		if h.has("memory") {
			peak, events := "memory.max_usage_in_bytes", "memory.oom_control"
			if h.v2 {
				peak, events = "memory.peak", "memory.events"
			}
			u.MaxMemory = shoal.Bytes(number(g.read(h, peak)))
			u.OOMKilled = field(g.read(h, events), "oom_kill") > 0
		}
		if used, ok := h.spent(func(name string) string { return g.read(h, name) }); ok {
			u.CPU = used
		}
	}
	if g.slot != nil {
		g.slot.oom = g.slot.oom || u.OOMKilled
		g.slot.cpu = u.CPU
		u.CPU -= g.slot.before
	}
	return u, nil
}

// spent is the processor time that a group has used, if this hierarchy counts it. read reads a file of the group.
func (h hierarchy) spent(read func(name string) string) (time.Duration, bool) {
	switch {
	case h.v2:
		return time.Duration(field(read("cpu.stat"), "usage_usec")) * time.Microsecond, true
	case h.has("cpuacct"):
		return time.Duration(number(read("cpuacct.usage"))), true
	}
	return 0, false
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(s), 10, 64) // a file that is not there reads as nothing used
	return n
}

// field finds "name value" among lines.
func field(lines, name string) int64 {
	for l := range strings.Lines(lines) {
		if v, ok := strings.CutPrefix(l, name+" "); ok {
			return number(v)
		}
	}
	return 0
}

// Remove removes the group. Its processes must have ended; if some have not, the error is EBUSY.
func (g Group) Remove() error {
	if g.t == nil {
		return nil
	}
	if g.slot != nil {
		g.slot.station.leave()
		g.slot.close()
	}
	var failed error
	for _, h := range g.t.hierarchies {
		if err := rmdir(g.dir(h)); err != nil {
			failed = errors.Join(failed, err)
			if errors.Is(err, unix.EBUSY) {
				break // the rest is busy as well, and Usage still reads it
			}
		}
	}
	return failed
}
