package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/accounts"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts"
	"github.com/shoal-pool/shoal/provider"
)

func TestMain(m *testing.M) {
	mounts.Child()
	os.Exit(m.Run())
}

// patience is how long a test waits in a machine that is emulated.
const patience = 5 * time.Minute

// server is the address of a server in the environment.
func server(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Skip("it runs in the virtual machine that internal/sharetest boots")
	}
	return v
}

// control tells the host to do something with its servers.
func control(t *testing.T, what, body string) {
	t.Helper()
	r, err := http.Post(os.Getenv("SHOAL_TEST_CONTROL")+what, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusNoContent {
		t.Fatalf("%s: %s", what, r.Status)
	}
}

// box is a set of mounts, and a process with a mount namespace of its own for a machine.
type box struct {
	*mounts.Set
	t       *testing.T
	secret  atomic.Pointer[string]
	machine atomic.Pointer[mounts.Machine]
	pid     int
}

func newBox(t *testing.T) *box {
	t.Helper()
	b := &box{t: t}
	set, err := mounts.Open(mounts.Config{
		Dir: filepath.Join(t.TempDir(), "mounts"), Run: filepath.Join("/run", t.Name()), Self: "/proc/self/exe",
		Secret: func(context.Context, shoal.ShareName, string) ([]byte, error) { return []byte(*b.secret.Load()), nil },
		Groups: func() ([]string, error) { return nil, nil },
		Machines: func() []mounts.Machine {
			if m := b.machine.Load(); m != nil {
				return []mounts.Machine{*m}
			}
			return nil
		},
		Changed: func() {},
		InUse: func() []string {
			if m := b.machine.Load(); m != nil {
				return mounts.Keys(m.Mounts, m.Homes)
			}
			return nil
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Timeout: 5 * time.Second, Interval: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Set = set
	cmd := exec.Command("sleep", "3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.pid = cmd.Process.Pid
	t.Cleanup(func() {
		b.machine.Store(nil)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if err := set.DropUnused(context.Background()); err != nil {
			t.Error(err)
		}
		if text := procMounts(t); strings.Contains(text, t.Name()) {
			t.Errorf("mounts are left:\n%s", text)
		}
	})
	return b
}

// patiently does what waits 5 s for a server, again where that did not answer or was not there yet: a guest on a host that has much to do is
// slower. One that refuses a secret has answered.
func patiently(do func() error) (err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = do(); shoal.KindOf(err) != shoal.KindUnavailable || strings.Contains(err.Error(), "that it names is refused") {
			break
		}
	}
	return err
}

// reach mounts a share and returns where everybody may see it, as in a machine, and its options.
func (b *box) reach(s shoal.Share) (dir, options string) {
	b.t.Helper()
	if err := patiently(func() (err error) {
		dir, err = b.Reach(b.t.Context(), s)
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(procMounts(b.t)) {
		if f := strings.Fields(line); len(f) > 3 && f[1] == dir {
			return b.bind(dir), f[3]
		}
	}
	b.t.Fatalf("%s is not mounted", dir)
	return "", ""
}

// bind shows a directory where everybody may see it.
func (b *box) bind(from string) string {
	b.t.Helper()
	dir, err := os.MkdirTemp("/mnt", "")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), unix.Mount(from, dir, "", unix.MS_BIND, "")) //nolint:gosec // everybody's
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// has checks options of a mount.
func (b *box) has(options string, wanted ...string) {
	b.t.Helper()
	for _, w := range wanted {
		if !strings.Contains(","+options+",", ","+w+",") {
			b.t.Errorf("option %s is missing: %s", w, options)
		}
	}
}

// watched runs the supervision of a machine with the share at /mnt and returns where that is seen from outside.
func (b *box) watched(s shoal.Share) (dir string, m []provider.Mount) {
	b.t.Helper()
	m = []provider.Mount{{Share: s, Path: "/mnt"}}
	if err := patiently(func() error {
		_, err := b.Ready(b.t.Context(), mounts.Machine{ID: "m-1", Mounts: m})
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	b.machine.Store(&mounts.Machine{ID: "m-1", PID: b.pid, Mounts: m})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Run(ctx)
	}()
	b.t.Cleanup(func() {
		cancel()
		<-ended
	})
	until(b.t, "the machine has the share", func() bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", b.pid))
		return err == nil && strings.Contains(string(text), " /mnt ")
	})
	return fmt.Sprintf("/proc/%d/root/mnt", b.pid), m
}

func procMounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// until waits for something to be so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// as runs a shell script as a user, for as long as a test waits.
func as(uid int, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// must is as of what goes well.
func must(t *testing.T, uid int, script string) string {
	t.Helper()
	out, err := as(uid, script)
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return out
}

// fails is as of what must not go well.
func fails(t *testing.T, uid int, script string) {
	t.Helper()
	if out, err := as(uid, script); err == nil {
		t.Errorf("uid %d may do %q: %s", uid, script, out)
	}
}

// Files have the numbers of their owners on both sides; modes count; root is root where the export says so.
func TestKernelNFS(t *testing.T) {
	at := server(t, "SHOAL_TEST_NFS")
	b := newBox(t)
	dir, options := b.reach(shoal.Share{Name: "open", Source: at + "/open"})
	t.Log(options)
	b.has(options, "nosuid", "nodev", "proto=tcp", "sec=sys", "vers=4.2", "hard")
	must(t, 0, fmt.Sprintf("cd %s; mkdir home; mkdir -m 700 home/ann; chown 20001:20001 home/ann; chmod 711 home", dir))
	must(t, 20001, fmt.Sprintf("cd %s/home/ann; umask 027; echo hers > note; ln -s note link; mkfifo pipe; mv note other; mv other note; cat link", dir))
	if got := must(t, 0, fmt.Sprintf("stat -c '%%u %%g %%a' %s/home/ann/note", dir)); got != "20001 20001 640" {
		t.Errorf("her file is %s", got)
	}
	fails(t, 20002, fmt.Sprintf("cat %s/home/ann/note", dir))
	fails(t, 20002, fmt.Sprintf("touch %s/mine", dir))
	must(t, 20001, fmt.Sprintf("flock -n %s/home/ann/note true", dir))

	_, options = b.reach(shoal.Share{Name: "old", Source: at + "/open", Options: map[string]string{"vers": "4.1", "softerr": "", "timeo": "50", "ro": ""}})
	b.has(options, "ro", "vers=4.1", "softerr", "timeo=50")

	// Root is nobody: what he makes is not his, and what is a user's he cannot touch. She herself can.
	dir, _ = b.reach(shoal.Share{Name: "squashed", Source: at + "/squashed"})
	fails(t, 0, fmt.Sprintf("touch %s/mine", dir))
	must(t, 20001, fmt.Sprintf("cd %s/open; mkdir -m 700 ann; echo hers > ann/note", dir))
	if got := must(t, 20001, fmt.Sprintf("stat -c '%%u %%a' %s/open/ann", dir)); got != "20001 700" {
		t.Errorf("her directory is %s", got)
	}
	fails(t, 0, fmt.Sprintf("cat %s/open/ann/note", dir))

	// So homes are made as their users, by what machines' agents do; where these may not either, it is said what is to be done.
	w := accounts.Work{Root: dir, Homes: []accounts.Home{{Path: dir + "/open/home/bea", User: "bea", UID: 20003, GID: 20003}, {Path: dir + "/shut/cid", User: "cid", UID: 20004, GID: 20004}}}
	for range 2 {
		done, err := w.Do()
		if err != nil || len(done.Homes) != 1 || len(done.Problems) != 1 || done.Problems[0].User != "cid" || !strings.Contains(done.Problems[0].Reason, "give it the mode 1777 on the file server") {
			t.Errorf("of homes there: %+v, %v", done, err)
		}
	}
	if got := must(t, 20003, fmt.Sprintf("cd %s/open/home/bea; echo hers > note; stat -c '%%u %%a' .", dir)); got != "20003 700" {
		t.Errorf("her home is %s", got)
	}
	fails(t, 20001, fmt.Sprintf("ls %s/open/home/bea", dir))
	fails(t, 20001, fmt.Sprintf("mv %s/open/home/bea %s/open/home/other", dir, dir))

	_, err := b.Reach(t.Context(), shoal.Share{Name: "none", Source: at + "/none"})
	if shoal.KindOf(err) != shoal.KindUnavailable || !strings.Contains(fmt.Sprint(err), "cannot reach share none") {
		t.Errorf("what is not exported: %v", err)
	}
	t.Log(err)
}

// A server that goes is trouble, said in a sentence; one that comes back ends it, and nothing was to be done.
func TestKernelNFSServerGoes(t *testing.T) {
	at := server(t, "SHOAL_TEST_NFS")
	t.Parallel()
	goes(t, "/nfs", shoal.Share{Name: "open", Source: at + "/open"}, nil)
}

func TestKernelSMBServerGoes(t *testing.T) {
	at := server(t, "SHOAL_TEST_SMB")
	t.Parallel()
	t.Cleanup(func() { control(t, "/smb/password", os.Getenv("SHOAL_TEST_SMB_PASSWORD")) })
	// Its password is changed while it is away: what is mounted anew has the new one.
	goes(t, "/smb", shoal.Share{Name: "team", Source: at + "/team", Credentials: &shoal.SecretRef{Secret: "team"}}, func(b *box) {
		control(t, "/smb/password", "another secret")
		b.secret.Store(new("username=team\npassword=another secret\n"))
		b.Renew("team", time.Now())
	})
}

func goes(t *testing.T, name string, s shoal.Share, meanwhile func(*box)) {
	t.Helper()
	b := newBox(t)
	b.secret.Store(login())
	dir, m := b.watched(s)
	must(t, 0, fmt.Sprintf("echo before > %s/before; sync %s/before", dir, dir))
	until(t, "no trouble is told", func() bool { return b.Trouble(m, nil) == "" })
	control(t, name+"/stop", "")
	until(t, "the trouble is told", func() bool { return b.Trouble(m, nil) != "" })
	if text := b.Trouble(m, nil); !strings.Contains(text, string(s.Name)) {
		t.Errorf("%q does not say which share", text)
	} else {
		t.Log(text)
	}
	if meanwhile != nil {
		meanwhile(b)
	}
	control(t, name+"/start", "")
	until(t, "the trouble is over", func() bool { return b.Trouble(m, nil) == "" })
	until(t, "the machine sees the share", func() bool {
		out, err := as(0, fmt.Sprintf("cat %s/before; echo after > %s/after", dir, dir))
		return err == nil && out == "before"
	})
}

func login() *string {
	return new("username=team\npassword=" + os.Getenv("SHOAL_TEST_SMB_PASSWORD") + "\n")
}

// SMB has no owners: the share is what its options say, and a home is its user's alone.
func TestKernelSMB(t *testing.T) {
	at := server(t, "SHOAL_TEST_SMB")
	b := newBox(t)
	b.secret.Store(login())
	team := shoal.Share{Name: "team", Source: at + "/team", Credentials: &shoal.SecretRef{Secret: "team"}}
	dir, options := b.reach(team)
	t.Log(options)
	b.has(options, "nosuid", "nodev", "mfsymlinks", "nobrl", "serverino", "uid=0", "gid=0", "file_mode=0777", "dir_mode=0777", "username=team")
	if all := procMounts(t); strings.Contains(all, os.Getenv("SHOAL_TEST_SMB_PASSWORD")) {
		t.Error("the list of mounts has the password")
	}
	must(t, 0, fmt.Sprintf("cd %s; echo hello > note; ln -s note link; cat link; sync note", dir))
	if got := must(t, 0, fmt.Sprintf("readlink %s/link", dir)); got != "note" {
		t.Errorf("the link leads to %q", got)
	}

	m := mounts.Machine{ID: "m-2", Mask: t.TempDir(), Mounts: []provider.Mount{{Share: team, Path: "/shared"}},
		Homes: []provider.HomeMount{{Mount: provider.Mount{Share: team, Path: "/shared/home/ann"}, Sub: "home/ann", UID: 20001, GID: 20001}}}
	var binds []mounts.Bind
	if err := patiently(func() (err error) {
		binds, err = b.Ready(t.Context(), m)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	home := b.bind(binds[len(binds)-1].From)
	must(t, 20001, fmt.Sprintf("cd %s; echo hers > note; ln -s note link; cat link", home))
	if got := must(t, 20001, fmt.Sprintf("stat -c '%%u %%g %%a' %s %s/note | tr '\\n' ' '", home, home)); got != "20001 20001 700 20001 20001 700" {
		t.Errorf("her home and file are %s", got)
	}
	fails(t, 20002, fmt.Sprintf("cat %s/note", home))
	fails(t, 20002, "ls "+home)

	b.secret.Store(new("username=team\npassword=wrong\n"))
	err := patiently(func() error {
		_, err := b.Reach(t.Context(), shoal.Share{Name: "again", Source: at + "/team", Credentials: &shoal.SecretRef{Secret: "again"}})
		return err
	})
	if shoal.KindOf(err) != shoal.KindUnavailable || !strings.Contains(fmt.Sprint(err), "that it names is refused") || strings.Contains(fmt.Sprint(err), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
	t.Log(err)
}

// A share of Azure Files is SMB 3.1.1 with encryption; the server takes nothing else.
func TestKernelAzureFiles(t *testing.T) {
	at := server(t, "SHOAL_TEST_SMB")
	b := newBox(t)
	b.secret.Store(new(os.Getenv("SHOAL_TEST_SMB_PASSWORD")))
	dir, options := b.reach(shoal.Share{Name: "cloud", Source: "azurefiles://team/sealed", Credentials: &shoal.SecretRef{Secret: "key"},
		Options: map[string]string{"host": strings.TrimPrefix(at, "smb://")}})
	t.Log(options)
	b.has(options, "seal", "vers=3.1.1", "nosuid", "nodev", "mfsymlinks", "nobrl", "serverino")
	must(t, 0, fmt.Sprintf("echo hello > %s/cloudy; cat %s/cloudy; sync %s/cloudy", dir, dir, dir))
}
