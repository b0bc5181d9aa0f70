// Package fileservers runs real file servers for tests: nfs-ganesha, Samba and OpenSSH's SFTP, each on a free port of the
// host's loopback, with all it keeps in a directory of the test's. They need root, see accounts and directories of
// their own (a mount namespace's), and are gone without a trace after Close. Their packages are those of
// scripts/setup; none of the services that these packages have on the host is used or touched.
package fileservers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server is a file server, which runs or does not. Its port stays the same.
type Server struct {
	Port string
	name string
	dir  string // what it keeps
	args []string

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

// patience is how long a server may take to start or stop.
const patience = 3 * time.Minute

// newServer finds a port and makes the directory.
func newServer(name, dir string) (*Server, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return &Server{Port: port, name: name, dir: dir}, err
}

// write writes a file of the server's.
func (s *Server) write(name, text string, mode os.FileMode) error {
	return os.WriteFile(s.path(name), []byte(text), mode)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// Start starts a server that does not run, and returns when it can be connected to.
func (s *Server) Start() error {
	if s.cmd != nil {
		return fmt.Errorf("%s runs already", s.name)
	}
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: smbd ends its whole process group when it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // whoever stops it knows how it ends; a failure to start is seen below
		close(ended)
	}()
	s.cmd, s.ended = cmd, ended
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.Port)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ended:
			s.cmd = nil
			return fmt.Errorf("%s ended at once: %s", s.name, s.Log())
		default:
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s does not listen: %w: %s", s.name, err, s.Log()), s.Kill())
		}
	}
}

// Stop ends the server as its host's shutdown would: what it holds is written, its connections are closed.
func (s *Server) Stop() error { return s.end(unix.SIGTERM) }

// Kill ends it as a crash would.
func (s *Server) Kill() error { return s.end(unix.SIGKILL) }

func (s *Server) end(how unix.Signal) error {
	if s.cmd == nil {
		return nil
	}
	group := -s.cmd.Process.Pid
	_ = unix.Kill(group, how) // it may have ended by itself
	select {
	case <-s.ended:
	case <-time.After(5 * time.Second):
		_ = unix.Kill(group, unix.SIGKILL)
		<-s.ended
	}
	s.cmd = nil
	// What it has started for its connections ends with it.
	for deadline := time.Now().Add(patience); unix.Kill(group, unix.SIGKILL) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("a process of %s does not end", s.name)
		}
	}
	return nil
}

// Close ends the server. The directory is the caller's to remove.
func (s *Server) Close() error { return s.Kill() }

// Log is the end of what the server has written.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.path("log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// account is a user of a server, who is none of the host's.
type account struct {
	name  string
	uid   int
	shell string
	hash  string // for shadow(5)
}

// apart makes a command that runs in namespaces with accounts of its own, and with directories below /srv.
// The host's files stay as they are.
func (s *Server) apart(accounts []account, srv map[string]string, args ...string) ([]string, error) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, err
	}
	shadow := []byte("root:*:19000:0:99999:7:::\n")
	for _, a := range accounts {
		passwd = fmt.Appendf(passwd, "%s:x:%d:%d::%s:%s\n", a.name, a.uid, a.uid, "/nonexistent", a.shell)
		group = fmt.Appendf(group, "%s:x:%d:\n", a.name, a.uid)
		shadow = fmt.Appendf(shadow, "%s:%s:19000:0:99999:7:::\n", a.name, a.hash)
	}
	script := bytes.NewBufferString("set -eu\nmount -t tmpfs -o mode=755 tmpfs /run\nmkdir /run/sshd /run/lock\nmount -t tmpfs -o mode=755 tmpfs /srv\n")
	for _, f := range []struct {
		name string
		text []byte
		mode os.FileMode
	}{{"passwd", passwd, 0o644}, {"group", group, 0o644}, {"shadow", shadow, 0o600}} {
		if err := s.write(f.name, string(f.text), f.mode); err != nil {
			return nil, err
		}
		fmt.Fprintf(script, "mount --bind %s /etc/%s\n", s.path(f.name), f.name)
	}
	for name, dir := range srv {
		fmt.Fprintf(script, "mkdir -p /srv/%s\nmount --bind %s /srv/%s\n", name, dir, name)
	}
	script.WriteString("exec \"$@\"\n")
	// Processes of its own, too: sshd's for a connection leave its process group, and must end with it.
	return append([]string{"unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script.String(), "sh"}, args...), nil
}
