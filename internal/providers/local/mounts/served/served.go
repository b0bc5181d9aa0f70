// Package served runs a real SSH server on this host, for tests of shares that lie on one.
package served

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
)

// Server is an sshd that serves a directory by SFTP to whoever has Key.
type Server struct {
	Dir  string // what is served, everybody's
	Port int
	Key  string // private, as in a file

	t    testing.TB
	conf string
	cmd  *exec.Cmd
}

// SSH starts a server. It ends with the test.
func SSH(t testing.TB) *Server {
	t.Helper()
	conf := t.TempDir()
	s := &Server{Dir: filepath.Join(conf, "served"), t: t, conf: conf}
	for _, err := range []error{os.Chmod(conf, 0o755), os.Mkdir(s.Dir, 0o777), os.Chmod(s.Dir, 0o777), os.MkdirAll("/run/sshd", 0o755)} { //nolint:gosec // a share for everybody
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(conf, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	b, err := os.ReadFile(filepath.Join(conf, "user"))
	if err != nil {
		t.Fatal(err)
	}
	s.Key = string(b)
	if s.Port, err = strconv.Atoi(need.Port(t)); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("ListenAddress 127.0.0.1:%d\nHostKey %s/host\nAuthorizedKeysFile %s/user.pub\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\nSubsystem sftp internal-sftp\nMaxStartups 100\n", s.Port, conf, conf)
	if err := os.WriteFile(filepath.Join(conf, "config"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// Start starts the server, or again after Kill, and waits until it listens.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(s.conf, "config"))
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 6000 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
		if err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond) // a real program starts
	}
	s.t.Fatal("sshd does not listen")
}

// Kill ends the server and every session of it, as a power cut would.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	// Its sessions have process groups of their own.
	children, _ := exec.Command("pgrep", "-P", fmt.Sprint(s.cmd.Process.Pid)).Output()
	_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
	for _, pid := range fieldsOf(string(children)) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	_ = s.cmd.Wait()
	s.cmd = nil
}

func fieldsOf(s string) (pids []int) {
	for f := range strings.FieldsSeq(s) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Share is the served directory as a share, with a secret "key".
func (s *Server) Share(name shoal.ShareName) shoal.Share {
	return shoal.Share{Name: name, Source: fmt.Sprintf("sftp://root@127.0.0.1:%d%s", s.Port, s.Dir), Credentials: &shoal.SecretRef{Secret: "key"}}
}
