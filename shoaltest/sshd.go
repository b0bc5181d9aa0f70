package shoaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// serveSSH is the machine's sshd: it trusts the gateways' certificates, presents its own, and runs commands.
func (m *Machine) serveSSH(ctx context.Context) {
	l := m.w.net.listen(m.address)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conf := &ssh.ServerConfig{PublicKeyCallback: m.admit}
	conf.AddHostKey(m.hostKey)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		open.Go(func() { m.visit(ctx, c, conf) })
	}
}

// admit checks a certificate as sshd does with a list of authorities and principals.
func (m *Machine) admit(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.UserCert {
		return nil, errors.New("no certificate")
	}
	i := slices.IndexFunc(m.accounts.Users, func(a api.Account) bool { return string(a.Name) == meta.User() && !a.Disabled })
	if i < 0 {
		return nil, errors.New("no such account")
	}
	trusted := slices.ContainsFunc(m.accounts.CAKeys, func(line string) bool {
		ca, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		return err == nil && bytes.Equal(ca.Marshal(), cert.SignatureKey.Marshal())
	})
	if !trusted {
		return nil, errors.New("not signed by a gateway")
	}
	if err := new(ssh.CertChecker).CheckCert(m.accounts.Users[i].Principal, cert); err != nil {
		return nil, err
	}
	return &ssh.Permissions{}, nil
}

func (m *Machine) visit(ctx context.Context, c net.Conn, conf *ssh.ServerConfig) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	defer c.Close()
	sc, channels, requests, err := ssh.NewServerConn(c, conf)
	if err != nil {
		return
	}
	user := shoal.UserName(sc.User())
	m.enter(user, 1)
	defer m.enter(user, -1)
	var open sync.WaitGroup
	defer open.Wait()
	open.Go(func() {
		for r := range requests {
			if r.WantReply {
				_ = r.Reply(true, nil) // the client may have gone
			}
		}
	})
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "a fake machine has only sessions")
			continue
		}
		ch, reqs, err := offered.Accept()
		if err != nil {
			return
		}
		open.Go(func() { m.session(ctx, user, ch, reqs) })
	}
}

func (m *Machine) enter(user shoal.UserName, by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.present[user] += by
	m.tell()
}

// session runs the command of one channel.
func (m *Machine) session(ctx context.Context, user shoal.UserName, ch ssh.Channel, reqs <-chan *ssh.Request) {
	defer ch.Close()
	for r := range reqs {
		if r.Type != "exec" {
			_ = r.Reply(r.Type == "env" || r.Type == "pty-req", nil)
			continue
		}
		var exec struct{ Command string }
		if ssh.Unmarshal(r.Payload, &exec) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		ctx, cancel := context.WithCancel(ctx)
		go func() { // the client closing ends the command
			for r := range reqs {
				_ = r.Reply(false, nil)
			}
			cancel()
		}()
		code, err := m.shell(ctx, user, exec.Command, ch)
		cancel()
		if err != nil {
			fmt.Fprintln(ch.Stderr(), err)
		}
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(code)}))
		return
	}
}
