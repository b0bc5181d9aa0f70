package web_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/web"
)

// FuzzNext: wherever one is sent after signing in, it is on this origin, also for a browser that drops tabs and newlines, takes
// backslashes for slashes and resolves dots.
func FuzzNext(f *testing.F) {
	for _, s := range []string{"/", "/user/alice/lab?x=1", "//evil", "/\\evil", "/\t/evil", "https://evil/", "/x/..//evil", "/.//evil", "/%2f/evil", "/shoal/login", "/a#b", "/;@evil", "/?next=//evil"} {
		f.Add(s)
	}
	base, err := url.Parse("https://pool.example.org/shoal/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		to := web.Next(text)
		if to != "/shoal/" && to != text {
			t.Fatalf("%q leads to %q", text, to)
		}
		browser := strings.NewReplacer("\t", "", "\n", "", "\r", "", "\\", "/").Replace(strings.Trim(to, " \x00\x01\x1f"))
		for _, s := range []string{to, browser} {
			u, err := base.Parse(s)
			if err != nil || u.Host != base.Host || u.Scheme != "https" || strings.HasPrefix(u.Path, "//") {
				t.Fatalf("%q leads to %v, %v", text, u, err)
			}
		}
		for _, c := range []byte(to) {
			if c <= ' ' || c >= 0x7f {
				t.Fatalf("%q is sent as a header", to)
			}
		}
	})
}

// FuzzOrigin: an Origin of another host never passes for ours.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://pool.example.org", "https://pool.example.org:443", "https://POOL.example.org", "http://pool.example.org", "https://pool.example.org.evil", "https://evil", "null", "https://pool.example.org@evil", "https://pool.example.org/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		r := httptest.NewRequest(http.MethodGet, "https://pool.example.org/shoal/", nil)
		if !web.SameOrigin(origin, r) {
			return
		}
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Hostname(), "pool.example.org") || u.Scheme != "https" || u.Port() != "" && u.Port() != "443" {
			t.Errorf("%q passes for this origin", origin)
		}
	})
}

// FuzzCookie: whatever is in a Cookie line, a secret that comes of it is of the alphabet of ours.
func FuzzCookie(f *testing.F) {
	f.Add("__Host-shoal=0123456789abcdefghjkmnpqrstvwxyz")
	f.Add(`__Host-shoal="x"; a`)
	f.Fuzz(func(t *testing.T, line string) {
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		if s := web.SecretOf(r, "__Host-shoal"); s != "" && (len(s) != 32 || strings.Trim(s, "0123456789abcdefghjkmnpqrstvwxyz") != "") {
			t.Errorf("%q", s)
		}
	})
}
