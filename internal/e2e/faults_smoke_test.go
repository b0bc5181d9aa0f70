package e2e

import (
	"testing"

	"github.com/shoal-pool/shoal/internal/rig"
)

// A login wakes a machine, and nothing is left in the end.
func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(1, rig.Pool("lab", "interactive, batch", "{cpus: 1, memory: 256MiB}", "{min: 0, max: 2}", 8, ""))
	if got := w.ssh("u1", "echo $HOME; id -un"); got != "/shared/home/u1\nu1" {
		t.Errorf("the first command printed %q", got)
	}
	m := w.ready("lab", 1)
	t.Log(w.pids(m[0].ID, "shoal-agent"))
}
