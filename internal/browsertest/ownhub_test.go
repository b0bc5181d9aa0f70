package browsertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

// ownHub is the configuration of a hub that a team has had before: its own logins, its own spawner, and the lines
// of docs/reference/chp.md.
const ownHub = `c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:%[1]s"
c.ConfigurableHTTPProxy.auth_token = open("%[2]s").read()
c.JupyterHub.bind_url = "https://127.0.0.1:%[3]s"
c.JupyterHub.hub_port = %[4]s
c.JupyterHub.authenticator_class = "jupyterhub.auth.DummyAuthenticator"
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = "%[5]s/home/{username}"
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.JupyterHub.db_url = "sqlite:///%[5]s/hub.sqlite"
c.JupyterHub.cookie_secret_file = "%[5]s/cookie"
`

// A hub that a team has already uses the gateway as its proxy; Shoal's own pages stay where they are.
func TestOwnHub(t *testing.T) {
	t.Parallel()
	chp, err := rig.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, []string{"--chp-listen", "127.0.0.1:" + chp}, map[shoal.UserName]string{"alice": ""})
	w.startHub(chp)
	b := w.browser()
	b.until("the hub is there", func() bool {
		b.open("/")
		return b.at() == "/hub/login?next=%2Fhub%2F"
	})
	b.do("signing in at the hub", chromedp.SendKeys(chromedp.CSS("#username_input"), "Änne Müller"), chromedp.SendKeys(chromedp.CSS("#password_input"), "x"),
		chromedp.Click(chromedp.CSS("#login_submit")))
	b.until("the notebook server is there", func() bool { return strings.HasPrefix(b.at(), "/user/") && strings.Contains(b.text(), "Select items") })
	kernel := b.eval(`
const base = location.pathname.replace(/tree.*$/, "");
const xsrf = (document.cookie.match(/_xsrf=([^;]*)/) || [])[1] || "";
const made = await (await fetch(base + "api/kernels", { method: "POST", headers: { "X-XSRFToken": xsrf }, body: "{}" })).json();
return await new Promise((done) => {
	const s = new WebSocket("wss://" + location.host + base + "api/kernels/" + made.id + "/channels");
	s.onerror = () => done("error");
	s.onopen = () => s.send(JSON.stringify({ channel: "shell", header: { msg_id: "m", session: "s", msg_type: "execute_request", username: "u", version: "5.3" }, parent_header: {}, metadata: {}, content: { code: "print(6*7)", silent: false } }));
	s.onmessage = (m) => { const heard = JSON.parse(m.data); if (heard.msg_type === "stream") done(heard.content.text.trim()); };
});`)
	if kernel != "42" {
		t.Errorf("the kernel says %q", kernel)
	}
	b.open("/shoal/")
	b.signIn("alice")
	if text := b.text(); !strings.Contains(text, "alice") {
		t.Errorf("Shoal's home says:\n%s", text)
	}
}

// startHub starts a JupyterHub of the team's own, which ends with the test.
func (w *world) startHub(chp string) {
	w.t.Helper()
	dir := filepath.Join(w.Dir, "hub")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	port, err := rig.FreePort()
	if err != nil {
		w.t.Fatal(err)
	}
	config := filepath.Join(dir, "jupyterhub_config.py")
	if err := os.WriteFile(config, fmt.Appendf(nil, ownHub, chp, filepath.Join(w.Data, "chp.token"), w.HTTPS, port, dir), 0o600); err != nil {
		w.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("jupyterhub", "-f", config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID} // whatever it starts ends with it
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("jupyterhub is missing, run scripts/setup test: %v", err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // with its servers
		_ = cmd.Wait()         // killed
		if w.t.Failed() {
			text, _ := os.ReadFile(log.Name()) // without a log there is nothing to show
			lines := strings.Split(string(text), "\n")
			w.t.Logf("the hub wrote:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
}
