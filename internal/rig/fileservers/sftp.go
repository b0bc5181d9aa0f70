package fileservers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// SFTPUser is somebody whom an SFTP server knows.
type SFTPUser struct {
	Name     string
	UID      int
	Key      string // a public one, as authorized_keys has it; may be empty
	Password string // may be empty
}

// SFTPServer is OpenSSH's sshd, for SFTP alone.
type SFTPServer struct {
	*Server
	// HostKey is the public part of the server's key, as known_hosts has it.
	HostKey string
	user    SFTPUser
	dirs    map[string]string
}

// StartSFTP starts sshd with its state in dir. Directories are offered below /srv by their names.
func StartSFTP(dir string, user SFTPUser, dirs map[string]string) (*SFTPServer, error) {
	plain, err := newServer("sshd", dir)
	if err != nil {
		return nil, err
	}
	s := &SFTPServer{Server: plain, user: user, dirs: dirs}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", s.path("hostkey")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("ssh-keygen: %w: %s", err, out)
	}
	public, err := os.ReadFile(s.path("hostkey.pub"))
	if err != nil {
		return nil, err
	}
	s.HostKey = string(bytes.TrimSpace(public))
	config := fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %s\nAuthorizedKeysFile %s\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin no\n"+
		"Subsystem sftp internal-sftp\nForceCommand internal-sftp\nAllowTcpForwarding no\nX11Forwarding no\n", s.Port, s.path("hostkey"), s.path("authorized"))
	if err := s.write("sshd_config", config, 0o644); err != nil {
		return nil, err
	}
	if err := s.Authorize(user.Key, user.Password); err != nil {
		return nil, err
	}
	return s, s.Start()
}

// Authorize changes how the user proves who she is, for connections that come: her public key, or her password. A
// changed password needs a new start.
func (s *SFTPServer) Authorize(key, password string) error {
	hash := "*"
	if password != "" {
		cmd := exec.Command("busybox", "mkpasswd", "-P", "0", "-m", "sha512")
		cmd.Stdin = strings.NewReader(password + "\n")
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("mkpasswd: %w", err)
		}
		hash = string(bytes.TrimSpace(out))
	}
	var err error
	s.args, err = s.apart([]account{{name: s.user.Name, uid: s.user.UID, shell: "/bin/sh", hash: hash}}, s.dirs, "/usr/sbin/sshd", "-D", "-e", "-f", s.path("sshd_config"))
	if err != nil {
		return err
	}
	return s.write("authorized", key+"\n", 0o644)
}

// URL is the source of a share, seen from a host.
func (s *SFTPServer) URL(host, name string) string {
	return "sftp://" + s.user.Name + "@" + host + ":" + s.Port + "/srv/" + name
}
