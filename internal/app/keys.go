package app

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/secrets"
	"github.com/shoal-pool/shoal/internal/whole"
)

// keys are what an installation is known by and signs with. Each is made once, in a file of
// the data directory that only root reads.
type keys struct {
	gatewayHost ssh.Signer // what ssh clients see: one host key for everything
	userCA      ssh.Signer // this gateway's: signs the minutes-long certificates that machines trust
	hostCA      ssh.Signer // signs the host certificates that gateways trust
	agents      []byte     // 32 bytes, by which agents' tokens are made
	secrets     string     // an age identity, with which secrets are encrypted
}

const (
	hostKeyFile = "ssh_host_ed25519_key"
	userCAFile  = "user_ca"
)

func loadKeys(dir string) (keys, error) {
	var k keys
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return k, fmt.Errorf("cannot make the directory for keys: %w", err)
	}
	for _, f := range []struct {
		name string
		to   *ssh.Signer
	}{{hostKeyFile, &k.gatewayHost}, {userCAFile, &k.userCA}, {"host_ca", &k.hostCA}} {
		signer, err := loadKey(filepath.Join(dir, f.name))
		if err != nil {
			return k, err
		}
		*f.to = signer
	}
	var err error
	if k.agents, err = loadBytes(filepath.Join(dir, "agents"), agentKeySize); err != nil {
		return k, err
	}
	k.secrets, err = loadSecretsKey(filepath.Join(dir, "secrets"))
	return k, err
}

// loadSecretsKey reads the key of the secrets, or makes it where there is none.
func loadSecretsKey(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var key string
		if key, err = secrets.NewKey(); err == nil {
			text, err = []byte(key), whole.Write(path, []byte(key), 0o600)
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot read key %s: %w", path, err)
	}
	return string(text), nil
}

const agentKeySize = 32

// loadBytes reads a key of n random bytes, or makes it where there is none.
func loadBytes(path string, n int) ([]byte, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, n)
		rand.Read(key) // never fails since Go 1.24
		err = whole.Write(path, key, 0o600)
	}
	if err == nil && len(key) != n {
		err = fmt.Errorf("it has %d bytes, not %d", len(key), n)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	return key, nil
}

// loadKey reads an ed25519 key in OpenSSH's form, or makes it where there is none.
func loadKey(path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read key %s: %w", path, err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("cannot use key %s: %w", path, err)
	}
	return signer, nil
}

func makeKey(path string) ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "shoal "+filepath.Base(path))
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	return text, whole.Write(path, text, 0o600)
}

// tokenOf returns the token of a file, making both at the first start. whose is for people.
func tokenOf(whose, path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		return string(text), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read the %s token: %w", whose, err)
	}
	token := shoal.NewToken()
	if err := whole.Write(path, []byte(token), 0o600); err != nil {
		return "", fmt.Errorf("cannot write the %s token: %w", whose, err)
	}
	return token, nil
}
