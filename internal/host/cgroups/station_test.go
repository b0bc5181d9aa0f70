package cgroups

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// slotTree is a tree in whose slots threads stay.
func slotTree(t testing.TB) *Tree {
	t.Helper()
	tree := testTree(t, Config{})
	if slices.ContainsFunc(tree.hierarchies, func(h hierarchy) bool { return h.v2 }) {
		t.Skip("threads stay in groups of version 1 only")
	}
	return tree
}

// spawn starts a shell in a slot, on any thread.
func spawn(t *testing.T, g Group, script string) *exec.Cmd {
	t.Helper()
	if !g.Stays() {
		t.Fatal("no thread stays in the slot")
	}
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := g.Spawn(cmd.SysProcAttr, cmd.Start); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// threadsIn are the threads of this process in a group of some hierarchy.
func threadsIn(tree *Tree, rel string) (n int) {
	for _, h := range tree.hierarchies {
		for f := range strings.FieldsSeq(read(filepath.Join(h.dir, rel, "tasks"))) {
			if exists("/proc/self/task/" + f) {
				n++
			}
		}
	}
	return n
}

// TestAThreadStaysInASlot: what it starts is born there, also after the slot served another; and neither counting nor
// killing takes this process for one of the task's.
func TestAThreadStaysInASlot(t *testing.T) {
	tree := slotTree(t)
	g, err := tree.Slot(20001, shoal.Resources{Memory: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		cmd := spawn(t, g, "exec sleep 1000")
		for len(must(g.Pids())) < 1 {
			time.Sleep(time.Millisecond)
		}
		pids := must(g.Pids())
		if !slices.Contains(pids, cmd.Process.Pid) || slices.Contains(pids, os.Getpid()) {
			t.Errorf("processes %v, of which the first is %d and we are %d", pids, cmd.Process.Pid, os.Getpid())
		}
		for _, h := range tree.hierarchies {
			if got := processes(g.dir(h)); !slices.Contains(got, cmd.Process.Pid) {
				t.Errorf("%v: not there: %v", h.controllers, got)
			}
		}
		if g.Free() {
			t.Fatal("a slot in which something runs is free")
		}
		g.Signal(unix.SIGTERM)
		_ = cmd.Wait()
		for len(must(g.Pids())) > 0 {
			time.Sleep(time.Millisecond)
		}
		if u, err := g.Usage(); err != nil || u.CPU <= 0 {
			t.Errorf("usage %+v, %v", u, err)
		}
		for deadline := time.Now().Add(time.Minute); !g.Free(); time.Sleep(time.Millisecond) { // orphans are reaped by others
			if time.Now().After(deadline) {
				t.Fatal("a slot in which nothing runs is not free")
			}
		}
		again, err := tree.Slot(20001, shoal.Resources{Memory: 64 << 20})
		if err != nil || again.Name() != g.Name() {
			t.Fatal("another slot:", again.Name(), err)
		}
		g = again
	}
	if n := threadsIn(tree, g.rel); n != len(tree.hierarchies) {
		t.Errorf("in %d hierarchies there are %d threads of ours", len(tree.hierarchies), n)
	}
	cmd := spawn(t, g, "trap '' TERM; while :; do sleep 0.01; done")
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if g.Free() {
		t.Error("a slot is free whose limits are not what they were")
	}
	rel := g.rel
	for err = g.Remove(); err != nil; err = g.Remove() {
		time.Sleep(time.Millisecond)
	}
	if n := threadsIn(tree, rel); n != 0 {
		t.Errorf("%d threads stayed", n)
	}
	if n := tree.stations; n != 0 {
		t.Errorf("%d threads are counted", n)
	}
}

// TestMemoryHogInASlotEndsAlone: the kernel ends the hog, not the process of the thread that stays there.
func TestMemoryHogInASlotEndsAlone(t *testing.T) {
	tree := slotTree(t)
	if !tree.Offers("memory") {
		t.Skip("no memory controller")
	}
	g, err := tree.Slot(20001, shoal.Resources{Memory: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	held := make([]byte, 64<<20) // ours are charged elsewhere
	for i := range held {
		held[i] = 1
	}
	cmd := spawn(t, g, "exec tail /dev/zero")
	if err := cmd.Wait(); err == nil {
		t.Error("the hog ended well")
	}
	if u, err := g.Usage(); err != nil || !u.OOMKilled || u.MaxMemory > 17<<20 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if g.Free() {
		t.Error("a slot is free in which memory was short")
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

// TestTheFirstThreadStaysWhereItIs: with it the memory of the whole process would be charged to a task.
func TestTheFirstThreadStaysWhereItIs(t *testing.T) {
	tree := slotTree(t)
	before := read("/proc/self/cgroup")
	var groups []Group
	for range 50 {
		g, err := tree.Slot(20001, shoal.Resources{})
		if err != nil || !g.Stays() {
			t.Fatal(g.Name(), err)
		}
		groups = append(groups, g)
	}
	if after := read("/proc/self/cgroup"); after != before {
		t.Errorf("we are elsewhere:\n%s", after)
	}
	for _, g := range groups {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// TestSlotsBeyondTheThreads: with as many threads as there may be, a slot does without one.
func TestSlotsBeyondTheThreads(t *testing.T) {
	tree := slotTree(t)
	tree.stations = maxStations
	g, err := tree.Slot(20001, shoal.Resources{})
	if err != nil || g.Stays() {
		t.Fatal("a thread too many", err)
	}
	cmd := start(t, g, "sleep", "1000")
	if got := must(g.Pids()); !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("processes %v", got)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !g.Free() {
		t.Error("the slot is not free")
	}
	if err := tree.Trim(); err != nil {
		t.Error(err)
	}
}
