package web_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/catalog"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/internal/web"
)

// world is pages and API behind TLS, with a real directory.
type world struct {
	t      testing.TB
	db     *store.DB
	people *local.Directory
	before func() // opening a browser
	away   error  // of whoever asks whose a cookie is
	web    *web.Web
	rest   *httpapi.API
	apps   *apps
	broker *broker
	shut   string // why the ports of endpoints are not open
	server *httptest.Server
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// broker plays the broker.
type broker struct {
	mu    sync.Mutex
	ended []shoal.SessionID
}

func (b *broker) End(_ context.Context, id shoal.SessionID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = append(b.ended, id)
	return nil
}

func (b *broker) WhySession(_ context.Context, id shoal.SessionID) (api.Why, error) {
	return api.Why{Sentence: "why " + string(id), Reasons: []shoal.Reason{{Code: "part", Sentence: "a connection (ssh) from <here>"}}}, nil
}

// apps plays the service of apps.
type apps struct {
	mu      sync.Mutex
	all     []shoal.App
	changed chan struct{}
	stopped []shoal.AppID
}

func (a *apps) Open(_ context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.all {
		if x.User == user && x.Pool == pool && x.Endpoint == endpoint && x.Live() {
			return x, nil
		}
	}
	x := shoal.App{ID: shoal.AppID(fmt.Sprintf("a-%06d", len(a.all))), User: user, Pool: pool, Endpoint: endpoint, Name: name, State: shoal.AppWaiting,
		Progress: "no machine is ready; one is starting", Meta: shoal.Meta{Rev: 1, Created: time.Now()}}
	a.all = append([]shoal.App{x}, a.all...)
	return x, nil
}

func (a *apps) Of(_ context.Context, user shoal.UserName) ([]shoal.App, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.all), func(x shoal.App) bool { return x.User != user }), nil
}

// set changes the newest app.
func (a *apps) set(f func(*shoal.App)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.all[0])
	a.all[0].Rev++
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *apps) Wait(ctx context.Context, id shoal.AppID, rev shoal.Rev) (shoal.App, error) {
	for {
		a.mu.Lock()
		changed := a.changed
		i := slices.IndexFunc(a.all, func(x shoal.App) bool { return x.ID == id })
		x := a.all[i]
		a.mu.Unlock()
		if x.Rev > rev {
			return x, nil
		}
		select {
		case <-ctx.Done():
			return x, shoal.Errorf(shoal.KindCancelled, "given up")
		case <-changed:
		}
	}
}

func (a *apps) Stop(_ context.Context, id shoal.AppID, _ string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = append(a.stopped, id)
	return nil
}

const hubToken = "the-hub-token"

type anything struct{}

func (anything) CheckPool(context.Context, shoal.Pool, []shoal.Share) error { return nil }
func (anything) CheckUser(context.Context, shoal.User) error                { return nil }

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, db: storetest.Open(t), broker: &broker{}, apps: &apps{changed: make(chan struct{})}, log: &lockedBuffer{}}
	w.people = local.New(store.Credentials{DB: w.db})
	w.pages()
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		for i, u := range []shoal.User{{Name: "alice"}, {Name: "bob"}, {Name: "ada", Role: shoal.RoleAdmin}, {Name: "keyed"}} {
			u.UID = 20001 + i
			if _, err := tx.Users().Put(u); err != nil {
				return err
			}
		}
		if _, err := tx.Groups().Put(shoal.Group{Name: "research", GID: 30001, Members: []shoal.UserName{"alice"}}); err != nil {
			return err
		}
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab", Default: true, Provider: "fake", Image: "host", Uses: []shoal.Use{shoal.UseInteractive}, Size: shoal.Size{Max: 2}, Seats: 4,
			Endpoints: []shoal.Endpoint{{Name: "code", Protocol: "http", Command: "serve"}, {Name: "jupyter", Protocol: "http"}, {Name: "desktop", Protocol: "rdp", Port: 3389, Listen: 3389}}})
		return err
	})
	for name, hash := range hashes() {
		if err := (store.Credentials{DB: w.db}).SetPasswordHash(t.Context(), name, hash); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// hashes are those of everybody's passwords, made once: that is slow on purpose.
var hashes = sync.OnceValue(func() map[shoal.UserName]string {
	made := vault{}
	for _, name := range []shoal.UserName{"alice", "bob", "ada"} {
		if err := local.New(made).SetPassword(context.Background(), name, "password of "+string(name)); err != nil {
			panic(err)
		}
	}
	return made
})

// vault keeps password hashes and nothing else.
type vault map[shoal.UserName]string

func (v vault) SetPasswordHash(_ context.Context, name shoal.UserName, hash string) error {
	v[name] = hash
	return nil
}
func (v vault) PasswordHash(_ context.Context, name shoal.UserName) (string, error) {
	return v[name], nil
}
func (v vault) User(_ context.Context, name shoal.UserName) (shoal.User, error) {
	return shoal.User{Name: name}, nil
}
func (v vault) Member(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return v.User(ctx, name)
}
func (vault) DropTokens(context.Context, shoal.UserName, string) error { return nil }
func (vault) DropToken(context.Context, string) error                  { return nil }
func (vault) PutToken(context.Context, string, string, shoal.UserName, time.Time) error {
	return nil
}
func (vault) TokenUser(context.Context, string, string) (shoal.User, error) { return shoal.User{}, nil }

// interrupted is the directory with something that happens between a proof and what it leads to.
type interrupted struct {
	*local.Directory
	w *world
}

func (i interrupted) OpenBrowser(ctx context.Context, name shoal.UserName, ttl time.Duration) (string, time.Time, error) {
	if i.w.before != nil {
		i.w.before()
	}
	return i.Directory.OpenBrowser(ctx, name, ttl)
}

func (i interrupted) BrowserUser(ctx context.Context, secret string) (shoal.User, error) {
	if i.w.away != nil {
		return shoal.User{}, i.w.away
	}
	return i.Directory.BrowserUser(ctx, secret)
}

// pages serves pages and API for the directory that there is.
func (w *world) pages() *world {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	w.web, err = web.New(web.Config{Store: w.db, People: interrupted{w.people, w}, Broker: w.broker, Apps: w.apps, Log: log,
		Tokens: func(r *http.Request) (shoal.UserName, error) { return w.rest.TokenUser(r) },
		Reached: func(_ shoal.PoolName, endpoint string) (string, string) {
			if w.shut != "" {
				return "", w.shut
			}
			return "127.0.0.1:3389", ""
		},
		Desktop: func(_ context.Context, user shoal.UserName, req api.DesktopRequest, source string) (api.DesktopTicket, error) {
			if w.shut != "" {
				return api.DesktopTicket{}, shoal.Errorf(shoal.KindConflict, "endpoint %s cannot be reached: %s", req.Endpoint, w.shut)
			}
			from, _, _ := strings.Cut(source, ":")
			return api.DesktopTicket{User: user, Pool: req.Pool, Endpoint: req.Endpoint, Address: "127.0.0.1:3389", From: from, Password: "good-once", Fingerprint: "aa:bb", Expires: time.Now().Add(10 * time.Minute)}, nil
		},
		URL: func() string { return w.server.URL }, SSH: func() string { return "127.0.0.1:2222" }})
	if err != nil {
		w.t.Fatal(err)
	}
	cat := catalog.New(catalog.Config{Store: w.db, Check: anything{}, Passwords: w.people,
		EndSession: func(context.Context, shoal.SessionID) error { return nil }, CancelJob: func(context.Context, shoal.JobID) error { return nil }})
	w.rest = httpapi.New(httpapi.Config{Store: w.db, Catalog: cat, People: w.people, Web: w.web, HubToken: hubToken, Log: log})
	mux := http.NewServeMux()
	mux.Handle("/shoal/", w.web.Handler())
	mux.Handle("/api/v1/", w.rest.Browser())
	mux.HandleFunc("/user/{name}/", func(rw http.ResponseWriter, r *http.Request) { // as the front end guards it
		if name, err := w.web.Who(r); err != nil || string(name) != r.PathValue("name") {
			http.Error(rw, "no", http.StatusForbidden)
		}
	})
	w.server = httptest.NewTLSServer(mux)
	w.t.Cleanup(w.server.Close)
	return w
}

// browser is one with its own cookies.
type browser struct {
	w    *world
	t    testing.TB
	jar  *cookiejar.Jar
	http *http.Client
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	b := &browser{w: w, t: w.t, jar: jar}
	b.http = &http.Client{Jar: jar, Transport: w.server.Client().Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return b
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

func (a answer) location() string { return a.Header.Get("Location") }

// do sends a request as a browser would from a page of the origin.
func (b *browser) do(method, path, body string, header ...string) answer {
	b.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, b.w.server.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	if method != http.MethodGet {
		req.Header.Set("Origin", b.w.server.URL)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp, string(text)}
}

func (b *browser) get(path string, header ...string) answer {
	return b.do(http.MethodGet, path, "", header...)
}

func (b *browser) post(path string, form url.Values, header ...string) answer {
	return b.do(http.MethodPost, path, form.Encode(), header...)
}

var hidden = regexp.MustCompile(`name="(token|csrf)" value="([^"]+)"`)

// token is that of a page's form.
func (b *browser) token(path string) string {
	b.t.Helper()
	a := b.get(path)
	m := hidden.FindStringSubmatch(a.body)
	if m == nil {
		b.t.Fatalf("%s has no form: %d %s", path, a.StatusCode, a.body)
	}
	return m[2]
}

// login fills in the login page.
func (b *browser) login(user, password, next string) answer {
	b.t.Helper()
	return b.post("/shoal/login", url.Values{"token": {b.token("/shoal/login")}, "user": {user}, "password": {password}, "next": {next}})
}

// as is a browser in which somebody has signed in.
func (w *world) as(user string) *browser {
	w.t.Helper()
	b := w.browser()
	if a := b.login(user, "password of "+user, ""); a.StatusCode != http.StatusSeeOther {
		w.t.Fatalf("%s cannot sign in: %d %s", user, a.StatusCode, a.body)
	}
	return b
}

// cookie is what a browser has of a name.
func (b *browser) cookie(name string) string {
	u, err := url.Parse(b.w.server.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range b.jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// call sends a request to the API as a script of a page does.
func (b *browser) call(method, path, body string, header ...string) answer {
	b.t.Helper()
	all := append([]string{"Accept", "application/json", "Content-Type", "application/json", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty", web.CSRFHeader, b.csrf()}, header...)
	return b.do(method, path, body, all...)
}

// csrf is the token of her pages.
func (b *browser) csrf() string {
	if b.cookie("__Host-shoal") == "" {
		return ""
	}
	return b.token("/shoal/")
}

// bearer sends a request with a token and no cookie.
func (w *world) bearer(token, method, path, body string) answer {
	w.t.Helper()
	return w.browser().do(method, path, body, "Authorization", "Bearer "+token, "Content-Type", "application/json", "Accept", "application/json",
		"Origin", "", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "")
}

func want(t testing.TB, what string, a answer, status int) {
	t.Helper()
	if a.StatusCode != status {
		t.Errorf("%s: %d, want %d: %s", what, a.StatusCode, status, strings.TrimSpace(a.body))
	}
}
