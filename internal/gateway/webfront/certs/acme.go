package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/shoal-pool/shoal"
)

// ACMEConfig says for which names certificates are asked, and whom.
type ACMEConfig struct {
	Dir   string // keys and certificates
	Names []string
	// Also reports whether a further name may be asked for, when somebody comes by it. Nil: none.
	Also  func(name string) bool
	Email string
	CA    string // the directory's URL; default that of Let's Encrypt
	Root  string // a file with whom to trust about CA itself; default as this host does
	// HTTPS and HTTP are the ports of the listeners that TLS and Challenges serve; HTTP is empty where there is none.
	HTTPS, HTTP string
	Log         *slog.Logger
}

// ACME gets certificates and renews them.
type ACME struct {
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer
	names  []string
}

// FromACME makes what gets certificates once it runs. Until the first is there, handshakes fail.
func FromACME(cfg ACMEConfig) (*ACME, error) {
	var roots *x509.CertPool
	if cfg.Root != "" {
		text, err := os.ReadFile(cfg.Root)
		if err == nil {
			if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(text) {
				err = fmt.Errorf("it has no certificate")
			}
		}
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --acme-root %s: %w", cfg.Root, err).WithHint("it is a PEM file")
		}
	}
	if cfg.CA == "" {
		cfg.CA = certmagic.LetsEncryptProductionCA
	}
	names := cfg.Names
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSpace(names[i]))
		if !certmagic.SubjectQualifiesForCert(names[i]) || strings.Contains(names[i], "*") {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot ask for a certificate for %q", names[i]).WithHint("--acme-domain takes host names, without wildcards")
		}
	}
	a := &ACME{names: names}
	template := certmagic.Config{
		Storage: &certmagic.FileStorage{Path: cfg.Dir}, DefaultServerName: names[0], Logger: zap.NewNop(),
		OnEvent: func(_ context.Context, event string, data map[string]any) error {
			tell(cfg.Log, event, data)
			return nil
		},
	}
	if cfg.Also != nil {
		template.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
			if name = strings.ToLower(name); slices.Contains(names, name) || cfg.Also(name) {
				return nil
			}
			return fmt.Errorf("%s is none of this server's names", name)
		}}
	}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{Logger: zap.NewNop(),
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.config, nil }})
	a.config = certmagic.New(a.cache, template)
	a.issuer = certmagic.NewACMEIssuer(a.config, certmagic.ACMEIssuer{CA: cfg.CA, TestCA: cfg.CA, Email: cfg.Email, Agreed: true, TrustedRoots: roots,
		DisableHTTPChallenge: cfg.HTTP == "", AltTLSALPNPort: number(cfg.HTTPS), AltHTTPPort: number(cfg.HTTP), Logger: zap.NewNop()})
	a.config.Issuers = []certmagic.Issuer{a.issuer}
	return a, nil
}

// Run gets certificates and renews them until ctx ends. The listeners must be open by then: where they are not, challenges are waited for
// on their ports.
func (a *ACME) Run(ctx context.Context) error {
	if err := a.config.ManageAsync(ctx, a.names); err != nil {
		return fmt.Errorf("cannot ask for certificates: %w", err)
	}
	<-ctx.Done()
	return nil
}

func number(port string) int {
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}

func tell(log *slog.Logger, event string, data map[string]any) {
	switch event {
	case "cert_obtained":
		log.Info("a certificate has come", "name", data["identifier"], "renewal", data["renewal"])
	case "cert_failed":
		log.Warn("a certificate cannot be had; trying again later", "name", data["identifier"], "err", data["error"])
	}
}

// TLS serves with the certificates, and answers the authority's challenges.
func (a *ACME) TLS() *tls.Config {
	cfg := Base()
	cfg.GetCertificate = a.config.GetCertificate
	cfg.NextProtos = append(cfg.NextProtos, a.config.TLSConfig().NextProtos...)
	return cfg
}

// Challenges answers the authority's challenges by plain HTTP, and leaves the rest to next.
func (a *ACME) Challenges(next http.Handler) http.Handler { return a.issuer.HTTPChallengeHandler(next) }

// Close ends the renewing.
func (a *ACME) Close() { a.cache.Stop() }
