package certs_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
	"github.com/shoal-pool/shoal/internal/need"
)

// pebble starts Debian's ACME server, which finds all names at 127.0.0.1 and comes to the ports given. It returns its directory's
// URL, the file with whom to trust about that, and a client that does.
func pebble(t *testing.T, httpPort, tlsPort string) (directory, root string, client *http.Client, management string) {
	program, names := need.Program(t, "pebble"), need.Program(t, "pebble-challtestsrv")
	dir := t.TempDir()
	own, err := certs.FromOwn(dir, []string{"localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := own.TLS().GetCertificate(nil)
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}))
	write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	ports := []string{need.Port(t), need.Port(t), need.Port(t), need.Port(t)}
	write("config.json", fmt.Appendf(nil, `{"pebble":{"listenAddress":"127.0.0.1:%s","managementListenAddress":"127.0.0.1:%s","certificate":%q,"privateKey":%q,"httpPort":%s,"tlsPort":%s,"ocspResponderURL":"","externalAccountBindingRequired":false}}`,
		ports[0], ports[1], filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), httpPort, tlsPort))
	run := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=10")
		log, err := os.CreateTemp(dir, "log-*")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			log.Close()
			if t.Failed() {
				text, _ := os.ReadFile(log.Name())
				t.Logf("%s wrote:\n%s", name, text)
			}
		})
	}
	dns := "127.0.0.1:" + ports[2]
	run(names, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-management", "127.0.0.1:"+ports[3])
	run(program, "-config", filepath.Join(dir, "config.json"), "-dnsserver", dns)
	trust := x509.NewCertPool()
	trust.AddCert(own.CA())
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust}}}
	t.Cleanup(client.CloseIdleConnections)
	directory = fmt.Sprintf("https://localhost:%s/dir", ports[0])
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		res, err := client.Get(directory)
		if err == nil {
			res.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("pebble does not answer: %v", err)
		}
	}
	return directory, filepath.Join(dir, certs.CAFile), client, "https://localhost:" + ports[1]
}

// TestACME gets a certificate by either challenge from an authority of the real protocol.
func TestACME(t *testing.T) {
	for _, way := range []string{"tls", "http"} {
		t.Run(way, func(t *testing.T) {
			secure, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer secure.Close()
			plain, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			_, tlsPort, _ := net.SplitHostPort(secure.Addr().String())
			_, httpPort, _ := net.SplitHostPort(plain.Addr().String())
			toTLS, toHTTP := tlsPort, httpPort
			cfg := certs.ACMEConfig{Dir: t.TempDir(), Names: []string{"pool.example.org"}, Email: "ops@example.org", HTTPS: tlsPort, Log: slog.New(slog.DiscardHandler),
				Also: func(name string) bool { return name == "alice.pool.example.org" }}
			if way == "http" { // no way to the other
				cfg.HTTP = httpPort
				toTLS = need.Port(t)
			} else {
				toHTTP = need.Port(t)
			}
			var client *http.Client
			var management string
			cfg.CA, cfg.Root, client, management = pebble(t, toHTTP, toTLS)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			acme, err := certs.FromACME(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer acme.Close()
			ran := make(chan error, 1)
			go func() { ran <- acme.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-ran; err != nil {
					t.Error(err)
				}
			}()
			s := &http.Server{TLSConfig: acme.TLS(), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") }),
				ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
			go func() { _ = s.ServeTLS(secure, "", "") }()
			defer s.Close()
			h := &http.Server{Handler: acme.Challenges(http.NotFoundHandler())}
			go func() { _ = h.Serve(plain) }()
			defer h.Close()

			roots := x509.NewCertPool()
			res, err := client.Get(management + "/roots/0")
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if !roots.AppendCertsFromPEM(text) {
				t.Fatalf("pebble's root is %.100q", text)
			}
			for name, good := range map[string]bool{"pool.example.org": true, "alice.pool.example.org": true, "mallory.pool.example.org": false} {
				var got error
				for end := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
					c, err := tls.Dial("tcp", secure.Addr().String(), &tls.Config{ServerName: name, RootCAs: roots})
					if got = err; err == nil {
						c.Close()
					}
					if err == nil || !good || time.Now().After(end) {
						break
					}
				}
				if (got == nil) != good {
					t.Errorf("%s: %v", name, got)
				}
			}
		})
	}
	for _, names := range [][]string{{"*.example.org"}, {""}, {"a b"}} {
		if _, err := certs.FromACME(certs.ACMEConfig{Dir: t.TempDir(), Names: names, Log: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%q was taken", names)
		}
	}
}
