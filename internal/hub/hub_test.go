package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// The stand-in for JupyterHub: it answers at its socket, and does what files in /mnt/state say.
const standIn = `#!/usr/bin/python3
import http.server, os, socketserver, sys, time
print("[I 2026 Hub] a line that tells nothing", flush=True)
if os.path.exists("/mnt/state/broken"):
    print("ModuleNotFoundError: No module named 'tornado'", file=sys.stderr)
    sys.exit(3)
compile(open(sys.argv[2]).read(), sys.argv[2], "exec")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while os.path.exists("/mnt/state/hangs"):
            time.sleep(0.05)
        text = {"/hub/uid": str(os.getuid()), "/hub/token": open("/mnt/config/shoal.token").read()}.get(self.path, self.path + " " + str(self.headers.get("X-Forwarded-For")))
        try:
            text += open("/mnt/token").read()
        except OSError:
            pass
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_):
        pass
    def address_string(self):
        return "unix"
class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
if os.path.exists("/mnt/state/hub.sock"):
    os.unlink("/mnt/state/hub.sock")
Server("/mnt/state/hub.sock", Handler).serve_forever()
`

// world is a hub with a stand-in.
type world struct {
	*Hub
	t      *testing.T
	db     *store.DB
	doors  chan net.Listener
	cancel context.CancelFunc
	done   chan error
}

func newWorld(t *testing.T) *world {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("a mount namespace and another account need root, and are left out with -short")
	}
	dir, err := os.MkdirTemp("", "shoal-hub-test-") // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "jupyterhub")
	need.Script(t, program, standIn)
	w := &world{t: t, db: storetest.Open(t), doors: make(chan net.Listener, 10)}
	w.Hub = New(Config{Store: w.db, Dir: filepath.Join(dir, "data", strings.Repeat("long", 30), "hub"), Token: "the-token", RoutesToken: "routes'-token\n\"\\",
		API: func() string { return "http://127.0.0.1:1" }, Routes: http.NotFoundHandler(), Public: func() string { return "https://pool.example:7443" },
		Machines: func(ctx context.Context, port int) (net.Listener, error) {
			if port == usualPort {
				return nil, errors.New("it is taken")
			}
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", "0"))
			if err == nil {
				w.doors <- l
			}
			return l, err
		},
		Program: program,
		patience: patience{start: 2 * time.Minute, probe: 50 * time.Millisecond, answer: 3 * time.Second, fails: 3, steady: time.Hour,
			most: 2 * time.Second, stop: 5 * time.Second, look: 50 * time.Millisecond}})
	if err := os.MkdirAll(filepath.Dir(w.cfg.Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.cancel, w.done = cancel, make(chan error, 1)
	go func() { w.done <- w.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-w.done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) pool(endpoints ...shoal.Endpoint) {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab", Endpoints: endpoints})
		return err
	})
}

var jupyter = shoal.Endpoint{Name: shoal.EndpointJupyter, Protocol: shoal.ProtocolHTTP}

func (w *world) wait(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(w.path("hub.log"))
			w.t.Fatalf("waited in vain: %s; %s, %q\n%s", what, w.state, w.reason, log)
		}
	}
}

func (w *world) is(s state) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.state == s
	}
}

func (w *world) put(name string, there bool) {
	path := w.path("state", name)
	err := os.WriteFile(path, nil, 0o644)
	if !there {
		err = os.Remove(path)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) codes() (codes []string) {
	err := w.db.View(w.t.Context(), func(tx *store.Tx) error {
		events, err := tx.EventsAbout(shoal.ObjectPool, "lab", 20)
		for _, e := range events {
			codes = append(codes, e.Code+": "+e.Sentence)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return codes
}

func get(t *testing.T, base, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, base+path, nil)
	r.RequestURI, r.RemoteAddr = "", ""
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	_ = resp.Write(&b)
	_, body, _ := strings.Cut(b.String(), "\r\n\r\n")
	return resp.StatusCode, body
}

// It comes with the pool that wants it, as an account of its own that sees nothing but its own files, comes
// back when it dies or hangs, and goes with the pool.
func TestLife(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.pool()
	if w.Wanted(t.Context()) {
		t.Error("it is wanted by nobody")
	}
	if err := makeDir(w.cfg.Dir, 0o711, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("token"), []byte("SECRET"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.pool(jupyter)
	w.wait("it is up", w.is(up))
	if why := w.Why(t.Context(), "lab"); len(why) > 0 {
		t.Errorf("all is well, and it says %q", why)
	}
	door := "http://" + (<-w.doors).Addr().String()
	if status, _ := get(t, door, "/hub/uid"); status != http.StatusNotFound {
		t.Errorf("machines reach more than the API: %d", status)
	}
	if status, body := get(t, door, "/hub/api/x"); status != 200 || !strings.Contains(body, "/hub/api/x 127.0.0.1") {
		t.Errorf("machines do not reach the API: %d %s", status, body)
	}
	front := httptest.NewServer(w.forward())
	defer front.Close()
	if _, body := get(t, front.URL, "/hub/uid"); !strings.Contains(body, "60990") || strings.Contains(body, "SECRET") {
		t.Errorf("it runs as %s", body)
	}
	if _, body := get(t, front.URL, "/hub/token"); !strings.Contains(body, "the-token") {
		t.Errorf("it has no token: %s", body)
	}
	for name, mode := range map[string]os.FileMode{"config/shoal.token": 0o600, "config/routes.token": 0o600, "state": os.ModeDir | 0o700} {
		if info, err := os.Stat(w.path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}

	w.put("broken", true)
	w.kill()
	w.wait("it is down for a reason", func() bool {
		return strings.Contains(fmt.Sprint(w.Why(t.Context(), "lab")), "exit code 3: ModuleNotFoundError: No module named 'tornado'")
	})
	if status, body := get(t, front.URL, "/hub/home"); status != http.StatusServiceUnavailable || !strings.Contains(body, "is being started") {
		t.Errorf("who comes meanwhile is told %d %s", status, body)
	}
	w.put("broken", false)
	w.wait("it is up again", w.is(up))
	w.put("hangs", true)
	w.wait("it is known to be ill", func() bool { return strings.HasPrefix(w.Ill(), "JupyterHub does not answer") })
	w.wait("it is missed", w.is(down))
	w.put("hangs", false)
	w.wait("it is up again", w.is(up))
	told := ""
	w.wait("its coming back is told", func() bool {
		told = strings.Join(w.codes(), "\n")
		return strings.Count(told, "hubUp") >= 2 // and once more for each time that the host was too busy for an answer
	})
	for _, want := range []string{"hubDown: JupyterHub is down and will be started again; notebook servers go on: it was killed by signal 9", "exit code 3", "hubUp", "it hung"} {
		if !strings.Contains(told, want) {
			t.Errorf("events do not tell %q:\n%s", want, told)
		}
	}
	port, err := os.ReadFile(w.path("port"))
	if err != nil || len(port) < 2 {
		t.Errorf("the port is not kept: %s %v", port, err)
	}
	w.pool()
	w.wait("it goes", w.is(off))
	if out, _ := exec.Command("pgrep", "-u", "60990", "-f", w.cfg.Program).Output(); len(out) > 0 {
		t.Errorf("it is left: %s", out)
	}
}

// kill ends it as a crash would.
func (w *world) kill() {
	text, err := os.ReadFile(w.path("pid"))
	if err != nil {
		w.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
}

func TestForSince(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "", 400 * time.Millisecond: "", -time.Second: "", 90 * time.Second: " for 1m30s"} {
		if got := forSince(d); got != want {
			t.Errorf("%s: %q", d, got)
		}
	}
}

func TestMissing(t *testing.T) {
	w := newWorld(t)
	there := w.cfg.Program
	w.cfg.Program = filepath.Join(t.TempDir(), "no-such")
	w.pool(jupyter)
	w.run()
	w.wait("it is missed", w.is(missing))
	if why := fmt.Sprint(w.Why(t.Context(), "lab")); !strings.Contains(why, "apt-get install --no-install-recommends jupyterhub") {
		t.Errorf("it says %q", why)
	}
	if why := w.Why(t.Context(), "other"); len(why) > 0 {
		t.Errorf("of another pool it says %q", why)
	}
	if err := os.Symlink(there, w.cfg.Program); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(w.cfg.Program), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(w.cfg.Program)), 0o755); err != nil {
		t.Fatal(err)
	}
	w.wait("it is up once it is installed", w.is(up))
	told := ""
	w.wait("it is told", func() bool {
		told = strings.Join(w.codes(), "\n")
		return strings.Contains(told, "hubUp")
	})
	if strings.Count(told, "hubMissing") != 1 {
		t.Errorf("events:\n%s", told)
	}
}

// What lies where the hub's socket should be is not spoken to unless the hub made it: else it could have what
// users send done by the server's own socket, with root's rights.
func TestDialRefusesOthersSockets(t *testing.T) {
	w := newWorld(t)
	if err := errors.Join(w.makeDir(), makeDir(w.path("state"), 0o700, hubID)); err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", roots)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock := w.path("state", "hub.sock")
	for name, make := range map[string]func() error{
		"a link":        func() error { return os.Symlink(roots, sock) },
		"root's socket": func() error { return os.Link(roots, sock) },
		"a file":        func() error { return os.WriteFile(sock, nil, 0o666) },
		"nothing":       func() error { return nil },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if c, err := w.dial(t.Context(), "", ""); err == nil {
			c.Close()
			t.Errorf("%s is spoken to", name)
		}
		_ = os.Remove(sock)
	}
}

func TestForMachines(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]bool{
		"/hub/api": true, "/hub/api/": true, "/hub/api/users/alice/activity": true, "/hub/api/oauth2/token": true, "/hub/api/user?x=/../": true,
		"/": false, "/hub": false, "/hub/home": false, "/hub/apis": false, "/hub/login": false, "/user/alice": false, "/hub/api/../home": false, "/hub/api/%2e%2e/home": false,
		"/hub/api%2f..%2fhome": false, "/hub/api/x/%2e%2e/%2e%2e/home": false, "//hub/api": false, "/hub/api//x": false, "/hub/%61pi/x": false, "/HUB/api/x": false, "/hub/api/.": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "http://hub"+target, nil)
		if got := forMachines(r); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "http://hub/hub/api/", nil)
	r.Header.Set("Upgrade", "websocket")
	if forMachines(r) {
		t.Error("an upgrade passes")
	}
}

// Whatever passes is below /hub/api for a server that reads the path as it is written, and for one that decodes it.
func FuzzForMachines(f *testing.F) {
	for _, s := range []string{"/hub/api/user", "/hub/api/../home", "/hub/api/%2e%2e/x", "/hub/api%2fx", "//hub/api", "/hub/api/%", "/hub/api/%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		r := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
		if !forMachines(r) {
			return
		}
		for _, p := range []string{u.Path, u.EscapedPath()} {
			if clean := path.Clean(p); clean != "/hub/api" && !strings.HasPrefix(clean, "/hub/api/") || slices.Contains(strings.Split(p, "/"), "..") {
				t.Errorf("%q passes", target)
			}
		}
	})
}

// One machine cannot keep the hub busy for all.
func TestOnlyAPIIsBounded(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	h := onlyAPI(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-Proto") != "" {
			t.Error("a machine's word is handed on")
		}
		<-hold
	}))
	ask := func(from string) int {
		r := httptest.NewRequest(http.MethodGet, "/hub/api/user", nil)
		r.RemoteAddr = from + ":1"
		r.Header.Set("X-Forwarded-Proto", "https")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	answers := make(chan int, 2*maxAtOnce)
	for range 2 * maxAtOnce {
		go func() { answers <- ask("192.0.2.1") }()
	}
	for range maxAtOnce {
		if code := <-answers; code != http.StatusTooManyRequests {
			t.Fatalf("one passes while %d are held: %d", maxAtOnce, code)
		}
	}
	other := make(chan int)
	go func() { other <- ask("192.0.2.2") }()
	close(hold)
	if code := <-other; code != http.StatusOK {
		t.Errorf("another machine is refused: %d", code)
	}
	for range maxAtOnce {
		<-answers
	}
	if code := ask("192.0.2.1"); code != http.StatusOK {
		t.Errorf("it is refused for ever: %d", code)
	}
}

// The configuration is Python whatever the texts in it are.
func TestConfigIsPython(t *testing.T) {
	t.Parallel()
	odd := "https://x\"'\\\n{{.}}#é.example"
	h := New(Config{API: func() string { return odd }, Public: func() string { return odd }, AppsDomain: "apps.example"})
	text, err := h.config(odd, odd, odd)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", `
import sys
class Any:
    def __getattr__(self, name): return self.__dict__.setdefault(name, Any())
c = Any()
text = sys.stdin.read().replace("with open", "if False: f = None\nwith open")
import builtins, io
builtins.open = lambda *a: io.StringIO("token")
exec(compile(text, "config", "exec"), {"get_config": lambda: c, "load_subconfig": print})
print(c.Shoal.server == sys.argv[1], c.ConfigurableHTTPProxy.api_url == sys.argv[1], c.Spawner.hub_connect_url == sys.argv[1], c.JupyterHub.subdomain_host == sys.argv[1], c.ConfigurableHTTPProxy.auth_token, c.JupyterHub.hub_bind_url)
`, odd)
	cmd.Stdin = strings.NewReader(string(text))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, text)
	}
	if got := strings.TrimSpace(string(out)); got != "True True True True token unix+http://%2Fmnt%2Fstate%2Fhub.sock" {
		t.Errorf("%s\n%s", got, text)
	}
}

// Machines get to the API of somebody else's hub, and no hub is run.
func TestExternal(t *testing.T) {
	w := newWorld(t)
	theirs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	defer theirs.Close()
	w.cfg.External = theirs.URL
	w.pool(jupyter)
	w.run()
	door := "http://" + (<-w.doors).Addr().String()
	if status, body := get(t, door, "/hub/api/x"); status != 200 || !strings.Contains(body, "/hub/api/x") {
		t.Errorf("machines do not reach it: %d %s", status, body)
	}
	if status, _ := get(t, door, "/hub/home"); status != http.StatusNotFound {
		t.Errorf("machines reach more than the API: %d", status)
	}
	if w.Wanted(t.Context()) || len(w.Why(t.Context(), "lab")) > 0 {
		t.Error("a hub of our own is told of")
	}
	if _, err := os.Stat(w.path("pid")); err == nil {
		t.Error("a hub of our own runs")
	}
}

// What a program says is kept, but not without end.
func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hub.log")
	log, err := openTail(path)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", maxLine) + strings.Repeat("y", 1000) + "\n"
	log.copy(strings.NewReader(strings.Repeat(line, 2*maxLog/len(line)) + "ValueError: no\n[I 2026] done\n\n"))
	if got := log.last(); got != "ValueError: no" {
		t.Errorf("the last word is %q", got)
	}
	if err := log.close(); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxLog+maxLine {
			t.Errorf("%s has %d bytes", p, info.Size())
		}
		total += info.Size()
	}
	if total < maxLog {
		t.Errorf("only %d bytes are kept", total)
	}
}
