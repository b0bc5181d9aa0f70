package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal/internal/rig"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// desk is where somebody works who has kubectl, ssh and the repository.
type desk struct {
	t   *testing.T
	dir string
	env []string
}

// newDesk makes one, outside the cluster.
func (c *cluster) newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	at, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := c.Admin()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deploy", "images"} {
		if err := os.Symlink(filepath.Join(at, name), filepath.Join(d.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	d.env = append(os.Environ(), "KUBECONFIG="+admin, "HOME="+d.dir, "SHOAL_BIN="+binaries(t), "SHOAL_IMAGE_CACHE="+rig.Cache,
		"PATH="+filepath.Join(d.dir, "bin")+":"+c.Bin()+":"+os.Getenv("PATH"))
	// OpenSSH's client does not look at HOME.
	ssh := fmt.Sprintf("#!/bin/sh\nexec /usr/bin/ssh -F none -i %[1]s/.ssh/id_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=%[1]s/known_hosts \"$@\"\n", d.dir)
	if err := os.Mkdir(filepath.Join(d.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "bin", "ssh"), []byte(ssh), 0o755); err != nil {
		t.Fatal(err)
	}
	d.sh("mkdir .ssh && ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
	return d
}

// sh runs a script and returns what it printed.
func (d *desk) sh(script string) string {
	d.t.Helper()
	out, err := d.try(script)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *desk) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 6*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Dir, cmd.Env = d.dir, d.env
	out, err := rig.Output(cmd)
	if err != nil {
		err = fmt.Errorf("%w; it printed %q", err, out)
	}
	return out, err
}

// guide runs the commands of docs/guides/kubernetes.md: Shoal is deployed in the cluster, somebody logs in from outside and runs a job, and
// the server's pod goes and comes.
func (c *cluster) guide(t *testing.T) {
	d := c.newDesk(t)
	c.storage(t)
	balancing, stop := context.WithCancel(t.Context())
	defer stop()
	go c.Balance(balancing)
	text, err := os.ReadFile(filepath.Join(root, "docs/guides/kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	// A variable of one block is there in the next.
	d.env = append(d.env, "VARS="+filepath.Join(d.dir, "vars"))
	d.sh(`: >"$VARS"`)
	for _, b := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		out := d.sh(`. "$VARS"; trap 'set | grep ^address= >"$VARS" || true' EXIT; set -x` + "\n" + b[1])
		t.Log(out)
		c.push(t, d)
	}
}

// push gives the nodes the images that were made, as a registry would.
func (c *cluster) push(t *testing.T, d *desk) {
	t.Helper()
	archives, err := filepath.Glob(filepath.Join(d.dir, "shoal-*.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range archives {
		if err := c.Load(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(a); err != nil {
			t.Fatal(err)
		}
		c.loaded = c.loaded || strings.Contains(a, "small")
	}
}

// storage is what a cluster's administrator provides: disks for claims, one of which many nodes can mount.
func (c *cluster) storage(t *testing.T) {
	t.Helper()
	for _, v := range []struct {
		name, size string
		mode       corev1.PersistentVolumeAccessMode
		owner      int
	}{{"data", "10Gi", corev1.ReadWriteOnce, 65532}, {"team", "100Gi", corev1.ReadWriteMany, 0}} {
		dir := filepath.Join(c.dir, "volume-"+v.name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, v.owner, v.owner); err != nil { // directories of nodes know no fsGroup
			t.Fatal(err)
		}
		volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: v.name}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(v.size)}, AccessModes: []corev1.PersistentVolumeAccessMode{v.mode},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
		if _, err := c.admin.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}
