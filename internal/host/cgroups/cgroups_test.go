package cgroups

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// testTree makes a tree below a group of the test's own, which is gone afterwards.
func testTree(t testing.TB, cfg Config) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("control groups are root's")
	}
	cfg.Parent = fmt.Sprintf("shoal-cgroups-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	tree, err := Open(cfg)
	if err != nil {
		t.Skipf("no control groups here: %v", err)
	}
	t.Cleanup(func() { removeAll(t, tree) })
	return tree
}

// unifiedTree is one on the version 2 hierarchy alone, whatever controllers that has.
func unifiedTree(t testing.TB) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("control groups are root's")
	}
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if read(filepath.Join(mount, "cgroup.procs")) == "" || read(filepath.Join(mount, "cgroup.subtree_control")) == "" &&
			!exists(filepath.Join(mount, "cgroup.subtree_control")) {
			continue
		}
		h := hierarchy{dir: filepath.Join(mount, fmt.Sprintf("shoal-cgroups-test-%d", os.Getpid())), v2: true}
		if err := h.open(); err != nil {
			t.Skipf("no version 2 here: %v", err)
		}
		tree := &Tree{hierarchies: []hierarchy{h}, slices: map[int]bool{}}
		t.Cleanup(func() { removeAll(t, tree) })
		return tree
	}
	t.Skip("version 2 is not mounted")
	return nil
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func removeAll(t testing.TB, tree *Tree) {
	t.Helper()
	for _, h := range tree.hierarchies {
		var dirs []string
		_ = filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, d := range slices.Backward(dirs) {
			if err := unix.Rmdir(d); err != nil {
				t.Errorf("%s stays: %v", d, err)
			}
		}
	}
}

// start starts a program in a group as Spawn does it.
func start(t testing.TB, g Group, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- g.Spawn(cmd.SysProcAttr, cmd.Start)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func both(t *testing.T, f func(t *testing.T, tree *Tree)) {
	t.Run("all", func(t *testing.T) { f(t, testTree(t, Config{})) })
	t.Run("unified", func(t *testing.T) { f(t, unifiedTree(t)) })
}

func TestSpawnedProcessesAreInTheGroupAndTheThreadIsNot(t *testing.T) {
	both(t, func(t *testing.T, tree *Tree) {
		before := read("/proc/self/cgroup")
		g, err := tree.Task(20001, "17.0.1", shoal.Resources{})
		if err != nil {
			t.Fatal(err)
		}
		cmd := start(t, g, "sleep", "1000")
		for _, h := range tree.hierarchies {
			if got := processes(g.dir(h)); !slices.Equal(got, []int{cmd.Process.Pid}) {
				t.Errorf("in %s are %v, want %d", g.dir(h), got, cmd.Process.Pid)
			}
		}
		if after := read("/proc/self/cgroup"); after != before {
			t.Errorf("we are elsewhere:\n%s", after)
		}
		if err := g.Remove(); !errors.Is(err, unix.EBUSY) {
			t.Errorf("removing a group with a process: %v", err)
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
		if err := g.Remove(); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := tree.Prune(); err != nil {
			t.Error(err)
		}
		if entries, _ := filepath.Glob(filepath.Join(tree.hierarchies[0].dir, "u*")); len(entries) != 0 {
			t.Errorf("slices stay: %v", entries)
		}
		// A slice that was removed behind our back is made anew.
		if g, err = tree.Task(20001, "17.0.2", shoal.Resources{}); err != nil {
			t.Fatal(err)
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
}

func TestKillEndsWhatForksAndWhatIgnoresSignals(t *testing.T) {
	both(t, func(t *testing.T, tree *Tree) {
		g, err := tree.Task(20001, "bomb", shoal.Resources{})
		if err != nil {
			t.Fatal(err)
		}
		start(t, g, "sh", "-c", "trap '' TERM HUP; for i in 1 2 3; do (while :; do sleep 0.01; done) & done; setsid sleep 1000 & wait")
		for len(must(g.Pids())) < 5 {
			time.Sleep(time.Millisecond)
		}
		if err := g.Kill(); err != nil {
			t.Fatal(err)
		}
		if pids := must(g.Pids()); len(pids) != 0 {
			t.Errorf("left: %v", pids)
		}
		for err = g.Remove(); errors.Is(err, unix.EBUSY); err = g.Remove() {
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestUserLeafTakesARunningProcess(t *testing.T) {
	tree := testTree(t, Config{})
	g, err := tree.User(20002)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if got := must(g.Pids()); !slices.Equal(got, []int{cmd.Process.Pid}) {
		t.Errorf("pids %v", got)
	}
	if err := tree.Prune(); err != nil {
		t.Errorf("pruning with a process there: %v", err)
	}
	if len(must(g.Pids())) != 1 {
		t.Error("the group is gone")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := tree.Prune(); err != nil {
		t.Error(err)
	}
}

func TestMemoryHogIsEndedAloneAndIsSeen(t *testing.T) {
	tree := testTree(t, Config{})
	if !tree.Offers("memory") {
		t.Skip("no memory controller")
	}
	hog, err := tree.Task(20001, "hog", shoal.Resources{Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	other, err := tree.Task(20001, "other", shoal.Resources{Memory: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	calm := start(t, other, "sleep", "1000")
	cmd := start(t, hog, "tail", "/dev/zero")
	if err := cmd.Wait(); err == nil {
		t.Error("the hog ended well")
	}
	u, err := hog.Usage()
	if err != nil || !u.OOMKilled || u.MaxMemory < 16<<20 || u.MaxMemory > 33<<20 || u.CPU <= 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if u, _ := other.Usage(); u.OOMKilled {
		t.Error("the other was hit")
	}
	if err := calm.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error(err)
	}
	_ = calm.Process.Kill()
	_ = calm.Wait()
	for _, g := range []Group{hog, other} {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
	_ = tree.Prune()
}

func TestSettings(t *testing.T) {
	tree := &Tree{memory: 1 << 30}
	one := hierarchy{controllers: []string{"cpu", "memory", "pids"}}
	two := hierarchy{controllers: []string{"cpu", "memory", "pids"}, v2: true}
	words := func(s []setting) (out []string) {
		for _, x := range s {
			out = append(out, x.file+"="+x.value)
		}
		return out
	}
	r := shoal.Resources{CPUs: 2500, Memory: 256 << 20}
	for _, c := range []struct {
		name      string
		got, want []string
	}{
		{"slice v1", words(tree.sliceSettings(one, 0)), []string{"cpu.shares=1024", "memory.memsw.limit_in_bytes=1006632960", "memory.limit_in_bytes=1006632960", "memory.memsw.limit_in_bytes=1006632960", "pids.max=4096"}},
		{"slice v2", words(tree.sliceSettings(two, 0)), []string{"cpu.weight=100", "memory.max=1006632960", "memory.swap.max=0", "pids.max=4096"}},
		{"slice for a large task", words(tree.sliceSettings(two, 1<<30)), []string{"cpu.weight=100", "memory.max=1073741824", "memory.swap.max=0", "pids.max=4096"}},
		{"task v1", words(tree.taskSettings(one, r)), []string{"cpu.shares=2560", "memory.memsw.limit_in_bytes=268435456", "memory.limit_in_bytes=268435456", "memory.memsw.limit_in_bytes=268435456", "pids.max=3072"}},
		{"task v2", words(tree.taskSettings(two, r)), []string{"cpu.weight=250", "memory.max=268435456", "memory.swap.max=0", "pids.max=3072"}},
		{"task without limits", words(tree.taskSettings(two, shoal.Resources{})), []string{"cpu.weight=100", "pids.max=1024"}},
		{"no cpu", words(weight(hierarchy{v2: true}, 1000)), nil},
		{"memory unknown", words((&Tree{}).sliceSettings(hierarchy{controllers: []string{"memory"}}, 0)), nil},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

func TestParse(t *testing.T) {
	const mounts = `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 /box /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/my\040memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:36 / /mnt/pids rw - cgroup cgroup rw,pids
garbage
`
	const own = "8:pids:/a/b\n4:memory:/../../x\n2:cpu,cpuacct:/box/sub\n0::/\n"
	got := parse(strings.NewReader(mounts), own, "p", wanted(Config{}))
	want := []hierarchy{
		{dir: "/sys/fs/cgroup/cpu,cpuacct/p", home: "/sys/fs/cgroup/cpu,cpuacct/sub", controllers: []string{"cpu", "cpuacct"}},
		{dir: "/sys/fs/cgroup/my memory/p", home: "/sys/fs/cgroup/my memory/x", controllers: []string{"memory"}},
		{dir: "/sys/fs/cgroup/pids/p", home: "/sys/fs/cgroup/pids/a/b", controllers: []string{"pids"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(hierarchy{})); diff != "" {
		t.Error(diff)
	}
}

func TestNoTree(t *testing.T) {
	var tree *Tree
	u, err := tree.User(20001)
	task, err2 := tree.Task(20001, "x", shoal.Resources{})
	if err != nil || err2 != nil || !u.None() || !task.None() {
		t.Error(err, err2)
	}
	if err := errors.Join(task.Add(1), task.Kill(), task.Remove(), tree.Prune()); err != nil || len(task.Files()) != 0 {
		t.Error(err)
	}
	forked := false
	if err := task.Spawn(&syscall.SysProcAttr{}, func() error { forked = true; return nil }); err != nil || !forked {
		t.Error("the zero group forks as well")
	}
	for _, name := range []string{"", "login", "a/b", "..", ".x"} {
		if _, err := (&Tree{}).Task(1, name, shoal.Resources{}); err == nil {
			t.Errorf("the name %q is taken", name)
		}
	}
}

func BenchmarkTaskGroup(b *testing.B) {
	tree := testTree(b, Config{})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for b.Loop() {
		g, err := tree.Task(20001, "x", shoal.Resources{CPUs: 1000, Memory: 64 << 20})
		if err == nil {
			err = g.Spawn(&syscall.SysProcAttr{}, func() error { return nil })
		}
		if err == nil {
			_, err = g.Usage()
		}
		if err = errors.Join(err, g.Remove()); err != nil {
			b.Fatal(err)
		}
	}
	_ = tree.Prune()
}
