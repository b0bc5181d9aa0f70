package sshwire

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestIdentity(t *testing.T) {
	ca := signer(t)
	id, err := NewIdentity(ca)
	if err != nil {
		t.Fatal(err)
	}
	s, err := id.Signer("alice@lab", "alice", 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	cert := s.PublicKey().(*ssh.Certificate)
	now := time.Now()
	if end := time.Unix(int64(cert.ValidBefore), 0); end.After(now.Add(6*time.Minute)) || end.Before(now.Add(4*time.Minute)) {
		t.Errorf("valid until %v", end)
	}
	check := &ssh.CertChecker{}
	if err := check.CheckCert("alice@lab", cert); err != nil {
		t.Error(err)
	}
	if err := check.CheckCert("bob@lab", cert); err == nil {
		t.Error("good for bob too")
	}
	if _, err := NewIdentity(nil); err == nil {
		t.Error("an identity without an authority")
	}
}

func TestKnownHost(t *testing.T) {
	ca, other, host := signer(t), signer(t), signer(t)
	make := func(change func(*ssh.Certificate), by ssh.Signer) ssh.PublicKey {
		c := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"m-1"}, ValidBefore: ssh.CertTimeInfinity}
		change(c)
		if err := c.SignCert(rand.Reader, by); err != nil {
			t.Fatal(err)
		}
		return c
	}
	check := KnownHost(ca.PublicKey(), "m-1")
	same := func(*ssh.Certificate) {}
	if err := check("", nil, make(same, ca)); err != nil {
		t.Error(err)
	}
	for name, key := range map[string]ssh.PublicKey{
		"no certificate":    host.PublicKey(),
		"another authority": make(same, other),
		"another machine":   make(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"m-2"} }, ca),
		"any machine":       make(func(c *ssh.Certificate) { c.ValidPrincipals = nil }, ca),
		"a user's":          make(func(c *ssh.Certificate) { c.CertType = ssh.UserCert }, ca),
		"expired":           make(func(c *ssh.Certificate) { c.ValidBefore = 1 }, ca),
	} {
		if err := check("", nil, key); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
