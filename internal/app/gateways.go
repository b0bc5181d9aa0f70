package app

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/gatehub"
	"github.com/shoal-pool/shoal/internal/httpapi"
)

// makeGateways makes where gateways call that are processes of their own.
func (a *App) makeGateways() {
	a.gates = gatehub.New(gatehub.Config{Store: a.store, Key: a.keys.agents, Own: a.keys.userCA.PublicKey(), HostCA: a.keys.hostCA.PublicKey(), CA: a.agents.control.CA,
		HostKey: func() (string, error) {
			text, err := os.ReadFile(a.opts.path("keys", hostKeyFile))
			if err != nil {
				return "", fmt.Errorf("cannot read the gateways' host key: %w", err)
			}
			return string(text), nil
		},
		Sessions: a.broker, Router: noting{a.logins, a.desk}, Password: a.people.CheckPassword, Dial: a.reach.Dial, Trusted: a.hub.AccountsReady, Log: a.log,
		Environ: func(ctx context.Context, user shoal.UserName, pool shoal.PoolName) api.GatewayEnviron {
			e := a.environ(ctx, user, pool)
			return api.GatewayEnviron{Vars: e.Vars, Notes: e.Notes}
		}})
}

// withGateways puts the face for gateways beside another.
func (a *App) withGateways(h http.Handler) http.Handler {
	gateways := a.ledAgents(a.api.Gateway())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, httpapi.GatewayPrefix+"/") {
			gateways.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// serveSSH lets people in, unless that is left to others.
func (a *App) serveSSH(ctx context.Context) error {
	if a.sockets.SSH == nil {
		<-ctx.Done()
		return nil
	}
	return a.front.Serve(ctx, a.sockets.SSH)
}

// sshAddress is where people come in: here, or where it was said that the gateways are.
func (a *App) sshAddress() string {
	if a.sockets.SSH == nil {
		return a.opts.SSHListen
	}
	return a.sockets.SSH.Addr().String()
}
