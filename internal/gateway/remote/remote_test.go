package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/route"
)

func TestServerURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://shoal.example.org:7421": "https://shoal.example.org:7421", "https://shoal.example.org/": "https://shoal.example.org",
		"http://127.0.0.1:7420": "http://127.0.0.1:7420", "http://[::1]:1": "http://[::1]:1", "http://localhost:1": "http://localhost:1",
		"http://shoal.example.org": "", "http://192.0.2.1:7420": "", "http://localhost.example.org": "", "ftp://localhost": "", "shoal.example.org": "",
		"https://user@shoal.example.org": "", "https://shoal.example.org/path": "", "": "", "https://": "",
	} {
		if got, err := serverURL(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

// The mirror on disk cannot be read, nor changed, without the key.
func TestSealed(t *testing.T) {
	t.Parallel()
	key, text := bytes.Repeat([]byte("k"), 32), []byte(`{"users":{"alice":{}}}`)
	sealed, err := seal(key, text)
	if err != nil || bytes.Contains(sealed, []byte("alice")) {
		t.Fatalf("%q, %v", sealed, err)
	}
	if got, err := unseal(key, sealed); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%q, %v", got, err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := unseal(key, bad); err == nil {
			t.Errorf("changed at %d it is read", i)
		}
	}
	for _, bad := range [][]byte{nil, sealed[:10], sealed[:len(sealed)-1]} {
		if _, err := unseal(key, bad); err == nil {
			t.Errorf("%d bytes of it are read", len(bad))
		}
	}
	if _, err := unseal(bytes.Repeat([]byte("x"), 32), sealed); err == nil {
		t.Error("with another key it is read")
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := unseal(make([]byte, 32), sealed); err == nil {
			t.Error("it is read")
		}
	})
}

// Whatever a control plane says, a record is taken or refused as a whole.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{`{}`, `{"reset":true,"users":[{"name":"a"}],"noUsers":["b"],"pools":[],"routes":[{"session":"s"}],"noRoutes":["s"],"whole":true}`, `{"users":[null]}`, `[]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r api.GatewayRecord
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		m := newMirror()
		m.apply(r)
		for _, u := range r.NoUsers {
			if _, there := m.Users[u]; there {
				t.Errorf("%q is there", u)
			}
		}
		for _, id := range r.NoRoutes {
			if _, there := m.Routes[id]; there {
				t.Errorf("%q is there", id)
			}
		}
	})
}

// known is a gateway whose control plane is away.
func known(age time.Duration) *Gateway {
	g := &Gateway{cfg: Config{OfflineFor: time.Hour}, mirror: newMirror(), parts: map[string]*part{}, sessions: map[shoal.SessionID]*session{}}
	g.mirror.apply(api.GatewayRecord{
		Users: []api.GatewayUser{{Name: "alice"}, {Name: "bob"}},
		Pools: []api.GatewayPool{{Name: "gpu"}, {Name: "lab", Default: true}},
		Routes: []api.GatewayRoute{{Session: "s-1", User: "alice", Pool: "gpu", Machine: "m-1"}, {Session: "s-2", User: "alice", Pool: "lab", Machine: "m-2"},
			{Session: "s-3", User: "carol", Pool: "lab", Machine: "m-2"}}})
	g.mirror.AsOf = time.Now().Add(-age)
	return g
}

// Without the control plane who has a session is led there, as long as the mirror is young, and nobody else anywhere.
func TestKnown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what string
		age  time.Duration
		req  route.Request
		to   shoal.SessionID
		why  string
	}{
		{"by the default pool", 0, route.Request{User: "alice"}, "s-2", ""},
		{"by name", 0, route.Request{User: "alice", Pool: "gpu"}, "s-1", ""},
		{"by machine", 0, route.Request{User: "alice", Machine: "m-1"}, "s-1", ""},
		{"nearly too old", 59 * time.Minute, route.Request{User: "alice"}, "s-2", ""},
		{"too old", 61 * time.Minute, route.Request{User: "alice"}, "", "it has not answered for longer than 1h"},
		{"no session", 0, route.Request{User: "bob"}, "", "you have none"},
		{"a machine that did not answer", 0, route.Request{User: "alice", Pool: "gpu", Avoid: "m-1"}, "", "you have none"},
		{"another's machine", 0, route.Request{User: "bob", Machine: "m-1"}, "", "you have none"},
		{"a new place", 0, route.Request{User: "alice", New: true}, "", "no new place"},
		{"disabled", 0, route.Request{User: "carol"}, "", "user carol may not log in"},
	} {
		to, why := known(c.age).known(c.req)
		if to.Session != c.to || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %+v, %q", c.what, to, why)
		}
	}
	g := known(0)
	g.barred = errors.New("gateway edge is not admitted any more")
	if to, why := g.known(route.Request{User: "alice"}); to.Session != "" || !strings.Contains(why, "not admitted") {
		t.Errorf("barred: %+v, %q", to, why)
	}
}

// A server that led before is not listened to.
func TestFormerLeader(t *testing.T) {
	t.Parallel()
	lead := "3"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.LeadHeader, lead)
		fmt.Fprint(w, "{}")
	}))
	defer s.Close()
	c, err := newControl(Config{Servers: []string{s.URL}, Dial: new(net.Dialer).DialContext}, "")
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ask := func() error { return c.call(t.Context(), "/report", struct{}{}, &struct{}{}, time.Minute) }
	if err := ask(); err != nil {
		t.Error(err)
	}
	lead = "2"
	if err := ask(); !isAway(err) || !strings.Contains(err.Error(), "led before") {
		t.Errorf("a former leader: %v", err)
	}
	lead = "4"
	if err := ask(); err != nil {
		t.Error(err)
	}
}

// With a token a gateway enrols at the first server that answers, once; what it is told then is its owner's to read.
func TestEnrolled(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	asked := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		var e api.GatewayEnrol
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil || e.Token != "edge.secret" || e.Key != public {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"kind":"unauthenticated","detail":"no"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(api.GatewayEnrolled{Name: "edge", Token: "edge.own", HostKey: string(pem.EncodeToMemory(block)), HostCA: public})
	}))
	defer s.Close()
	dir := t.TempDir()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "token"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{Servers: []string{"https://127.0.0.1:1", s.URL}, Dir: dir, TokenFile: filepath.Join(dir, "token"), Key: key.PublicKey(), Dial: new(net.Dialer).DialContext, Log: slog.New(slog.DiscardHandler)}
	open := func() (string, error) {
		i, c, err := enrolled(context.Background(), cfg)
		if err != nil {
			return "", err
		}
		c.close()
		return string(i.Name) + " " + c.token, nil
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("without a token: %v", err)
	}
	write("edge.wrong\n" + ca)
	if _, err := open(); shoal.KindOf(err) != shoal.KindUnauthenticated {
		t.Errorf("with a wrong one: %v", err)
	}
	write("edge.secret\n" + ca)
	for range 2 {
		if got, err := open(); got != "edge edge.own" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if asked != 2 {
		t.Errorf("it asked %d times", asked)
	}
	if info, err := os.Stat(filepath.Join(dir, identityFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.Remove(cfg.TokenFile); err != nil {
		t.Error(err)
	}
	if got, err := open(); got != "edge edge.own" || err != nil {
		t.Errorf("without the token: %q, %v", got, err)
	}
}
