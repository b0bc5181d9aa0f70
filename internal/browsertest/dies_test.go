package browsertest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// The machine under a web app dies. Who comes back is told, and gets another.
func TestMachineDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[shoal.UserName]string{"alice": ""},
		rig.Pool("lab", "interactive", "{cpus: 1, memory: 1GiB}", "{min: 0, max: 1}", 4, "endpoints:\n"+filesApp))
	b := w.browser()
	b.open("/shoal/app/lab/files/")
	b.signIn("alice")
	b.until("the app is there", func() bool { return b.at() == "/shoal/app/lab/files/" })
	first := w.ready()[0]
	out, err := exec.Command("runc", "--root", filepath.Join(w.Data, "local", "runc"), "kill", string(first.ID), "KILL").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// She asks once more. From then on the pages lead her by themselves: to what happened, how far another is, and to that.
	b.do("again", chromedp.Reload())
	told := ""
	b.until("the app is there again", func() bool {
		at, text := b.at(), b.text()
		if strings.HasPrefix(at, "/shoal/start/") && strings.Contains(text, "could not go on") {
			if told == "" {
				b.shot("machine-died")
			}
			told = text
		}
		return at == "/shoal/app/lab/files/" && strings.Contains(text, "Directory listing") && !w.has(first.ID)
	})
	if !strings.Contains(told, string(first.ID)) {
		t.Errorf("she was told:\n%s", told)
	}
	if second := w.ready()[0]; second.ID == first.ID {
		t.Errorf("she is on %s, which has died", second.ID)
	}
}

// ready waits for the pool's machine.
func (w *world) ready() []shoal.Machine {
	w.t.Helper()
	list, err := w.Ready(w.t.Context(), "lab", 1, patience)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// has reports whether a machine is ready.
func (w *world) has(id shoal.MachineID) bool {
	w.t.Helper()
	list, err := w.Machines(w.t.Context(), "lab")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range list {
		if m.ID == id && m.State == shoal.MachineReady {
			return true
		}
	}
	return false
}
