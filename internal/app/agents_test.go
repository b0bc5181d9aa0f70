package app_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/app"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/provider"
)

// Machines of other hosts come in by TLS with an authority of their own, find what is for agents, and nothing else.
func TestAgentsDoor(t *testing.T) {
	machines := fake.New(fake.Config{})
	defer machines.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	data, address := t.TempDir(), l.Addr().String()
	a, err := app.New(t.Context(), app.Options{Data: data, Listen: "127.0.0.1:0", SSHListen: "127.0.0.1:0", Web: app.Web{HTTPSListen: "off"},
		AgentListen: address, Listeners: app.Listeners{Agents: l}, Providers: map[string]provider.Provider{"fake": machines}})
	if err != nil {
		t.Fatal(err)
	}
	defer running(t, a)()
	roots := authority(t, filepath.Join(data, "tls", "agents", "ca.crt"))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	for path, want := range map[string]int{"/agent/v1/join": 401, "/agent/v1/report": 401, "/api/v1/pools": 404, "/": 404} {
		res, err := client.Post("https://"+address+path, "application/json", bytes.NewReader([]byte(`{"machine":"m-1","epoch":1,"token":"x"}`)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
	}
	if _, err := http.Post("https://"+address+"/agent/v1/join", "application/json", nil); err == nil {
		t.Error("somebody trusts the agents' authority who was not told of it")
	}
}

func TestAgentURL(t *testing.T) {
	for what, c := range map[string]struct{ listen, url, says string }{
		"everywhere":     {"0.0.0.0:7421", "", "cannot know at which address"},
		"no host":        {":7421", "", "cannot know at which address"},
		"a chosen port":  {"127.0.0.1:0", "", "cannot know at which address"},
		"not https":      {"127.0.0.1:7421", "http://pool:7421", "cannot use --agent-url"},
		"nothing behind": {"", "https://pool:7421", "cannot use --agent-url"},
	} {
		_, err := app.New(t.Context(), app.Options{Data: t.TempDir(), Listen: "127.0.0.1:0", SSHListen: "127.0.0.1:0", Web: app.Web{HTTPSListen: "off"},
			AgentListen: c.listen, AgentURL: c.url, Providers: map[string]provider.Provider{}})
		if shoal.KindOf(err) != shoal.KindInvalid || !strings.Contains(err.Error(), c.says) || shoal.HintOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}
