package fileservers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// SMBUser is somebody whom an SMB server knows.
type SMBUser struct {
	Name     string
	UID      int // what the server's files are owned by
	Password string
}

// SMBShare is a directory that an SMB server offers.
type SMBShare struct {
	Name string
	Dir  string
	// Sealed refuses connections that are not encrypted.
	Sealed bool
	// More is further lines of the share's part of smb.conf(5).
	More string
}

// SMBServer speaks SMB 3.
type SMBServer struct {
	*Server
	accounts []account
}

// StartSMB starts Samba's smbd with its state in dir.
func StartSMB(dir string, users []SMBUser, shares ...SMBShare) (*SMBServer, error) {
	plain, err := newServer("smbd", dir)
	if err != nil {
		return nil, err
	}
	s := &SMBServer{Server: plain}
	for _, u := range users {
		s.accounts = append(s.accounts, account{name: u.Name, uid: u.UID, shell: "/usr/sbin/nologin", hash: "*"})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[global]\nserver role = standalone server\nserver min protocol = SMB3\nsmb ports = %s\ninterfaces = 127.0.0.1/8\nbind interfaces only = yes\n"+
		"disable netbios = yes\nload printers = no\nprinting = bsd\nprintcap name = /dev/null\ndisable spoolss = yes\nmap to guest = never\npassdb backend = tdbsam\nlog level = 1\nunix password sync = no\n", s.Port)
	for _, what := range []string{"private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir"} {
		name := strings.ReplaceAll(what, " ", "-")
		if err := os.MkdirAll(s.path(name), 0o755); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s = %s\n", what, s.path(name))
	}
	for _, share := range shares {
		fmt.Fprintf(&b, "[%s]\npath = %s\nread only = no\ncreate mask = 0777\ndirectory mask = 0777\n%s", share.Name, share.Dir, share.More)
		if share.Sealed {
			b.WriteString("smb encrypt = required\n")
		}
	}
	if err := s.write("smb.conf", b.String(), 0o644); err != nil {
		return nil, err
	}
	s.args, err = s.apart(s.accounts, nil, "smbd", "--foreground", "--no-process-group", "--debug-stdout", "--configfile", s.path("smb.conf"))
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		if err := s.SetPassword(u.Name, u.Password); err != nil {
			return nil, err
		}
	}
	return s, s.Start()
}

// SetPassword changes somebody's password; connections that are there stay.
func (s *SMBServer) SetPassword(user, password string) error {
	args, err := s.apart(s.accounts, nil, "smbpasswd", "-c", s.path("smb.conf"), "-s", "-a", user)
	if err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(password + "\n" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("smbpasswd: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// URL is the source of a share, seen from a host.
func (s *SMBServer) URL(host, share string) string {
	return "smb://" + host + ":" + s.Port + "/" + share
}
