package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestKeysAreMadeOnceAndPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := loadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.gatewayHost.PublicKey().Marshal(), again.gatewayHost.PublicKey().Marshal()) {
		t.Error("the gateway's host key changed")
	}
	if !bytes.Equal(first.agents, again.agents) || len(first.agents) != agentKeySize {
		t.Error("the key of the agents' tokens changed")
	}
	if bytes.Equal(first.userCA.PublicKey().Marshal(), first.hostCA.PublicKey().Marshal()) {
		t.Error("one key signs for users and for hosts")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Fatalf("%d files, %v; want five keys", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestAdminTokenStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "admin.token")
	first, err := tokenOf("admin", path)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := tokenOf("admin", path); err != nil || again != first {
		t.Errorf("%q, %v; want the first one", again, err)
	}
}
