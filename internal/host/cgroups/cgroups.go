package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Names of groups.
const (
	systemName = "system"
	loginName  = "login"
)

// Config says where groups are made.
type Config struct {
	// Parent is the group below which all are made, relative to each hierarchy's root; empty: the root itself.
	Parent string `json:"parent,omitempty"`
	// Memory is the machine's; zero: what the kernel says.
	Memory shoal.Bytes `json:"memory,omitempty"`
	// Pids is how many processes and threads a user may have; zero: half of what a local machine has.
	Pids int `json:"pids,omitempty"`
	// Devices: tasks may be kept from devices, see Group.Deny.
	Devices bool `json:"devices,omitempty"`
}

// Tree is the groups of one machine. Its methods may be called concurrently, by several processes too.
type Tree struct {
	cfg         Config
	memory      int64 // of the machine; zero: unknown
	hierarchies []hierarchy

	mu       sync.Mutex
	slices   map[int]bool    // those made already
	free     map[int][]Group // slots that were given back, by user
	slots    int             // counts those made, which makes their names
	doors    map[string]int  // open files by which threads come back
	stations int             // threads that stay in slots
}

// Group is one leaf. The zero Group is none: its methods do nothing.
type Group struct {
	t    *Tree
	rel  string // below Parent
	slot *slot  // nil: its name is the task's
}

// Usage is what the processes of a group have used.
type Usage struct {
	MaxMemory shoal.Bytes
	CPU       time.Duration
	OOMKilled bool // some process was ended for want of memory
}

// Open finds out whether groups can be made here, and hands controllers down. An error says why not; the
// caller then goes on with a nil Tree.
func Open(cfg Config) (*Tree, error) {
	found, err := find(cfg)
	if err != nil {
		return nil, err
	}
	t := &Tree{cfg: cfg, slices: map[int]bool{}, free: map[int][]Group{}, doors: map[string]int{}}
	var why error
	for _, h := range found {
		if err := h.open(); err != nil {
			why = errors.Join(why, err)
			continue
		}
		t.hierarchies = append(t.hierarchies, h)
	}
	if len(t.hierarchies) == 0 {
		if why == nil {
			why = errors.New("no hierarchy offers cpu, memory or pids")
		}
		return nil, shoal.Errorf(shoal.KindUnavailable, "cannot give users slices of the machine: %w", why).
			WithHint("mount the control groups of the machine so that its root may write to them")
	}
	t.memory = int64(cfg.Memory)
	if t.memory == 0 {
		t.memory = t.visibleMemory()
	}
	return t, nil
}

// Config returns what the Tree was opened with, for another process.
func (t *Tree) Config() *Config {
	if t == nil {
		return nil
	}
	c := t.cfg
	return &c
}

// Offers reports whether a controller (cpu, memory, pids) is in effect.
func (t *Tree) Offers(controller string) bool {
	if t == nil {
		return false
	}
	for _, h := range t.hierarchies {
		if h.has(controller) {
			return true
		}
	}
	return false
}

// Settle moves the processes of the machine's root group into a leaf, as version 2 wants it. The first process
// calls it before it starts others. It is an error of the machine, not of the caller, if it fails: users then
// have no slices.
func Settle(cfg Config) error {
	found, err := find(cfg)
	if err != nil {
		return err
	}
	for _, h := range found {
		if !h.v2 {
			continue
		}
		dir := filepath.Join(h.dir, systemName)
		if err := mkdir(dir); err != nil {
			return fmt.Errorf("cannot make room for users: %w", err)
		}
		for _, pid := range processes(h.dir) {
			err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("cannot make room for users: %w", err)
			}
		}
	}
	return nil
}

// User returns the leaf for a user's logins; it is made if need be.
func (t *Tree) User(uid int) (Group, error) {
	if t == nil {
		return Group{}, nil
	}
	if err := t.slice(uid, 0); err != nil {
		return Group{}, err
	}
	return Group{t: t, rel: filepath.Join(sliceName(uid), loginName)}, nil
}

// Task makes the leaf of a task. name must do as a file's name and differ between live tasks of the user.
func (t *Tree) Task(uid int, name string, r shoal.Resources) (Group, error) {
	if t == nil {
		return Group{}, nil
	}
	if name == "" || name == loginName || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return Group{}, shoal.Errorf(shoal.KindInvalid, "cannot name a control group %q", name)
	}
	g := Group{t: t, rel: filepath.Join(sliceName(uid), name)}
	if err := t.slice(uid, int64(r.Memory)); err != nil {
		return Group{}, err
	}
	err := t.makeLeaf(g.rel, r)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the slice
		t.mu.Lock()
		delete(t.slices, uid)
		t.mu.Unlock()
		if err = t.slice(uid, int64(r.Memory)); err == nil {
			err = t.makeLeaf(g.rel, r)
		}
	}
	if err != nil {
		return Group{}, fmt.Errorf("cannot limit task %s: %w", name, errors.Join(err, g.Remove()))
	}
	return g, nil
}

// Find returns the leaf of a task that was made before, perhaps by another process.
func (t *Tree) Find(uid int, name string) Group {
	if t == nil {
		return Group{}
	}
	return Group{t: t, rel: filepath.Join(sliceName(uid), name)}
}

func sliceName(uid int) string { return "u" + strconv.Itoa(uid) }

// slice makes the slice of a user, with its leaf for logins. atLeast is memory it must allow.
func (t *Tree) slice(uid int, atLeast int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slices[uid] && atLeast <= t.userMemory() {
		return nil
	}
	rel := sliceName(uid)
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.dir, rel)
		err := mkdir(dir)
		if err == nil && h.v2 {
			err = enable(dir, h.controllers)
		}
		if err == nil {
			err = h.set(dir, t.sliceSettings(h, atLeast))
		}
		login := filepath.Join(dir, loginName)
		if err == nil {
			err = mkdir(login)
		}
		if err == nil {
			err = h.set(login, weight(h, loginWeight))
		}
		if err != nil {
			return fmt.Errorf("cannot make the slice of uid %d: %w", uid, err)
		}
	}
	t.slices[uid] = true
	return nil
}

func (t *Tree) makeLeaf(rel string, r shoal.Resources) error {
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.dir, rel)
		if err := unix.Mkdir(dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err := h.set(dir, t.taskSettings(h, r)); err != nil {
			return err
		}
	}
	return nil
}

// Prune removes slices in which nothing runs.
func (t *Tree) Prune() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var failed error
	for _, h := range t.hierarchies {
		entries, err := os.ReadDir(h.dir)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		for _, e := range entries {
			uid, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "u"))
			if err != nil || !strings.HasPrefix(e.Name(), "u") || !e.IsDir() {
				continue
			}
			delete(t.slices, uid) // it may be half removed now
			if err := prune(filepath.Join(h.dir, e.Name())); err != nil {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// prune removes a slice if nothing is in it. Leaves of tasks are theirs to remove.
func prune(dir string) error {
	err := rmdir(filepath.Join(dir, loginName))
	if err == nil {
		err = rmdir(dir)
	}
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// rmdir removes a group; one that is gone already is as well.
func rmdir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot remove %s: %w", dir, err)
	}
	return nil
}

func mkdir(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	return nil
}

// write writes into an existing control file; os.WriteFile would try to create one, and an *os.File costs more.
func write(file, value string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// read reads a control file, which is short, or empty if it is not there.
func read(file string) string {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, _ := unix.Read(fd, buf)
	return string(buf[:max(n, 0)])
}
