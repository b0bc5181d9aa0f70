package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig/fileservers"
	"github.com/shoal-pool/shoal/provider"
)

// samba starts an SMB server whose share "team" is a directory of everybody's.
func samba(t *testing.T) (server *fileservers.SMBServer, dir string) {
	t.Helper()
	top, err := os.MkdirTemp("", "shoal-mounts-smb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	dir = filepath.Join(top, "team")
	for _, err := range []error{os.Chmod(top, 0o755), os.Mkdir(dir, 0o777), os.Chmod(dir, 0o777), os.Mkdir(filepath.Join(top, "state"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	server, err = fileservers.StartSMB(filepath.Join(top, "state"), []fileservers.SMBUser{{Name: "team", UID: 4321, Password: "right, =password"}},
		fileservers.SMBShare{Name: "team", Dir: dir}, fileservers.SMBShare{Name: "sealed", Dir: dir, Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server, dir
}

// smbWorld is a share on a server of Samba's, without a client in the kernel. dir is the server's.
func smbWorld(t *testing.T) (server *fileservers.SMBServer, dir string, w *world, share shoal.Share) {
	needHost(t)
	server, dir = samba(t)
	w = newWorld(t, false)
	w.secrets["team"] = "username=team\npassword=right, =password\n"
	return server, dir, w, shoal.Share{Name: "team", Source: server.URL("127.0.0.1", "team"), Credentials: &shoal.SecretRef{Secret: "team"}}
}

// SMB without a kernel client: rclone against Samba, through the same faults.
func TestLifeSMB(t *testing.T) {
	server, dir, w, share := smbWorld(t)
	b := w.machine(share)
	b.must("echo one > file && cat file")
	eventually(t, func() error {
		got, err := os.ReadFile(filepath.Join(dir, "file"))
		if err == nil && string(got) != "one\n" {
			err = fmt.Errorf("on the server: %q", got)
		}
		return err
	})
	nowhere(t, "right, =password")
	if left, _ := os.ReadDir(w.cfg.Run); len(left) > 0 {
		t.Errorf("credentials lie about: %v", left[0].Name())
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	w.troubled(share, "cannot reach share team")
	_, _ = b.run("ls")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	w.troubled(share, "")
	b.reads("file")

	old := w.recordOf(share)
	if err := unix.Kill(old.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.reads("file")
	w.troubled(share, "")
	before := w.recordOf(share)
	w.restart()
	if _, err := w.Reach(t.Context(), share); err != nil {
		t.Fatal(err)
	}
	if after := w.recordOf(share); after.PID != before.PID {
		t.Errorf("the client was not adopted: %+v, %+v", before, after)
	}

	// A new password that is wrong leaves the old mount; when it is right there is a new one.
	if err := server.SetPassword("team", "another-password"); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.secrets["team"] = "username=team\npassword=another-password\n"
	w.mu.Unlock()
	w.Renew("team", time.Now())
	eventually(t, func() error {
		if w.recordOf(share).Gen == before.Gen {
			return errors.New("it is not mounted anew")
		}
		return nil
	})
	b.reads("file")

	w.secrets["wrong"] = "username=team\npassword=wrong-password\n"
	_, err := w.Reach(t.Context(), shoal.Share{Name: "other", Source: share.Source, Credentials: &shoal.SecretRef{Secret: "wrong"}})
	if err == nil || !strings.Contains(err.Error(), `the secret "wrong" that it names is refused`) || strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("a wrong password: %v", err)
	}
}

// What was not written when the client was killed is written by the next. (Not so a file of the last second before: Debian's rclone
// may forget it.)
func TestUnwritten(t *testing.T) {
	_, dir, w, share := smbWorld(t)
	b := w.machine(share)
	b.must("(exec 5>late; echo precious >&5; kill -9 " + fmt.Sprint(w.recordOf(share).PID) + "; sleep 0.2) 2>/dev/null; true")
	arrives := func(name string) {
		t.Helper()
		eventually(t, func() error {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil && string(got) != "precious\n" {
				err = fmt.Errorf("on the server: %q", got)
			}
			return err
		})
	}
	arrives("late")
	b.reads("late")
}

// Homes on a share without owners: each has her own, and sees nobody else's.
func TestHomes(t *testing.T) {
	_, dir, w, share := smbWorld(t)
	carols := filepath.Join(dir, "home", "carol") // she is of another pool
	if err := errors.Join(os.MkdirAll(carols, 0o777), os.WriteFile(filepath.Join(carols, "private"), []byte("x"), 0o666), os.Chmod(filepath.Dir(carols), 0o777)); err != nil {
		t.Fatal(err)
	}
	b := w.machine(share)
	home := func(name string, uid int) provider.HomeMount {
		return provider.HomeMount{Mount: provider.Mount{Share: share, Path: filepath.Join(b.at, "home", name)}, Sub: "home/" + name, UID: uid, GID: uid}
	}
	set := func(homes ...provider.HomeMount) {
		t.Helper()
		w.mu.Lock()
		m := &w.machines[0]
		before := m.Homes
		m.Homes = homes
		w.keys = Keys(m.Mounts, homes)
		now := *m
		w.mu.Unlock()
		if err := w.Homes(t.Context(), now, before); err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid int, script string) (string, error) {
		return b.run(fmt.Sprintf("setpriv --reuid %d --regid %d --clear-groups sh -c '%s'", uid, uid, script))
	}
	set(home("alice", 30001))
	set(home("alice", 30001), home("bob", 30002))
	if out, err := as(30001, "umask 022; cd home/alice && echo mine > diary && chmod 644 diary && cat diary && stat -c %u:%g:%a ."); err != nil || out != "mine\n30001:30001:700" {
		t.Errorf("alice at home: %q, %v", out, err)
	}
	for _, script := range []string{"ls home/alice", "cat home/alice/diary", "cat home/carol/private", "touch home/x", "mkdir home/carol"} {
		if out, err := as(30002, script); err == nil {
			t.Errorf("bob can %s: %s", script, out)
		}
	}
	if out, err := as(30002, "echo x > home/bob/x && cat home/bob/x && echo all > both"); err != nil {
		t.Errorf("bob at home: %s, %v", out, err)
	}
	eventually(t, func() error { _, err := os.Stat(filepath.Join(dir, "home/alice/diary")); return err })
	eventually(t, func() error { _, err := os.Stat(filepath.Join(dir, "both")); return err })
	// The share's own client is killed: what lies on it comes back with it.
	if err := unix.Kill(w.recordOf(share).PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { out, err := as(30001, "cat home/alice/diary && cat both"); return because(err, out) })
	if out, err := as(30002, "cat home/carol/private"); err == nil {
		t.Errorf("afterwards bob sees carol's: %s", out)
	}
	set(home("bob", 30002))
	if out, err := as(30001, "cat home/alice/diary"); err == nil {
		t.Errorf("alice, who left: %s", out)
	}
	if err := w.DropUnused(t.Context()); err != nil {
		t.Error(err)
	}
	bad := home("alice", 30001)
	bad.Sub = "alice"
	if _, err := w.reachHome(t.Context(), bad); shoal.KindOf(err) != shoal.KindInvalid {
		t.Errorf("a home at the share's root: %v", err)
	}
}

// A file that is moved as soon as it is written, as editors and installers do, reaches the server.
func TestMoved(t *testing.T) {
	_, dir, w, share := smbWorld(t)
	b := w.machine(share)
	b.must("mkdir work; echo precious > note && mv note work/; for i in 1 2 3; do echo precious > tmp$i && mv tmp$i work/n$i; done")
	for _, name := range []string{"note", "n1", "n2", "n3"} {
		eventually(t, func() error { _, err := os.Stat(filepath.Join(dir, "work", name)); return err })
	}
}
