package fileservers

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// place makes a directory of the test's that strangers may enter, with one that is offered.
func place(t *testing.T) (state, offered string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("file servers need root")
	}
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	offered = filepath.Join(dir, "offered")
	if err := os.Mkdir(offered, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(offered, "hello"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "state"), offered
}

// runs tries a server before and after it is stopped, killed and frozen.
func runs(t *testing.T, s *Server, try func() error) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(s.Log())
		}
	})
	if err := try(); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func() error{s.Stop, s.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := try(); err == nil {
			t.Error("a server that does not run answers")
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		if err := try(); err != nil {
			t.Fatal(err)
		}
	}
}

func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		err = &failure{err: err, out: string(bytes.TrimSpace(out))}
	}
	return string(out), err
}

type failure struct {
	err error
	out string
}

func (f *failure) Error() string { return f.err.Error() + ": " + f.out }

// libnfs is a client of its own, so what it sees is not our mount's doing.
func TestNFS(t *testing.T) {
	t.Parallel()
	state, offered := place(t)
	if err := os.Chown(filepath.Join(offered, "hello"), 20001, 20002); err != nil {
		t.Fatal(err)
	}
	s, err := StartNFS(state, NFSExport{Name: "open", Dir: offered}, NFSExport{Name: "squashed", Dir: offered, Squash: true})
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return "nfs://127.0.0.1/" + name + "?version=4&nfsport=" + s.Port }
	runs(t, s.Server, func() error {
		_, err := output("timeout", "5", "nfs-cat", at("open/hello"))
		return err
	})
	list, err := output("nfs-ls", at("open"))
	if err != nil || !strings.Contains(list, "20001 20002") {
		t.Errorf("%q, %v", list, err)
	}
	local := filepath.Join(t.TempDir(), "local")
	if err := os.WriteFile(local, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := output("nfs-cp", local, at("open/by-root")); err != nil {
		t.Error(err, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(offered, "by-root"), &st); err != nil || st.Uid != 0 {
		t.Errorf("owned by %d, %v", st.Uid, err)
	}
	if _, err := output("nfs-cp", local, at("squashed/by-root-too")); err == nil {
		t.Error("a squashed root writes where only root may")
	}
}

func TestSMB(t *testing.T) {
	t.Parallel()
	state, offered := place(t)
	s, err := StartSMB(state, []SMBUser{{"ann", 20001, "secret 1"}, {"ben", 20002, "secret 2"}}, SMBShare{Name: "team", Dir: offered}, SMBShare{Name: "sealed", Dir: offered, Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	as := func(user, password, path string) error {
		hidden := exec.Command("rclone", "obscure", "-")
		hidden.Stdin = strings.NewReader(password)
		p, err := hidden.Output()
		if err != nil {
			return err
		}
		out, err := output("rclone", "--config", "/dev/null", "--retries", "1", "--low-level-retries", "1", "--contimeout", "5s", "cat",
			":smb,host=127.0.0.1,port="+s.Port+",user="+user+",pass="+strings.TrimSpace(string(p))+":"+path)
		if err == nil && out != "hello\n" {
			t.Errorf("%q", out)
		}
		return err
	}
	runs(t, s.Server, func() error { return as("ann", "secret 1", "team/hello") })
	if err := as("ben", "secret 2", "team/hello"); err != nil {
		t.Error(err)
	}
	if err := as("ann", "secret 2", "team/hello"); err == nil {
		t.Error("a wrong password is taken")
	}
	if err := s.SetPassword("ann", "secret 3"); err != nil {
		t.Fatal(err)
	}
	if err := as("ann", "secret 3", "team/hello"); err != nil {
		t.Error(err)
	}
}

func TestSFTP(t *testing.T) {
	t.Parallel()
	state, offered := place(t)
	if out, err := output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", state+"-key"); err != nil {
		t.Fatal(err, out)
	}
	public, err := os.ReadFile(state + "-key.pub")
	if err != nil {
		t.Fatal(err)
	}
	s, err := StartSFTP(state, SFTPUser{Name: "files", UID: 20001, Key: string(public), Password: "secret"}, map[string]string{"team": offered})
	if err != nil {
		t.Fatal(err)
	}
	known := state + "-known"
	if err := os.WriteFile(known, []byte("[127.0.0.1]:"+s.Port+" "+s.HostKey+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	runs(t, s.Server, func() error {
		out, err := output("sftp", "-F", "none", "-i", state+"-key", "-o", "BatchMode=yes", "-o", "UserKnownHostsFile="+known, "-P", s.Port, "files@127.0.0.1:/srv/team/hello", state+"-got")
		if err == nil && !strings.Contains(out, "hello") {
			t.Errorf("%q", out)
		}
		return err
	})
}
