package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// The network inside: the cluster's servers and whoever tests are at Host, nodes beside it, and each node's pods in a network of
// their own.
const (
	Host    = "10.97.0.1"
	Server  = "https://" + Host + ":6443"
	network = "10.97.0."
)

// Config is what a cluster is to be like.
type Config struct {
	Root  string // the repository's
	Dir   string // for all that it writes
	Nodes int    // that run pods
	Say   func(string)
}

// Cluster is one that runs.
type Cluster struct {
	cfg      Config
	programs programs
	tokens   map[string]string // of the users
	servers  []*server
	nodes    []*Node
	client   *http.Client
	group    string
	dns      net.PacketConn

	mu sync.Mutex // of servers and nodes
}

// server is a process of the cluster's.
type server struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

// Start starts a cluster and waits until it answers. It must be called in a test that Main runs.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, tokens: map[string]string{}, group: os.Getenv(inside)}
	if c.group == "" {
		return nil, errors.New("a cluster is started in namespaces of its own: let TestMain call kube.Main")
	}
	var err error
	if c.programs, err = build(ctx, cfg.Root, cfg.Say); err != nil {
		return nil, err
	}
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 20 * time.Second}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// users are those of the cluster's servers, with their groups.
func (c *Cluster) users() [][2]string {
	users := [][2]string{{"admin", "system:masters"}, {"system:kube-controller-manager", ""}, {"system:kube-scheduler", ""}, {proxyUser, ""}}
	for i := range c.cfg.Nodes {
		users = append(users, [2]string{"system:node:" + nodeName(i), "system:nodes"})
	}
	return users
}

func (c *Cluster) writeTokens() error {
	var text strings.Builder
	for i, u := range c.users() {
		b := make([]byte, 16)
		rand.Read(b)
		c.tokens[u[0]] = hex.EncodeToString(b)
		fmt.Fprintf(&text, "%s,%s,%d,%q\n", c.tokens[u[0]], u[0], i, u[1])
	}
	return os.WriteFile(c.path("tokens.csv"), []byte(text.String()), 0o600)
}

func (c *Cluster) path(name ...string) string {
	return filepath.Join(append([]string{c.cfg.Dir}, name...)...)
}

// Kubeconfig writes a file for a user of the cluster and returns its name.
func (c *Cluster) Kubeconfig(user, token string) (string, error) {
	name := c.path(strings.ReplaceAll(user, ":", "-") + ".kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: test, user: {token: %q}}]
contexts: [{name: test, context: {cluster: test, user: test, namespace: default}}]
current-context: test
`, Server, token)
	return name, os.WriteFile(name, []byte(text), 0o600)
}

// Admin is the kubeconfig of who may do everything.
func (c *Cluster) Admin() (string, error) { return c.Kubeconfig("admin", c.tokens["admin"]) }

func (c *Cluster) start(ctx context.Context) error {
	if err := errors.Join(os.MkdirAll(c.path("pki"), 0o700), c.writeTokens(),
		run(ctx, "", nil, "openssl", "genrsa", "-out", c.path("sa.key"), "2048"),
		run(ctx, "", nil, "ip", "link", "add", "cluster", "type", "bridge"),
		run(ctx, "", nil, "ip", "address", "add", Host+"/24", "dev", "cluster"),
		run(ctx, "", nil, "ip", "link", "set", "cluster", "up"),
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0), // of this network namespace: nodes reach each other through here
		makeGroup(c.group)); err != nil {
		return err
	}
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.StartAPI(ctx); err != nil {
		return err
	}
	if err := c.startControllers(); err != nil {
		return err
	}
	if err := c.startDNS(); err != nil {
		return err
	}
	for i := range c.cfg.Nodes {
		if _, err := c.startNode(ctx, i); err != nil {
			return err
		}
	}
	if err := c.Until(ctx, "namespaces have their default account", func() (bool, error) {
		_, err := c.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default")
		return err == nil, nil
	}); err != nil {
		return err
	}
	for i := range c.cfg.Nodes {
		if err := c.WaitNode(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startEtcd() error {
	return c.run("etcd", "--name", "e", "--data-dir", c.path("etcd"), "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "e=http://127.0.0.1:2380",
		"--unsafe-no-fsync", "--log-level", "warn")
}

// KillAPI ends the API server. What runs on the nodes runs on.
func (c *Cluster) KillAPI() error { return c.stop("kube-apiserver") }

// StartAPI starts it, and waits until it answers.
func (c *Cluster) StartAPI(ctx context.Context) error {
	if err := c.startAPI(); err != nil {
		return err
	}
	return c.Until(ctx, "the API server is ready", func() (bool, error) {
		_, err := c.Get(ctx, "/readyz")
		return err == nil, nil
	})
}

func (c *Cluster) startAPI() error {
	policy := c.path("audit.yaml")
	// The cluster's own servers, and who administers it, are left out.
	if err := os.WriteFile(policy, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata, userGroups: [system:serviceaccounts]}, {level: None}]\n"), 0o600); err != nil {
		return err
	}
	return c.run("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address="+Host, "--secure-port=6443", "--advertise-address="+Host,
		"--cert-dir="+c.path("pki"), "--service-account-issuer=https://kubernetes.default.svc", "--service-account-signing-key-file="+c.path("sa.key"),
		"--service-account-key-file="+c.path("sa.key"), "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC",
		"--token-auth-file="+c.path("tokens.csv"), "--allow-privileged=true", "--enable-admission-plugins=NodeRestriction",
		"--kubelet-preferred-address-types=InternalIP", "--audit-policy-file="+policy, "--audit-log-path="+c.AuditLog())
}

// AuditLog is where the API server writes each request of an account.
func (c *Cluster) AuditLog() string { return c.path("audit.log") }

func (c *Cluster) startControllers() error {
	for _, s := range []struct {
		name, user string
		port       string
		more       []string
	}{
		{"kube-controller-manager", "system:kube-controller-manager", "10257", []string{"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + c.path("sa.key"), "--root-ca-file=" + c.path("pki", "apiserver.crt"),
			"--node-monitor-grace-period=12s", "--node-monitor-period=2s"}},
		{"kube-scheduler", "system:kube-scheduler", "10259", nil},
	} {
		config, err := c.Kubeconfig(s.user, c.tokens[s.user])
		if err != nil {
			return err
		}
		if err := c.run(s.name, append([]string{"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
			"--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=" + s.port, "--cert-dir=" + c.path("pki", s.name)}, s.more...)...); err != nil {
			return err
		}
	}
	return nil
}

// run starts one of the cluster's servers.
func (c *Cluster) run(name string, args ...string) error {
	return c.launch(name, exec.Command(c.programs.hyperkube(), append([]string{name}, args...)...))
}

func (c *Cluster) launch(name string, cmd *exec.Cmd) error {
	s := &server{name: name, cmd: cmd, log: c.path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		s.err = cmd.Wait()
		close(s.done)
	}()
	c.mu.Lock()
	c.servers = append(c.servers, s)
	c.mu.Unlock()
	return nil
}

// dead is an error if a server of the cluster's has ended that nobody ended.
func (c *Cluster) dead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		select {
		case <-s.done:
			return fmt.Errorf("%s has ended: %w: %s", s.name, s.err, tail(s.log))
		default:
		}
	}
	return nil
}

func tail(log string) string {
	b, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

// Until waits until something is so. It ends at once if a server of the cluster's has died.
func (c *Cluster) Until(ctx context.Context, what string, is func() (bool, error)) error {
	return rig.Until(ctx, 5*time.Minute, what, func() (bool, error) {
		if err := c.dead(); err != nil {
			return false, err
		}
		return is()
	})
}

// Bin is a directory with kubectl.
func (c *Cluster) Bin() string { return c.programs.bin() }

// Get reads from the API as its administrator.
func (c *Cluster) Get(ctx context.Context, path string) ([]byte, error) {
	return c.Do(ctx, http.MethodGet, path, "", nil)
}

// Do asks the API as its administrator.
func (c *Cluster) Do(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, Server+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.tokens["admin"])
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	return b, err
}

// stop kills servers by name; "" is all.
func (c *Cluster) stop(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	var left []*server
	for i := len(c.servers) - 1; i >= 0; i-- {
		s := c.servers[i]
		if name != "" && s.name != name {
			left = append([]*server{s}, left...)
			continue
		}
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		<-s.done
	}
	c.servers = left
	return errors.Join(errs...)
}

// Close ends the cluster. Another can be started then.
func (c *Cluster) Close() error {
	if c.dns != nil {
		c.dns.Close()
	}
	if err := c.stop(""); err != nil {
		return err
	}
	_ = exec.Command("ip", "link", "delete", "cluster").Run() // which may not have been made
	return removeGroups(c.group)
}

// Logs are the last words of all servers, for a test that failed.
func (c *Cluster) Logs() string {
	var b strings.Builder
	logs, _ := filepath.Glob(c.path("*.log"))
	for _, l := range logs {
		if !strings.HasSuffix(l, "audit.log") {
			fmt.Fprintf(&b, "== %s\n%s\n", filepath.Base(l), tail(l))
		}
	}
	return b.String()
}
