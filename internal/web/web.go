package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/web/once"
)

// People is the directory, as far as browsers need it.
type People interface {
	CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error
	// Means is a digest of what a user signs in by; another one says that it has changed.
	Means(ctx context.Context, name shoal.UserName) (string, error)
	OpenBrowser(ctx context.Context, name shoal.UserName, ttl time.Duration) (secret string, expires time.Time, err error)
	BrowserUser(ctx context.Context, secret string) (shoal.User, error)
	CloseBrowser(ctx context.Context, secret string) error
	CloseBrowsers(ctx context.Context, name shoal.UserName) error // all of hers
}

// Broker keeps sessions. It does not ask who asks.
type Broker interface {
	End(ctx context.Context, id shoal.SessionID) error
	WhySession(ctx context.Context, id shoal.SessionID) (api.Why, error)
}

// Apps runs users' web apps. It does not ask who asks.
type Apps interface {
	// Open returns the app of a user that lives, or starts one. It does not wait until that runs.
	Open(ctx context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, error)
	// Of lists a user's apps, those that ended lately included, newest first.
	Of(ctx context.Context, user shoal.UserName) ([]shoal.App, error)
	// Wait returns an app once its revision is later than one, or after a while as it is.
	Wait(ctx context.Context, id shoal.AppID, rev shoal.Rev) (shoal.App, error)
	// Stop begins to end an app; why says it to people.
	Stop(ctx context.Context, id shoal.AppID, why string) error
}

// Config is what the pages need.
type Config struct {
	Store  *store.DB
	People People
	Broker Broker
	Apps   Apps // nil: there are none
	// Clients are who may ask for codes, each with the addresses that it may be sent back to: paths of this
	// origin, or URLs. Nil: the hub at its usual place.
	Clients map[string][]string
	// URL is where browsers reach Shoal, "https://pool.example.org"; SSH is the gateway, HOST:PORT. Both may be nil.
	URL func() string
	SSH func() string
	// Jupyter is the path where a pool's notebooks are opened; nil: the hub's usual one.
	Jupyter func(pool shoal.PoolName, user shoal.UserName) string
	// Reached is where the gateway listens for an rdp or tcp endpoint, or empty with why it does not; both are empty
	// if it does not yet. Nil: where the pool says.
	Reached func(pool shoal.PoolName, endpoint string) (address, why string)
	// Desktop gives a user the way to a desktop, from one address; nil: the pages give none.
	Desktop func(ctx context.Context, user shoal.UserName, req api.DesktopRequest, source string) (api.DesktopTicket, error)
	// Tokens says whose API token a request carries: programs may ask how far a start is. Nil: nobody's.
	Tokens func(*http.Request) (shoal.UserName, error)
	// SignedIn is told who has proved who she is in a browser, and from where; may be nil.
	SignedIn func(user shoal.UserName, address string)
	Log      *slog.Logger
}

// Web signs browsers in and serves the pages.
type Web struct {
	cfg      Config
	pages    map[string]*renderer
	files    static
	known    *known
	codes    *once.Box[code]
	links    *once.Box[link]
	stepUps  *once.Box[*stepUp] // by their tokens
	confirms *once.Box[*stepUp] // by what the user types on her command line
	mux      *http.ServeMux
}

// The lives and numbers of secrets.
const (
	codeLife   = time.Minute
	linkLife   = 5 * time.Minute
	stepUpLife = time.Minute
	eachUser   = 20
	allUsers   = 20_000
)

// HubClient is the hub's name among the clients that ask for codes.
const HubClient = "hub"

// New makes the pages.
func New(cfg Config) (*Web, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clients == nil {
		cfg.Clients = map[string][]string{HubClient: {"/hub/shoal-callback"}}
	}
	if cfg.URL == nil {
		cfg.URL = func() string { return "" }
	}
	if cfg.SSH == nil {
		cfg.SSH = func() string { return "" }
	}
	if cfg.Jupyter == nil {
		cfg.Jupyter = func(pool shoal.PoolName, _ shoal.UserName) string { return "/hub/spawn?pool=" + string(pool) }
	}
	w := &Web{cfg: cfg, known: newKnown(), codes: once.New[code](codeLife, eachUser, allUsers), links: once.New[link](linkLife, eachUser, allUsers),
		stepUps: once.New[*stepUp](stepUpLife, eachUser, allUsers), confirms: once.New[*stepUp](stepUpLife, eachUser, allUsers)}
	var err error
	if w.files, err = newStatic(); err != nil {
		return nil, err
	}
	if w.pages, err = newRenderers(); err != nil {
		return nil, err
	}
	w.mux = w.routes()
	return w, nil
}
