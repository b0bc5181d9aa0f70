package vault_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/vault"
)

// world is a vault whose processes are a map.
func world(t *testing.T) (v *vault.Vault, dir string, born map[int]uint64) {
	t.Helper()
	dir, born = filepath.Join(t.TempDir(), "secrets"), map[int]uint64{}
	return vault.At(dir, filepath.Join(filepath.Dir(dir), "state"), func(pid int) uint64 { return born[pid] }), dir, born
}

// What is put is the user's alone, whole, and all that there is.
func TestPut(t *testing.T) {
	v, dir, _ := world(t)
	alice := vault.Owner{User: "alice", UID: 20001, GID: 20001}
	values := map[string][]byte{"KEY": []byte("one\ntwo\x00"), "EMPTY": {}}
	for range 2 {
		if err := v.Put(alice, values); err != nil {
			t.Fatal(err)
		}
		for name, want := range values {
			path := filepath.Join(dir, "alice", name)
			got, err := os.ReadFile(path)
			if err != nil || string(got) != string(want) {
				t.Errorf("%s holds %q, %v", name, got, err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if st := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || st.Uid != 20001 || st.Gid != 20001 {
				t.Errorf("%s is %v of %d", name, info.Mode(), st.Uid)
			}
		}
		values["KEY"] = []byte("another")
	}
	info, err := os.Stat(filepath.Join(dir, "alice"))
	if st, ok := info.Sys().(*syscall.Stat_t); err != nil || !ok || info.Mode().Perm() != 0o750 || st.Uid != 0 || st.Gid != 20001 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	if err := v.Put(alice, map[string][]byte{"OTHER": []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "alice")); len(left) != 1 || left[0].Name() != "OTHER" {
		t.Errorf("then there is %v", left)
	}
}

// Files are there as long as a process that has come is, or anything of the user's runs.
func TestSweep(t *testing.T) {
	v, dir, born := world(t)
	busy := map[shoal.UserName]bool{}
	sweep := func() string {
		t.Helper()
		if err := v.Sweep(func(u shoal.UserName) bool { return busy[u] }); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		var left []string
		for _, e := range entries {
			left = append(left, e.Name())
		}
		return strings.Join(left, " ")
	}
	if left := sweep(); left != "" {
		t.Errorf("there is %q before anybody has come", left)
	}
	born[10], born[11], born[12] = 1, 2, 3
	for pid, user := range map[int]shoal.UserName{10: "alice", 11: "alice", 12: "bob"} {
		if err := errors.Join(v.Came(user, pid), v.Put(vault.Owner{User: user, UID: 20001, GID: 20001}, map[string][]byte{"K": []byte("v")})); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"all are there", func() {}, "alice bob"},
		{"one of two has gone", func() { v.Went("alice", 10) }, "alice bob"},
		{"bob's number is another process's", func() { born[12] = 4 }, "alice"},
		{"she has gone, and something of hers runs", func() { v.Went("alice", 11); busy["alice"] = true }, "alice"},
		{"nothing does", func() { busy["alice"] = false }, ""},
	} {
		step.do()
		if left := sweep(); left != step.want {
			t.Errorf("%s: there is %q, want %q", step.name, left, step.want)
		}
	}
}

func TestWanted(t *testing.T) {
	v, _, _ := world(t)
	for _, want := range [][]string{nil, {"A", "B"}, {"B"}, {}} {
		if err := v.Want(want); err != nil {
			t.Fatal(err)
		}
		if got := v.Wanted(); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("it wants %v, not %v", got, want)
		}
	}
}
