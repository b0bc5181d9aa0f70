package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// gpuTree is a root with two GPUs, whose nodes are those of harmless devices that machines have not got otherwise, and a driver.
func gpuTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"dev", "usr/bin", "usr/lib/x86_64-linux-gnu"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, minor := range map[string]uint32{"nvidia0": 229, "nvidia1": 237, "nvidiactl": 235} { // fuse, loop-control, autofs
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o600, int(unix.Mkdev(10, minor))); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"usr/bin/nvidia-smi": "#!/bin/sh\necho the driver speaks\n", "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.535": "library"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("libnvidia-ml.so.535", filepath.Join(root, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestGPUs: a machine has its own GPU and no other, the driver, and keeps what it has while it runs.
func TestGPUs(t *testing.T) {
	needHost(t)
	cfg := place(t)
	cfg.GPURoot = gpuTree(t)
	p := open(t, cfg)
	if have := p.Capabilities().Machine.GPUs; have != 2 {
		t.Fatalf("the host has %d GPUs", have)
	}
	with := func(id shoal.MachineID, n int) provider.MachineSpec {
		s := spec(string(id), "lab")
		s.Resources.GPUs = n
		return s
	}
	create(t, p, with("m-1", 1))
	private := with("m-2", 1)
	private.Private = true
	create(t, p, private)
	create(t, p, spec("m-3", "lab"))
	for id, want := range map[shoal.MachineID]string{"m-1": "/dev/nvidia0 /dev/nvidiactl", "m-2": "/dev/nvidia1 /dev/nvidiactl", "m-3": ""} {
		out, err := in(t, p, id, `ls /dev/nvidia* 2>/dev/null | paste -sd ' '`)
		if err != nil || strings.TrimSpace(out) != want {
			t.Errorf("%s has %q (%v), want %q", id, out, err, want)
		}
	}
	if out, err := in(t, p, "m-1", asUser(`exec 3</dev/nvidia0 && nvidia-smi && cat /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1`)); err != nil || !strings.Contains(out, "the driver speaks\nlibrary") {
		t.Errorf("a user cannot use the GPU: %v: %s", err, out)
	}
	if out, err := in(t, p, "m-2", asUser(`! true </dev/nvidia1 && true </dev/nvidiactl`)); err != nil {
		t.Errorf("in a machine without logins a user can use the GPU, or not its driver: %s", out)
	}
	if out, err := in(t, p, "m-3", "nvidia-smi"); err == nil {
		t.Errorf("a machine without GPUs has their driver: %s", out)
	}
	// With a node of its own making root could go round the nodes, and the rules are what is left then.
	if out, err := in(t, p, "m-1", "cat /sys/fs/cgroup/devices/devices.list"); err == nil {
		if !strings.Contains(out, "c 10:229 rw") || strings.Contains(out, "10:237") || strings.Contains(out, "a *:*") {
			t.Errorf("the device rules of m-1 are\n%s", out)
		}
	}
	err := p.Create(t.Context(), with("m-4", 1))
	var e *provider.Error
	if !errors.As(err, &e) || e.Code != provider.NoCapacity {
		t.Errorf("a third GPU: %v", err)
	}
	if err := p.Create(t.Context(), with("m-4", 3)); err == nil || !strings.Contains(err.Error(), "the host has 2") {
		t.Errorf("three GPUs: %v", err)
	}
	// What is stopped gives its GPU back, and takes one that is free when it starts again.
	if err := p.Stop(t.Context(), "m-1"); err != nil {
		t.Fatal(err)
	}
	wait(t, p, "m-1", provider.PhaseStopped)
	create(t, p, with("m-4", 1))
	if out, err := in(t, p, "m-4", "ls /dev/nvidia0"); err != nil {
		t.Errorf("the GPU of a stopped machine is not used: %v: %s", err, out)
	}
	if err := p.Start(t.Context(), with("m-1", 1)); !errors.As(err, &e) || e.Code != provider.NoCapacity {
		t.Errorf("a start without a free GPU: %v", err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p = open(t, cfg)
	if err := p.Create(t.Context(), with("m-5", 1)); !errors.As(err, &e) || e.Code != provider.NoCapacity {
		t.Errorf("a provider that was opened again has forgotten who has what: %v", err)
	}
}
