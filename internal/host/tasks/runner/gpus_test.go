package runner

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/gpu"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// TestGPUs: a task can open its own GPU and nobody else's, by rules of its control group or by the nodes' permissions. The
// nodes are those of harmless devices.
func TestGPUs(t *testing.T) {
	const group = 44
	for name, groups := range map[string]bool{"rules": true, "permissions": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.Chmod(dir, 0o755))
			must(t, os.Chmod(filepath.Dir(dir), 0o755))
			var nodes []gpu.Device
			for i, minor := range []uint32{7, 5} { // full, zero
				d := gpu.Device{Path: filepath.Join(dir, "nvidia"+string('0'+rune(i))), Major: 1, Minor: minor}
				must(t, unix.Mknod(d.Path, unix.S_IFCHR|0o666, int(unix.Mkdev(d.Major, d.Minor))))
				must(t, errors.Join(os.Chmod(d.Path, 0o666), os.Chown(d.Path, 0, group)))
				nodes = append(nodes, d)
			}
			b := newBox(t, groups, func(c *Config) {
				c.GPUs = &tasks.GPUs{Nodes: nodes, Mode: 0o666}
				c.Adapt = func(o api.TaskOrder) api.TaskOrder { o.Command = "cd " + dir + "; " + o.Command; return o }
				if groups {
					var err error
					c.Groups, err = cgroups.Open(cgroups.Config{Parent: c.Groups.Config().Parent, Devices: true})
					must(t, err)
				}
			})
			if groups && !b.cfg.Groups.Offers("devices") {
				t.Skip("no rules of version 1 here; package cgroups tests those of version 2")
			}
			const look = `for n in 0 1; do if true 2>/dev/null <nvidia$n; then echo opens $n; else echo no $n; fi; done; `
			with := func(job string, user shoal.UserName, gpus ...int) api.TaskOrder {
				return order(job, look+"echo looked; while [ ! -e go ]; do sleep 0.02; done", func(o *api.TaskOrder) { o.User, o.GPUs = user, gpus })
			}
			alice, bob, none := with("1", "alice", 0), with("2", "bob", 1), with("3", "bob")
			if !groups {
				none.User = "alice" // permissions know users only; what is free is open to all
			}
			for _, o := range []api.TaskOrder{alice, bob} {
				b.runner.Start(o)
				b.says(o.Ref, "looked")
			}
			want := []string{"opens 0\nno 1\nlooked\n", "no 0\nopens 1\nlooked\n"}
			if !groups {
				want[0] = "opens 0\nopens 1\nlooked\n" // it came first, and nobody had the other one
				again := with("4", "alice")
				b.runner.Start(again)
				b.says(again.Ref, "looked")
				if got := string(b.of(again.Ref).out[0]); got != "opens 0\nno 1\nlooked\n" {
					t.Errorf("while bob has the other one: %q", got)
				}
			} else {
				b.runner.Start(none)
				b.says(none.Ref, "looked")
				if got := string(b.of(none.Ref).out[0]); got != "no 0\nno 1\nlooked\n" {
					t.Errorf("a task that asked for none: %q", got)
				}
			}
			for i, o := range []api.TaskOrder{alice, bob} {
				if got := string(b.of(o.Ref).out[0]); got != want[i] {
					t.Errorf("%s: %q, want %q", o.User, got, want[i])
				}
			}
			must(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
			for _, o := range []api.TaskOrder{alice, bob} {
				if s := b.end(o.Ref); s.report.State != shoal.JobSucceeded || s.report.Reason != "" {
					t.Errorf("%+v", s.report)
				}
			}
			asBefore := func() {
				t.Helper()
				for _, d := range nodes {
					var st unix.Stat_t
					must(t, unix.Stat(d.Path, &st))
					if st.Uid != 0 || st.Gid != group || st.Mode&0o777 != 0o666 {
						t.Errorf("%s stays uid %d's and gid %d's, with mode %o", d.Path, st.Uid, st.Gid, st.Mode&0o777)
					}
				}
			}
			asBefore()
			for i, job := range []string{"6", "7"} { // nobody is left to give it back
				lost := order(job, "echo has; sleep 1000", func(o *api.TaskOrder) { o.GPUs = []int{0} })
				b.runner.Start(lost)
				b.says(lost.Ref, "has")
				if i == 1 {
					must(t, b.runner.Close())
				}
				kill(t, b.supervisorPID())
				if i == 1 {
					b.open()
				}
				b.end(lost.Ref)
				asBefore()
			}
			s := b.run(with("5", "alice", 2))
			if s.report.Cause != shoal.CauseSetupFailed || !strings.Contains(s.report.Reason, "no GPU 2") {
				t.Errorf("a GPU that is not there: %+v", s.report)
			}
		})
	}
}
