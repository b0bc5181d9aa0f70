package local

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
)

// The format is OpenSSH's PROTOCOL.sshsig: an armored blob of a magic word, a version, the public
// key, a namespace, the hash used and an SSH signature over all that and the hash of the message.
const (
	sigBegin   = "-----BEGIN SSH SIGNATURE-----"
	sigEnd     = "-----END SSH SIGNATURE-----"
	sigMagic   = "SSHSIG"
	sigVersion = 1
	maxSig     = 16 << 10 // a signature and key of RSA 16384 take 6 KiB armored
)

// Signature is a detached signature of a file or text, made with an SSH key.
type Signature struct {
	Key       ssh.PublicKey
	Namespace string
	Hash      string // sha256 or sha512
	reserved  string
	sig       ssh.Signature
}

// sigBlob is the blob after the magic word.
type sigBlob struct {
	Version   uint32
	Key       []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// ParseSignature reads what ssh-keygen -Y sign writes, or returns KindInvalid. It does not verify.
func ParseSignature(armored string) (*Signature, error) {
	blob, err := unarmor(armored)
	if err != nil {
		return nil, badSignature(err)
	}
	var b sigBlob
	if err := ssh.Unmarshal(blob, &b); err != nil {
		return nil, badSignature(err)
	}
	if b.Version != sigVersion {
		return nil, badSignature(errors.New("its version is not known"))
	}
	s := &Signature{Namespace: b.Namespace, Hash: b.Hash, reserved: b.Reserved}
	if s.Key, err = ssh.ParsePublicKey(b.Key); err != nil {
		return nil, badSignature(err)
	}
	if err := ssh.Unmarshal(b.Signature, &s.sig); err != nil {
		return nil, badSignature(err)
	}
	if !mayVerify(s.Key.Type(), s.sig.Format) {
		return nil, badSignature(errors.New("its algorithm is not accepted"))
	}
	return s, nil
}

func badSignature(err error) error {
	return shoal.Errorf(shoal.KindInvalid, "cannot read the signature: %w", err).
		WithHint("send what `ssh-keygen -Y sign -n %s` writes, unchanged", Namespace)
}

// unarmor takes the blob out of its base64 and its frame, and the magic word off it.
func unarmor(armored string) ([]byte, error) {
	if len(armored) > maxSig {
		return nil, errors.New("it is too long")
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(armored), sigBegin)
	if !ok {
		return nil, errors.New("it does not begin with " + sigBegin)
	}
	if text, ok = strings.CutSuffix(text, sigEnd); !ok {
		return nil, errors.New("it does not end with " + sigEnd)
	}
	text = strings.NewReplacer("\n", "", "\r", "").Replace(text)
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if len(blob) < len(sigMagic) || string(blob[:len(sigMagic)]) != sigMagic {
		return nil, errors.New("it is not an SSH signature")
	}
	return blob[len(sigMagic):], nil
}

// mayVerify lists the signature algorithms for each key type. RSA with SHA-1 is not among them.
func mayVerify(keyType, format string) bool {
	switch keyType {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return format == keyType
	case ssh.KeyAlgoRSA:
		return format == ssh.KeyAlgoRSASHA256 || format == ssh.KeyAlgoRSASHA512
	}
	return false
}

// Verify returns nil if the signature is one over message by Key, for Namespace. Whose Key is, is
// the caller's question.
func (s *Signature) Verify(message []byte) error {
	var sum []byte
	switch s.Hash {
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	default:
		return errors.New("the signature's hash is not known")
	}
	signed := append([]byte(sigMagic), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{
		s.Namespace, s.reserved, s.Hash, string(sum)})...)
	return s.Key.Verify(signed, &s.sig)
}
