package sshkey

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/shoal-pool/shoal"
)

// maxAgentKeys bounds how many keys of an agent are tried: each costs the server a check.
const maxAgentKeys = 6

// Signer is a key that can sign, and what to call it.
type Signer struct {
	ssh.Signer
	Name string
}

// Line is the key as a line of authorized_keys.
func (s Signer) Line() string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(s.PublicKey())), "\n")
}

// Agent returns the keys of the ssh-agent that listens on socket, and what ends the connection to
// it. An empty socket, or one where nobody answers, has no keys. Certificates are left out.
func Agent(socket string) ([]Signer, func()) {
	if socket == "" {
		return nil, func() {}
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, func() {}
	}
	found, err := agent.NewClient(conn).Signers()
	if err != nil {
		conn.Close()
		return nil, func() {}
	}
	var keys []Signer
	for _, s := range found {
		if _, ok := s.PublicKey().(*ssh.Certificate); ok || len(keys) == maxAgentKeys {
			continue
		}
		keys = append(keys, Signer{s, "the ssh-agent's key " + ssh.FingerprintSHA256(s.PublicKey())})
	}
	return keys, func() { conn.Close() }
}

// Defaults are the key files that ssh tries too, those that exist.
func Defaults(home string) []string {
	var found []string
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		path := filepath.Join(home, ".ssh", name)
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}

// File reads a private key. passphrase is asked only if the key needs one; nil if nobody can answer.
func File(path string, passphrase func() ([]byte, error)) (Signer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Signer{}, shoal.Errorf(shoal.KindInvalid, "cannot read key %s: there is no such file", path)
	}
	if err != nil {
		return Signer{}, shoal.Errorf(shoal.KindInvalid, "cannot read key: %w", err)
	}
	if !bytes.Contains(data, []byte("PRIVATE KEY")) {
		return Signer{}, shoal.Errorf(shoal.KindInvalid, "cannot sign with %s: it holds no private key", path).
			WithHint("name the private key; the public one, in a file that ends with .pub, is for `shoal user add --key`")
	}
	s, err := ssh.ParsePrivateKey(data)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		if passphrase == nil {
			return Signer{}, shoal.Errorf(shoal.KindInvalid, "cannot use key %s: it is locked with a passphrase", path).
				WithHint("add it to your ssh-agent with `ssh-add %s`, or run this on a terminal", path)
		}
		secret, err := passphrase()
		if err != nil {
			return Signer{}, err
		}
		if s, err = ssh.ParsePrivateKeyWithPassphrase(data, secret); err != nil {
			return Signer{}, shoal.Errorf(shoal.KindInvalid, "cannot unlock key %s: %w", path, err)
		}
		return Signer{s, path}, nil
	}
	if err != nil {
		return Signer{}, shoal.Errorf(shoal.KindInvalid, "cannot read key %s: %w", path, err)
	}
	return Signer{s, path}, nil
}

// PublicLines reads authorized_keys lines from a public key file's content. Its private twin is
// refused before it goes anywhere.
func PublicLines(name string, data []byte) ([]string, error) {
	if bytes.Contains(data, []byte("PRIVATE KEY")) {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use %s: it holds a private key, which must stay with its owner", name).
			WithHint("give the public key, %s.pub", strings.TrimSuffix(name, ".pub"))
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot read a key in %s: %w", name, err).
				WithHint("a public key is one line such as `ssh-ed25519 AAAA… alice@laptop`")
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use %s: it holds no key", name)
	}
	return lines, nil
}
