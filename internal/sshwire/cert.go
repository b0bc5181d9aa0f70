package sshwire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// clockSkew is how far a machine's clock may be behind before it takes a new certificate
// for one from the future.
const clockSkew = 2 * time.Minute

// Identity signs in to machines: a key of its own, made in memory and never stored, for
// which the signing key issues certificates. It may be used by several goroutines.
type Identity struct {
	ca  ssh.Signer
	key ssh.Signer
}

// NewIdentity makes an identity with a fresh key. The machines trust ca.
func NewIdentity(ca ssh.Signer) (*Identity, error) {
	if ca == nil {
		return nil, errors.New("cannot sign in to machines without a signing key")
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key to sign in to machines: %w", err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key to sign in to machines: %w", err)
	}
	return &Identity{ca: ca, key: key}, nil
}

// Signer returns a signer with a certificate that names one principal and is valid for the
// given time. KeyID is what the machine's sshd writes to its log.
func (i *Identity) Signer(principal, keyID string, life time.Duration) (ssh.Signer, error) {
	var serial [8]byte
	rand.Read(serial[:]) // never fails since Go 1.24
	now := time.Now()
	cert := &ssh.Certificate{
		Key:             i.key.PublicKey(),
		Serial:          binary.BigEndian.Uint64(serial[:]),
		CertType:        ssh.UserCert,
		KeyId:           keyID,
		ValidPrincipals: []string{principal},
		ValidAfter:      uint64(now.Add(-clockSkew).Unix()),
		ValidBefore:     uint64(now.Add(life).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{
			"permit-X11-forwarding":   "",
			"permit-agent-forwarding": "",
			"permit-port-forwarding":  "",
			"permit-pty":              "",
			"permit-user-rc":          "",
		}},
	}
	if err := cert.SignCert(rand.Reader, i.ca); err != nil {
		return nil, fmt.Errorf("cannot sign a certificate for %s: %w", principal, err)
	}
	return ssh.NewCertSigner(cert, i.key)
}

// HostError is returned when the other side could not prove to be the host that was meant.
type HostError struct{ Err error }

func (e *HostError) Error() string { return "the host did not prove who it is: " + e.Err.Error() }

func (e *HostError) Unwrap() error { return e.Err }

// KnownHost returns a check that accepts only a host certificate signed by ca and issued to
// principal. The address is of no importance: machines move, and addresses are used again.
func KnownHost(ca ssh.PublicKey, principal string) ssh.HostKeyCallback {
	authority := ca.Marshal()
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		cert, ok := key.(*ssh.Certificate)
		switch {
		case !ok:
			return &HostError{errors.New("it has no certificate")}
		case cert.CertType != ssh.HostCert:
			return &HostError{errors.New("its certificate is not a host's")}
		case !bytes.Equal(cert.SignatureKey.Marshal(), authority):
			return &HostError{errors.New("its certificate is signed by another authority")}
		case len(cert.ValidPrincipals) == 0: // would be good for any host
			return &HostError{errors.New("its certificate names no host")}
		}
		if err := new(ssh.CertChecker).CheckCert(principal, cert); err != nil {
			return &HostError{err}
		}
		return nil
	}
}

// HostAlgorithms are the forms of host certificate that KnownHost can check.
func HostAlgorithms() []string {
	return []string{
		ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01,
		ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01,
	}
}
