package webfront_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// apps are those that a test puts in.
type apps struct {
	mu     sync.Mutex
	of     map[string]shoal.App
	opened []string
	used   int
}

func appKey(user shoal.UserName, pool shoal.PoolName, endpoint string) string {
	return fmt.Sprintf("%s/%s/%s", user, pool, endpoint)
}

func (a *apps) Find(_ context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	app, ok := a.of[appKey(user, pool, endpoint)]
	return app, ok && name == ""
}

func (a *apps) Open(_ context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, _ string) (shoal.App, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if pool == "none" {
		return shoal.App{}, shoal.Errorf(shoal.KindNotFound, "there is no pool none")
	}
	a.opened = append(a.opened, appKey(user, pool, endpoint))
	return shoal.App{ID: "a-1", User: user, Pool: pool, Endpoint: endpoint, State: shoal.AppStarting}, nil
}

func (a *apps) At(user shoal.UserName, address string) (shoal.AppID, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.of {
		if p.User == user && p.Address == address {
			return p.ID, true
		}
	}
	return "", false
}

func (a *apps) Used(shoal.AppID, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used++
}

func (a *apps) take() (opened string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	opened = strings.Join(a.opened, " ")
	a.opened = nil
	return opened
}

// guarded is a front end with pages, an API, apps and two users' servers.
func guarded(t *testing.T) (*world, *apps) {
	a := &apps{of: map[string]shoal.App{}}
	say := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", what, r.URL.Path) })
	}
	w := start(t, webfront.Config{Guard: guard{}, Apps: a, Pages: say("pages"), API: say("api"), AppsDomain: "apps.example.org",
		Tokens: func(r *http.Request) (shoal.UserName, error) {
			name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer token-of-")
			if !ok {
				return "", shoal.Errorf(shoal.KindUnauthenticated, "nobody")
			}
			return shoal.UserName(name), nil
		}})
	seen := func(name string) string {
		return backend(t, func(rw http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(rw, "%s %s cookie=%q auth=%q prefix=%q", name, r.RequestURI, r.Header.Get("Cookie"), r.Header.Get("Authorization"), r.Header.Get("X-Forwarded-Prefix"))
		})
	}
	w.route("/user/alice", seen("alice"), "guarded", `user="alice"`)
	w.route("/user/mallory", seen("mallory"), "guarded", `user="mallory"`)
	w.route("/user/outside", seen("outside"), `user="alice"`)
	w.route("/services/x", seen("service"), "guarded")
	w.route("/mallory.apps.example.org/user/mallory", seen("apart"), "guarded", `user="mallory"`)
	address := func(url string) string { return strings.TrimPrefix(url, "http://") }
	a.of["alice/lab/code"] = shoal.App{ID: "a-2", User: "alice", Pool: "lab", Endpoint: "code", State: shoal.AppRunning, Address: address(seen("code"))}
	a.of["alice/lab/strip"] = shoal.App{ID: "a-3", User: "alice", Pool: "lab", Endpoint: "strip", State: shoal.AppRunning, Address: address(seen("strip")), StripPrefix: true}
	a.of["alice/lab/dead"] = shoal.App{ID: "a-4", User: "alice", Pool: "lab", Endpoint: "dead", State: shoal.AppRunning, Address: address(deadPort(t))}
	a.of["alice/lab/starting"] = shoal.App{ID: "a-5", User: "alice", Pool: "lab", Endpoint: "starting", State: shoal.AppStarting}
	a.of["alice/lab/ended"] = shoal.App{ID: "a-6", User: "alice", Pool: "lab", Endpoint: "ended", State: shoal.AppEnded, Address: "127.0.0.1:1"}
	return w, a
}

func TestWhoGetsWhere(t *testing.T) {
	w, a := guarded(t)
	const alice, html = "Cookie: x=1; __Host-shoal=alice", "Accept: text/html"
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
		answer       string // the body's beginning, or where to
		opened       string
	}{
		{"GET", "/", nil, 302, "/shoal/", ""},
		{"GET", "/shoal", nil, 302, "/shoal/", ""},
		{"GET", "/shoal/login", nil, 200, "pages /shoal/login", ""},
		{"GET", "/%73hoal/login", nil, 200, "pages /shoal/login", ""},
		{"GET", "/api/v1/pools", nil, 200, "api /api/v1/pools", ""},
		{"GET", "/hub/home", nil, 404, "", ""},

		{"GET", "/user/alice/tree?a=b", []string{alice}, 200, `alice /user/alice/tree?a=b cookie="x=1" auth=""`, ""},
		{"GET", "/user/alice/tree?a=b", []string{html}, 302, "/shoal/login?next=%2Fuser%2Falice%2Ftree%3Fa%3Db", ""},
		{"GET", "/user/alice/api", nil, 401, "", ""},
		{"POST", "/user/alice/api", []string{html}, 401, "", ""},
		{"GET", "/user/mallory/tree", []string{alice, html}, 403, "", ""},
		{"GET", "/user/mallory/tree", []string{alice, "Authorization: token hers"}, 403, "", ""},
		{"GET", "/user/mallory/api", []string{"Authorization: token hers"}, 200, `mallory /user/mallory/api cookie="" auth="token hers"`, ""},
		{"GET", "/user/mallory", []string{"Cookie: __Host-shoal=bob", "Authorization: x"}, 403, "", ""},
		{"GET", "/user/mallory", []string{"Cookie: other=1", "Authorization: x"}, 401, "", ""},
		{"POST", "/user/alice/api", []string{alice, "Origin: https://evil.example.org"}, 403, "", ""},
		{"POST", "/user/alice/api", []string{alice, "Origin: null"}, 403, "", ""},
		{"POST", "/user/alice/api", []string{alice, "Sec-Fetch-Site: cross-site"}, 403, "", ""},
		{"POST", "/user/alice/api", []string{alice, "Host: pool.example.org", "Origin: https://pool.example.org"}, 200, "alice", ""},
		{"GET", "/user/outside", nil, 200, "outside", ""},
		{"GET", "/services/x", nil, 200, "service", ""},
		{"GET", "/services/x", []string{"Cookie: a=1; jupyterhub-hub-login=hers;jupyterhub-session-id=2; _xsrf=\"3 4\""}, 200, `service /services/x cookie="a=1; _xsrf=\"3 4\"" auth=""`, ""},
		{"GET", "/services/x", []string{"Cookie: jupyterhub-hub-login=hers"}, 200, `service /services/x cookie="" auth=""`, ""},
		{"GET", "/services/x", []string{"Cookie: jupyterhub-hub-login=hers; __Host-shoal=alice"}, 200, `service /services/x cookie="jupyterhub-hub-login=hers" auth=""`, ""},
		{"GET", "/services/x", []string{"Cookie: jupyterhub-hub-login=hers", "Authorization: token x"}, 200, `service /services/x cookie="jupyterhub-hub-login=hers" auth="token x"`, ""},

		{"GET", "/user/mallory/x", []string{"Host: mallory.apps.example.org"}, 200, "apart", ""},
		{"GET", "/user/mallory/x", []string{"Host: MALLORY.apps.example.org:7443"}, 200, "apart", ""},
		{"GET", "/user/alice/x", []string{"Host: mallory.apps.example.org", alice}, 404, "", ""},
		{"GET", "/shoal/login", []string{"Host: mallory.apps.example.org"}, 404, "", ""},
		{"GET", "/api/v1/pools", []string{"Host: mallory.apps.example.org"}, 404, "", ""},
		{"GET", "/shoal/app/lab/code/", []string{"Host: mallory.apps.example.org", alice}, 404, "", ""},
		{"GET", "/user/alice/x", []string{"Host: apps.example.org", alice}, 200, "alice", ""},

		{"GET", "/shoal/app/lab/code/a/b?c", []string{alice}, 200, `code /shoal/app/lab/code/a/b?c cookie="x=1" auth="" prefix=""`, ""},
		{"GET", "/shoal/app/lab/strip/a%2Fb?c", []string{alice}, 200, `strip /a%2Fb?c cookie="x=1" auth="" prefix="/shoal/app/lab/strip"`, ""},
		{"GET", "/shoal/app/lab/strip/", []string{alice}, 200, `strip / cookie`, ""},
		{"GET", "/shoal/app/lab/strip//evil.example.org/x", []string{alice}, 200, `strip /evil.example.org/x cookie`, ""},
		{"GET", "/shoal/app/lab/code?q=1", []string{alice}, 302, "/shoal/app/lab/code/?q=1", ""},
		{"GET", "/shoal/app/lab/code/x", []string{html}, 302, "/shoal/login?next=%2Fshoal%2Fapp%2Flab%2Fcode%2Fx", ""},
		{"GET", "/shoal/app/lab/code/x", nil, 401, "", ""},
		{"GET", "/shoal/app/lab/code/x", []string{"Authorization: Bearer token-of-alice"}, 200, `code /shoal/app/lab/code/x cookie="" auth=""`, ""},
		{"GET", "/shoal/app/lab/code/x", []string{"Authorization: Bearer wrong"}, 401, "", ""},
		{"POST", "/shoal/app/lab/code/x", []string{alice, "Origin: https://evil.example.org"}, 403, "", ""},
		{"GET", "/shoal/app/lab/dead/x", []string{alice}, 503, "", ""},
		{"GET", "/shoal/app/lab/dead/../../../x", []string{alice}, 503, "", ""},
		{"GET", "/shoal/app/", []string{alice}, 404, "", ""},
		{"GET", "/shoal/app/lab", []string{alice}, 404, "", ""},
		{"GET", "/shoal/app//code/", []string{alice}, 404, "", ""},
		{"GET", "/shoal/app/lab%2Fcode/x", []string{alice}, 404, "", ""},
		{"GET", "/shoal%2Fapp/lab/code/x", []string{alice}, 404, "", ""},

		{"GET", "/shoal/app/lab/new/x", []string{alice, html}, 302, "/shoal/start/lab/new?next=%2Fshoal%2Fapp%2Flab%2Fnew%2Fx", "alice/lab/new"},
		{"GET", "/shoal/app/lab/new/x", []string{alice, html, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: same-origin"}, 302, "/shoal/start/lab/new", "alice/lab/new"},
		{"GET", "/shoal/app/lab/new/x", []string{alice, html, "Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: cross-site"}, 302, "/shoal/start/lab/new", ""},
		{"GET", "/shoal/app/lab/new/x", []string{alice, "Sec-Fetch-Mode: cors"}, 503, "", ""},
		{"GET", "/shoal/app/lab/ended/x", []string{alice, html}, 302, "/shoal/start/lab/ended", "alice/lab/ended"},
		{"GET", "/shoal/app/lab/starting/x", []string{alice, html}, 302, "/shoal/start/lab/starting", ""},
		{"GET", "/shoal/app/lab/starting/x", []string{"Authorization: Bearer token-of-alice"}, 202, "/shoal/start/lab/starting", ""},
		{"GET", "/shoal/app/lab/new/x", []string{"Authorization: Bearer token-of-alice"}, 202, "/shoal/start/lab/new", "alice/lab/new"},
		{"GET", "/shoal/app/none/new/x", []string{"Authorization: Bearer token-of-alice"}, 404, "", ""},
	} {
		res, body := w.get(c.method, c.path, c.headers...)
		got := body
		if l := res.Header.Get("Location"); l != "" {
			got = l
		}
		if res.StatusCode != c.status || !strings.HasPrefix(got, c.answer) {
			t.Errorf("%s %s %q: %d %.300s, want %d %s", c.method, c.path, c.headers, res.StatusCode, got, c.status, c.answer)
		}
		if opened := a.take(); opened != c.opened {
			t.Errorf("%s %s %q has opened %q, want %q", c.method, c.path, c.headers, opened, c.opened)
		}
	}
	if a.used == 0 || a.used > 3 {
		t.Errorf("the use of apps was told %d times", a.used)
	}
	res, _ := w.get("GET", "/shoal/app/lab/code/", alice)
	if res.Header.Get("Vary") != "Cookie" || res.Header.Get("Cache-Control") != "private" {
		t.Errorf("a cache would show an app to somebody else: %v", res.Header)
	}
	if _, _, res := w.websocket("/user/alice/x", "Cookie: __Host-shoal=alice", "Origin: https://evil.example.org"); res.StatusCode != 403 {
		t.Errorf("a websocket of another site: %d", res.StatusCode)
	}
	if _, _, res := w.websocket("/shoal/app/lab/new/x", "Cookie: __Host-shoal=alice"); res.StatusCode != 503 || a.take() != "" {
		t.Errorf("a websocket to an app that does not run: %d", res.StatusCode)
	}
}

func TestNobodyIsAsked(t *testing.T) {
	w := start(t, webfront.Config{})
	w.route("/user/alice", backend(t, echo("alice")), "guarded", `user="alice"`)
	if res, _ := w.get("GET", "/user/alice", "Cookie: __Host-shoal=alice", "Accept: text/html"); res.StatusCode != 401 {
		t.Errorf("without a guard, what is guarded is open: %d", res.StatusCode)
	}
	for _, path := range []string{"/", "/shoal/", "/api/v1/x", "/shoal/app/a/b/"} {
		if res, _ := w.get("GET", path); res.StatusCode != 404 {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}

// TestHubStarts: what belongs to a hub that is about to come is not taken for missing.
func TestHubStarts(t *testing.T) {
	w := start(t, webfront.Config{OwnHub: func() bool { return true }})
	for path, want := range map[string]int{"/hub": 503, "/hub/login": 503, "/user/alice/tree": 503, "/other": 404, "/hubx": 404} {
		if res, body := w.get("GET", path); res.StatusCode != want || (want == 503) != (res.Header.Get("Retry-After") != "") {
			t.Errorf("%s: %d %q", path, res.StatusCode, body)
		}
	}
}

// TestDeadServers: who has come to see a server of Shoal's own hub, or the hub, that has gone is led on once there is another.
func TestDeadServers(t *testing.T) {
	w := start(t, webfront.Config{Guard: guard{}, OwnHub: func() bool { return true }, Server: func(_ context.Context, user shoal.UserName, name string) (shoal.App, bool) {
		return shoal.App{State: shoal.AppFailed, Reason: "its machine has gone"}, user == "alice" && name == "one"
	}})
	w.route("/", deadPort(t), "guarded", "hub=true")
	w.route("/user/alice", deadPort(t), "guarded", `user="alice"`)
	w.route("/user/alice/one", deadPort(t), "guarded", `user="alice"`, `server_name="one"`)
	for path, want := range map[string]string{"/hub/home": "JupyterHub is starting", "/user/alice/lab": "does not answer", "/user/alice/one/lab": "This server has ended: its machine has gone.",
		"/services/x": "JupyterHub is starting"} {
		res, body := w.get("GET", path, "Accept: text/html", "Cookie: __Host-shoal=alice")
		if res.StatusCode != 503 || res.Header.Get("Refresh") == "" || !strings.Contains(body, want) {
			t.Errorf("%s: %d %v %.300s", path, res.StatusCode, res.Header, body)
		}
		if res, _ := w.get("GET", path, "Accept: application/json", "Cookie: __Host-shoal=alice"); res.StatusCode != 503 || res.Header.Get("Refresh") != "" {
			t.Errorf("%s for a program: %d %v", path, res.StatusCode, res.Header)
		}
	}
}

// TestHubIll: who has come to see a hub that hangs is not left to wait for it; servers and programs are not concerned.
func TestHubIll(t *testing.T) {
	why := "JupyterHub does not answer for 20s."
	w := start(t, webfront.Config{Guard: guard{}, OwnHub: func() bool { return true }, HubIll: func() string { return why }})
	w.route("/", backend(t, echo("hub")), "guarded", "hub=true")
	w.route("/user/alice", backend(t, echo("server")), "guarded", `user="alice"`)
	w.route("/foreign", backend(t, echo("foreign")), "hub=true")
	ask := func(path, accept string) (*http.Response, string) {
		return w.get("GET", path, "Accept: "+accept, "Cookie: __Host-shoal=alice")
	}
	if res, body := ask("/hub/home", "text/html"); res.StatusCode != 503 || res.Header.Get("Refresh") == "" || !strings.Contains(body, why) {
		t.Errorf("%d %v %.300s", res.StatusCode, res.Header, body)
	}
	for path, accept := range map[string]string{"/hub/home": "application/json", "/user/alice/lab": "text/html", "/foreign": "text/html"} {
		if res, body := ask(path, accept); res.StatusCode != 200 {
			t.Errorf("%s for %s: %d %.300s", path, accept, res.StatusCode, body)
		}
	}
	why = ""
	if res, _ := ask("/hub/home", "text/html"); res.StatusCode != 200 {
		t.Errorf("the hub answers again, and who comes gets %d", res.StatusCode)
	}
}

// TestServerOfItsOwnHost: where a user's server has its own host name and does not run, the hub is where it is started.
func TestServerOfItsOwnHost(t *testing.T) {
	w := start(t, webfront.Config{AppsDomain: "pool.example.org", OwnHub: func() bool { return true }})
	ask := func(accept string) (int, string) {
		res, _ := w.get("GET", "/user/alice/lab?x=1", "Host: alice.pool.example.org:7443", "Accept: "+accept)
		return res.StatusCode, res.Header.Get("Location")
	}
	if status, to := ask("text/html"); status != 503 || to != "" {
		t.Errorf("before the hub has come: %d %s", status, to)
	}
	w.route("/pool.example.org", backend(t, echo("hub")), "hub=true", "guarded")
	if status, to := ask("text/html"); status != 302 || to != "https://pool.example.org:7443/hub/user/alice/lab?x=1" {
		t.Errorf("%d %s", status, to)
	}
	if status, to := ask("application/json"); status != 503 || to != "" {
		t.Errorf("for a program: %d %s", status, to)
	}
	if res, body := w.get("GET", "/hub/home", "Host: pool.example.org"); res.StatusCode != 200 || !strings.HasPrefix(body, "hub GET /hub/home") {
		t.Errorf("the hub itself: %d %s", res.StatusCode, body)
	}
}

// TestClientBehindProxy: pages see the client's address where a trusted proxy tells it, and else the one that it came from.
func TestClientBehindProxy(t *testing.T) {
	pages := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(r.RemoteAddr) })
	for _, c := range []struct{ trusted, header, want string }{
		{"", "1.2.3.4", "127.0.0.1"},
		{"10.0.0.0/8", "1.2.3.4", "127.0.0.1"},
		{"127.0.0.1/32", "1.2.3.4", "1.2.3.4"},
		{"127.0.0.1/32", "9.9.9.9, 1.2.3.4", "1.2.3.4"},
		{"127.0.0.0/8", "9.9.9.9, 1.2.3.4,127.0.0.7", "1.2.3.4"},
		{"127.0.0.0/8", "2001:db8::1", "2001:db8::1"},
		{"127.0.0.0/8", "nonsense", "127.0.0.1"},
		{"127.0.0.0/8", "", "127.0.0.1"},
	} {
		cfg := webfront.Config{Pages: pages}
		if c.trusted != "" {
			cfg.Trusted = prefixes(c.trusted)
		}
		w := start(t, cfg)
		_, body := w.get("GET", "/shoal/", "X-Forwarded-For: "+c.header)
		var addr string
		_ = json.Unmarshal([]byte(body), &addr)
		if a, err := netip.ParseAddrPort(addr); err != nil || a.Addr().String() != c.want {
			t.Errorf("trusting %q, told %q: %s", c.trusted, c.header, body)
		}
	}
}

// TestNobodyKnowsWho: while it cannot be told who somebody is, she is told so rather than sent to sign in, and nothing comes through.
func TestNobodyKnowsWho(t *testing.T) {
	t.Parallel()
	signed := leaving{gone: &atomic.Bool{}, away: &atomic.Bool{}}
	signed.away.Store(true)
	a := &apps{of: map[string]shoal.App{}}
	w := start(t, webfront.Config{Guard: signed, Apps: a, Pages: http.NotFoundHandler()})
	came := false
	server := backend(t, func(http.ResponseWriter, *http.Request) { came = true })
	w.route("/user/alice", server, "guarded", `user="alice"`)
	w.route("/hub", server, "guarded")
	for _, path := range []string{"/user/alice/lab", "/hub/home", "/shoal/app/lab/code/"} {
		res, body := w.get("GET", path, "Cookie: __Host-shoal=alice", "Sec-Fetch-Mode: navigate")
		if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "the database does not answer") || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %v %s", path, res.StatusCode, res.Header, body)
		}
	}
	if came {
		t.Error("it was passed on")
	}
}

// leaving signs everybody in until told otherwise.
type leaving struct {
	guard
	gone, away *atomic.Bool // away: it cannot be told
}

func (l leaving) Who(r *http.Request) (shoal.UserName, error) {
	if l.away.Load() {
		return "", shoal.Errorf(shoal.KindUnavailable, "the database does not answer")
	}
	if l.gone.Load() {
		return "", shoal.Errorf(shoal.KindUnauthenticated, "nobody")
	}
	return l.guard.Who(r)
}

// TestSignedOut: what is open when somebody signs out ends soon, with no byte passed after that; when it cannot be told, it goes on.
func TestSignedOut(t *testing.T) {
	for _, upgrade := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			table := routes.New()
			posted := target("http://backend:1")
			posted["user"] = []byte(`"alice"`)
			if err := table.Put("/user/alice", posted, true, time.Now()); err != nil {
				t.Fatal(err)
			}
			server := make(chan net.Conn, 1)
			signed := leaving{gone: &atomic.Bool{}, away: &atomic.Bool{}}
			f := webfront.New(webfront.Config{Routes: table, Guard: signed, Dial: func(context.Context, string, string) (net.Conn, error) {
				a, z := net.Pipe()
				server <- z
				return a, nil
			}})
			l := &one{conn: make(chan net.Conn, 1), done: make(chan struct{})}
			s := newServe(t, f, l)
			c, z := net.Pipe()
			l.conn <- z
			more, answer := "", "HTTP/1.1 200 OK\r\n\r\n"
			if upgrade {
				more, answer = "Connection: Upgrade\r\nUpgrade: websocket\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
			}
			fmt.Fprintf(c, "GET /user/alice/x HTTP/1.1\r\nHost: x\r\nCookie: __Host-shoal=alice\r\n%s\r\n", more)
			b := <-server
			in := bufio.NewReader(b)
			if r, err := http.ReadRequest(in); err != nil || r.Header.Get("Cookie") != "" {
				t.Fatal(r, err)
			}
			_, _ = io.WriteString(b, answer)
			back := bufio.NewReader(c)
			if _, err := http.ReadResponse(back, nil); err != nil {
				t.Fatal(err)
			}
			read := make(chan string, 100)
			go func() {
				defer close(read)
				buf := make([]byte, 100)
				for {
					n, err := back.Read(buf)
					if n > 0 {
						read <- string(buf[:n])
					}
					if err != nil {
						return
					}
				}
			}()
			say := func(what string) { go func() { _, _ = io.WriteString(b, what) }(); synctest.Wait() }
			say("one")
			signed.away.Store(true)
			time.Sleep(time.Minute)
			say("two")
			signed.away.Store(false)
			signed.gone.Store(true)
			time.Sleep(20 * time.Second)
			say("three")
			var all string
			for text := range read {
				all += text
			}
			if !strings.Contains(all, "one") || !strings.Contains(all, "two") || strings.Contains(all, "three") {
				t.Errorf("upgrade %v: came %q", upgrade, all)
			}
			b.Close()
			c.Close()
			s.stop()
		})
	}
}
