package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/web"
)

// TestDatabaseAway: while it cannot be told who somebody is she is told so, and not taken for somebody who must sign in. She can
// leave her browser all the same.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, nobody := w.as("alice"), w.browser()
	csrf := b.csrf()
	w.away = shoal.Errorf(shoal.KindUnavailable, "cannot reach the database").WithHint("is PostgreSQL running?")
	for path, a := range map[string]answer{
		"home": b.get("/shoal/"), "login": b.get("/shoal/login"), "start": b.get("/shoal/start/lab/code"),
		"end": b.post("/shoal/end/s-1", url.Values{"csrf": {csrf}}), "everywhere": b.post("/shoal/logout", url.Values{"csrf": {csrf}, "everywhere": {"1"}}),
	} {
		want(t, path, a, http.StatusServiceUnavailable)
		if a.Header.Get("Retry-After") == "" || !strings.Contains(a.body, "Cannot reach the database.") || !strings.Contains(a.body, "Is PostgreSQL running?") {
			t.Errorf("%s: %v, %s", path, a.Header, a.body)
		}
	}
	want(t, "API", b.do(http.MethodGet, "/api/v1/pools", "", "Accept", "application/json", web.CSRFHeader, csrf), http.StatusServiceUnavailable)
	want(t, "who has no cookie", nobody.get("/shoal/login"), http.StatusOK)
	if b.cookie("__Host-shoal") == "" {
		t.Error("her browser has forgotten her")
	}
	want(t, "logout", b.post("/shoal/logout", url.Values{"csrf": {csrf}}), http.StatusSeeOther)
	if b.cookie("__Host-shoal") != "" {
		t.Error("she cannot leave")
	}
}
