package shoaltest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/app"
)

// Gateway is a gateway of the World that is a process of its own, as far as that can be in one process.
type Gateway struct {
	// Blind: it reaches no machine by itself.
	Blind atomic.Bool

	w      *World
	name   string
	data   string
	token  string
	stop   context.CancelFunc
	served chan error
}

// AddGateway has a gateway enrol and starts it. It ends with the test.
func (w *World) AddGateway(name string) *Gateway {
	w.t.Helper()
	g := &Gateway{w: w, name: name, data: w.t.TempDir()}
	g.token = filepath.Join(g.data, "token")
	t, err := w.Host.AddGateway(w.t.Context(), api.AddGateway{Name: api.GatewayName(name)})
	if err == nil {
		err = os.WriteFile(g.token, []byte(t.Token), 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	g.Start()
	w.t.Cleanup(g.Stop)
	return g
}

// Start starts it and waits until it lets people in.
func (g *Gateway) Start() {
	g.w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	opts := app.Options{Role: "gateway", Data: g.data, Servers: []string{"http://127.0.0.1:80"}, TokenFile: g.token, Dial: g.dial, Log: g.w.log.With("gateway", g.name),
		Listeners: app.Listeners{SSH: g.w.net.listen(g.Door())}}
	g.stop, g.served = stop, make(chan error, 1)
	go func() { g.served <- app.Run(ctx, opts) }()
	g.w.Until("gateway "+g.name+" lets people in", time.Minute, func() bool {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		c, err := g.w.net.dial(short, "tcp", g.Door())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Stop ends it. Doing it again does nothing.
func (g *Gateway) Stop() {
	if g.stop == nil {
		return
	}
	g.stop()
	g.stop = nil
	if err := <-g.served; err != nil {
		g.w.t.Errorf("gateway %s ended with: %v", g.name, err)
	}
}

// Door is where it lets people in.
func (g *Gateway) Door() string { return g.name + ":22" }

// dial connects to the control plane, or to a machine.
func (g *Gateway) dial(ctx context.Context, network, to string) (net.Conn, error) {
	if strings.HasPrefix(to, "127.0.0.1:") {
		return g.w.net.dial(ctx, network, controlDoor)
	}
	if g.Blind.Load() {
		return nil, errors.New("no route to host")
	}
	return g.w.net.dial(ctx, network, to)
}

// SSH is World.SSH through this gateway.
func (g *Gateway) SSH(login, command string) Result {
	g.w.t.Helper()
	r, err := g.TrySSH(g.w.t.Context(), login, command)
	if err != nil {
		g.w.t.Fatalf("ssh %s through gateway %s: %v", login, g.name, err)
	}
	return r
}

// TrySSH is World.TrySSH through this gateway.
func (g *Gateway) TrySSH(ctx context.Context, login, command string) (Result, error) {
	return g.w.trySSH(ctx, g.Door(), login, command)
}
