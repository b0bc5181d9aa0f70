package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// hang mounts a file system whose server never answers.
func hang(t *testing.T, dir string) (revive func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("the test needs FUSE: %v", err)
	}
	if err := unix.Mount("dead", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = unix.Unmount(dir, unix.MNT_FORCE)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		unix.Close(fd)
	}
}

// A share's file server does not answer. The pool that mounts it says so and waits; another pool notices nothing,
// and once the share is back the first pool works by itself.
func TestHungMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := filepath.Join(w.Dir, "slow")
	if err := os.MkdirAll(filepath.Join(slow, "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	w.apply(2, "---\nkind: Share\nname: slow\nsource: "+slow+"\n",
		rig.Pool("good", "interactive, batch", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 2}", 8, ""),
		strings.Replace(rig.Pool("bad", "interactive, batch", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 2}", 8, ""),
			"mounts: [", "mounts: [{share: slow, path: /slow}, ", 1))
	revive := hang(t, slow)
	w.onClosed = revive
	if got := w.ssh("u1+good", "id -un"); got != "u1" {
		t.Errorf("%q", got)
	}
	held := w.talk("u2+bad", 0)
	job, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "bad", Command: "true", Resources: shoal.Resources{CPUs: 100, Memory: 16 << 20}}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.until("it is said what pool bad waits for", func() (bool, error) {
		why, err := w.Client.Why(t.Context(), "pool", "bad", "")
		return strings.Contains(fmt.Sprint(why), "does not answer"), err
	})
	all(t, []*talk{held}, func(_ int, k *talk) error { return k.told("does not answer") })

	// Meanwhile the other pool sleeps, wakes, runs and ends.
	began := time.Now()
	w.endSessions()
	for _, m := range w.ready("good", 1) {
		w.shoal("machine", "delete", string(m.ID), "--force")
	}
	w.ssh("u1+good", "shoal run --wait -- true")
	w.shoal("pool", "scale", "good", "--size", "2", "--wait")
	t.Logf("the other pool took %s", time.Since(began))

	revive()
	w.onClosed = nil
	w.until("the job ends", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.State == shoal.JobSucceeded, err
	})
	if got := w.ssh("u2+bad", "ls /slow"); got != "inside" {
		t.Errorf("the share shows %q", got)
	}
}
