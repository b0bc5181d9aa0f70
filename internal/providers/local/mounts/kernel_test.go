package mounts

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// These mount by a kernel's own clients. They are run where there are some, in a virtual machine, by internal/sharetest, which says
// in the environment where its servers are.

// kernelServer returns where a server is, or skips.
func kernelServer(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Skipf("%s is not set: the kernel's clients are tried in the virtual machine of internal/sharetest", name)
	}
	return v
}

// control has something done to a server.
func control(t *testing.T, what, body string) {
	t.Helper()
	resp, err := http.Post(os.Getenv("SHOAL_TEST_CONTROL")+what, "text/plain", strings.NewReader(body)) //nolint:gosec,noctx // the test's own
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%s: %s", what, resp.Status)
	}
}

// reads waits until a file can be read in a machine.
func (b *box) reads(file string) {
	b.w.t.Helper()
	eventually(b.w.t, func() error { out, err := b.run("cat " + file); return because(err, out) })
}

func TestKernelNFS(t *testing.T) {
	source := kernelServer(t, "SHOAL_TEST_NFS")
	w := newWorld(t, true)
	// Where a server is gone, who asks is told after a while, so that the test sees it.
	share := shoal.Share{Name: "team", Source: source, Options: map[string]string{"softerr": "", "timeo": "20", "retrans": "1"}}
	b := w.machine(share)
	// Owners and modes are real, and nothing makes root.
	out := b.must("rm -rf kernel; mkdir kernel; cd kernel; echo one > file; ln -s file link; cat link; chown 30001:30002 file; chmod 4640 file; stat -c %u:%g:%a file")
	if out != "one\n30001:30002:4640" {
		t.Errorf("on NFS: %q", out)
	}
	if opts := b.must("grep ' " + b.at + " ' /proc/mounts"); !strings.Contains(opts, "nosuid") || !strings.Contains(opts, "nodev") || !strings.Contains(opts, "vers=4.") || !strings.Contains(opts, "softerr") {
		t.Errorf("mounted with %s", opts)
	}
	w.Set.cfg.Timeout = 8 * time.Second
	control(t, "/nfs/stop", "")
	w.troubled(share, "cannot reach share team")
	_, _ = b.run("timeout 20 cat kernel/file")
	control(t, "/nfs/start", "")
	w.troubled(share, "")
	b.reads("kernel/file")
	before := w.recordOf(share)
	w.restart()
	if _, err := w.Reach(t.Context(), share); err != nil || w.recordOf(share).Gen != before.Gen {
		t.Errorf("it was not adopted: %v", err)
	}
	absent := shoal.Share{Name: "absent", Source: source + "/no/such/directory"}
	if _, err := w.Reach(t.Context(), absent); err == nil || !strings.Contains(err.Error(), "cannot reach share absent") || !Waits(err) {
		t.Errorf("a directory that is not exported: %v", err)
	}
	bad := shoal.Share{Name: "bad", Source: source, Options: map[string]string{"suid": ""}}
	if _, err := w.Reach(t.Context(), bad); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("an option that is not allowed: %v", err)
	}
}

// A server that wants encryption gets it.
func TestKernelAzureFiles(t *testing.T) {
	at := strings.TrimPrefix(kernelServer(t, "SHOAL_TEST_SMB_SEALED"), "smb://")
	host, _, _ := strings.Cut(at, "/")
	w := newWorld(t, true)
	w.secrets["key"] = os.Getenv("SHOAL_TEST_AZURE_KEY")
	share := shoal.Share{Name: "team", Source: "azurefiles://team/sealed", Options: map[string]string{"host": host}, Credentials: &shoal.SecretRef{Secret: "key"}}
	b := w.machine(share)
	b.must("echo one > sealed-file; ln -sf sealed-file sealed-link; cat sealed-link")
	if opts := b.must("grep ' " + b.at + " ' /proc/mounts"); !strings.Contains(opts, "seal") || !strings.Contains(opts, "vers=3.1.1") || !strings.Contains(opts, "serverino") {
		t.Errorf("mounted with %s", opts)
	}
}

func TestKernelSMB(t *testing.T) {
	source := kernelServer(t, "SHOAL_TEST_SMB")
	w := newWorld(t, true)
	user, password := os.Getenv("SHOAL_TEST_SMB_USER"), os.Getenv("SHOAL_TEST_SMB_PASSWORD")
	w.secrets["team"] = "username=" + user + "\npassword=" + password + "\n"
	w.secrets["wrong"] = "username=" + user + "\npassword=wrong-password\n"
	share := shoal.Share{Name: "team", Source: source, Credentials: &shoal.SecretRef{Secret: "team"}}
	b := w.machine(share)
	if out := b.must("rm -rf kernel; mkdir kernel; cd kernel; echo one > file; ln -s file link; cat link; stat -c %u:%a ."); out != "one\n0:777" {
		t.Errorf("on SMB: %q", out)
	}
	if opts := b.must("grep ' " + b.at + " ' /proc/mounts"); strings.Contains(opts, password) || !strings.Contains(opts, "nosuid") || !strings.Contains(opts, "mfsymlinks") || !strings.Contains(opts, "nobrl") {
		t.Errorf("mounted with %s", opts)
	}
	nowhere(t, password, "cmdline") // the environment has it from the test
	// Homes of two users.
	home := func(name string, uid int) provider.HomeMount {
		return provider.HomeMount{Mount: provider.Mount{Share: share, Path: b.at + "/kernel/" + name}, Sub: "kernel/" + name, UID: uid, GID: uid}
	}
	w.mu.Lock()
	m := &w.machines[0]
	m.Homes = []provider.HomeMount{home("alice", 30001), home("bob", 30002)}
	w.keys = Keys(m.Mounts, m.Homes)
	now := *m
	w.mu.Unlock()
	if err := w.Homes(t.Context(), now, nil); err != nil {
		t.Fatal(err)
	}
	if out := b.must("stat -c %u:%g:%a kernel/alice kernel/bob"); out != "30001:30001:700\n30002:30002:700" {
		t.Errorf("homes: %q", out)
	}
	b.must("echo mine > kernel/alice/diary")

	w.Set.cfg.Timeout = 15 * time.Second
	control(t, "/smb/stop", "")
	w.troubled(share, "cannot reach share team")
	control(t, "/smb/start", "")
	w.troubled(share, "")
	b.reads("kernel/alice/diary")
	if _, err := w.Reach(t.Context(), shoal.Share{Name: "other", Source: source, Options: map[string]string{"nosharesock": ""}, Credentials: &shoal.SecretRef{Secret: "wrong"}}); err == nil ||
		!strings.Contains(err.Error(), `the secret "wrong" that it names is refused`) || strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("a wrong password: %v", err)
	}
	before := w.recordOf(share)
	control(t, "/smb/password", "another-password")
	w.mu.Lock()
	w.secrets["team"] = "username=" + user + "\npassword=another-password\n"
	w.mu.Unlock()
	w.Renew("team", time.Now())
	eventually(t, func() error {
		if w.recordOf(share).Gen == before.Gen {
			return errors.New("not mounted anew")
		}
		return nil
	})
	b.reads("kernel/alice/diary")
}
