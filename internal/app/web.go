package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/record"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// Web is what `shoal serve` can be told of the front end for browsers. The zero value of a field means its default.
type Web struct {
	HTTPSListen string // default 127.0.0.1:7443; off: none
	HTTPListen  string // sends people to HTTPS; default none
	URL         string // how people write it, https://HOST[:PORT]; default from the certificate's name and HTTPSListen

	TLSCert, TLSKey string // files; default an authority of our own
	ACMEDomain      string // certificates come by ACME, for these names
	ACMEEmail       string
	ACMECA          string // its directory's URL; default that of Let's Encrypt
	ACMERoot        string // a file with whom to trust about ACMECA itself

	AppsDomain string // users' servers are at NAME.DOMAIN
	Trusted    string // proxies before this one, as networks

	CHPListen        string // the API of configurable-http-proxy; default none
	CHPTokenFile     string // default DIR/chp.token, which is made
	CHPDefaultTarget string
	CHPErrorTarget   string
	CHPHostRouting   bool

	JupyterHub string // own: it is run where a pool wants it; external, or its URL. Default own, unless CHPListen is set
	AccessLog  string // a file; default none
}

const (
	defaultHTTPSListen = "127.0.0.1:7443"
	off                = "off"
	ownHub             = "own"
	externalHub        = "external"
)

func (o Web) withDefaults() (Web, error) {
	if o.HTTPSListen == "" {
		o.HTTPSListen = defaultHTTPSListen
	}
	for _, l := range []struct{ flag, address string }{{"--https-listen", o.HTTPSListen}, {"--http-listen", o.HTTPListen}, {"--chp-listen", o.CHPListen}} {
		if l.address == "" || l.address == off && l.flag == "--https-listen" {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			return o, shoal.Errorf(shoal.KindInvalid, "cannot use %s %q: %w", l.flag, l.address, err).WithHint("write HOST:PORT, as in 127.0.0.1:7443")
		}
	}
	for _, u := range []struct{ flag, value string }{{"--https-url", o.URL}, {"--chp-default-target", o.CHPDefaultTarget}, {"--chp-error-target", o.CHPErrorTarget}, {"--acme-ca", o.ACMECA}} {
		if at, err := url.Parse(u.value); u.value != "" && (err != nil || at.Host == "" || u.flag == "--https-url" && (at.Scheme != "https" || strings.Trim(at.Path, "/") != "")) {
			return o, shoal.Errorf(shoal.KindInvalid, "cannot use %s %q: it is no address of a server", u.flag, u.value).WithHint("write it as https://pool.example.org:7443")
		}
	}
	switch {
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return o, shoal.Errorf(shoal.KindInvalid, "cannot use one of --tls-cert and --tls-key without the other")
	case o.TLSCert != "" && o.ACMEDomain != "":
		return o, shoal.Errorf(shoal.KindInvalid, "cannot use --tls-cert and --acme-domain together").WithHint("say where the certificate comes from: files or ACME")
	case o.ACMEDomain == "" && (o.ACMEEmail != "" || o.ACMECA != "" || o.ACMERoot != ""):
		return o, shoal.Errorf(shoal.KindInvalid, "cannot ask for certificates by ACME without names").WithHint("add --acme-domain NAME")
	case (o.CHPDefaultTarget != "" || o.CHPErrorTarget != "" || o.CHPHostRouting || o.CHPTokenFile != "") && o.CHPListen == "":
		return o, shoal.Errorf(shoal.KindInvalid, "cannot use the flags that begin with --chp without --chp-listen").WithHint("add --chp-listen 127.0.0.1:8001")
	}
	switch {
	case o.JupyterHub == "" && o.CHPListen != "":
		o.JupyterHub = externalHub
	case o.JupyterHub == "":
		o.JupyterHub = ownHub
	case o.JupyterHub != ownHub && o.JupyterHub != externalHub:
		if at, err := url.Parse(o.JupyterHub); err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || strings.Trim(at.Path, "/") != "" {
			return o, shoal.Errorf(shoal.KindInvalid, "cannot use --jupyterhub %q", o.JupyterHub).WithHint("write own, external, or where the hub listens, as in http://127.0.0.1:8081")
		}
	case o.JupyterHub == ownHub && o.CHPListen != "":
		return o, shoal.Errorf(shoal.KindInvalid, "cannot use --jupyterhub own with --chp-listen: both hubs would want every route").WithHint("leave one of them out")
	}
	o.URL = strings.TrimRight(o.URL, "/")
	o.AppsDomain = strings.ToLower(strings.Trim(o.AppsDomain, "."))
	return o, nil
}

// trusted are the networks of the proxies before this one.
func (o Web) trusted() (all []netip.Prefix, err error) {
	for text := range strings.SplitSeq(o.Trusted, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if a, single := netip.ParseAddr(text); err != nil && single == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --trusted-proxies %q: %w", text, err).WithHint("write networks or addresses, as in 10.0.0.0/8,192.0.2.7")
		}
		all = append(all, p)
	}
	return all, nil
}

// names are what browsers may call this server by, as far as it can know.
func (o Web) names() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if host, err := os.Hostname(); err == nil {
		add(strings.ToLower(host))
	}
	if host, _, err := net.SplitHostPort(o.HTTPSListen); err == nil {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.IsUnspecified() {
			add(host)
		} else if addrs, err := net.InterfaceAddrs(); err == nil {
			for _, a := range addrs {
				if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
					add(n.IP.String())
				}
			}
		}
	}
	if u, err := url.Parse(o.URL); err == nil {
		add(u.Hostname())
	}
	if o.AppsDomain != "" {
		add(o.AppsDomain)
		add("*." + o.AppsDomain)
	}
	return names
}

// webParts are what the front end for browsers is made of.
type webParts struct {
	front  *webfront.Front // nil: there is none
	routes *routes.Table
	chp    http.Handler // nil: there is none
	keeper chp.Keeper   // where there is one
	acme   *certs.ACME  // nil: certificates come from elsewhere
	ca     string       // the fingerprint of our own authority, where that is used
}

// makeWeb makes the front end for browsers.
func (a *App) makeWeb() error {
	a.web.routes = routes.New()
	o := a.opts.Web
	trusted, err := o.trusted()
	if err != nil {
		return err
	}
	if o.CHPListen != "" || a.opts.Listeners.CHP != nil {
		if err := a.makeCHP(o); err != nil {
			return err
		}
	}
	if o.HTTPSListen == off && a.opts.Listeners.HTTPS == nil {
		return nil
	}
	secure, err := a.certificate(o)
	if err != nil {
		return err
	}
	book, err := a.makeBook(o.AccessLog)
	if err != nil {
		return err
	}
	cfg := webfront.Config{Routes: a.web.routes, TLS: secure, API: a.api.Browser(), Pages: a.pages.Handler(), Guard: a.pages, Message: a.pages.Message, Tokens: a.api.TokenUser, Server: a.serverOf, Apps: byWay{a.apps, a.ways}, AppsDomain: o.AppsDomain,
		HostRouting: o.CHPHostRouting, Trusted: trusted, Strict: a.web.acme != nil && o.HTTPListen != "", Dial: a.dialWeb, Machine: a.reach.DialInside, Book: book, Log: a.log,
		OwnHub: func() bool { return a.jupyter != nil && a.jupyter.Wanted(context.Background()) },
		HubIll: func() string {
			if a.jupyter == nil {
				return ""
			}
			return a.jupyter.Ill()
		}}
	if o.CHPErrorTarget != "" {
		if cfg.ErrorTarget, err = url.Parse(o.CHPErrorTarget); err != nil {
			return err
		}
	}
	a.web.front = webfront.New(cfg)
	return nil
}

// makeBook makes the account of what browsers ask: figures in /metrics, and an access log if one is wanted.
func (a *App) makeBook(path string) (*record.Book, error) {
	var lines io.Writer
	if path != "" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot write the access log: %w", err).WithHint("--access-log is a file in a directory that is there.")
		}
		a.onClose(func(context.Context) error { return f.Close() })
		lines = f
	}
	book := record.New(lines)
	a.api.Count(book)
	return book, nil
}

// serverOf returns the app that is, or was last, a user's server of our own hub.
func (a *App) serverOf(ctx context.Context, user shoal.UserName, name string) (shoal.App, bool) {
	all, err := a.apps.Of(ctx, user)
	if err != nil {
		return shoal.App{}, false
	}
	i := slices.IndexFunc(all, func(p shoal.App) bool { return p.Endpoint == shoal.EndpointJupyter && p.Name == name })
	if i < 0 {
		return shoal.App{}, false
	}
	return all[i], true
}

// makeCHP makes the API by which a hub of somebody else writes routes.
func (a *App) makeCHP(o Web) (err error) {
	var token string
	if o.CHPTokenFile != "" {
		text, err := os.ReadFile(o.CHPTokenFile)
		if err != nil {
			return shoal.Errorf(shoal.KindInvalid, "cannot read --chp-token-file: %w", err)
		}
		token = strings.TrimSpace(string(text))
	} else if token, err = tokenOf("routes'", a.opts.path("chp.token")); err != nil {
		return err
	}
	a.web.keeper = chp.Keeper{Routes: a.web.routes, Path: a.opts.path("chp.routes"), Log: a.log}
	a.web.keeper.Load()
	if o.CHPDefaultTarget != "" {
		posted, err := json.Marshal(o.CHPDefaultTarget)
		if err == nil {
			err = a.web.routes.Put("/", map[string]json.RawMessage{"target": posted}, false, time.Now())
		}
		if err != nil {
			return err
		}
	}
	a.web.chp, err = chp.New(chp.Config{Routes: a.web.routes, Token: token, Hosts: o.CHPHostRouting, Log: a.log})
	return err
}

// certificate opens where certificates come from.
func (a *App) certificate(o Web) (*tls.Config, error) {
	switch {
	case o.TLSCert != "":
		files, err := certs.FromFiles(o.TLSCert, o.TLSKey, a.log)
		if err != nil {
			return nil, err
		}
		return files.TLS(), nil
	case o.ACMEDomain != "":
		var err error
		a.web.acme, err = certs.FromACME(certs.ACMEConfig{Dir: a.opts.path("tls", "acme"), Names: strings.Split(o.ACMEDomain, ","), Email: o.ACMEEmail, CA: o.ACMECA,
			Root: o.ACMERoot, Also: a.appsHost(o.AppsDomain), HTTPS: portOf(o.HTTPSListen), HTTP: portOf(o.HTTPListen), Log: a.log})
		if err != nil {
			return nil, err
		}
		a.onClose(func(context.Context) error { a.web.acme.Close(); return nil })
		return a.web.acme.TLS(), nil
	default:
		own, err := certs.FromOwn(a.opts.path("tls"), o.names())
		if err != nil {
			return nil, err
		}
		a.web.ca = certs.Fingerprint(own.CA())
		return own.TLS(), nil
	}
}

// appsHost tells the hosts below the domain of apps that have a route.
func (a *App) appsHost(domain string) func(string) bool {
	if domain == "" {
		return nil
	}
	return func(host string) bool {
		return strings.HasSuffix(host, "."+domain) && slices.ContainsFunc(a.web.routes.All(), func(r *routes.Route) bool {
			first, _, _ := strings.Cut(r.Prefix[1:], "/")
			return first == host
		})
	}
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	return port
}

// webURL is how people write the address of the front end for browsers, without a slash at its end; empty: there is none.
func (a *App) webURL() string {
	if a.web.front == nil {
		return ""
	}
	if a.opts.Web.URL != "" {
		return a.opts.Web.URL
	}
	host, port, err := net.SplitHostPort(a.sockets.HTTPS.Addr().String())
	if err != nil {
		return "https://" + a.sockets.HTTPS.Addr().String() // a test's
	}
	if name, _, _ := strings.Cut(a.opts.Web.ACMEDomain, ","); name != "" {
		host = name
	} else if a.opts.Web.AppsDomain != "" {
		host = a.opts.Web.AppsDomain
	} else if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			host = "localhost"
		}
	}
	if port == "443" {
		return "https://" + strings.TrimSuffix(net.JoinHostPort(host, ""), ":")
	}
	return "https://" + net.JoinHostPort(host, port)
}

// webRuns are the loops of the front end for browsers.
func (a *App) webRuns() (runs []part) {
	if a.web.front != nil {
		runs = append(runs, part{"https", func(ctx context.Context) error { return a.web.front.Serve(ctx, a.sockets.HTTPS) }})
	}
	if a.web.acme != nil {
		runs = append(runs, part{"certificates", a.web.acme.Run})
	}
	if a.web.chp != nil {
		runs = append(runs, part{"routes api", serve(a.sockets.CHP, a.web.chp)}, part{"routes", a.web.keeper.Run})
	}
	if a.sockets.HTTP != nil {
		redirect := webfront.Redirect(func() string {
			if u, err := url.Parse(a.webURL()); err == nil && u.Port() != "" {
				return u.Port()
			}
			return "443"
		})
		if a.web.acme != nil {
			redirect = a.web.acme.Challenges(redirect)
		}
		runs = append(runs, part{"http", serve(a.sockets.HTTP, redirect)})
	}
	return runs
}
