package app

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/apps"
	"github.com/shoal-pool/shoal/internal/gateway/ways"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/hub"
	"github.com/shoal-pool/shoal/internal/store"
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

// askJupyter lets machines elsewhere ask JupyterHub's API, in whichever way this server has one.
func (a *App) askJupyter(w http.ResponseWriter, r *http.Request) {
	if a.jupyter == nil {
		http.NotFound(w, r)
		return
	}
	a.jupyter.ForMachines().ServeHTTP(w, r)
}

// makeWays makes what leads this host's JupyterHub to servers on machines that only this server comes to.
func (a *App) makeWays() {
	ctx, stop := context.WithCancel(context.Background())
	a.ways = ways.New(ctx, ways.Config{On: a.apps.On, Dial: a.reach.DialInside, Log: a.log, Admits: func(uid int) bool {
		may := a.appAccounts()
		return uid == 0 || may == nil || slices.Contains(may, uid)
	}})
	a.onClose(func(context.Context) error { stop(); a.ways.Wait(); return nil })
}

// appAt is where JupyterHub finds an app: at its machine, or by a way to it.
func (a *App) appAt(ctx context.Context, p shoal.App) string {
	var m shoal.Machine
	err := a.store.View(ctx, func(tx *store.Tx) (err error) {
		m, err = tx.Machines().Get(p.Machine)
		return err
	})
	if err != nil || m.Provider == "local" || m.Provider == "" {
		return p.Address
	}
	at, err := a.ways.To(p.Address)
	if err != nil {
		a.log.Warn("JupyterHub does not come to an app", "app", p.ID, "err", err)
		return p.Address
	}
	return at
}

// byWay knows apps by the ways to them, too.
type byWay struct {
	*apps.Apps
	ways *ways.Ways
}

// At returns the running app of a user that is reached at an address.
func (b byWay) At(user shoal.UserName, address string) (shoal.AppID, bool) {
	return b.Apps.At(user, b.ways.From(address))
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
