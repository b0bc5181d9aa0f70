package desk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/whole"
)

// identityLife is that of a pool's certificate. It is long since people have told their clients to trust it.
const identityLife = 10 * 365 * 24 * time.Hour

// Identity is the key and the certificate by which clients know the desktops of a pool, made when it is first asked for. All
// machines of the pool have the same: TLS goes through the gateway to one machine today and to another tomorrow, and
// clients of RDP, which know no authorities for machines, would be alarmed each time.
func (d *Desk) Identity(pool shoal.PoolName) (cert, key string, err error) {
	d.making.Lock()
	defer d.making.Unlock()
	name := string(pool)
	if name == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
		return "", "", shoal.Errorf(shoal.KindInvalid, "cannot keep a certificate for a pool of the name %q", clip(name))
	}
	file := filepath.Join(d.cfg.Dir, name+".pem")
	text, err := os.ReadFile(file)
	if err == nil {
		if cert, key, err = split(text); err == nil {
			return cert, key, nil
		}
		d.cfg.Log.Warn("the certificate of a pool's desktops cannot be used; another one is made", "file", file, "error", err)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("cannot read the certificate of pool %s's desktops: %w", pool, err)
	}
	made, err := makeIdentity(name, time.Now())
	if err == nil {
		err = keep(file, made)
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot make the certificate of pool %s's desktops: %w", pool, err)
	}
	return split(made)
}

// Fingerprint is what clients show of a pool's certificate: the SHA-256 in pairs of digits.
func (d *Desk) Fingerprint(pool shoal.PoolName) (string, error) {
	cert, _, err := d.Identity(pool)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode([]byte(cert))
	sum := sha256.Sum256(block.Bytes)
	pairs := make([]string, len(sum))
	for i := range sum {
		pairs[i] = hex.EncodeToString(sum[i : i+1])
	}
	return strings.Join(pairs, ":"), nil
}

// split takes a file apart and holds its parts against each other.
func split(text []byte) (cert, key string, err error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return "", "", errors.New("it does not begin with a certificate")
	}
	cert, key = string(pem.EncodeToMemory(block)), string(rest)
	_, err = tls.X509KeyPair([]byte(cert), rest)
	return cert, key, err
}

func makeIdentity(pool string, now time.Time) ([]byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "desktops of pool " + pool}, DNSNames: []string{pool},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(identityLife), // the clocks of clients differ
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &private.PublicKey, private)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

// keep puts a file in place whole, readable by its owner only.
func keep(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return whole.Write(file, text, 0o600)
}
