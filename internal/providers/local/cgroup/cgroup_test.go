package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	for name, c := range map[string]struct {
		mounts string
		want   []hierarchy
	}{
		"version 2": {"24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			[]hierarchy{{dir: "/sys/fs/cgroup", v2: true}}},
		"version 1": {"31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n" +
			"32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/cpu,cpuacct", controllers: []string{"cpu", "cpuacct"}},
				{dir: "/sys/fs/cgroup/memory", controllers: []string{"memory"}}}},
		"hybrid": {"32 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
			"33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n" +
			"34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
			[]hierarchy{{dir: "/sys/fs/cgroup/pids", controllers: []string{"pids"}},
				{dir: "/sys/fs/cgroup/systemd", controllers: []string{"name=systemd"}}, {dir: "/sys/fs/cgroup/unified", v2: true}}},
		"mounted twice": {"32 30 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
			"40 30 0:28 / /mnt/a\\040b rw - cgroup cgroup rw,pids\n", []hierarchy{{dir: "/sys/fs/cgroup/pids", controllers: []string{"pids"}}}},
		"blanks": {"32 30 0:28 / /mnt/a\\040b rw - cgroup cgroup rw,pids\n", []hierarchy{{dir: "/mnt/a b", controllers: []string{"pids"}}}},
		"none":   {"22 1 0:20 / /proc rw - proc proc rw\nnonsense\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseMounts(strings.NewReader(c.mounts))
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(hierarchy{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// files makes control files, empty as the kernel's are until written.
func files(t *testing.T, dir string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(dir, n), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// content reads all files of a directory that were written.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range entries {
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && len(b) > 0 {
			out[e.Name()] = string(b)
		}
	}
	return out
}

func TestLimits(t *testing.T) {
	limits := Limits{MilliCPU: 1500, Memory: 1 << 30, Pids: 100}
	v2files := []string{"cgroup.subtree_control", "cpu.max", "memory.max", "memory.swap.max", "pids.max"}
	v1files := []string{"cpu.cfs_period_us", "cpu.cfs_quota_us", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max"}
	for name, c := range map[string]struct {
		controllers []string // of version 1; nil: version 2
		limits      Limits
		want        map[string]string
	}{
		"version 2": {nil, limits, map[string]string{"cgroup.subtree_control": "+cpu +memory +pids", "cpu.max": "150000 100000",
			"memory.max": "1073741824", "memory.swap.max": "0", "pids.max": "100"}},
		"version 2, unbounded": {nil, Limits{}, map[string]string{"cgroup.subtree_control": "+cpu +memory +pids"}},
		"least processor":      {[]string{"cpu"}, Limits{MilliCPU: 1}, map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "1000"}},
		"version 1, all": {[]string{"cpu", "memory", "pids"}, limits, map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000",
			"memory.limit_in_bytes": "1073741824", "memory.memsw.limit_in_bytes": "1073741824", "pids.max": "100"}},
		"version 1, memory only": {[]string{"memory"}, limits, map[string]string{"memory.limit_in_bytes": "1073741824", "memory.memsw.limit_in_bytes": "1073741824"}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			h := hierarchy{dir: top, controllers: c.controllers, v2: c.controllers == nil}
			files(t, top, "cgroup.subtree_control")
			if err := os.WriteFile(filepath.Join(top, "cgroup.controllers"), []byte("cpuset cpu io memory pids\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			files(t, filepath.Join(top, "shoal"), "cgroup.subtree_control")
			machine := filepath.Join(top, "shoal", "m-1")
			if h.v2 {
				files(t, machine, v2files...)
			} else {
				files(t, machine, v1files...)
			}
			if err := (&Tree{name: "shoal", hierarchies: []hierarchy{h}}).Make("m-1", c.limits); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, content(t, machine)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostWithoutLimits(t *testing.T) {
	tree := &Tree{hierarchies: []hierarchy{{dir: t.TempDir(), controllers: []string{"cpu"}}}}
	if tree.has("memory") || !tree.has("cpu") {
		t.Error("the controllers are not told apart")
	}
}

// On this host's own hierarchies: groups are made and listed, processes that fork are ended, groups below
// and above are removed; doing it again is harmless.
func TestRealGroups(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real control groups need root, and are left out with -short")
	}
	tree, err := Open(fmt.Sprintf("shoal-cgrouptest-%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := tree.Make("m-1", Limits{MilliCPU: 500, Memory: 64 << 20, Pids: 50}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := tree.List(); err != nil || len(got) != 1 || got[0] != "m-1" {
		t.Errorf("listed: %v, %v", got, err)
	}
	var procs []string
	for _, h := range tree.hierarchies {
		box := filepath.Join(h.dir, tree.name, "m-1", Box, "below")
		if _, err := os.Stat(filepath.Dir(filepath.Dir(box))); err != nil {
			continue // nothing to limit there
		}
		if err := os.MkdirAll(box, 0o755); err != nil {
			t.Fatal(err)
		}
		procs = append(procs, filepath.Join(box, "cgroup.procs"))
	}
	cmd := exec.Command("sh", "-c", "for f in "+strings.Join(procs, " ")+"; do echo $$ > $f || exit 1; done; echo in; while :; do sleep 100 & sleep 0.01; [ $(jobs | wc -l) -lt 20 ] || wait; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if tree.Memory("m-1") == 0 {
		t.Error("the machine uses no memory")
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	for range 2 {
		if err := tree.Kill(ctx, "m-1"); err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	for range 2 {
		if err := tree.Remove(ctx, "m-1"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := tree.List(); err != nil || len(got) != 0 {
		t.Errorf("left: %v, %v", got, err)
	}
}
