package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/internal/route"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// routes are the ways to one user's account on one machine: through the gateway, straight, by ssh -J
// through an sshd on this host, and through HAProxy. Each is a host name in an ssh_config.
type routes struct {
	w       *world
	machine shoal.Machine
	config  string
	certKey ssh.Signer // the user's key with a certificate that machines accept
	ended   []func() error
}

const (
	viaGateway = "gateway"
	direct     = "direct"
	viaJump    = "jumped"
	viaHAProxy = "haproxy"
)

// newRoutes makes the ways to u1 on a machine of a pool.
func (w *world) newRoutes(m shoal.Machine) (*routes, error) {
	r := &routes{w: w, machine: m, config: filepath.Join(w.Dir, "ssh_config")}
	if err := r.certify("u1"); err != nil {
		return r, err
	}
	jump, err := r.startJump()
	if err != nil {
		return r, err
	}
	proxy, err := r.startHAProxy()
	if err != nil {
		return r, err
	}
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		return r, err
	}
	text := fmt.Sprintf(`Host *
  IdentityFile %s
  IdentitiesOnly yes
  BatchMode yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  LogLevel ERROR
Host %s
  HostName 127.0.0.1
  Port %s
  User u1+%s
Host jump
  HostName 127.0.0.1
  Port %s
  User root
Host %s
  HostName %s
  Port %s
  User u1
  CertificateFile %s
Host %s
  HostName %s
  Port %s
  User u1
  CertificateFile %s
  ProxyJump jump
Host %s
  HostName 127.0.0.1
  Port %s
  User u1
  CertificateFile %s
`, w.Key(), viaGateway, w.Port, m.Pool, jump, direct, host, port, r.cert(), viaJump, host, port, r.cert(), viaHAProxy, proxy, r.cert())
	return r, os.WriteFile(r.config, []byte(text), 0o600)
}

func (r *routes) cert() string { return r.w.Key() + "-direct.pub" }

// certify signs the user's key as the gateway does, for a day.
func (r *routes) certify(user shoal.UserName) error {
	pemKey, err := os.ReadFile(filepath.Join(r.w.Data, "keys", "user_ca"))
	if err != nil {
		return err
	}
	ca, err := ssh.ParsePrivateKey(pemKey)
	if err != nil {
		return err
	}
	cert := &ssh.Certificate{Key: r.w.Signer.PublicKey(), CertType: ssh.UserCert, KeyId: "bench",
		ValidPrincipals: []string{route.Principal(user, r.machine.Pool)},
		ValidAfter:      uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(24 * time.Hour).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": ""}}}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return err
	}
	if r.certKey, err = ssh.NewCertSigner(cert, r.w.Signer); err != nil {
		return err
	}
	return os.WriteFile(r.cert(), ssh.MarshalAuthorizedKey(cert), 0o644)
}

// startJump starts an sshd of the bench's own on loopback that lets root in with the bench's key.
func (r *routes) startJump() (port string, err error) {
	port, err = rig.FreePort()
	if err != nil {
		return "", err
	}
	hostKey := filepath.Join(r.w.Dir, "jump_host_key")
	if _, err := rig.Output(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey)); err != nil {
		return "", err
	}
	conf := filepath.Join(r.w.Dir, "jump_sshd_config")
	text := fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %s\nAuthorizedKeysFile %s.pub\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nMaxStartups 500\n",
		port, hostKey, r.w.Key())
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return "", err
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return "", err
	}
	return port, r.daemon(port, "/usr/sbin/sshd", "-D", "-f", conf)
}

func (r *routes) startHAProxy() (port string, err error) {
	port, err = rig.FreePort()
	if err != nil {
		return "", err
	}
	conf := filepath.Join(r.w.Dir, "haproxy.cfg")
	text := fmt.Sprintf("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\nlisten ssh\n  bind 127.0.0.1:%s\n  server m %s\n",
		port, r.machine.Address)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return "", err
	}
	return port, r.daemon(port, "/usr/sbin/haproxy", "-db", "-f", conf)
}

// daemon starts a program that stays in the foreground, and waits for its port.
func (r *routes) daemon(port string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.ended = append(r.ended, func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // ended by our signal
		return nil
	})
	for range 200 {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			return c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen", args[0])
}

func (r *routes) close() {
	for _, end := range r.ended {
		_ = end() // only ends processes
	}
}

// timed runs ssh and returns how long it took.
func (r *routes) timed(ctx context.Context, via string, options []string, command string) (time.Duration, error) {
	args := append([]string{"-F", r.config}, options...)
	cmd := exec.CommandContext(ctx, "ssh", append(args, via, command)...)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("ssh %s: %w: %s", via, err, strings.TrimSpace(trouble.String()))
	}
	return time.Since(start), nil
}

// dial connects with Go's client, for what needs timing within one connection.
func (r *routes) dial(via string) (*ssh.Client, error) {
	address, user, key := r.machine.Address, "u1", r.certKey
	if via == viaGateway {
		address, user, key = "127.0.0.1:"+r.w.Port, "u1+"+string(r.machine.Pool), r.w.Signer
	}
	return ssh.Dial("tcp", address, &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey()})
}
