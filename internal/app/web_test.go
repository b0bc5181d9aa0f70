package app_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/app"
	identity "github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// running has a server work until stop is called.
func running(t *testing.T, a *app.App) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := errors.Join(<-ended, a.Close(context.WithoutCancel(t.Context()))); err != nil {
			t.Error(err)
		}
	}
}

// authority is the authority in a file, for a client that trusts no other.
func authority(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	ca, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return roots
}

func TestWebRefusals(t *testing.T) {
	for _, c := range []struct {
		web  app.Web
		says string
	}{
		{app.Web{HTTPSListen: "7443"}, "--https-listen"},
		{app.Web{HTTPListen: "off"}, "--http-listen"},
		{app.Web{URL: "http://pool.example.org"}, "--https-url"},
		{app.Web{URL: "https://pool.example.org/x"}, "--https-url"},
		{app.Web{TLSCert: "x"}, "--tls-key"},
		{app.Web{TLSCert: "x", TLSKey: "y", ACMEDomain: "z"}, "--acme-domain"},
		{app.Web{TLSCert: "/nowhere", TLSKey: "/nowhere"}, "/nowhere"},
		{app.Web{ACMEEmail: "x"}, "ACME"},
		{app.Web{ACMEDomain: "*.example.org"}, "*.example.org"},
		{app.Web{CHPErrorTarget: "http://h"}, "--chp-listen"},
		{app.Web{CHPListen: "127.0.0.1:0", CHPDefaultTarget: "h"}, "--chp-default-target"},
		{app.Web{CHPListen: "127.0.0.1:0", CHPTokenFile: "/nowhere"}, "--chp-token-file"},
		{app.Web{Trusted: "10.0.0.0/8,x"}, `"x"`},
	} {
		if c.web.HTTPSListen == "" {
			c.web.HTTPSListen = "127.0.0.1:0"
		}
		_, err := app.New(t.Context(), app.Options{Data: t.TempDir(), Listen: "127.0.0.1:0", SSHListen: "127.0.0.1:0", Web: c.web, Providers: map[string]provider.Provider{}})
		if shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v", c.web, err)
		}
	}
}

// TestWebDoors: browsers come in by HTTPS with a certificate of the authority in the data directory, and a hub's routes
// outlive a restart.
func TestWebDoors(t *testing.T) {
	data := t.TempDir()
	start := func() (https, chp net.Listener, stop func()) {
		machines := fake.New(fake.Config{})
		for _, l := range []*net.Listener{&https, &chp} {
			var err error
			if *l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
		}
		a, err := app.New(t.Context(), app.Options{Data: data, Listen: "127.0.0.1:0", SSHListen: "127.0.0.1:0", Providers: map[string]provider.Provider{"fake": machines},
			Listeners: app.Listeners{HTTPS: https, CHP: chp}})
		if err != nil {
			t.Fatal(err)
		}
		end := running(t, a)
		return https, chp, func() { end(); machines.Close() }
	}
	https, chp, stop := start()
	pemText, err := os.ReadFile(filepath.Join(data, "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pemText)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(l net.Listener, path string) (int, string) {
		res, err := client.Get("https://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	for path, want := range map[string]int{"/": 302, "/shoal/": 401, "/api/v1/pools": 401, "/nowhere": 404, "/_chp_healthz": 200} {
		if status, body := get(https, path); status != want {
			t.Errorf("%s: %d %.200s", path, status, body)
		}
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the hub") })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	token, err := os.ReadFile(filepath.Join(data, "chp.token"))
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest("POST", "http://"+chp.Addr().String()+"/api/routes/", strings.NewReader(`{"target":"http://`+l.Addr().String()+`","hub":true}`))
	r.Header.Set("Authorization", "token "+string(token))
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 201 {
		t.Errorf("the route: %d", res.StatusCode)
	}
	if status, body := get(https, "/hub/login"); status != 200 || body != "the hub" {
		t.Errorf("%d %s", status, body)
	}
	stop()
	https, _, stop = start()
	defer stop()
	if status, body := get(https, "/hub/login"); status != 200 || body != "the hub" {
		t.Errorf("after a restart: %d %s", status, body)
	}
}

// TestPagesWhereGatewaysAreElsewhere: a server that leaves ssh to others shows where these are.
func TestPagesWhereGatewaysAreElsewhere(t *testing.T) {
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	a, err := app.New(t.Context(), app.Options{Data: data, Role: "control", Listen: "127.0.0.1:0", SSHListen: "gate.example.org:2222",
		Providers: map[string]provider.Provider{}, Listeners: app.Listeners{HTTPS: door}})
	if err != nil {
		t.Fatal(err)
	}
	err = a.Store().Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Users().Put(shoal.User{Name: "alice", UID: 20001}); err != nil {
			return err
		}
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab", Default: true, Provider: "fake", Uses: []shoal.Use{shoal.UseInteractive}, Size: shoal.Size{Max: 1}, Seats: 4})
		return err
	})
	if err == nil {
		err = identity.New(store.Credentials{DB: a.Store()}).SetPassword(t.Context(), "alice", "password of alice")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer running(t, a)()
	roots := authority(t, filepath.Join(data, "tls", "ca.crt"))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	ask := func(method, path string, form url.Values) string {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+door.Addr().String()+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		if method == http.MethodPost {
			r.Header.Set("Origin", "https://"+door.Addr().String())
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	token := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(ask(http.MethodGet, "/shoal/login", nil))
	if token == nil {
		t.Fatal("the page to sign in has no form")
	}
	page := ask(http.MethodPost, "/shoal/login", url.Values{"token": token[1:], "user": {"alice"}, "password": {"password of alice"}})
	if want := "ssh -p 2222 alice@gate.example.org"; !strings.Contains(page, want) {
		t.Errorf("the page does not say %q:\n%s", want, page)
	}
}
