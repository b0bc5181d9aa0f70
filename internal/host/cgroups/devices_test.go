package cgroups

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// TestDeny: a task cannot open the devices it is kept from, by a node of its own either, and can open all others. A
// group without rules can open them all.
func TestDeny(t *testing.T) {
	run := func(t *testing.T, tree *Tree) {
		dir := t.TempDir()
		node := func(name string, major, minor uint32) string {
			path := filepath.Join(dir, name)
			if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
				t.Skipf("cannot make a device: %v", err)
			}
			return path
		}
		full, random, zero := node("full", 1, 7), node("random", 1, 8), node("zero", 1, 5)
		opens := func(g Group, path string) bool {
			cmd := start(t, g, "dd", "if="+path, "of=/dev/null", "bs=1", "count=1", "status=none")
			return cmd.Wait() == nil
		}
		g, err := tree.Task(20001, "17.0.1", shoal.Resources{})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Deny([]Device{{1, 7}, {1, 5}}); err != nil {
			if os.Geteuid() == 0 {
				t.Skipf("not allowed here: %v", err)
			}
			t.Fatal(err)
		}
		free, err := tree.Task(20001, "17.1.1", shoal.Resources{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what string
			g    Group
			path string
			want bool
		}{{"denied", g, full, false}, {"denied too", g, zero, false}, {"not denied", g, random, true}, {"no rules", free, full, true}} {
			if got := opens(c.g, c.path); got != c.want {
				t.Errorf("%s: opened is %t", c.what, got)
			}
		}
		if out, err := exec.Command("dd", "if="+full, "of=/dev/null", "bs=1", "count=1", "status=none").CombinedOutput(); err != nil {
			t.Errorf("we cannot open it ourselves: %s", out)
		}
	}
	t.Run("all", func(t *testing.T) {
		tree := testTree(t, Config{Devices: true})
		t.Logf("rules of version 1: %t", tree.Offers("devices"))
		run(t, tree)
	})
	t.Run("a slot", func(t *testing.T) {
		tree := testTree(t, Config{Devices: true})
		g, err := tree.Slot(20001, shoal.Resources{})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Deny([]Device{{1, 7}}); err != nil {
			_ = g.Remove()
			t.Skipf("not allowed here: %v", err)
		}
		if g.Free() {
			t.Error("a slot with rules is used again")
		}
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	t.Run("unified", func(t *testing.T) { run(t, unifiedTree(t)) })
	if err := (Group{}).Deny([]Device{{1, 7}}); err == nil {
		t.Error("no group, no rules, and no error")
	}
}
