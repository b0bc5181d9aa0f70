package browsertest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/rig"
)

const notebookPool = "endpoints:\n  - {name: jupyter, protocol: http}\n" + filesApp

// plot is a cell that says where it runs and draws.
const plot = `%matplotlib inline
import socket, numpy as np, matplotlib.pyplot as plt
x = np.linspace(0, 6, 300)
fig, ax = plt.subplots(figsize=(7, 3.2))
for k in range(1, 6):
    ax.plot(x, np.sin(k * x) / k, label=f"sin({k}x)/{k}")
ax.fill_between(x, np.sin(x), alpha=.15)
ax.legend(); ax.set_title("drawn on " + socket.gethostname())
print("host", socket.gethostname())`

// From no machine to a picture in a notebook: the user's ssh is on the same machine, and nobody else gets to her server.
func TestNotebook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[shoal.UserName]string{"alice": "role: admin\n", "mallory": ""},
		rig.Pool("lab", "interactive", "{cpus: 2, memory: 4GiB}", "{min: 0, max: 1}", 4, notebookPool))
	b := w.browser()
	b.open("/")
	b.signIn("alice")
	b.open("/shoal/")
	b.do("the start", chromedp.Click(chromedp.Search("//li[contains(., 'jupyter')]//*[self::a or self::button][contains(., 'Start') or contains(., 'Open')]")))
	b.shot("notebook-starting")
	b.notebookServer("alice")
	b.shot("notebook-server")

	machine := w.ssh("alice+lab", "hostname")
	w.writeNotebook("alice", "waves.ipynb", plot)
	b.open("/user/alice/notebooks/waves.ipynb")
	b.until("a kernel is there", func() bool {
		return seen(b, "the kernel", script(`return String(!!(window.Jupyter && Jupyter.notebook && Jupyter.notebook.kernel && Jupyter.notebook.kernel.is_connected()))`)) == "true"
	})
	b.eval(`Jupyter.notebook.execute_all_cells(); return ""`)
	const picture = ".output_png img, .output_subarea img"
	b.do("the cell draws", chromedp.WaitVisible(chromedp.CSS(picture)))
	b.checkPicture(b.eval(`return document.querySelector("` + picture + `").src`))
	b.shot("notebook")
	if text := b.text(); !strings.Contains(text, "host "+machine) {
		t.Errorf("ssh is on %s, the notebook says:\n%s", machine, text)
	}
	sessions, err := w.Client.Sessions(t.Context(), client.SessionQuery{User: "alice"})
	if err != nil || len(sessions) != 1 || string(sessions[0].Machine) != machine {
		t.Errorf("the sessions of alice are %+v: %v", sessions, err)
	}

	if _, err := w.Client.Drain(t.Context(), shoal.MachineID(machine), api.DrainRequest{Deadline: shoal.Duration(time.Hour), Reason: "a fan is broken"}); err != nil {
		t.Fatal(err)
	}
	b.until("the notebook shows that the machine ends", func() bool {
		return strings.Contains(seen(b, "the notice", script(`var n = document.getElementById("shoal-notice"); return n ? n.textContent : ""`)), "ends in ")
	})
	b.shot("notebook-notice")
	if _, err := w.Client.Undrain(t.Context(), shoal.MachineID(machine)); err != nil {
		t.Fatal(err)
	}

	t.Run("her notebook tries to be an administrator", func(t *testing.T) { b.sub(t).beAdmin() })
	t.Run("mallory looks at her server", func(t *testing.T) { w.sub(t).strange("mallory", "alice") })
	t.Run("she opens mallory's page", func(t *testing.T) { b.sub(t).openStranger() })
}

// notebookServer waits for a user's server as she does.
func (b *browser) notebookServer(user string) {
	b.t.Helper()
	b.until("the notebook server of "+user+" is there", func() bool {
		return strings.HasPrefix(b.at(), "/user/"+user+"/")
	})
}

// ssh runs a command as a user through the gateway and returns what it printed.
func (w *world) ssh(login, command string) string {
	w.t.Helper()
	out, err := rig.Output(w.SSH(w.t.Context(), login, command))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// writeNotebook puts a notebook of one cell into a user's home, as she would by ssh.
func (w *world) writeNotebook(user, name, code string) {
	w.t.Helper()
	text, err := json.Marshal(map[string]any{"nbformat": 4, "nbformat_minor": 4, "metadata": map[string]any{"kernelspec": map[string]string{"name": "python3", "display_name": "Python 3", "language": "python"}},
		"cells": []any{map[string]any{"cell_type": "code", "metadata": map[string]any{}, "execution_count": nil, "outputs": []any{}, "source": code}}})
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := w.SSH(w.t.Context(), user+"+lab", "cat > "+name)
	cmd.Stdin = bytes.NewReader(text)
	if _, err := rig.Output(cmd); err != nil {
		w.t.Fatal(err)
	}
}

// checkPicture looks at a picture in a data: address: large, and of many colours.
func (b *browser) checkPicture(src string) {
	b.t.Helper()
	text, ok := strings.CutPrefix(src, "data:image/png;base64,")
	data, err := base64.StdEncoding.DecodeString(strings.Map(func(r rune) rune {
		if r == '\n' {
			return -1
		}
		return r
	}, text))
	if !ok || err != nil {
		b.t.Fatalf("no picture: %.80s: %v", src, err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	colours := map[color.Color]int{}
	size := img.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			colours[img.At(size.Min.X+x, size.Min.Y+y)]++
		}
	}
	if size.Dx() < 300 || size.Dy() < 150 || len(colours) < 50 {
		b.t.Errorf("the picture has %d x %d points of %d colours", size.Dx(), size.Dy(), len(colours))
	}
	if dir := os.Getenv("SHOAL_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "plot.png"), data, 0o644); err != nil {
			b.t.Error(err)
		}
	}
}
