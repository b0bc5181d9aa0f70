package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// world is a host made of files.
func world(t *testing.T, change map[string]string) Host {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"proc/self/status":                 "Name:\tx\nCapEff:\t000001ffffffffff\n",
		"proc/self/mountinfo":              "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
		"proc/filesystems":                 "nodev\tproc\nnodev\toverlay\n\text4\n",
		"proc/sys/net/ipv4/ip_forward":     "0\n",
		"etc/passwd":                       "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n",
		"etc/group":                        "root:x:0:\nbob:x:1000:\n",
		"bin/shoal-agent":                  "x",
		"var/lib/x":                        "",
	}
	for k, v := range change {
		files[k] = v
	}
	for name, text := range files {
		if text == "absent" {
			continue
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Host{
		Root: root, Data: "/var/lib/shoal", Listen: "127.0.0.1:7420", SSHListen: "127.0.0.1:2222", Agent: "/bin/shoal-agent",
		LookPath: func(name string) (string, error) { return "/usr/sbin/" + name, nil },
		Output:   func(context.Context, string, ...string) (string, error) { return "table inet x {\n}\n", nil },
		Try: &Trials{
			Overlay: func(string) error { return nil },
			Network: func(context.Context, string) (error, error) { return nil, nil },
			Listen:  func(context.Context, string) error { return nil },
			Serves:  func(string) bool { return false },
			Clock:   func() (bool, error) { return true, nil },
		},
	}
}

func find(t *testing.T, found []Finding, check string) Finding {
	t.Helper()
	i := slices.IndexFunc(found, func(f Finding) bool { return f.Check == check })
	if i < 0 {
		t.Fatalf("no finding about %q in %+v", check, found)
	}
	return found[i]
}

func TestHealthyHost(t *testing.T) {
	for _, f := range world(t, nil).Look(t.Context()) {
		if f.State != OK && f.Check != "disk" { // the disk is the real one
			t.Errorf("%+v", f)
		}
	}
}

func TestWhatIsMissing(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string
		change func(*Host)
		check  string
		state  State
		mend   string // a part of it
	}{
		{"not root", nil, func(h *Host) { h.UID = 1000 }, "root", Missing, "sudo"},
		{"no runc", nil, func(h *Host) { h.LookPath = func(string) (string, error) { return "", errors.New("no") } }, "runc", Missing, "apt-get install -y runc"},
		{"no agent", map[string]string{"bin/shoal-agent": "absent"}, nil, "shoal-agent", Missing, "install shoal-agent"},
		{"a container's root", map[string]string{"proc/self/status": "CapEff:\t00000000a80425fb\n"}, nil, "capabilities", Missing, "--privileged"},
		{"no cgroups", map[string]string{"proc/self/mountinfo": "1 0 0:1 / / rw - ext4 x rw\n"}, nil, "cgroups", Missing, "mount -t cgroup2"},
		{"no memory controller", map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu pids\n"}, nil, "cgroups", Missing, "cgroup_enable=memory"},
		{"read-only cgroups", map[string]string{"proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n"}, nil, "cgroups", Missing, "remount,rw"},
		{"cgroups v1", map[string]string{"proc/self/mountinfo": "30 20 0:26 / /c/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n" +
			"31 20 0:27 / /c/memory rw - cgroup cgroup rw,memory\n32 20 0:28 / /c/pids rw - cgroup cgroup rw,pids\n"}, nil, "cgroups", OK, ""},
		{"no overlay", nil, func(h *Host) { h.Try.Overlay = func(string) error { return errors.New("no such device") } }, "overlayfs", Missing, "modprobe overlay"},
		{"no bridge", nil, func(h *Host) {
			h.Try.Network = func(context.Context, string) (error, error) { return errors.New("not supported"), nil }
		}, "bridge", Missing, "modprobe"},
		{"no nft in the kernel", nil, func(h *Host) {
			h.Try.Network = func(context.Context, string) (error, error) { return nil, errors.New("not supported") }
		}, "nft rules", Missing, "modprobe"},
		{"docker's forward chain", nil, func(h *Host) {
			h.Output = func(context.Context, string, ...string) (string, error) { return dockerChains, nil }
		}, "forward chain", Warning, "iptables -I FORWARD"},
		{"no IPv4", map[string]string{"proc/sys/net/ipv4/ip_forward": "absent"}, nil, "ip_forward", Missing, "IPv4"},
		{"port taken", nil, func(h *Host) {
			h.Try.Listen = func(context.Context, string) error { return errors.New("address already in use") }
		}, "SSH port", Missing, "--ssh-listen"},
		{"broken authority", map[string]string{"var/lib/shoal/tls/ca.crt": "x"}, nil, "certificate", Warning, "restore"},
		{"browsers' port", nil, func(h *Host) { h.HTTPSListen = "7443" }, "HTTPS port", Missing, "HOST:PORT"},
		{"impossible address", nil, func(h *Host) { h.Listen = "7420" }, "API port", Missing, "HOST:PORT"},
		{"running", nil, func(h *Host) { h.Try.Serves = func(string) bool { return true } }, "ports", OK, ""},
		{"clock", nil, func(h *Host) { h.Try.Clock = func() (bool, error) { return false, nil } }, "clock", Warning, "timedatectl"},
		{"no JupyterHub", nil, func(h *Host) { h.LookPath = func(string) (string, error) { return "", errors.New("no") } }, "jupyterhub", OK, ""},
		{"no JupyterHub any more", map[string]string{"var/lib/shoal/hub/config/x": ""}, func(h *Host) { h.LookPath = func(string) (string, error) { return "", errors.New("no") } }, "jupyterhub", Warning, "apt-get install"},
		{"no GPUs", nil, nil, "gpus", OK, ""},
		{"a driver that is not loaded", map[string]string{"usr/bin/nvidia-smi": "#!/bin/sh\n"}, nil, "gpus", Warning, "nvidia-smi -L"},
		{"numbers taken", map[string]string{"etc/passwd": "eve:x:20007:100::/:/bin/sh\n"}, nil, "accounts", Warning, "uid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := world(t, tt.files)
			if tt.change != nil {
				tt.change(&h)
			}
			got := find(t, h.Look(t.Context()), tt.check)
			if got.State != tt.state || !strings.Contains(got.Mend, tt.mend) {
				t.Errorf("got %+v, want %s with %q", got, tt.state, tt.mend)
			}
			if got.State != OK && got.Mend == "" {
				t.Errorf("%+v says not what to do", got)
			}
		})
	}
}

const dockerChains = `table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain DOCKER {
	}
}
table ip6 filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
`

func TestInstall(t *testing.T) {
	h := world(t, nil)
	h.LookPath = func(string) (string, error) { return "", errors.New("no") }
	if got, want := Install(h.Look(t.Context())), "apt-get install -y runc nftables openssh-server"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Install(world(t, nil).Look(t.Context())); got != "" {
		t.Errorf("a healthy host needs %q", got)
	}
}

// TestTrialsLeaveNothing runs the real ones on this host.
func TestTrialsLeaveNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	found := Here(dir, "127.0.0.1:0", "127.0.0.1:0").Look(t.Context())
	for _, f := range found {
		t.Logf("%+v", f)
	}
	if f := find(t, found, "cgroups"); f.State == Missing && strings.Contains(f.Detail, "cannot read") {
		t.Error(f.Detail)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), dir) {
		t.Errorf("a mount is left:\n%s", mounts)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if _, err := os.Stat("/sys/class/net/shoal-trial"); err == nil {
		t.Error("the trial bridge is left")
	}
}
