package sshd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
)

// Probe logs in as ProbeUser with a certificate by a key that is made for it, as people do by way of a gateway,
// and runs a command. While sshd does not listen yet it tries again, until ctx ends.
func (s *Server) Probe(ctx context.Context) error {
	signer, err := s.probeKey()
	if err != nil {
		return fmt.Errorf("cannot prepare a login as %s: %w", ProbeUser, err)
	}
	conf := &ssh.ClientConfig{User: ProbeUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.InsecureIgnoreHostKey(), // it is this machine
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		Config:            ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}, Ciphers: []string{ssh.CipherAES128GCM}}}
	var last error
	for wait := 2 * time.Millisecond; ; wait = min(wait*5/4, 200*time.Millisecond) {
		if last = s.login(ctx, conf); last == nil {
			_, err := put(s.path("probe_ca"), nil, 0o644) // it was good for this once
			return err
		}
		select {
		case <-ctx.Done():
			return shoal.Errorf(shoal.KindUnavailable, "nobody can log in: %w%s", last, s.lastWords())
		case <-time.After(wait):
		}
	}
}

// probeKey makes a key with a certificate and has sshd believe it, for this one account only.
func (s *Server) probeKey() (ssh.Signer, error) {
	_, caKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	ca, err := ssh.NewSignerFromKey(caKey)
	if err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	cert := &ssh.Certificate{Key: signer.PublicKey(), CertType: ssh.UserCert, KeyId: "probe", ValidPrincipals: []string{ProbeUser},
		ValidAfter: uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix())}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return nil, err
	}
	if _, err := put(s.path("probe_ca"), []byte(authorized(ca.PublicKey())+"\n"), 0o644); err != nil {
		return nil, err
	}
	if _, err := put(filepath.Join(s.path("principals"), ProbeUser), []byte(ProbeUser+"\n"), 0o644); err != nil {
		return nil, err
	}
	return ssh.NewCertSigner(cert, signer)
}

// loginTime bounds one attempt.
const loginTime = 20 * time.Second

func (s *Server) login(ctx context.Context, conf *ssh.ClientConfig) error {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	var d net.Dialer
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(s.cfg.Port))
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	conn, chans, reqs, err := ssh.NewClientConn(c, addr, conf)
	if err != nil {
		return err
	}
	client := ssh.NewClient(conn, chans, reqs)
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	out, err := session.Output("echo shoal")
	if err != nil {
		return fmt.Errorf("a command of %s failed: %w", ProbeUser, err)
	}
	if !bytes.Contains(out, []byte("shoal")) {
		return fmt.Errorf("a command of %s said %q", ProbeUser, out)
	}
	return nil
}

// lastWords are the last lines of sshd's log.
func (s *Server) lastWords() string {
	b, err := os.ReadFile(s.cfg.Log)
	if err != nil || len(b) == 0 {
		return ""
	}
	if len(b) > 500 {
		b = b[len(b)-500:]
		if _, rest, ok := bytes.Cut(b, []byte("\n")); ok {
			b = rest
		}
	}
	return "; sshd says: " + string(bytes.TrimSpace(b))
}
