package cgroups

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// slot is a leaf that one task after another uses. To make and remove a group costs the kernel more than all else
// that a task which does nothing needs (0.2 ms on version 1).
type slot struct {
	r       shoal.Resources // its limits
	before  time.Duration   // of the processor, used by tasks before
	cpu     time.Duration   // as read last
	oom     bool            // a process was ended for want of memory
	spoiled bool            // its limits are not what they were
	files   map[string]int  // descriptors of control files that each task needs
	station *station        // nil: none
}

// file opens a control file of a slot, or returns it as it was opened before: that costs more than reading it.
func (s *slot) file(path string) (int, error) {
	if fd, ok := s.files[path]; ok {
		return fd, nil
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EROFS) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	s.files[path] = fd
	return fd, nil
}

// close lets go of all files.
func (s *slot) close() {
	for _, fd := range s.files {
		_ = unix.Close(fd)
	}
	clear(s.files)
}

// read reads a control file of the group.
func (g Group) read(h hierarchy, name string) string {
	path := g.dir(h) + "/" + name
	if g.slot == nil {
		return read(path)
	}
	fd, err := g.slot.file(path)
	if err != nil {
		return ""
	}
	var buf [4096]byte
	n, _ := unix.Pread(fd, buf[:], 0)
	return string(buf[:max(n, 0)])
}

// write writes into a control file of the group.
func (g Group) write(h hierarchy, name, value string) error {
	path := filepath.Join(g.dir(h), name)
	if g.slot == nil {
		return write(path, value)
	}
	fd, err := g.slot.file(path)
	if err == nil {
		_, err = unix.Pwrite(fd, []byte(value), 0)
	}
	return err
}

const (
	slotPrefix = "t"
	maxFree    = 32 // slots of a user that wait for a task
	// maxRest is what may be charged to a slot that is used again. The kernel hands memory out to each processor in
	// pieces of 256 KiB, so a little always stays.
	maxRest = 1 << 20
)

// Slot is as Task for a task that nobody has to find by its name: the leaf may have served others of the user, and
// may serve more once Free has taken it back.
func (t *Tree) Slot(uid int, r shoal.Resources) (Group, error) {
	if t == nil {
		return Group{}, nil
	}
	t.mu.Lock()
	var g Group
	free := t.free[uid]
	for i := len(free) - 1; i >= 0; i-- {
		if free[i].slot.r == r {
			g, free[i] = free[i], free[len(free)-1]
			t.free[uid] = free[:len(free)-1]
			break
		}
	}
	t.mu.Unlock()
	if g.t == nil {
		return t.newSlot(uid, r)
	}
	return g, t.slice(uid, int64(r.Memory)) // it may have been weakened
}

func (t *Tree) newSlot(uid int, r shoal.Resources) (Group, error) {
	for {
		t.mu.Lock()
		t.slots++
		name := slotPrefix + strconv.Itoa(t.slots)
		t.mu.Unlock()
		rel := filepath.Join(sliceName(uid), name)
		if t.there(rel) { // of one who was killed
			continue
		}
		g, err := t.Task(uid, name, r)
		g.slot = &slot{r: r, files: map[string]int{}}
		if err == nil {
			g.slot.station = t.station(g)
		}
		return g, err
	}
}

func (t *Tree) there(rel string) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(t.hierarchies[0].dir, rel), &st) == nil
}

// Free takes a slot back for other tasks of its user, if nothing runs in it any more and nothing of the last one is
// left that the next could be charged with. Else, and for what is no slot, it returns false: the leaf is to be removed.
func (g Group) Free() bool {
	s := g.slot
	if s == nil || s.spoiled || s.oom {
		return false
	}
	var ours int64
	if g.Stays() {
		ours = 1
	}
	for _, h := range g.t.hierarchies {
		switch {
		case h.v2: // until its peak of memory can be begun anew everywhere
			return false
		case h.has("pids") && number(g.read(h, "pids.current")) != ours:
			return false
		case h.has("memory"):
			if number(g.read(h, "memory.usage_in_bytes")) > maxRest || g.write(h, "memory.max_usage_in_bytes", "0") != nil {
				return false
			}
		}
	}
	if !g.t.Offers("pids") && len(others(processes(g.dir(g.t.hierarchies[0])))) > 0 {
		return false
	}
	s.before = s.cpu
	uid := g.uid()
	g.t.mu.Lock()
	list := append(g.t.free[uid], g)
	var old Group // of other limits, probably, or nobody needs so many
	if len(list) > maxFree {
		old, list = list[0], list[1:]
	}
	g.t.free[uid] = list
	g.t.mu.Unlock()
	_ = old.Remove() // what stays is found by Prune
	return true
}

// Trim removes the slots that wait for a task.
func (t *Tree) Trim() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	free := t.free
	t.free = map[int][]Group{}
	t.mu.Unlock()
	var failed error
	for _, list := range free {
		for _, g := range list {
			failed = errors.Join(failed, g.Remove())
		}
	}
	return failed
}

// Sweep removes the empty slots of whoever made them before and is no more. It is called before the first Slot.
func (t *Tree) Sweep() error {
	if t == nil {
		return nil
	}
	var failed error
	for _, h := range t.hierarchies {
		dirs, err := filepath.Glob(filepath.Join(h.dir, "u[0-9]*", slotPrefix+"[0-9]*"))
		failed = errors.Join(failed, err)
		for _, dir := range dirs {
			if err := rmdir(dir); err != nil && !errors.Is(err, unix.EBUSY) {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// spoil notes that a slot must not be used again.
func (g Group) spoil() {
	if g.slot != nil {
		g.slot.spoiled = true
	}
}

// Name is the leaf's, by which Find finds it.
func (g Group) Name() string { return filepath.Base(g.rel) }

// uid is whose slice the leaf is in.
func (g Group) uid() int { return int(number(strings.TrimPrefix(filepath.Dir(g.rel), "u"))) }
