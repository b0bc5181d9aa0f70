package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/rig"
)

// notebookScript is the program of docs/guides/jupyterhub.md that does what a browser does.
var notebookScript = regexp.MustCompile(`(?ms)^cat > notebook\.py <<'PY'\n(.*?)^PY$`)

// notebooks are on pods, behind the JupyterHub of a server outside the cluster. The image for data science is large, so only `make prove` has
// machines of it; else what a notebook server is made of lies on a claim, as a team's own environment may.
func (c *cluster) notebooks(t *testing.T, w *rig.World) {
	need.Program(t, "jupyterhub")
	with, mounts := image, "mounts: [{share: software, path: /software, readOnly: true}]\n"
	if os.Getenv("SHOAL_PROVE") != "" {
		with, mounts = "registry.example.org/shoal-science:1", ""
		c.give("science", with)
	} else {
		c.software(t, w)
	}
	pool := filepath.Join(w.Dir, "notebooks.yaml")
	if err := os.WriteFile(pool, fmt.Appendf(nil, `kind: Pool
name: notebooks
provider: kubernetes
image: %s
machine: {cpus: 0.5, memory: 512MiB}
size: {min: 0, max: 2}
%sendpoints: [{name: jupyter, protocol: http}]
providerConfig: {imagePullPolicy: Never}
`, with, mounts), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Shoal(t.Context(), "apply", "-f", pool); err != nil {
		t.Fatal(err)
	}
	run := c.notebook(t, w)
	var first string
	var last error
	if err := rig.Until(t.Context(), patience, "her notebooks are there", func() (bool, error) { // the program waits for no kernel longer than a minute
		first, last = run("import socket; x = 42; print(socket.gethostname())")
		return last == nil, nil
	}); err != nil {
		log, _ := os.ReadFile(filepath.Join(w.Data, "hub", "hub.log"))
		t.Fatalf("%v: %v\n%s", err, last, log[max(0, len(log)-10_000):])
	}
	where := strings.TrimSpace(first)
	if _, err := c.processes(t.Context(), name(shoal.MachineID(where))); err != nil {
		t.Errorf("the kernel says that it is on %q, which is no pod: %v", where, err)
	}
	if out, err := rig.Output(w.SSH(t.Context(), "u1+notebooks", "hostname")); err != nil || out != first {
		t.Errorf("by ssh she is on %q, %v, and her notebooks are on %s", out, err, where)
	}
	if out, err := run("print(x)"); err != nil || out != "42\n" {
		t.Errorf("the kernel that runs says %q, %v", out, err)
	}

	// Somebody deletes the pod, and her next start finds another.
	c.kubectl("-n", "shoal", "delete", "pod", name(shoal.MachineID(where)), "--wait=false")
	if err := rig.Until(t.Context(), patience, "her notebooks are elsewhere", func() (bool, error) {
		out, err := run("print(socket.gethostname() if 'socket' in globals() else 'new')")
		last = err
		return err == nil && out == "new\n", nil
	}); err != nil {
		t.Errorf("%v: %v", err, last)
	}
}

// software is the notebook server of this host, and what it needs, on a claim that machines mount.
func (c *cluster) software(t *testing.T, w *rig.World) {
	t.Helper()
	libraries, err := filepath.Glob("/usr/lib/*-linux-gnu")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("this host's libraries: %v, %v", libraries, err)
	}
	claim, share, hub := filepath.Join(w.Dir, "software.yaml"), filepath.Join(w.Dir, "share.yaml"), filepath.Join(w.Data, "hub")
	if err := errors.Join(os.MkdirAll(hub, 0o711), os.WriteFile(filepath.Join(hub, "custom.py"), fmt.Appendf(nil, `c.ShoalSpawner.cmd = ["/software/bin/jupyterhub-singleuser"]
c.ShoalSpawner.environment = {"PYTHONHOME": "/software", "LD_LIBRARY_PATH": "/software/lib/%s", "JUPYTER_PATH": "/software/share/jupyter"}
`, filepath.Base(libraries[0])), 0o644),
		os.WriteFile(share, []byte("kind: Share\nname: software\nsource: pvc://software\n"), 0o644),
		os.WriteFile(claim, []byte(`apiVersion: v1
kind: PersistentVolume
metadata: {name: software}
spec:
  capacity: {storage: 10Gi}
  accessModes: [ReadOnlyMany]
  hostPath: {path: /usr}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: software, namespace: shoal}
spec: {accessModes: [ReadOnlyMany], volumeName: software, resources: {requests: {storage: 10Gi}}}
`), 0o644)); err != nil {
		t.Fatal(err)
	}
	c.kubectl("apply", "-f", claim)
	if _, err := w.Shoal(t.Context(), "apply", "-f", share); err != nil {
		t.Fatal(err)
	}
}

// notebook has u1 run code in a kernel of hers, through the gateway.
func (c *cluster) notebook(t *testing.T, w *rig.World) func(code string) (string, error) {
	t.Helper()
	guide, err := os.ReadFile(filepath.Join(root, "docs/guides/jupyterhub.md"))
	if err != nil {
		t.Fatal(err)
	}
	program := notebookScript.FindSubmatch(guide)
	if program == nil {
		t.Fatal("the guide has no notebook.py")
	}
	const secret = "a long password"
	script, password := filepath.Join(w.Dir, "notebook.py"), filepath.Join(w.Dir, "u1.password")
	if err := errors.Join(os.WriteFile(script, program[1], 0o644), os.WriteFile(password, []byte(secret), 0o600), w.Client.SetPassword(t.Context(), "u1", secret)); err != nil {
		t.Fatal(err)
	}
	return func(code string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", script, "https://127.0.0.1:"+w.HTTPS, "u1", password, "notebooks", code)
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(w.Data, "tls", "ca.crt"))
		return rig.Output(cmd)
	}
}
