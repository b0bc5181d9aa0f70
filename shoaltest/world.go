package shoaltest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/app"
	"github.com/shoal-pool/shoal/internal/providers/fake"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/provider"
)

// Where things are on the World's network.
const (
	agentDoor   = "agent:80"
	localDoor   = "local:80"
	controlDoor = "control:80"
	gatewayDoor = "gateway:22"
	browserDoor = "gateway:443"
)

// World is a server with everything around it. Its methods end the test when they fail.
type World struct {
	Provider *fake.Provider
	// Host is a client with the rights of root on the server's host.
	Host *client.Client

	t      testing.TB
	net    *network
	data   string
	signer ssh.Signer
	log    *slog.Logger

	mu     sync.Mutex
	stop   context.CancelFunc
	served chan error
}

// New starts a server with an empty store. All users of Apply share the World's key. Everything ends
// with the test.
func New(t testing.TB, conf fake.Config) *World {
	t.Helper()
	w := &World{t: t, net: newNetwork(), data: t.TempDir(), log: slog.New(slog.NewTextHandler(logTo{t}, nil))}
	_, private, err := ed25519.GenerateKey(nil)
	if err == nil {
		w.signer, err = ssh.NewSignerFromKey(private)
	}
	if err != nil {
		t.Fatal(err)
	}
	conf.Booted = w.boot
	w.Provider = fake.New(conf)
	w.Host, err = client.New(client.Options{Server: "http://local", Transport: w.transport(localDoor)})
	if err != nil {
		t.Fatal(err)
	}
	w.Start()
	t.Cleanup(func() {
		w.Provider.Close()
		w.Stop()
	})
	return w
}

// transport carries HTTP to a door, a connection for each request: none is left idle at the end of a bubble.
func (w *World) transport(to string) http.RoundTripper {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.net.dial(ctx, "tcp", to)
	}}
}

type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// Start starts the server on what the former one has stored.
func (w *World) Start() {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	a, err := app.New(ctx, app.Options{Data: w.data, Version: "test", Log: w.log, Dial: w.net.dial,
		Web:       app.Web{JupyterHub: "external"}, // one of our own has sockets that stop fake time
		Providers: map[string]provider.Provider{"fake": w.Provider},
		Listeners: app.Listeners{Control: w.net.listen(controlDoor), Local: w.net.listen(localDoor),
			Agent: w.net.listen(agentDoor), SSH: w.net.listen(gatewayDoor), HTTPS: w.net.listen(browserDoor)}})
	if err != nil {
		stop()
		w.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- errors.Join(a.Run(ctx), a.Close(context.Background())) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop, w.served = stop, served
}

// Stop ends the server; machines go on. Doing it again does nothing.
func (w *World) Stop() {
	w.t.Helper()
	w.mu.Lock()
	stop, served := w.stop, w.served
	w.stop = nil
	w.mu.Unlock()
	if stop == nil {
		return
	}
	stop()
	if err := <-served; err != nil {
		w.t.Errorf("the server ended with: %v", err)
	}
}

// Restart is Stop and Start.
func (w *World) Restart() {
	w.t.Helper()
	w.Stop()
	w.Start()
}

// Apply applies documents. Users without keys get the World's.
func (w *World) Apply(documents string) {
	w.t.Helper()
	set, err := spec.Parse(spec.File{Name: "test.yaml", Data: []byte(documents)})
	if err != nil {
		w.t.Fatal(spec.Format(shoal.MistakesOf(err)))
	}
	for i := range set.Users {
		if len(set.Users[i].Keys) == 0 {
			set.Users[i].Keys = []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(w.signer.PublicKey())))}
		}
	}
	if _, err := w.Host.Apply(w.t.Context(), api.ApplyRequest{Shares: set.Shares, Groups: set.Groups, Users: set.Users, Pools: set.Pools}); err != nil {
		w.t.Fatal(err, shoal.MistakesOf(err))
	}
}

// As returns a client of a user's, signed in with a password.
func (w *World) As(user shoal.UserName) *client.Client {
	w.t.Helper()
	const password = "correct horse battery staple"
	ctx := w.t.Context()
	if err := w.Host.SetPassword(ctx, user, password); err != nil {
		w.t.Fatal(err)
	}
	transport := w.transport(controlDoor)
	c, err := client.New(client.Options{Server: "http://control", Transport: transport})
	if err != nil {
		w.t.Fatal(err)
	}
	answer, err := c.Login(ctx, api.LoginRequest{User: user, Password: password})
	if err != nil {
		w.t.Fatal(err)
	}
	if c, err = client.New(client.Options{Server: "http://control", Token: answer.Token, Transport: transport}); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// Result is what became of a command over SSH.
type Result struct {
	Out, Err string
	Banner   string // what the gateway told while it held the login
	Code     int
}

// SSH logs in through the gateway as OpenSSH would, runs a command and returns what came of it.
func (w *World) SSH(login, command string) Result {
	w.t.Helper()
	r, err := w.TrySSH(w.t.Context(), login, command)
	if err != nil {
		w.t.Fatalf("ssh %s: %v", login, err)
	}
	return r
}

// TrySSH is SSH for logins that may fail. The end of ctx closes the connection.
func (w *World) TrySSH(ctx context.Context, login, command string) (Result, error) {
	return w.trySSH(ctx, gatewayDoor, login, command)
}

func (w *World) trySSH(ctx context.Context, door, login, command string) (r Result, err error) {
	c, err := w.net.dial(ctx, "tcp", door)
	if err != nil {
		return r, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	var banner strings.Builder
	conn, channels, requests, err := ssh.NewClientConn(c, door, &ssh.ClientConfig{User: login,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(w.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		BannerCallback: func(text string) error { banner.WriteString(text); return nil }})
	r.Banner = banner.String()
	if err != nil {
		return r, err
	}
	cl := ssh.NewClient(conn, channels, requests)
	defer cl.Close()
	s, err := cl.NewSession()
	if err != nil {
		return r, err
	}
	defer s.Close()
	var out, trouble bytes.Buffer
	s.Stdout, s.Stderr = &out, &trouble
	err = s.Run(command)
	r.Out, r.Err = out.String(), trouble.String()
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		r.Code, err = exit.ExitStatus(), nil
	}
	return r, err
}

// Machines lists a pool's machines; those that are gone are not among them.
func (w *World) Machines(pool shoal.PoolName) []shoal.Machine {
	w.t.Helper()
	list, err := w.Host.Machines(w.t.Context(), client.MachineQuery{Pool: pool})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// Until lets time pass until something is so, a minute at the most unless more is given.
func (w *World) Until(what string, limit time.Duration, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(limit); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not so after %v", what, limit)
		}
	}
}

// Output reads a stream of a task to its end.
func (w *World) Output(c *client.Client, ref shoal.TaskRef) string {
	w.t.Helper()
	r, err := c.Output(w.t.Context(), ref, client.OutputQuery{Follow: true})
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(fmt.Errorf("the output of %s: %w", ref, err))
	}
	return string(b)
}
