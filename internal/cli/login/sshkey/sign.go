package sshkey

import (
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The format is OpenSSH's PROTOCOL.sshsig.
const (
	magic   = "SSHSIG"
	version = 1
	hash    = "sha512"
	column  = 70 // ssh-keygen's line length
)

// Sign returns an armored signature over message for a namespace, as `ssh-keygen -Y sign` writes it.
func Sign(s Signer, namespace string, message []byte) (string, error) {
	sum := sha512.Sum512(message)
	signed := append([]byte(magic), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{
		namespace, "", hash, string(sum[:])})...)
	sig, err := sign(s.Signer, signed)
	if err != nil {
		return "", fmt.Errorf("cannot sign with %s: %w", ssh.FingerprintSHA256(s.PublicKey()), err)
	}
	blob := append([]byte(magic), ssh.Marshal(struct {
		Version   uint32
		Key       []byte
		Namespace string
		Reserved  string
		Hash      string
		Signature []byte
	}{version, s.PublicKey().Marshal(), namespace, "", hash, ssh.Marshal(sig)})...)
	return armor(blob), nil
}

// sign never makes a signature with SHA-1, which verifiers refuse.
func sign(s ssh.Signer, data []byte) (*ssh.Signature, error) {
	if s.PublicKey().Type() != ssh.KeyAlgoRSA {
		return s.Sign(rand.Reader, data)
	}
	as, ok := s.(ssh.AlgorithmSigner)
	if !ok {
		return nil, fmt.Errorf("this RSA key cannot sign with SHA-2")
	}
	return as.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
}

func armor(blob []byte) string {
	text := base64.StdEncoding.EncodeToString(blob)
	var b strings.Builder
	b.WriteString("-----BEGIN SSH SIGNATURE-----\n")
	for len(text) > 0 {
		n := min(column, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString("-----END SSH SIGNATURE-----\n")
	return b.String()
}
