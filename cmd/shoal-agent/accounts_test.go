package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/host/sshd"
)

// A disk that is full, which may be a user's doing, does not keep her in once she is disabled.
func TestShutOutWithoutDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("processes of others need root")
	}
	const alice, bob = 54326, 54327
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	server, err := sshd.New(sshd.Config{Dir: filepath.Join(dir, "run"), Etc: dir, Agent: "/agent", Port: 22, Log: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Principals(map[string]string{"alice": "alice@lab", "bob": "bob@lab", "carol": "carol@lab"}); err != nil {
		t.Fatal(err)
	}
	m := &machine{sshd: server, log: log, ending: map[int]chan struct{}{},
		keeper: accounts.New(accounts.Config{Etc: filepath.Join(dir, "full"), State: filepath.Join(dir, "full", "state"), Log: log})}
	ended := func(uid uint32) chan struct{} {
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		done := make(chan struct{})
		go func() { defer close(done); _ = cmd.Wait() }()
		return done
	}
	hers, his := ended(alice), ended(bob)
	user := func(name string, uid int, disabled bool) api.Account {
		return api.Account{Name: shoal.UserName(name), UID: uid, GID: uid, Home: "/home/" + name, Principal: name + "@lab", Disabled: disabled}
	}
	users := []api.Account{user("alice", alice, true), user("bob", bob, false)}
	if err := m.Accounts(api.Accounts{Users: users}, nil); err == nil {
		t.Error("accounts were written where nothing can be")
	}
	select {
	case <-hers:
	case <-time.After(time.Minute):
		t.Error("what she runs goes on")
	}
	select {
	case <-his:
		t.Error("what he runs was ended")
	default:
	}
	for name, in := range map[string]bool{"alice": false, "bob": true, "carol": false} {
		if _, err := os.Stat(filepath.Join(dir, "run", "principals", name)); (err == nil) != in {
			t.Errorf("%s: %v", name, err)
		}
	}
}
