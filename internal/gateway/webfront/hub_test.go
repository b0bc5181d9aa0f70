package webfront_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
	"github.com/shoal-pool/shoal/internal/need"
)

// patience bounds each wait.
const patience = 2 * time.Minute

// hub is Debian's JupyterHub with the front end as its proxy, by the three lines of configuration that the guide gives.
type hub struct {
	*testing.T
	url       string
	port      string
	domain    string // where users' servers have host names of their own
	client    *http.Client
	transport *http.Transport
	dir       string
	table     *routes.Table
}

// startHub starts one; domain is empty, or that of users' servers.
func startHub(t *testing.T, domain string) *hub {
	program := need.Program(t, "jupyterhub")
	dir := t.TempDir()
	t.Cleanup(func() { // a kernel outlives its server for a moment, and may write there
		for end := time.Now().Add(patience); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(100 * time.Millisecond)
		}
	})
	own, err := certs.FromOwn(filepath.Join(dir, "tls"), []string{"localhost", "pool.test", "*.pool.test"})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{T: t, dir: dir, domain: domain, table: routes.New()}
	roots := x509.NewCertPool()
	roots.AddCert(own.CA())
	w := start(t, webfront.Config{Routes: h.table, TLS: own.TLS(), AppsDomain: domain})
	_, port, _ := net.SplitHostPort(w.addr)
	h.port, h.url = port, "https://localhost:"+port
	subdomains := ""
	if domain != "" {
		h.url = "https://" + domain + ":" + port
		subdomains = fmt.Sprintf("c.JupyterHub.subdomain_host = %q", h.url)
	}
	jar, _ := cookiejar.New(nil)
	h.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, w.addr)
	}}
	two := h.transport.Clone()
	two.ForceAttemptHTTP2 = true
	h.client = &http.Client{Jar: jar, Transport: two}
	t.Cleanup(h.client.CloseIdleConnections)

	api, err := chp.New(chp.Config{Routes: h.table, Token: "hub-secret"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: api}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })

	config := fmt.Sprintf(`
c.JupyterHub.proxy_class = "jupyterhub.proxy.ConfigurableHTTPProxy"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://%s"
c.ConfigurableHTTPProxy.auth_token = "hub-secret"
c.JupyterHub.bind_url = "https://localhost:%s"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:%s"
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "%s/homes/{username}"
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/tree"
c.Spawner.start_timeout = c.Spawner.http_timeout = %d
c.JupyterHub.cleanup_servers = True
%s
`, l.Addr(), port, need.Port(t), dir, int(patience.Seconds()), subdomains)
	if err := os.WriteFile(filepath.Join(dir, "config.py"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-f", filepath.Join(dir, "config.py"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("JupyterHub does not end")
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left of its group
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("JupyterHub wrote:\n%s", text)
		}
	})
	h.until("JupyterHub answers", func() bool {
		res, _ := h.get("/hub/login")
		return res.StatusCode == 200
	})
	return h
}

func (h *hub) until(what string, ok func() bool) {
	h.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (h *hub) do(r *http.Request) (*http.Response, string) {
	h.Helper()
	res, err := h.client.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		h.Fatal(err)
	}
	return res, string(body)
}

// at is the URL of a path, or of what is a URL already.
func (h *hub) at(path string) string {
	if strings.HasPrefix(path, "/") {
		return h.url + path
	}
	return path
}

func (h *hub) get(path string) (*http.Response, string) {
	h.Helper()
	r, err := http.NewRequest("GET", h.at(path), nil)
	if err != nil {
		h.Fatal(err)
	}
	return h.do(r)
}

func (h *hub) cookie(path, name string) string {
	u, _ := url.Parse(h.at(path))
	for _, c := range h.client.Jar.Cookies(u) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// TestJupyterHub logs in, has a server started, and runs a cell over the kernel's websocket; with a name that has odd letters, too, and
// with a host name for each user.
func TestJupyterHub(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts JupyterHub")
	}
	for domain, names := range map[string][]string{"": {"alice", "Bob@Example.org"}, "pool.test": {"alice", "Bob"}} {
		t.Run("domain="+domain, func(t *testing.T) {
			h := startHub(t, domain)
			for _, name := range names {
				base := h.login(name)
				h.runCell(base)
				if res, body := h.get("/hub/logout"); res.StatusCode != 200 {
					t.Fatalf("logout gave %d %.300s", res.StatusCode, body)
				}
			}
			if n := len(h.table.All()); n != 3 {
				t.Errorf("there are %d routes, want one of the hub and two of users", n)
			}
			if res, body := h.get("/user/nobody/tree"); res.StatusCode >= 500 {
				t.Errorf("a server that nobody has: %d %.300s", res.StatusCode, body)
			}
		})
	}
}

// login signs in and waits until the user's server runs; it returns the URL of the server.
func (h *hub) login(name string) string {
	h.Helper()
	form := url.Values{"username": {name}, "password": {"x"}, "_xsrf": {h.cookie("/hub/login", "_xsrf")}}
	r, _ := http.NewRequest("POST", h.url+"/hub/login?next=%2Fhub%2Fspawn", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, body := h.do(r)
	if res.StatusCode != 200 || !strings.Contains(res.Request.URL.Path, "/hub/spawn-pending/") && !strings.Contains(res.Request.URL.Path, "/user/") {
		h.Fatalf("login led to %s: %d %.300s", res.Request.URL, res.StatusCode, body)
	}
	var at *url.URL
	h.until("the server runs", func() bool {
		res, _ := h.get("/user/" + url.PathEscape(strings.ToLower(name)) + "/tree")
		at = res.Request.URL
		return res.StatusCode == 200 && strings.HasPrefix(at.Path, "/user/")
	})
	if own := at.Hostname() != "localhost" && at.Hostname() != h.domain; own != (h.domain != "") {
		h.Errorf("the server of %s is at %s", name, at)
	}
	return at.Scheme + "://" + at.Host + strings.TrimSuffix(at.EscapedPath(), "tree")
}

func (h *hub) runCell(base string) {
	h.Helper()
	r, _ := http.NewRequest("POST", base+"api/kernels", strings.NewReader(`{"name":"python3"}`))
	r.Header.Set("X-XSRFToken", h.cookie(base, "_xsrf"))
	r.Header.Set("Content-Type", "application/json")
	res, body := h.do(r)
	var kernel struct{ ID string }
	if err := json.Unmarshal([]byte(body), &kernel); err != nil || res.StatusCode != 201 {
		h.Fatalf("the kernel: %d %.300s", res.StatusCode, body)
	}
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	u, _ := url.Parse(base)
	var cookies []string
	for _, c := range h.client.Jar.Cookies(u) {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	ws, _, err := websocket.Dial(ctx, base+"api/kernels/"+kernel.ID+"/channels?session_id=s", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: h.transport},
		HTTPHeader: http.Header{"Cookie": {strings.Join(cookies, "; ")}, "Origin": {u.Scheme + "://" + u.Host}}})
	if err != nil {
		h.Fatal(err)
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	message := map[string]any{"header": map[string]any{"msg_id": "m1", "msg_type": "execute_request", "username": "x", "session": "s", "version": "5.3"},
		"parent_header": map[string]any{}, "metadata": map[string]any{}, "channel": "shell", "buffers": []any{},
		"content": map[string]any{"code": "print('six times seven is', 6*7)", "silent": false, "store_history": true, "user_expressions": map[string]any{}, "allow_stdin": false}}
	text, _ := json.Marshal(message)
	if err := ws.Write(ctx, websocket.MessageText, text); err != nil {
		h.Fatal(err)
	}
	for {
		_, text, err := ws.Read(ctx)
		if err != nil {
			h.Fatal(err)
		}
		if strings.Contains(string(text), "six times seven is 42") {
			return
		}
	}
}
