package app

import (
	"context"
	"net"
	"net/netip"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/hub"
)

// makeJupyter makes what runs JupyterHub for pools that want it. It needs the front end for browsers, where it is seen.
func (a *App) makeJupyter() error {
	if a.web.front == nil {
		return nil
	}
	token, err := tokenOf("hub's", a.opts.path("hub", "token"))
	if err != nil {
		return err
	}
	routes, err := tokenOf("routes'", a.opts.path("hub", "routes.token"))
	if err != nil {
		return err
	}
	api, err := chp.New(chp.Config{Routes: a.web.routes, Token: routes, Guarded: true, Hosts: a.opts.Web.AppsDomain != "", Log: a.log})
	if err != nil {
		return err
	}
	l, err := listenTCP("127.0.0.1:0", "")
	if err != nil {
		return err
	}
	a.onClose(func(context.Context) error { l.Close(); return nil })
	cfg := hub.Config{Store: a.store, Dir: a.opts.path("hub"), Token: token, RoutesToken: routes, Public: a.webURL, AppsDomain: a.opts.Web.AppsDomain, Log: a.log,
		API:    func() string { return "http://" + fromHere(a.sockets.Control.Addr()) },
		Routes: func() string { return "http://" + l.Addr().String() }}
	if a.images != nil {
		cfg.Machines = a.images.Listen
	}
	a.jupyter = hub.New(cfg)
	a.routes = part{"jupyterhub's routes", serve(l, api)}
	return nil
}

// whyJupyter says how JupyterHub is, for a pool that wants it.
func (a *App) whyJupyter(ctx context.Context, name shoal.PoolName) []shoal.Reason {
	if a.jupyter == nil {
		return nil
	}
	return a.jupyter.Why(ctx, name)
}

// jupyterRuns are the loops of what runs JupyterHub.
func (a *App) jupyterRuns() []part {
	if a.jupyter == nil {
		return nil
	}
	return []part{a.routes, {"jupyterhub", a.jupyter.Run}}
}

// fromHere is how this host's own processes reach a listener.
func fromHere(addr net.Addr) string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return addr.String()
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()).String()
}
