package sshkey

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity/local"
)

func keys(t *testing.T) map[string]any {
	t.Helper()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"ed25519": ed, "ecdsa": ec, "rsa": rs}
}

// TestServerVerifies holds signatures against what checks them: the server's own verifier, and
// ssh-keygen where it is installed. Each key is used from a file and from an agent.
func TestServerVerifies(t *testing.T) {
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			path := writeKey(t, key, "")
			fromFile, err := File(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			found, done := Agent(serveAgent(t, key))
			defer done()
			if len(found) != 1 {
				t.Fatalf("the agent has %d keys", len(found))
			}
			for _, s := range []Signer{fromFile, found[0]} {
				armored, err := Sign(s, local.Namespace, []byte("a challenge"))
				if err != nil {
					t.Fatal(err)
				}
				sig, err := local.ParseSignature(armored)
				if err != nil {
					t.Fatal(err)
				}
				if err := sig.Verify([]byte("a challenge")); err != nil {
					t.Error(err)
				}
				if sig.Verify([]byte("another")) == nil {
					t.Error("it is good for another message")
				}
				if string(sig.Key.Marshal()) != string(s.PublicKey().Marshal()) || sig.Namespace != local.Namespace {
					t.Error("key or namespace differ")
				}
				keygenVerifies(t, s, armored)
			}
		})
	}
}

func keygenVerifies(t *testing.T, s Signer, armored string) {
	t.Helper()
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		return
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"allowed": "alice " + s.Line() + "\n", "sig": armored} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(keygen, "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "alice", "-n", local.Namespace, "-s", filepath.Join(dir, "sig"))
	cmd.Stdin = strings.NewReader("a challenge")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen: %v: %s", err, out)
	}
}

func writeKey(t *testing.T, key any, passphrase string) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func serveAgent(t *testing.T, key any) string {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = agent.ServeAgent(ring, c)
			}()
		}
	}()
	return socket
}

func TestPassphrase(t *testing.T) {
	path := writeKey(t, keys(t)["ed25519"], "open sesame")
	if _, err := File(path, nil); shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(shoal.HintOf(err), "ssh-add") {
		t.Errorf("without anybody to ask: %v", err)
	}
	if _, err := File(path, func() ([]byte, error) { return []byte("open sesame"), nil }); err != nil {
		t.Error(err)
	}
	if _, err := File(path, func() ([]byte, error) { return []byte("wrong"), nil }); err == nil {
		t.Error("a wrong passphrase opens it")
	}
}

func TestNoAgent(t *testing.T) {
	for _, socket := range []string{"", "/nonexistent/agent"} {
		found, done := Agent(socket)
		done()
		if len(found) > 0 {
			t.Errorf("%q has keys", socket)
		}
	}
}

func TestPublicLines(t *testing.T) {
	s, err := File(writeKey(t, keys(t)["ed25519"], ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := PublicLines("id.pub", []byte("# mine\n\n"+s.Line()+" alice@laptop\n"+s.Line()+"\n"))
	if err != nil || len(got) != 2 || got[0] != s.Line()+" alice@laptop" {
		t.Errorf("got %q, %v", got, err)
	}
	for name, text := range map[string]string{"private": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "empty": "\n", "rubbish": "hello\n"} {
		if _, err := PublicLines("id", []byte(text)); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
