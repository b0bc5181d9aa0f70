package desktop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// identity puts the machine's own key and certificate where xrdp reads them. They stay the same for the machine's life;
// without them xrdp would fall back to what RDP had before TLS.
func (s *Server) identity(owner Owner) error {
	keyFile, certFile := filepath.Join(s.cfg.State, "desktop-key.pem"), filepath.Join(s.cfg.State, "desktop-cert.pem")
	key, keyErr := os.ReadFile(keyFile)
	cert, certErr := os.ReadFile(certFile)
	if keyErr != nil || certErr != nil || !usable(cert, key, time.Now()) {
		var err error
		if cert, key, err = makeCertificate(s.cfg.Name, time.Now()); err != nil {
			return err
		}
		if err := put(keyFile, string(key), 0o600); err != nil {
			return err
		}
		if err := put(certFile, string(cert), 0o600); err != nil {
			return err
		}
	}
	if err := put(filepath.Join(s.cfg.Dir, "cert.pem"), string(cert), 0o644); err != nil {
		return err
	}
	path := filepath.Join(s.cfg.Dir, "key.pem")
	if err := put(path, string(key), 0o400); err != nil {
		return err
	}
	return os.Lchown(path, owner.UID, owner.GID)
}

// usable reports whether a certificate and a key belong together and are good for a while.
func usable(cert, key []byte, now time.Time) bool {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false
	}
	c, err := x509.ParseCertificate(pair.Certificate[0])
	return err == nil && now.Add(certLife/2).Before(c.NotAfter) && now.After(c.NotBefore)
}

func makeCertificate(name string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certLife), // the clocks of clients differ
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}
