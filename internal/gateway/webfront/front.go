package webfront

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/pump"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/record"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

// Guard knows Shoal's own cookies.
type Guard interface {
	// Who returns whom the request's cookie signs in. KindUnauthenticated: nobody; any other error: it cannot be told.
	Who(*http.Request) (shoal.UserName, error)
	// Strip takes Shoal's cookies out of the headers of a request that is passed on.
	Strip(http.Header)
	// StripAnswer takes out of the headers of an answer what only Shoal may say to a browser at its own address.
	StripAnswer(http.Header)
}

// Apps are the users' own web apps.
type Apps interface {
	Find(ctx context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, bool)
	// Open starts an app, or returns the live one. It does not wait until the app runs.
	Open(ctx context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, error)
	// At returns the running app of a user that is reached at an address.
	At(user shoal.UserName, address string) (shoal.AppID, bool)
	// Used records that somebody uses an app.
	Used(id shoal.AppID, at time.Time)
}

// Config is what a Front needs. All but Routes may be left out.
type Config struct {
	Routes *routes.Table
	TLS    *tls.Config // nil: plain HTTP, for a proxy before it, and tests
	Pages  http.Handler
	// Message answers with a page for people or a problem document for programs; nil: plain ones.
	Message func(w http.ResponseWriter, r *http.Request, status int, title, text, hint string)
	// OwnHub reports whether Shoal runs a hub of its own: what is its and has no route is about to have one.
	OwnHub func() bool
	// HubIll says that Shoal's own hub does not answer, if it is known not to; nil: nobody knows.
	HubIll func() string
	API    http.Handler
	Guard  Guard
	Apps   Apps
	// Tokens tells whose token of the API a request carries. Its errors are those of Guard.Who.
	Tokens func(*http.Request) (shoal.UserName, error)
	// Server returns the app that is a user's server of Shoal's own hub.
	Server func(ctx context.Context, user shoal.UserName, name string) (shoal.App, bool)
	// AppsDomain: hosts below it have routes only, which are found by host and path. The domain itself is the
	// front end's own name.
	AppsDomain string
	// HostRouting: every route is found by host and path, as by the original's --host-routing.
	HostRouting bool
	// ErrorTarget is asked for error pages, as TARGET/CODE?url=PATH. Nil: the hub that has the route /, if one has.
	ErrorTarget *url.URL
	// Trusted are proxies before this one: what they say of the client in X-Forwarded headers is kept.
	Trusted []netip.Prefix
	// Strict tells browsers to use nothing but HTTPS with this host from now on.
	Strict bool
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	// Machine connects to apps on machines; nil: as Dial.
	Machine gateway.Dial
	Limits  Limits
	Book    *record.Book // where account is kept; nil: nowhere to be seen
	Log     *slog.Logger
}

// Front is the front end for browsers.
type Front struct {
	cfg     Config
	log     *slog.Logger
	door    *door
	pool    *pool
	tunnels *gateway.Counts // websockets, by source
	users   *gateway.Counts // websockets, by whose server they are to
	flights *gateway.Counts // requests being answered, by source
	servers *gateway.Counts // requests that servers behind are answering
	errors  *http.Client
	pumps   *pump.Pumps
	used    usage
	calm    calm

	mu      sync.Mutex
	piping  map[*tunnel]struct{}
	closing bool
	all     sync.WaitGroup // of tunnels
}

// New makes a front end. Serve makes it work.
func New(cfg Config) *Front {
	if cfg.Routes == nil {
		cfg.Routes = routes.New()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Book == nil {
		cfg.Book = record.New(nil)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTime, KeepAlive: -1}).DialContext // tune sees to that
	}
	cfg.AppsDomain = strings.ToLower(strings.Trim(cfg.AppsDomain, "."))
	cfg.Limits = cfg.Limits.withDefaults()
	f := &Front{cfg: cfg, log: cfg.Log, pool: newPool(cfg.Dial, cfg.Machine, cfg.Limits), pumps: pump.New(runtime.GOMAXPROCS(0)/2, writeTime), piping: map[*tunnel]struct{}{}}
	f.door = &door{limits: cfg.Limits, book: cfg.Book, connections: gateway.NewCounts(cfg.Limits.Connections, cfg.Limits.PerSource)}
	f.tunnels = gateway.NewCounts(cfg.Limits.Websockets, cfg.Limits.SourceWebsockets)
	f.users = gateway.NewCounts(cfg.Limits.Websockets, cfg.Limits.UserWebsockets)
	f.servers = gateway.NewCounts(cfg.Limits.Requests, cfg.Limits.ServerRequests)
	f.flights = gateway.NewCounts(cfg.Limits.Requests, cfg.Limits.SourceRequests)
	f.errors = f.pool.client(errorPageTime)
	return f
}

// How long clients may take, and how large what they send ahead of a body may be.
const (
	headerTime = 10 * time.Second // until a request's headers are complete; the TLS handshake, too
	idleTime   = 2 * time.Minute  // between two requests
	graceTime  = 2 * time.Second  // for requests at the end
	maxHeaders = 64 << 10
	maxRead    = 2 * maxHeaders // who has sent too much is told so; beyond this a connection of HTTP/2 ends without a word
	maxCookies = 32 << 10
	maxURI     = 16 << 10
	maxLines   = 200 // of headers
)

// Serve takes connections from ln, which it closes, until ctx ends. Then requests get a moment to be
// answered, and websockets end.
func (f *Front) Serve(ctx context.Context, ln net.Listener) error {
	s := &http.Server{
		Handler:           f,
		TLSConfig:         f.cfg.TLS,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxRead,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withClient,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: f.cfg.Limits.Streams, SendPingTimeout: 30 * time.Second,
			PingTimeout: 15 * time.Second, WriteByteTimeout: writeTime},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		f.closeTunnels()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
		defer cancel()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	})
	var err error
	if front := (&frontListener{Listener: ln, door: f.door}); f.cfg.TLS != nil {
		err = s.ServeTLS(front, "", "")
	} else {
		err = s.Serve(front)
	}
	if !stop() {
		<-stopped
	} else {
		s.Close()
		f.closeTunnels()
	}
	f.all.Wait()
	f.pool.close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot take HTTPS connections: %w", err)
}

func (f *Front) closeTunnels() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closing = true
	for t := range f.piping {
		t.close()
	}
}

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limitBody(w, r)
	if r.URL.Path == "/_chp_healthz" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"OK"}`))
		return
	}
	f.believe(r)
	a := f.cfg.Book.Begin(w, r, f.partOf(r), addrOf(r.RemoteAddr).String())
	defer a.End()
	f.serve(a, r)
	a.Whole()
}

// partOf says who answers a request.
func (f *Front) partOf(r *http.Request) record.Part {
	switch path := r.URL.Path; {
	case f.isAppsHost(hostname(r.Host)):
	case strings.HasPrefix(path, appRoot):
		return record.App
	case path == "/shoal" || strings.HasPrefix(path, "/shoal/"):
		return record.Pages
	case strings.HasPrefix(path, "/api/v1/"):
		return record.API
	}
	return record.Server
}

func (f *Front) serve(w http.ResponseWriter, r *http.Request) {
	source := sourceOf(r)
	if !f.flights.Enter(source) {
		f.cfg.Book.Refused(record.Requests)
		w.Header().Set("Retry-After", "1")
		f.fail(w, r, http.StatusTooManyRequests, "Too many requests of yours are being answered at this moment.")
		return
	}
	defer f.flights.Leave(source)
	if status, why := unfit(r); status != 0 {
		w.Header().Set("Connection", "close")
		f.fail(w, r, status, why)
		return
	}
	if f.cfg.Strict && r.TLS != nil {
		w.Header().Set("Strict-Transport-Security", "max-age=15768000")
	}
	host := hostname(r.Host)
	if f.isAppsHost(host) {
		f.serveRoute(w, r, f.cfg.Routes.Find("/"+host+r.URL.Path), false)
		return
	}
	switch path := r.URL.Path; {
	case strings.HasPrefix(path, appRoot):
		f.serveApp(w, r)
	case path == "/shoal" && f.cfg.Pages != nil:
		http.Redirect(w, r, "/shoal/", http.StatusFound)
	case strings.HasPrefix(path, "/shoal/") && f.cfg.Pages != nil:
		f.cfg.Pages.ServeHTTP(w, patient(w, r))
	case strings.HasPrefix(path, "/api/v1/") && f.cfg.API != nil:
		f.cfg.API.ServeHTTP(w, patient(w, r))
	default:
		f.serveRoute(w, r, f.find(host, path), true)
	}
}

// find returns the route of a request to a host that is not an app's, or nil.
func (f *Front) find(host, path string) *routes.Route {
	if f.cfg.HostRouting || f.cfg.AppsDomain != "" {
		r := f.cfg.Routes.Find("/" + host + path)
		if f.cfg.HostRouting || r != nil && r.Prefix != "/" {
			return r
		}
	}
	return f.cfg.Routes.Find(path)
}

// isAppsHost reports whether a host is one of those that users' servers have for themselves.
func (f *Front) isAppsHost(host string) bool {
	return f.cfg.AppsDomain != "" && strings.HasSuffix(host, "."+f.cfg.AppsDomain)
}

// hostname is the host of a Host header, in lower case, without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// unfit says what is wrong with a request that nobody behind should see.
func unfit(r *http.Request) (int, string) {
	cookies, lines, size := 0, 0, 0
	for name, values := range r.Header {
		lines += len(values)
		for _, v := range values {
			size += len(name) + len(": \r\n") + len(v)
			if name == "Cookie" {
				cookies += len(v)
			}
		}
	}
	switch {
	case len(r.RequestURI) > maxURI:
		return http.StatusRequestURITooLong, fmt.Sprintf("The address is longer than %d bytes.", maxURI)
	case cookies > maxCookies:
		return http.StatusRequestHeaderFieldsTooLarge,
			fmt.Sprintf("Your browser has sent more than %d bytes of cookies. Delete this site's cookies in its settings, then sign in again.", maxCookies)
	case size > maxHeaders:
		return http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("The request has more than %d bytes of headers.", maxHeaders)
	case lines > maxLines:
		return http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("The request has more than %d headers.", maxLines)
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return http.StatusMethodNotAllowed, "The method " + r.Method + " is not used here."
	case !strings.HasPrefix(r.URL.Path, "/"):
		return http.StatusBadRequest, "The address has no path."
	}
	return 0, ""
}
