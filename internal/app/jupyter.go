package app

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/hub"
)

// makeJupyter makes what runs JupyterHub for pools that want it, or leads machines to another one.
func (a *App) makeJupyter() error {
	if a.images == nil { // its servers are on local machines
		return nil
	}
	cfg := hub.Config{Store: a.store, Dir: a.opts.path("hub"), Machines: a.images.Listen, Log: a.log}
	switch a.opts.Web.JupyterHub {
	case externalHub:
		return nil
	case ownHub:
		if a.web.front == nil { // there is nowhere to see it
			return nil
		}
		if err := a.ownJupyter(&cfg); err != nil {
			return err
		}
	default:
		if !onThisHost(a.opts.Web.JupyterHub) {
			return shoal.Errorf(shoal.KindInvalid, "cannot use --jupyterhub %s: that hub is on another host, from which users' servers are not reached: machines let in this host alone", a.opts.Web.JupyterHub).
				WithHint("run the hub on this host; a hub elsewhere that starts servers of its own can have Shoal for its proxy, with --chp-listen and without --jupyterhub")
		}
		cfg.External = a.opts.Web.JupyterHub
	}
	a.jupyter = hub.New(cfg)
	return nil
}

// onThisHost reports whether an address is one of this host's. A name that cannot be looked up now may be.
func onThisHost(at string) bool {
	u, err := url.Parse(at)
	if err != nil {
		return false
	}
	ips, err := net.LookupIP(u.Hostname())
	if err != nil {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(ips, func(ip net.IP) bool {
		return ip.IsLoopback() || slices.ContainsFunc(own, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(ip)
		})
	})
}

// ownJupyter adds what a hub of our own needs.
func (a *App) ownJupyter(cfg *hub.Config) error {
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
	cfg.Token, cfg.Routes, cfg.RoutesToken, cfg.Public, cfg.AppsDomain = token, api, routes, a.webURL, a.opts.Web.AppsDomain
	cfg.API = func() string { return "http://" + fromHere(a.sockets.Control.Addr()) }
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
	return []part{{"jupyterhub", a.jupyter.Run}}
}

// fromHere is how this host's own processes reach a listener.
func fromHere(addr net.Addr) string {
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return addr.String()
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()).String()
}
