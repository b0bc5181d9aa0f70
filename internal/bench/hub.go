package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
)

const (
	localSpawner = "JupyterHub's local spawner"
	// hubCrowd is how many come at once to a pool without a machine.
	hubCrowd    = 20
	hubPatience = 5 * time.Minute
	hubPassword = "correct horse battery staple"
)

// hubRows compares starts of notebook servers with JupyterHub's own way on the same host.
func hubRows(ctx context.Context, b *bench) (err error) {
	w, err := b.world(ctx, "hub")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	pool := rig.Pool("lab", "interactive", "{cpus: 2, memory: 4GiB}", "{min: 0, max: 5}", 4, "endpoints:\n  - {name: jupyter, protocol: http}\n")
	if err := w.Apply(ctx, hubCrowd, pool); err != nil {
		return err
	}
	peer, err := b.startHub(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, peer.stop()) }()
	if err := spawns(ctx, b, w, peer); err != nil {
		return err
	}
	return hubCrowds(ctx, b, w, peer)
}

// spawns measures from the click to the notebook's page, with a machine that runs and without one.
func spawns(ctx context.Context, b *bench, w *world, peer *localHub) error {
	ours, err := w.visitor(ctx, "u1")
	if err != nil {
		return err
	}
	theirs, err := peer.visitor(ctx, "u1")
	if err != nil {
		return err
	}
	var warm, cold, local, wakes, sum []float64
	for i := range b.rounds + 1 {
		if err := w.Empty(ctx, "lab"); err != nil {
			return err
		}
		wake, err := w.login(ctx, "u1+lab")
		if err != nil {
			return err
		}
		onMachine, err := ours.startStop(ctx, "/hub/spawn?pool=lab")
		if err != nil {
			return err
		}
		if err := w.Empty(ctx, "lab"); err != nil {
			return err
		}
		fromNone, err := ours.startStop(ctx, "/hub/spawn?pool=lab")
		if err != nil {
			return err
		}
		there, err := theirs.startStop(ctx, "/hub/spawn")
		if err != nil {
			return fmt.Errorf("%s: %w", localSpawner, err)
		}
		if i == 0 {
			continue // what is made once is made, and what is read is in memory
		}
		warm, cold, local = append(warm, onMachine.Seconds()), append(cold, fromNone.Seconds()), append(local, there.Seconds())
		wakes, sum = append(wakes, wake.Seconds()), append(sum, there.Seconds()+wake.Seconds())
	}
	b.add(Row{Measure: "notebook: from the click to its page, on a machine that runs", Unit: "s", Ours: warm, Peer: local, PeerIs: localSpawner}.judge(atMost("ratio", 1)))
	b.add(Row{Measure: "notebook: from the click to its page, from no machine", Unit: "s", Ours: cold, Peer: sum, PeerIs: localSpawner + " and a machine's wake",
		Note: "a wake is ssh from no machine: " + number(median(wakes)) + " s"}.judge(atMost("ratio", 1)))
	return nil
}

// hubCrowds lets everybody click at once while no machine runs.
func hubCrowds(ctx context.Context, b *bench, w *world, peer *localHub) error {
	all := func(enter func(context.Context, string) (*visitor, error), path string) (served int, took time.Duration, err error) {
		var in []*visitor
		for i := range hubCrowd {
			v, err := enter(ctx, fmt.Sprintf("u%d", i+1))
			if err != nil {
				return 0, 0, err
			}
			in = append(in, v)
		}
		start := time.Now()
		var g errgroup.Group
		ok := make([]error, len(in))
		for i, v := range in {
			g.Go(func() error {
				ok[i] = v.start(ctx, path)
				return nil
			})
		}
		_ = g.Wait() // the errors are in ok
		took = time.Since(start)
		for i, v := range in {
			if ok[i] == nil {
				served++
			} else {
				b.say("%s: %v", v.user, ok[i])
			}
			err = errors.Join(err, v.stop(ctx))
		}
		return served, took, err
	}
	var served, ours, there []float64
	for range min(b.rounds, 2) {
		if err := w.Empty(ctx, "lab"); err != nil {
			return err
		}
		n, took, err := all(w.visitor, "/hub/spawn?pool=lab")
		if err != nil {
			return err
		}
		served, ours = append(served, float64(n)), append(ours, took.Seconds())
		if _, took, err = all(peer.visitor, "/hub/spawn"); err != nil {
			return fmt.Errorf("%s: %w", localSpawner, err)
		}
		there = append(there, took.Seconds())
	}
	b.add(Row{Measure: fmt.Sprintf("notebook: of %d users at once, from no machine, are served", hubCrowd), Unit: "users", Ours: served}.judge(atLeast("ours", hubCrowd)))
	b.add(Row{Measure: fmt.Sprintf("notebook: %d users at once, from no machine, to the last page", hubCrowd), Unit: "s", Ours: ours, Peer: there, PeerIs: localSpawner,
		Note: "the peer has no machines to start"}.judge(atMost("ratio", 1.5)))
	return nil
}

// visitor is a browser without a window: cookies, and links that are followed.
type visitor struct {
	at, user string
	http     *http.Client
}

func newVisitor(at, user string, trust *tls.Config) (*visitor, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	return &visitor{at, user, &http.Client{Jar: jar, Timeout: hubPatience, Transport: &http.Transport{TLSClientConfig: trust}}}, nil
}

// visitor signs a user in at Shoal's page, and at the hub.
func (w *world) visitor(ctx context.Context, user string) (*visitor, error) {
	if err := w.Client.SetPassword(ctx, shoal.UserName(user), hubPassword); err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(w.Data, "tls", "ca.crt"))
	if err != nil {
		return nil, err
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(ca)
	v, err := newVisitor("https://127.0.0.1:"+w.HTTPS, user, &tls.Config{RootCAs: trust})
	if err != nil {
		return nil, err
	}
	_, page, err := v.ask(ctx, http.MethodGet, "/shoal/login", nil)
	if err != nil {
		return nil, err
	}
	token := regexp.MustCompile(`name="token" value="([^"]*)"`).FindStringSubmatch(page)
	if token == nil {
		return nil, errors.New("the login page has no token")
	}
	if _, _, err := v.ask(ctx, http.MethodPost, "/shoal/login", url.Values{"token": {token[1]}, "user": {user}, "password": {hubPassword}}); err != nil {
		return nil, err
	}
	return v, v.known(ctx)
}

// known waits until the hub runs and knows the user.
func (v *visitor) known(ctx context.Context) error {
	return rig.Until(ctx, time.Minute, "the hub knows "+v.user, func() (bool, error) {
		r, _, err := v.ask(ctx, http.MethodGet, "/hub/home", nil)
		return err == nil && r.StatusCode == http.StatusOK && r.Request.URL.Path == "/hub/home", nil
	})
}

func (v *visitor) ask(ctx context.Context, method, path string, form url.Values) (*http.Response, string, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, v.at+path, body)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Referer", v.at+"/hub/home")
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r, err := v.http.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r, string(text), err
}

// start clicks, follows the progress, and opens the notebook's page.
func (v *visitor) start(ctx context.Context, path string) error {
	if _, _, err := v.ask(ctx, http.MethodGet, path, nil); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.at+"/hub/api/users/"+v.user+"/server/progress", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Referer", v.at+"/hub/home")
	r, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	last := r.Status
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			last = text
			if strings.Contains(text, `"ready": true`) {
				break
			}
		}
	}
	page, _, err := v.ask(ctx, http.MethodGet, "/user/"+v.user+"/tree", nil)
	if err != nil {
		return err
	}
	if page.StatusCode != http.StatusOK || page.Request.URL.Path != "/user/"+v.user+"/tree" {
		return fmt.Errorf("the notebook of %s: %s at %s: %s", v.user, page.Status, page.Request.URL.Path, last)
	}
	return nil
}

// stop stops the user's server, and waits until it has ended.
func (v *visitor) stop(ctx context.Context) error {
	err := rig.Until(ctx, time.Minute, "the server can be stopped", func() (bool, error) {
		r, text, err := v.ask(ctx, http.MethodDelete, "/hub/api/users/"+v.user+"/server", nil)
		if err != nil || r.StatusCode < 300 || r.StatusCode == http.StatusNotFound {
			return true, err
		}
		if r.StatusCode == http.StatusBadRequest { // it is just starting or stopping, or has stopped
			return strings.Contains(text, "not running"), nil
		}
		return false, fmt.Errorf("the server of %s cannot be stopped: %s: %s", v.user, r.Status, text)
	})
	if err != nil {
		return err
	}
	return rig.Until(ctx, time.Minute, "the server of "+v.user+" has stopped", func() (bool, error) {
		_, text, err := v.ask(ctx, http.MethodGet, "/hub/api/users/"+v.user, nil)
		return strings.Contains(text, `"server": null`) && strings.Contains(text, `"pending": null`), err
	})
}

func (v *visitor) startStop(ctx context.Context, path string) (time.Duration, error) {
	start := time.Now()
	if err := v.start(ctx, path); err != nil {
		return 0, err
	}
	took := time.Since(start)
	return took, v.stop(ctx)
}

// localHub is a JupyterHub with its own proxy and its own spawner, which starts servers as processes beside it.
type localHub struct {
	at  string
	cmd *exec.Cmd
}

const localConfig = `c.JupyterHub.bind_url = "http://127.0.0.1:%s"
c.JupyterHub.hub_port = %s
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:%s"
c.JupyterHub.authenticator_class = "jupyterhub.auth.DummyAuthenticator"
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = "%s/home/{username}"
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = 300
c.Spawner.http_timeout = 300
c.JupyterHub.db_url = "sqlite:///%s/hub.sqlite"
c.JupyterHub.cookie_secret_file = "%s/cookie"
c.JupyterHub.log_level = "WARN"
`

// startHub starts it on free ports.
func (b *bench) startHub(ctx context.Context) (*localHub, error) {
	dir := filepath.Join(b.dir, "localhub")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var ports []any
	for range 3 {
		p, err := rig.FreePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	config := filepath.Join(dir, "jupyterhub_config.py")
	if err := os.WriteFile(config, fmt.Appendf(nil, localConfig, append(ports, dir, dir, dir)...), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	h := &localHub{at: fmt.Sprintf("http://127.0.0.1:%s", ports[0])}
	h.cmd = exec.Command("jupyterhub", "-f", config)
	h.cmd.Dir = dir
	h.cmd.Env = append(os.Environ(), "NODE_PATH=/usr/share/nodejs")
	h.cmd.Stdout, h.cmd.Stderr = log, log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("jupyterhub is missing: run scripts/setup bench: %w", err)
	}
	err = rig.Until(ctx, time.Minute, "JupyterHub answers", func() (bool, error) {
		r, err := http.Get(h.at + "/hub/login")
		if err != nil {
			return false, nil
		}
		_ = r.Body.Close() // a page
		return r.StatusCode == http.StatusOK, nil
	})
	if err != nil {
		return nil, errors.Join(err, h.stop())
	}
	return h, nil
}

func (h *localHub) visitor(ctx context.Context, user string) (*visitor, error) {
	v, err := newVisitor(h.at, user, nil)
	if err != nil {
		return nil, err
	}
	req := url.Values{"username": {user}, "password": {"x"}}
	if _, _, err := v.ask(ctx, http.MethodPost, "/hub/login?next=%2Fhub%2Fhome", req); err != nil {
		return nil, err
	}
	return v, v.known(ctx)
}

// stop ends the hub, its proxy and its servers.
func (h *localHub) stop() error {
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- h.cmd.Wait() }()
	select {
	case <-ended: // it has a status for having been told to
	case <-time.After(30 * time.Second):
	}
	if err := syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
