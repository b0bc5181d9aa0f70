package local

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts/served"
	"github.com/shoal-pool/shoal/internal/providers/local/network"
	"github.com/shoal-pool/shoal/provider"
)

// traces lists all that exists on the host because of a provider, by kind.
func traces(t testing.TB, p *Provider) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	add := func(kind, what string) { found[kind] = append(found[kind], what) }
	group := "shoal-" + p.tag

	for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
		if strings.Contains(line, p.cfg.Dir+"/") {
			add("mount", line)
		}
	}
	for _, pattern := range []string{"/sys/class/net/" + p.cfg.BridgeName, "/sys/class/net/v" + p.tag + "-*", filepath.Join(forwardingDir(), p.cfg.BridgeName)} {
		list, _ := filepath.Glob(pattern)
		for _, f := range list {
			add("link "+filepath.Dir(f), f)
		}
	}
	out, err := exec.Command(p.nft, "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "shoal_"+p.tag) {
			add("table", line)
		}
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, group) {
			add("cgroup", path)
		}
		return nil // other groups come and go
	})
	if err != nil {
		t.Fatal(err)
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		cgroup, _ := os.ReadFile(dir + "/cgroup")
		mounts, _ := os.ReadFile(dir + "/mountinfo")
		cmd, _ := os.ReadFile(dir + "/cmdline")
		if dir != fmt.Sprintf("/proc/%d", os.Getpid()) && (bytes.Contains(cgroup, []byte(group)) || bytes.Contains(mounts, []byte(p.cfg.Dir+"/")) || bytes.Contains(cmd, []byte(p.cfg.Dir+"/"))) {
			add("process", dir+" "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	b := p.net.Gateway().As4()
	slices.Reverse(b[:]) // of the kernel's own order
	for _, file := range []string{"/proc/net/udp", "/proc/net/tcp"} {
		for line := range strings.Lines(read(t, file)) {
			if strings.Contains(line, strings.ToUpper(hex.EncodeToString(b[:]))+":0035") {
				add("socket", line)
			}
		}
	}
	return found
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// clean fails if anything of a provider is left on the host.
func clean(t testing.TB, p *Provider) {
	t.Helper()
	eventually(t, func() error { // whoever is process 1 may take a moment to reap
		left := traces(t, p)
		if len(left) > 0 {
			return fmt.Errorf("left on the host: %q", left)
		}
		return nil
	})
}

// Full use, then the end: nothing may be left, and the host's forwarding is as before.
func TestLeavesNoTrace(t *testing.T) {
	needHost(t)
	forwarding := func() string {
		if _, err := os.Stat(forwardingDir()); err == nil {
			return "somebody else's"
		}
		return read(t, "/proc/sys/net/ipv4/ip_forward")
	}
	before := forwarding()
	server := served.SSH(t)
	cfg := place(t)
	cfg.Secret = func(context.Context, shoal.ShareName, string) ([]byte, error) { return []byte(server.Key), nil }
	p, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { finish(t, p) })
	for i := range 4 {
		s := spec(fmt.Sprintf("m-%d", i), []string{"lab", "other"}[i%2])
		s.Mounts = []provider.Mount{{Share: server.Share("team"), Path: "/shared"}}
		create(t, p, s)
		must(t, p, s.ID, "setsid sleep 1000 >/dev/null 2>&1 </dev/null & mkdir -p /sys/fs/cgroup/*/x/y 2>/dev/null; echo x > /shared/$(hostname)")
	}
	if err := p.Stop(t.Context(), "m-0"); err != nil {
		t.Error(err)
	}
	wait(t, p, "m-0", provider.PhaseStopped)
	// The detector must be able to see all of these.
	seen := traces(t, p)
	for _, kind := range []string{"mount", "link /sys/class/net", "link " + forwardingDir(), "table", "cgroup", "process", "socket"} {
		if len(seen[kind]) == 0 {
			t.Errorf("no %s is seen while machines run", kind)
		}
	}
	if len(seen["mount"]) != 1 {
		t.Errorf("on the host there is more mounted than the one share: %q", seen["mount"])
	}
	if b := read(t, "/proc/sys/net/ipv4/ip_forward"); b != "1\n" {
		t.Errorf("ip_forward is %s", b)
	}
	finish(t, p)
	clean(t, p)
	if after := forwarding(); before != "somebody else's" && after != "somebody else's" && after != before {
		t.Errorf("ip_forward was %s and is %s", before, after)
	}
	left, err := filepath.Glob(filepath.Join(cfg.Dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if filepath.Base(filepath.Dir(f)) != "images" {
			t.Errorf("left in the directory: %s", f)
		}
	}
}

// Two installations on one host: the first to end takes nothing from the other.
func TestTwoInstallations(t *testing.T) {
	needHost(t)
	a, b := place(t), place(t)
	p, q := open(t, a), open(t, b)
	if p.Subnet().Overlaps(q.Subnet()) || p.cfg.BridgeName == q.cfg.BridgeName {
		t.Errorf("both have %s and %s, %s and %s", p.Subnet(), q.Subnet(), p.cfg.BridgeName, q.cfg.BridgeName)
	}
	if !network.Range().Overlaps(p.Subnet()) {
		t.Errorf("the subnet %s is not of %s", p.Subnet(), network.Range())
	}
	create(t, q, spec("m-1", "lab"))
	if _, err := New(t.Context(), a); err == nil {
		t.Error("one directory was opened twice")
	}
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	clean(t, p)
	if got := read(t, "/proc/sys/net/ipv4/ip_forward"); got != "1\n" {
		t.Errorf("the second has no forwarding: %s", got)
	}
	must(t, q, "m-1", "getent hosts m-1")
}
