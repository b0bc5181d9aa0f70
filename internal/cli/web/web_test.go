package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/web"
)

// run runs the command against a server that gives a link and knows one code.
func run(t *testing.T, link api.WebLink, at, stdin string, args ...string) (said, noted string, confirmed bool, err error) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/web/link", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(link) })
	mux.HandleFunc("POST /api/v1/web/confirm", func(w http.ResponseWriter, r *http.Request) {
		var req api.ConfirmRequest
		if json.NewDecoder(r.Body).Decode(&req) != nil || req.Code != "abcd-efgh" {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(api.Problem{Status: 404, Kind: shoal.KindNotFound, Detail: "nothing waits"})
			return
		}
		confirmed = confirmed || req.Confirm
		_ = json.NewEncoder(w).Encode(api.Confirmation{Method: "POST", Path: "/api/v1/users", Confirmed: req.Confirm})
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	c, err := client.New(client.Options{Server: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out, notes strings.Builder
	cmd := web.Command(web.Env{Connect: func() (*client.Client, string, error) { return c, at, nil }, In: strings.NewReader(stdin),
		Say:  func(f string, a ...any) { fmt.Fprintf(&out, f+"\n", a...) },
		Note: func(f string, a ...any) { fmt.Fprintf(&notes, f+"\n", a...) }})
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return out.String(), notes.String(), confirmed, err
}

func TestLink(t *testing.T) {
	t.Parallel()
	link := api.WebLink{URL: "https://127.0.0.1:7443/shoal/link#alice.x", Expires: time.Now().Add(5 * time.Minute)}
	for at, warns := range map[string]bool{"": false, "http://127.0.0.1:7420": false, "http://localhost:7420": false, "http://pool.example.org:7420": true} {
		said, noted, _, err := run(t, link, at, "")
		if err != nil || said != link.URL+"\n" || !strings.Contains(noted, "good once, for 5m") || strings.Contains(noted, "own host only") != warns {
			t.Errorf("%q: %q, %q, %v", at, said, noted, err)
		}
	}
	said, _, _, err := run(t, api.WebLink{Path: "/shoal/link#alice.x"}, "", "")
	if shoal.KindOf(err) != shoal.KindNotFound || said != "" {
		t.Errorf("of a server without pages: %q, %v", said, err)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stdin     string
		args      []string
		confirmed bool
		kind      shoal.Kind
	}{
		{"y\n", []string{"--confirm", "abcd-efgh"}, true, ""},
		{"YES\n", []string{"--confirm", "abcd-efgh"}, true, ""},
		{"", []string{"--confirm", "abcd-efgh", "--yes"}, true, ""},
		{"y", []string{"--confirm", "abcd-efgh"}, true, ""},
		{"\n", []string{"--confirm", "abcd-efgh"}, false, shoal.KindCancelled},
		{"", []string{"--confirm", "abcd-efgh"}, false, shoal.KindCancelled},
		{"no\n", []string{"--confirm", "abcd-efgh"}, false, shoal.KindCancelled},
		{"y\n", []string{"--confirm", "wrong"}, false, shoal.KindNotFound},
	} {
		said, noted, confirmed, err := run(t, api.WebLink{}, "", c.stdin, c.args...)
		if confirmed != c.confirmed || (err == nil) != (c.kind == "") || err != nil && shoal.KindOf(err) != c.kind {
			t.Errorf("%q %q: confirmed %v, %v", c.stdin, c.args, confirmed, err)
		}
		if c.confirmed && said != "confirmed: POST /api/v1/users\n" {
			t.Errorf("%q: %q", c.stdin, said)
		}
		if c.kind == shoal.KindCancelled && !strings.Contains(noted, "your browser asks for: POST /api/v1/users") {
			t.Errorf("%q: %q", c.stdin, noted)
		}
	}
}
