// Package sshd configures a machine's real sshd: whom it trusts, what it proves itself with, and through which
// door people come in. It starts nothing.
//
// What sshd looks up at each login (signing keys, principals) lies in files of their own, which are
// replaced at once; only a change of its configuration needs a reload.
package sshd

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ProbeUser is the system account by whose login a machine proves that people can log in.
const ProbeUser = "shoal-probe"

// Config is where things are. All fields are needed.
type Config struct {
	Dir   string // for what is written here; root's, open to be passed by all: /run/shoal/sshd
	Etc   string // /etc
	Agent string // the binary that is the door: /opt/shoal/bin/shoal-agent
	Port  int
	Log   string // sshd's own log file
	// Keys is where sshd looks for keys that open an account without a certificate, and Mark the variables that these and
	// principals may set, with commas between; see package passes. Client is what every ssh on the machine is to include. Empty: none.
	Keys, Mark, Client string
	// Variables are those that a login may be given beside the usual ones.
	Variables []string
}

// Server is the sshd of this machine.
type Server struct {
	cfg   Config
	known map[string]string // principals by user, as they are on disk
}

// New makes the directories.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	for _, d := range []string{cfg.Dir, s.path("principals"), filepath.Join(cfg.Etc, "ssh")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("cannot configure sshd: %w", err)
		}
	}
	return s, nil
}

// ConfigFile is the file that sshd is to be started with, once it is there.
func (s *Server) ConfigFile() string { return s.path("sshd_config") }

func (s *Server) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

func (s *Server) keyFile() string { return filepath.Join(s.cfg.Etc, "ssh", "ssh_host_ed25519_key") }

// HostKey returns the machine's public key in the form of authorized_keys. One that is there is kept.
func (s *Server) HostKey() (string, error) {
	if b, err := os.ReadFile(s.keyFile()); err == nil {
		if signer, err := ssh.ParsePrivateKey(b); err == nil {
			return authorized(signer.PublicKey()), nil
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("cannot make a host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", fmt.Errorf("cannot make a host key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("cannot make a host key: %w", err)
	}
	line := authorized(key)
	for _, f := range []struct {
		path string
		text []byte
		mode fs.FileMode
	}{{s.keyFile(), pem.EncodeToMemory(block), 0o600}, {s.keyFile() + ".pub", []byte(line + "\n"), 0o644}} {
		if _, err := put(f.path, f.text, f.mode); err != nil {
			return "", fmt.Errorf("cannot keep the host key: %w", err)
		}
	}
	return line, nil
}

func authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// Configure writes the configuration, with the certificate of the host key, and sees that the door is in PAM's way.
// An empty certificate stands for the one that is there. It reports whether a running sshd must be reloaded.
func (s *Server) Configure(certificate string) (changed bool, err error) {
	door, motd, err := s.door()
	if err != nil {
		return false, fmt.Errorf("cannot put the door into PAM's configuration: %w", err)
	}
	cert := false
	if certificate != "" {
		if cert, err = put(s.path("host-cert.pub"), []byte(strings.TrimSpace(certificate)+"\n"), 0o644); err != nil {
			return false, fmt.Errorf("cannot configure sshd: %w", err)
		}
	}
	for _, name := range []string{"ca_keys", "probe_ca"} {
		f, err := os.OpenFile(s.path(name), os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return false, fmt.Errorf("cannot configure sshd: %w", err)
		}
		f.Close()
	}
	conf, err := put(s.ConfigFile(), []byte(s.text(motd)), 0o644)
	if err != nil {
		return false, fmt.Errorf("cannot configure sshd: %w", err)
	}
	if err := s.client(); err != nil {
		return false, fmt.Errorf("cannot configure ssh: %w", err)
	}
	return door || cert || conf, nil
}

// Allow says which variables a login may be given from now on. It reports whether a running sshd must be reloaded.
func (s *Server) Allow(variables []string) (changed bool, err error) {
	if slices.Equal(variables, s.cfg.Variables) {
		return false, nil
	}
	s.cfg.Variables = slices.Clone(variables)
	if _, err := os.Stat(s.ConfigFile()); err != nil {
		return false, nil //nolint:nilerr // Configure is yet to come
	}
	return s.Configure("")
}

// client sees that ssh includes what it is to include. Where the image's configuration reads a directory, a file
// there does; else a first line.
func (s *Server) client() error {
	if s.cfg.Client == "" {
		return nil
	}
	line := []byte("Include " + s.cfg.Client + "\n")
	main := filepath.Join(s.cfg.Etc, "ssh", "ssh_config")
	text, err := os.ReadFile(main)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := main + ".d"
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) > 0 && strings.EqualFold(f[0], "Include") && slices.Contains(f[1:], dir+"/*.conf") {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			_, err := put(filepath.Join(dir, "shoal.conf"), line, 0o644)
			return err
		}
	}
	if bytes.HasPrefix(text, line) {
		return nil
	}
	_, err = put(main, append(line, text...), 0o644)
	return err
}

// text is sshd_config. MaxSessions is large because gateways carry many channels over one connection, and
// MaxStartups because all logins come from few addresses.
func (s *Server) text(motd string) string {
	return fmt.Sprintf(`# Written by Shoal; changes are lost.
Port %d
HostKey %s
HostCertificate %s
PidFile none
LogLevel INFO
UseDNS no
UsePAM yes
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
PubkeyAuthentication yes
AuthorizedKeysFile %s
TrustedUserCAKeys %s
AuthorizedPrincipalsFile %s/%%u
LoginGraceTime 60
MaxSessions 1000
MaxStartups 500
ClientAliveInterval 300
ClientAliveCountMax 3
AllowTcpForwarding yes
AllowStreamLocalForwarding yes
AllowAgentForwarding yes
X11Forwarding yes
PermitTunnel no
PermitUserEnvironment %s
AcceptEnv %s
PrintMotd %s
Subsystem sftp internal-sftp
Match User %s
  TrustedUserCAKeys %s
  AllowTcpForwarding no
  AllowStreamLocalForwarding no
  AllowAgentForwarding no
  X11Forwarding no
  PermitTTY no
`, s.cfg.Port, s.keyFile(), s.path("host-cert.pub"), cmp.Or(s.cfg.Keys, "none"), s.path("ca_keys"), s.path("principals"), cmp.Or(s.cfg.Mark, "no"), strings.Join(append([]string{"LANG", "LC_*"}, s.cfg.Variables...), " "), motd,
		ProbeUser, s.path("probe_ca"))
}

// door sees that each session goes through the agent: pam_exec calls it as root before the first
// process of the user is there. It says whether sshd prints the message of the day, or PAM does.
func (s *Server) door() (changed bool, motd string, err error) {
	path := filepath.Join(s.cfg.Etc, "pam.d", "sshd")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte("auth required pam_deny.so\naccount required pam_unix.so\nsession required pam_unix.so\npassword required pam_deny.so\n"), nil
	}
	if err != nil {
		return false, "", err
	}
	motd = "yes"
	if bytes.Contains(text, []byte("pam_motd.so")) {
		motd = "no"
	}
	if s.leadsTo(text, s.cfg.Agent+" enter", 0) {
		return false, motd, nil
	}
	if n := len(text); n > 0 && text[n-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, "session required pam_exec.so quiet stdout "+s.cfg.Agent+" enter\n"...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, "", err
	}
	_, err = put(path, text, 0o644)
	return true, motd, err
}

// maxIncludes bounds how deep PAM's files include one another.
const maxIncludes = 4

// leadsTo reports whether a file of PAM, or one that it includes, calls a program for sessions.
func (s *Server) leadsTo(text []byte, program string, depth int) bool {
	for l := range strings.Lines(string(text)) {
		l, _, _ = strings.Cut(strings.TrimSpace(l), "#")
		f := strings.Fields(l)
		var include string
		switch {
		case len(f) > 2 && strings.TrimPrefix(f[0], "-") == "session" && strings.Contains(l, "pam_exec.so") && strings.HasSuffix(strings.Join(f, " "), program):
			return true
		case len(f) == 2 && f[0] == "@include":
			include = f[1]
		case len(f) == 3 && f[0] == "session" && (f[1] == "include" || f[1] == "substack"):
			include = f[2]
		}
		if include == "" || depth >= maxIncludes {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(s.cfg.Etc, "pam.d", filepath.Base(include))); err == nil && s.leadsTo(b, program, depth+1) {
			return true
		}
	}
	return false
}

// Trust makes sshd believe certificates that one of the keys signed, from the next login on.
func (s *Server) Trust(keys []string) error {
	if _, err := put(s.path("ca_keys"), []byte(lines(keys)), 0o644); err != nil {
		return fmt.Errorf("cannot write whom sshd trusts: %w", err)
	}
	return nil
}

// lines are those of a list of keys; none of them can smuggle in another line.
func lines(list []string) string {
	var b strings.Builder
	for _, l := range list {
		if l = strings.TrimSpace(l); l != "" && !strings.ContainsAny(l, "\r\n") {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// WithEnv is a principal whose logins find variables, NAME=VALUE without quotes or lines. Config.Mark must name them.
func WithEnv(principal string, variables []string) string {
	var b strings.Builder
	for i, v := range variables {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`environment="` + v + `"`)
	}
	return b.String() + " " + principal
}

// Principals says what a certificate must name for each user. Who is not listed cannot log in.
// It is not for concurrent calls, nor is Keep.
func (s *Server) Principals(of map[string]string) error {
	if err := s.Keep(func(user string) bool { _, ok := of[user]; return ok }); err != nil {
		return err
	}
	for user, principal := range of {
		if s.known[user] == principal {
			continue
		}
		if _, err := put(filepath.Join(s.path("principals"), user), []byte(lines([]string{principal})), 0o644); err != nil {
			return fmt.Errorf("cannot let in %s: %w", user, err)
		}
		s.known[user] = principal
	}
	return nil
}

// Keep shuts out all users but those who may still log in.
func (s *Server) Keep(may func(user string) bool) error {
	if s.known == nil {
		if err := s.readPrincipals(); err != nil {
			return fmt.Errorf("cannot read who may log in: %w", err)
		}
	}
	for user := range s.known {
		if user == ProbeUser || may(user) {
			continue
		}
		if err := os.Remove(filepath.Join(s.path("principals"), user)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot shut out %s: %w", user, err)
		}
		delete(s.known, user)
	}
	return nil
}

func (s *Server) readPrincipals() error {
	entries, err := os.ReadDir(s.path("principals"))
	if err != nil {
		return err
	}
	known := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(s.path("principals"), e.Name()))
		if err != nil {
			return err
		}
		known[e.Name()] = strings.TrimSpace(string(b))
	}
	s.known = known
	return nil
}

// put replaces a file at once, if it differs.
func put(path string, text []byte, mode fs.FileMode) (changed bool, err error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	tmp := path + ".shoal-new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return false, err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(tmp))
	}
	return true, nil
}
