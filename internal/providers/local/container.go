package local

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/providers/local/cgroup"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
)

// capabilities are those of root in a machine: a container's usual ones and what sshd needs, without making devices
// or raw packets. None lets it mount, change the network, or reach another process namespace.
func capabilities() []string {
	return []string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
		"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}
}

// container describes the machine to runc. It is called on the thread whose network namespace is the machine's.
func (a *assembly) container() *specs.Spec {
	caps := capabilities()
	umask := uint32(0o022)
	s := &specs.Spec{
		Version:  "1.0.2",
		Hostname: string(a.rec.Spec.ID),
		Root:     &specs.Root{Path: filepath.Join(a.dir, "root")},
		Process: &specs.Process{
			Args: a.p.cfg.Init,
			Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"},
			Cwd:  "/",
			User: specs.User{Umask: &umask},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps,
				Permitted: caps},
			NoNewPrivileges: !a.rec.Spec.Setuid,
		},
		Mounts: a.mounts(),
		Linux: &specs.Linux{
			CgroupsPath: a.p.groups.Path(string(a.rec.Spec.ID)),
			Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}, {Type: specs.CgroupNamespace},
				// runc inherits it anyway; named here, runc exec goes there too.
				{Type: specs.NetworkNamespace, Path: fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid())}},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Seccomp:   syscallFilter(),
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
				"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
				"/sys/firmware", "/sys/devices/virtual/powercap"},
			ReadonlyPaths: slices.Concat([]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
				cgroup.ReadOnly()),
		},
	}
	return s
}

// mounts are those that runc makes in the machine, in order. runc follows no link out of the root.
func (a *assembly) mounts() []specs.Mount {
	shm := "size=50%"
	if m := a.rec.Spec.Resources.Memory; m > 0 {
		shm = fmt.Sprintf("size=%d", int64(m)/2)
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777", shm}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime"}},
		{Destination: "/run", Type: "bind", Source: filepath.Join(a.dir, "run"), Options: []string{"bind", "nosuid", "nodev"}},
		// In a file system of its own: what users write there must not keep the agent and sshd from writing to /run.
		{Destination: "/run/lock", Type: "tmpfs", Source: "lock", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=5m", "nr_inodes=4096"}},
		// All machines have the same directory: a root in one must not put a socket of its own in the place of the server's.
		{Destination: "/run/shoal/control", Type: "bind", Source: a.p.cfg.ControlDir, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}},
		{Destination: "/opt/shoal/bin", Type: "bind", Source: a.p.path("bin"), Options: []string{"bind", "ro", "nosuid", "nodev"}},
	}
	binds := slices.Clone(a.binds)
	slices.SortStableFunc(binds, func(x, y mounts.Bind) int { return strings.Count(x.To, "/") - strings.Count(y.To, "/") })
	for _, b := range binds {
		options := []string{"bind", "nosuid", "nodev", "rw"}
		if b.ReadOnly {
			options[3] = "ro"
		}
		list = append(list, specs.Mount{Destination: b.To, Type: "bind", Source: b.From, Options: options})
	}
	return list
}

// sha128 is half a SHA-256 in hexadecimal, the length of a machine-id.
func sha128(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}
