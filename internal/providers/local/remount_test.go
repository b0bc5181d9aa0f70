package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts/served"
	"github.com/shoal-pool/shoal/provider"
)

// trouble waits until a machine is in trouble that says something, or in none.
func trouble(t *testing.T, p *Provider, id shoal.MachineID, say string) {
	t.Helper()
	eventually(t, func() error {
		o, err := p.Observe(t.Context())
		for _, m := range o.Machines {
			if m.ID == id && (say == "" && m.Trouble != "" || !strings.Contains(m.Trouble, say) || m.Phase != provider.PhaseRunning) {
				return fmt.Errorf("%+v", m)
			}
		}
		return err
	})
}

// A machine's shares and homes through the death of server, client and provider.
func TestRemount(t *testing.T) {
	needHost(t)
	server := served.SSH(t)
	cfg := place(t)
	cfg.mounts.Timeout, cfg.mounts.Interval = 5*time.Second, 300*time.Millisecond
	cfg.Secret = func(context.Context, shoal.ShareName, string) ([]byte, error) { return []byte(server.Key), nil }
	p, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { finish(t, p) }()
	share := server.Share("team")
	s := spec("m-1", "lab")
	s.Mounts = []provider.Mount{{Share: share, Path: "/shared"}}
	create(t, p, s)
	home := func(name string, uid int) provider.HomeMount {
		return provider.HomeMount{Mount: provider.Mount{Share: share, Path: "/shared/home/" + name}, Sub: "home/" + name, UID: uid, GID: uid}
	}
	homes := []provider.HomeMount{home("alice", 20001), home("bob", 20002)}
	for range 2 {
		if err := p.MountHomes(t.Context(), "m-1", homes); err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid int, script string) string {
		return fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups sh -c '%s'", uid, uid, script)
	}
	must(t, p, "m-1", as(20001, "cd /shared/home/alice && echo mine > diary && ln -s diary link && cat link"))
	refused(t, p, "m-1", as(20002, "cat /shared/home/alice/diary"))
	refused(t, p, "m-1", as(20002, "ls /shared/home"))
	if got := must(t, p, "m-1", "stat -c %u:%g:%a /shared/home/alice"); got != "20001:20001:700" {
		t.Errorf("alice's home is %s", got)
	}
	check := func() {
		t.Helper()
		eventually(t, func() error {
			if out, err := in(t, p, "m-1", as(20001, "cat /shared/home/alice/diary")+" && ls /shared/home/bob"); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		refused(t, p, "m-1", as(20002, "cat /shared/home/alice/diary"))
	}

	server.Kill()
	trouble(t, p, "m-1", "cannot reach share team")
	server.Start()
	trouble(t, p, "m-1", "")
	check()

	clients, _ := exec.Command("pgrep", "-f", "sshfs.*"+p.path("shares")).Output()
	for _, pid := range strings.Fields(string(clients)) {
		if err := exec.Command("kill", "-9", pid).Run(); err != nil {
			t.Error(err)
		}
	}
	check()
	trouble(t, p, "m-1", "")

	// Another server program goes on with the same clients, and gives the machine what changed meanwhile.
	before, _ := exec.Command("pgrep", "-f", "sshfs.*"+p.path("shares")).Output()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, p, "m-1", as(20001, "echo more >> /shared/home/alice/diary"))
	if p, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	check()
	if after, _ := exec.Command("pgrep", "-f", "sshfs.*"+p.path("shares")).Output(); string(after) != string(before) || len(strings.Fields(string(after))) != 3 {
		t.Errorf("the clients were %q and are %q", before, after)
	}

	// A start has them from the beginning; a home that is not listed is gone.
	if err := p.Stop(t.Context(), "m-1"); err != nil {
		t.Fatal(err)
	}
	wait(t, p, "m-1", provider.PhaseStopped)
	if err := p.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	wait(t, p, "m-1", provider.PhaseRunning)
	check()
	if err := p.MountHomes(t.Context(), "m-1", homes[:1]); err != nil {
		t.Fatal(err)
	}
	if out := must(t, p, "m-1", "grep -c /shared/home/ /proc/self/mountinfo"); out != "1" {
		t.Errorf("%s homes are mounted", out)
	}
	if _, err := os.Stat(filepath.Join(server.Dir, "home/bob")); err != nil {
		t.Error(err)
	}
	if err := p.MountHomes(t.Context(), "m-absent", homes); err == nil || !errors.As(err, new(*provider.Error)) {
		t.Errorf("homes of no machine: %v", err)
	}
}
