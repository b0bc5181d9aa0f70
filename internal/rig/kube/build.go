package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/rig"
)

// Version is Kubernetes'. It is moved by hand: later ones need a newer containerd than Debian 12 has, and drop version 1 of
// control groups.
const Version = "v1.36.3"

// packages are Debian's, of which nodes need the programs.
var packages = []string{"containerd", "containernetworking-plugins"}

// programs are where the programs of a cluster are.
type programs struct{ dir string }

func (p programs) hyperkube() string { return filepath.Join(p.dir, "hyperkube") }

// bin holds kubectl.
func (p programs) bin() string { return filepath.Join(p.dir, "bin") }

// kwok is the program that plays nodes which do not exist, and stages what it does there.
func (p programs) kwok() string   { return filepath.Join(p.dir, "kwok") }
func (p programs) stages() string { return filepath.Join(p.dir, "stages.yaml") }

// build makes what a cluster needs, unless it was made before. root is the repository's. It takes 13 minutes of one
// processor the first time, which say tells.
func build(ctx context.Context, root string, say func(string)) (programs, error) {
	source := filepath.Join(root, "internal", "rig", "kube", "hyperkube")
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "main.go", "../build.go"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return programs{}, err
		}
		sum.Write(b)
	}
	to := filepath.Join(rig.Cache, "kubernetes-"+Version+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	p := programs{to}
	if err := os.MkdirAll(rig.Cache, 0o755); err != nil {
		return p, err
	}
	lock, err := os.OpenFile(filepath.Join(rig.Cache, "kubernetes.lock"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return p, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return p, err
	}
	if _, err := os.Stat(to); err == nil {
		return p, nil
	}
	tmp, err := os.MkdirTemp(rig.Cache, "kubernetes-")
	if err != nil {
		return p, err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return p, err
	}
	for _, name := range packages {
		debs, err := filepath.Glob(filepath.Join(rig.Cache, name+"_*.deb"))
		if err != nil || len(debs) == 0 {
			return p, errors.Join(fmt.Errorf("%s holds no package %s: run scripts/setup test", rig.Cache, name), err)
		}
		slices.Sort(debs)
		if err := run(ctx, "", nil, "dpkg-deb", "-x", debs[len(debs)-1], filepath.Join(tmp, "node")); err != nil {
			return p, err
		}
	}
	say("Kubernetes " + Version + " is being built into " + to + ", once; this takes some minutes")
	env := append(os.Environ(), "GOWORK=off")
	flags := "-s -w -X k8s.io/component-base/version.gitVersion=" + Version + " -X k8s.io/client-go/pkg/version.gitVersion=" + Version
	for name, pkg := range map[string]string{"hyperkube": ".", "kwok": "sigs.k8s.io/kwok/cmd/kwok"} {
		if err := run(ctx, source, env, "go", "build", "-trimpath", "-ldflags", flags, "-o", filepath.Join(tmp, name), pkg); err != nil {
			return p, err
		}
	}
	if err := errors.Join(pause(ctx, source, env, tmp), stages(ctx, source, env, tmp), os.Mkdir(filepath.Join(tmp, "bin"), 0o755), os.Symlink("../hyperkube", filepath.Join(tmp, "bin", "kubectl"))); err != nil {
		return p, err
	}
	return p, os.Rename(tmp, to)
}

// pause builds the program that holds a pod's namespaces, of which Kubernetes has the source.
func pause(ctx context.Context, source string, env []string, to string) error {
	dir, err := moduleDir(ctx, source, env, "k8s.io/kubernetes")
	if err != nil {
		return err
	}
	c := filepath.Join(dir, "build", "pause", "linux", "pause.c")
	return run(ctx, "", nil, "gcc", "-Os", "-static", "-s", "-DVERSION="+Version, "-o", filepath.Join(to, "pause"), c)
}

// stages keeps what kwok is to do with nodes and pods, which its module has.
func stages(ctx context.Context, source string, env []string, to string) error {
	dir, err := moduleDir(ctx, source, env, "sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	var all []byte
	for _, name := range []string{"node/fast/node-initialize", "node/heartbeat-with-lease/node-heartbeat-with-lease", "pod/fast/pod-ready", "pod/fast/pod-delete"} {
		b, err := os.ReadFile(filepath.Join(dir, "kustomize", "stage", name+".yaml"))
		if err != nil {
			return err
		}
		all = append(append(all, "---\n"...), b...)
	}
	return os.WriteFile(filepath.Join(to, "stages.yaml"), all, 0o644)
}

// moduleDir is where the source of a module of hyperkube's lies.
func moduleDir(ctx context.Context, source string, env []string, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir, cmd.Env = source, env
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("where is the source of %s? %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}
