package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
)

// Nobody but a gateway is let in where gateways call, and a gateway is let in nowhere else.
func TestOnlyGateways(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	added, err := w.cfg.Gateways.Add(t.Context(), access.Subject{Host: true}, api.AddGateway{Name: "north"})
	if err != nil {
		t.Fatal(err)
	}
	token, _, _ := strings.Cut(added.Token, "\n")
	e, err := w.cfg.Gateways.Enrol(t.Context(), api.GatewayEnrol{Token: token, Key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(h http.Handler, method, path, token string) int {
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		out := httptest.NewRecorder()
		h.ServeHTTP(out, r)
		return out.Code
	}
	for _, line := range []string{"GET /stream", "POST /login", "POST /report", "POST /password", "POST /environ", "GET /dial"} {
		method, path, _ := strings.Cut(line, " ")
		for who, token := range map[string]string{"nobody": "", "a stranger": "x", "the enrolment token": token, "a machine": w.mtoken, "alice": w.tokens["alice"], "ada": w.tokens["ada"],
			"the admin token": adminToken, "the hub": hubToken, "another name": "edge." + strings.TrimPrefix(e.Token, "north.")} {
			if code := ask(w.api.Gateway(), method, "/gateway/v1"+path, token); code != http.StatusUnauthorized {
				t.Errorf("%s as %s: %d", line, who, code)
			}
		}
	}
	if code := ask(w.api.Gateway(), "POST", "/gateway/v1/report", e.Token); code != http.StatusOK {
		t.Errorf("a report of the gateway: %d", code)
	}
	for _, c := range []struct {
		face http.Handler
		path string
	}{{w.api.Control(), "/api/v1/whoami"}, {w.api.Control(), "/api/v1/users"}, {w.api.Local(), "/api/v1/users"}, {w.api.Agent(), "/agent/v1/stream"}, {w.api.Browser(), "/api/v1/users"}} {
		if code := ask(c.face, "GET", c.path, e.Token); code != http.StatusUnauthorized {
			t.Errorf("%s as a gateway: %d", c.path, code)
		}
	}
	for _, face := range []http.Handler{w.api.Control(), w.api.Agent(), w.api.Local(), w.api.Browser()} {
		if code := ask(face, "POST", "/gateway/v1/report", e.Token); code != http.StatusNotFound {
			t.Errorf("a face for others answers a gateway: %d", code)
		}
	}
}
