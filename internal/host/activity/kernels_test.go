package activity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/need"
)

// A real notebook server that a user started: its kernel is in use while it computes, and of a server that does not answer.
func TestKernelsOfARealServer(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "shoal-activity-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, alice, alice); err != nil {
		t.Skip("processes of others need root")
	}
	port := need.Port(t)
	server := as(t, alice, "/usr/bin/env", "HOME="+dir, "JUPYTER_RUNTIME_DIR="+dir, "/usr/bin/python3", "-m", "notebook", "--no-browser", "--ip=127.0.0.1", "--port="+port, "--notebook-dir="+dir)
	n := notebook{server.Process.Pid, alice, dir}
	var at access
	wait(t, "the server", func() bool { at, err = n.reach(); return err == nil })
	if _, err := (notebook{n.pid, bob, dir}).reach(); err == nil {
		t.Error("with somebody else's rights her token was read")
	}

	req, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:"+port+at.BaseURL+"api/kernels", strings.NewReader(`{"name": "python3"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+at.Token)
	var kernel told
	wait(t, "a kernel", func() bool {
		resp, err := http.DefaultClient.Do(req.Clone(t.Context()))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(&kernel) == nil && kernel.ID != ""
	})
	compute(t, dir, kernel.ID, "2 + 2", true)
	w := New(Config{Name: names, kernelsEvery: time.Millisecond})
	hers := func(m map[shoal.UserName]api.UserActivity) api.UserActivity { return m["alice"] }
	look(t, w, "a kernel that waits", func(m map[shoal.UserName]api.UserActivity) bool {
		return hers(m).InUse == "" && len(hers(m).Pins) > 0 && hers(m).Pins[0].Kind == "kernel"
	})
	compute(t, dir, kernel.ID, "import time; time.sleep(1000)", false)
	look(t, w, "a kernel that computes", func(m map[shoal.UserName]api.UserActivity) bool { return hers(m).InUse == "python3 runs" })
}

// compute has a kernel run code, as a client of its user's does.
func compute(t *testing.T, dir, id, code string, whole bool) {
	t.Helper()
	end := "True"
	if !whole {
		end = "False"
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/timeout", "120", "/usr/bin/python3", "-c", fmt.Sprintf(`
import jupyter_client, time
c = jupyter_client.BlockingKernelClient(connection_file=%q)
c.load_connection_file()
c.start_channels()
while True:
    try:
        c.wait_for_ready(timeout=120)
        break
    except RuntimeError: # it is being started
        time.sleep(0.2)
c.execute(%q, reply=%s)
time.sleep(0.5)`, filepath.Join(dir, "kernel-"+id+".json"), code, end))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, bytes.TrimSpace(out))
	}
}

func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not there: %s", what)
}

// What a server says is believed for a while; what it does not say, and what others say, is in use.
func TestKernelsThatWait(t *testing.T) {
	dir := t.TempDir()
	id := "0b5a-1"
	procs := []proc{{pid: 50, ppid: 1, uid: alice, name: "python3", args: "python3 -m notebook "},
		{pid: 51, ppid: 50, uid: alice, name: "python3", args: "python3 -m ipykernel_launcher -f " + dir + "/kernel-" + id + ".json "}}
	now := time.Now()
	use := func(w *Watcher, at time.Time) (string, bool) {
		copied := append([]proc(nil), procs...)
		w.asked = at // nobody is asked
		w.markKernels(copied, at)
		f := judge(copied, func(uid int) bool { return uid == alice }, func(int, int) bool { return true })[alice]
		what, _ := w.judgeUse(alice, f, time.Time{}, at)
		return what, f.pins["kernel"] == 1
	}
	w := New(Config{Name: names})
	if what, pin := use(w, now); what != "python3 runs" || !pin {
		t.Errorf("nothing is known: %q, %v", what, pin)
	}
	w.kernels = map[string]kernelUse{id: {asked: now, waits: true, last: now.Add(-time.Hour)}}
	if what, pin := use(w, now); what != "" || !pin {
		t.Errorf("it waits: %q, %v", what, pin)
	}
	w.kernels[id] = kernelUse{asked: now.Add(2 * time.Hour), waits: true, last: now.Add(-time.Hour)}
	use(w, now.Add(2*time.Hour))
	if u := w.uses[alice]; !u.last.Equal(now) {
		t.Errorf("it was used %s after it computed last", u.last.Sub(now))
	}
	w.kernels[id] = kernelUse{asked: now.Add(2 * time.Hour), waits: true, last: now.Add(time.Hour)}
	use(w, now.Add(2*time.Hour))
	if u := w.uses[alice]; !u.last.Equal(now.Add(2 * time.Hour)) {
		t.Errorf("it has computed: used %s later", u.last.Sub(now))
	}
	if what, _ := use(w, now.Add(2*time.Hour+kernelsWorth)); what != "python3 runs" {
		t.Errorf("an old answer: %q", what)
	}
	for _, bad := range []string{"", "{", `{"pid": 51}`, `{"pid": 50, "secure": true, "base_url": "/"}`, `{"pid": 50, "base_url": "evil"}`, `{"pid": 50, "port": 70000}`} {
		if err := os.WriteFile(filepath.Join(dir, "nbserver-50.json"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (notebook{50, os.Getuid(), dir}).ask(); err == nil {
			t.Errorf("%q was believed", bad)
		}
	}
}
