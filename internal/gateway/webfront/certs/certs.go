// Package certs gives an HTTPS front end its certificates: from files, which are read again when they change; from an
// authority of our own, whose fingerprint people compare; or by ACME.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/whole"
)

// Base is what all have in common: no version of TLS that is out of date, and HTTP/2.
func Base() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
}

// Files is a certificate from files.
type Files struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   string
	looked  time.Time
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = 5 * time.Second

// FromFiles reads a certificate with its chain, and its key, both PEM.
func FromFiles(cert, key string, log *slog.Logger) (*Files, error) {
	f := &Files{cert: cert, key: key, log: log}
	stamp, err := f.stampNow()
	if err == nil {
		err = f.read(stamp)
	}
	if err != nil {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use the certificate %s with the key %s: %w", cert, key, err).
			WithHint("both are PEM files; the certificate's comes first, the chain behind it")
	}
	f.looked = time.Now()
	return f, nil
}

// stampNow tells states of the two files apart.
func (f *Files) stampNow() (string, error) {
	var all strings.Builder
	for _, path := range []string{f.cert, f.key} {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	return all.String(), nil
}

func (f *Files) read(stamp string) error {
	c, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return err
	}
	f.current, f.stamp = &c, stamp
	return nil
}

// TLS serves with the files' certificate. One that cannot be read, as while it is being replaced, leaves the former in use.
func (f *Files) TLS() *tls.Config {
	cfg := Base()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if now := time.Now(); now.Sub(f.looked) >= lookEvery {
			f.looked = now
			f.renew()
		}
		return f.current, nil
	}
	return cfg
}

func (f *Files) renew() {
	stamp, err := f.stampNow()
	if err == nil && stamp == f.stamp {
		return
	}
	if err == nil {
		err = f.read(stamp)
	}
	if err != nil {
		f.log.Warn("the certificate has changed and cannot be used; the former stays in use", "file", f.cert, "err", err)
		return
	}
	f.log.Info("the certificate was read again", "file", f.cert)
}

// Own is an authority of our own and the certificate that it has signed.
type Own struct {
	dir   string
	names []string
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey

	mu   sync.Mutex
	leaf *tls.Certificate
}

const (
	caLife   = 10 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	renewAt  = 30 * 24 * time.Hour // before its end
	skew     = time.Hour           // a client's clock may be behind
)

// FromOwn opens the authority in dir, making it where there is none, and signs for names: host names, wildcards and addresses.
func FromOwn(dir string, names []string) (*Own, error) {
	o := &Own{dir: dir, names: names}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = o.open()
	}
	if err == nil {
		o.leaf, err = o.sign(time.Now())
	}
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate in %s: %w", dir, err)
	}
	return o, nil
}

// CAFile is the authority's certificate in the directory of an Own: what browsers are told to trust.
const CAFile = "ca.crt"

const keyFile = "ca.key"

func (o *Own) open() error {
	text, err := os.ReadFile(filepath.Join(o.dir, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return o.create()
	}
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(filepath.Join(o.dir, CAFile))
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, text)
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("%s is no ECDSA key", keyFile)
	}
	o.ca, o.key = pair.Leaf, key
	if time.Until(o.ca.NotAfter) < leafLife {
		return o.certify() // for the same key: at no moment is there one of another certificate, and who trusts the former trusts this one's
	}
	return nil
}

func (o *Own) create() (err error) {
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(o.key)
	if err != nil {
		return err
	}
	// The certificate first: where there is a key, there is its certificate.
	if err := o.certify(); err != nil {
		return err
	}
	return put(filepath.Join(o.dir, keyFile), "PRIVATE KEY", secret, 0o600)
}

// certify makes the authority's certificate for its key.
func (o *Own) certify() error {
	now := time.Now()
	host, _ := os.Hostname()
	ca := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Shoal on " + host, Organization: []string{"Shoal"}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if o.ca != nil {
		ca.Subject = o.ca.Subject
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, o.key.Public(), o.key)
	if err != nil {
		return err
	}
	if o.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	return put(filepath.Join(o.dir, CAFile), "CERTIFICATE", der, 0o644)
}

func put(path, kind string, der []byte, mode fs.FileMode) error {
	return whole.Write(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails since Go 1.24
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func (o *Own) sign(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"Shoal"}}, NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, name := range o.names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else if !slices.Contains(leaf.DNSNames, name) {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, o.ca, key.Public(), o.key)
	if err != nil {
		return nil, err
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, o.ca.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// TLS serves with a certificate that is made anew before it ends.
func (o *Own) TLS() *tls.Config {
	cfg := Base()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if now := time.Now(); o.leaf.Leaf.NotAfter.Sub(now) < renewAt {
			leaf, err := o.sign(now)
			if err != nil {
				return nil, fmt.Errorf("cannot renew the certificate: %w", err)
			}
			o.leaf = leaf
		}
		return o.leaf, nil
	}
	return cfg
}

// CA is the authority's certificate.
func (o *Own) CA() *x509.Certificate { return o.ca }

// Fingerprint is how browsers show a certificate's: SHA-256, in hexadecimal with colons.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// FingerprintOf reads the authority's certificate of an Own that somebody else has opened.
func FingerprintOf(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, CAFile))
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("%s is no certificate", filepath.Join(dir, CAFile))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", err
	}
	return Fingerprint(c), nil
}
