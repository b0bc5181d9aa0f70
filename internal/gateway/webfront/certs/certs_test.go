package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
)

// shake returns the certificate that a client is shown for a name, or why it does not trust it.
func shake(t *testing.T, server *tls.Config, roots *x509.CertPool, name string) (*x509.Certificate, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go func() { _ = tls.Server(a, server).Handshake() }()
	c := tls.Client(b, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"h2"}})
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Errorf("the protocol is %q", p)
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

func pool(cas ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range cas {
		p.AddCert(c)
	}
	return p
}

func TestOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	names := []string{"localhost", "pool.example.org", "*.apps.example.org", "127.0.0.1", "::1"}
	own, err := certs.FromOwn(dir, names)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"localhost": true, "pool.example.org": true, "alice.apps.example.org": true, "127.0.0.1": true, "other.example.org": false} {
		if _, err := shake(t, own.TLS(), pool(own.CA()), name); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	again, err := certs.FromOwn(dir, names)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shake(t, again.TLS(), pool(own.CA()), "localhost"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	print := certs.Fingerprint(own.CA())
	if read, err := certs.FingerprintOf(dir); err != nil || read != print || len(print) != 95 || strings.ToUpper(print) != print {
		t.Errorf("fingerprints %q and %q, %v", print, read, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file is %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := certs.FromOwn(dir, names); err == nil {
		t.Error("a broken key was replaced: who trusts the authority would not know")
	}
}

// TestOwnRenews: the certificate is a new one before it ends, by the same authority.
func TestOwnRenews(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		own, err := certs.FromOwn(dir, []string{"localhost"})
		if err != nil {
			t.Fatal(err)
		}
		hello := &tls.ClientHelloInfo{ServerName: "localhost"}
		first, _ := own.TLS().GetCertificate(hello)
		time.Sleep(50 * 24 * time.Hour)
		if same, _ := own.TLS().GetCertificate(hello); same != first {
			t.Error("it was renewed too early")
		}
		time.Sleep(20 * 24 * time.Hour)
		next, _ := own.TLS().GetCertificate(hello)
		if next == first || next.Leaf.CheckSignatureFrom(own.CA()) != nil || next.Leaf.NotAfter.Before(time.Now().Add(60*24*time.Hour)) {
			t.Errorf("it was not renewed: it ends %v", next.Leaf.NotAfter)
		}
	})
}

// An authority near its end is made anew in one step, after which its key on disk is that of its certificate, and who trusts the former
// certificate is shown one that it has signed.
func TestOwnAuthorityRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		first, err := certs.FromOwn(dir, []string{"shoal.example.org"})
		if err != nil {
			t.Fatal(err)
		}
		key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(first.CA().NotAfter) - 24*time.Hour)
		second, err := certs.FromOwn(dir, []string{"shoal.example.org"})
		if err != nil {
			t.Fatal(err)
		}
		if second.CA().NotAfter.Before(time.Now().Add(365 * 24 * time.Hour)) {
			t.Errorf("it ends %v still", second.CA().NotAfter)
		}
		for _, ca := range []*x509.Certificate{first.CA(), second.CA()} {
			if _, err := shake(t, second.TLS(), pool(ca), "shoal.example.org"); err != nil {
				t.Error(err)
			}
		}
		// As after a crash between the two files, had it written both.
		if err := os.WriteFile(filepath.Join(dir, "ca.key"), key, 0o600); err != nil {
			t.Fatal(err)
		}
		third, err := certs.FromOwn(dir, []string{"shoal.example.org"})
		if err != nil || !third.CA().Equal(second.CA()) {
			t.Errorf("opened again: %v", err)
		}
	})
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) *x509.Certificate {
		own, err := certs.FromOwn(t.TempDir(), []string{name})
		if err != nil {
			t.Fatal(err)
		}
		c, _ := own.TLS().GetCertificate(nil)
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{"c.pem": {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, "k.pem": {Type: "PRIVATE KEY", Bytes: key}} {
			if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return c.Leaf
	}
	first := write("one.example.org")
	synctest.Test(t, func(t *testing.T) {
		f, err := certs.FromFiles(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		get := f.TLS().GetCertificate
		if c, _ := get(nil); !c.Leaf.Equal(first) {
			t.Error("it is another")
		}
		second := write("two.example.org")
		time.Sleep(10 * time.Second)
		if c, _ := get(nil); !c.Leaf.Equal(second) {
			t.Error("the new one is not in use")
		}
		if err := os.WriteFile(filepath.Join(dir, "c.pem"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if c, _ := get(nil); !c.Leaf.Equal(second) {
			t.Error("a broken file has taken the place of a good one")
		}
		os.Remove(filepath.Join(dir, "c.pem"))
		time.Sleep(10 * time.Second)
		if c, _ := get(nil); !c.Leaf.Equal(second) {
			t.Error("a missing file has taken the place of a good one")
		}
	})
	if _, err := certs.FromFiles(filepath.Join(dir, "none"), filepath.Join(dir, "k.pem"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a missing file was taken")
	}
}
