package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/apps"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/billing"
	"github.com/shoal-pool/shoal/internal/broker"
	"github.com/shoal-pool/shoal/internal/catalog"
	"github.com/shoal-pool/shoal/internal/clock"
	"github.com/shoal-pool/shoal/internal/engine"
	"github.com/shoal-pool/shoal/internal/engine/vet"
	"github.com/shoal-pool/shoal/internal/gatehub"
	"github.com/shoal-pool/shoal/internal/gateway/doors"
	"github.com/shoal-pool/shoal/internal/gateway/rdpfront/desk"
	"github.com/shoal-pool/shoal/internal/gateway/sshfront"
	"github.com/shoal-pool/shoal/internal/gateway/ways"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/hub"
	identity "github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/providers/local"
	"github.com/shoal-pool/shoal/internal/reach"
	"github.com/shoal-pool/shoal/internal/secrets"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/web"
	"github.com/shoal-pool/shoal/provider"
)

// App is a server: control plane, and gateway unless that is elsewhere. New makes it, Run makes it work.
type App struct {
	opts      Options
	log       *slog.Logger
	keys      keys
	store     *store.DB
	people    *identity.Directory
	images    *local.Provider // nil where there are no local machines
	engine    *engine.Engine
	batch     *batch.Batch
	secrets   *secrets.Keeper
	broker    *broker.Broker
	budgets   *billing.Keeper
	logins    frugalLogins
	apps      *apps.Apps
	ways      *ways.Ways
	hub       *agenthub.Hub
	catalog   *catalog.Catalog
	front     *sshfront.Front
	desk      *desk.Desk
	endpoints *doors.Doors
	api       *httpapi.API
	sockets   Listeners
	pages     *web.Web
	web       webParts
	agents    agents
	reach     *reach.Reach
	gates     *gatehub.Hub
	jupyter   *hub.Hub                      // nil: there is nowhere to show it
	cleanups  []func(context.Context) error // run last to first
}

// controlInMachine is where local machines find the control plane: DIR/control is bound there.
const controlInMachine = "unix:///run/shoal/control/agent.sock"

// New makes a server from its parts. What was made is undone by Close, also after an error.
func New(ctx context.Context, opts Options) (a *App, err error) {
	if opts, err = opts.withDefaults(); err != nil {
		return nil, err
	}
	a = &App{opts: opts, log: opts.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close(context.WithoutCancel(ctx)))
		}
	}()
	if err = a.openData(ctx); err != nil {
		return a, err
	}
	providers, err := a.openProviders(ctx)
	if err != nil {
		return a, err
	}
	if err = a.makeAgents(); err != nil {
		return a, err
	}
	if err = a.makeServices(a.led(providers)); err != nil {
		return a, err
	}
	if err = a.gates.Load(ctx); err != nil {
		return a, err
	}
	if err = a.makeWeb(); err != nil {
		return a, err
	}
	if err = a.makeJupyter(); err != nil {
		return a, err
	}
	return a, a.listen()
}

// openData opens what lies in the data directory: the store and the keys.
func (a *App) openData(ctx context.Context) error {
	if err := makeDirs(a.opts.Data, a.opts.path("control"), a.opts.path("keys"), a.opts.path("hub")); err != nil {
		return err
	}
	db, err := a.openStore(ctx)
	if err != nil {
		return err
	}
	a.store = db
	if a.keys, err = loadKeys(a.opts.path("keys")); err != nil {
		return err
	}
	a.people = identity.New(store.Credentials{DB: db})
	if err := a.sameKeys(ctx); err != nil {
		return err
	}
	a.secrets, err = secrets.New(a.store, a.keys.secrets)
	return err
}

// openProviders opens the providers that pools can name.
func (a *App) openProviders(ctx context.Context) (map[string]provider.Provider, error) {
	if a.opts.Providers != nil {
		return a.opts.Providers, nil
	}
	all := map[string]provider.Provider{}
	if os.Geteuid() != 0 && len(a.opts.Programs) > 0 {
		return all, a.openPrograms(ctx, all) // local machines need root; those of others do not
	}
	var subnet netip.Prefix
	if a.opts.Subnet != "" {
		var err error
		if subnet, err = netip.ParsePrefix(a.opts.Subnet); err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --subnet %q: %w", a.opts.Subnet, err).
				WithHint("write a network such as 100.64.0.0/20")
		}
	}
	p, err := local.New(ctx, local.Config{Dir: a.opts.path("local"), ControlDir: a.opts.path("control"),
		BinDir: a.opts.BinDir, Subnet: subnet, GPURoot: a.opts.GPURoot, AppAccounts: a.appAccounts(), Secret: a.shareSecret, MountHelper: a.opts.MountHelper, Log: a.log})
	if err != nil {
		return nil, err
	}
	a.images = p
	a.onClose(p.Close)
	all["local"] = p
	return all, a.openPrograms(ctx, all)
}

// makeServices makes the services and plugs them into each other. Some need each other; those
// are told by closures, which are called only once all are there.
func (a *App) makeServices(providers map[string]provider.Provider) (err error) {
	controls := map[string]engine.Control{}
	for name := range providers {
		controls[name] = a.control(name)
	}
	keeper := clock.New(clock.Config{Store: a.store, Boot: a.opts.Boot, Log: a.log})
	a.engine = engine.New(engine.Config{Store: a.store, Providers: providers, Control: controls, Keep: keeper.Keep, Log: a.log,
		Held:      func(user shoal.UserName) string { return a.budgets.Held(user) },
		JoinToken: func(id shoal.MachineID, epoch int) string { return a.hub.JoinToken(id, epoch) },
		Gone:      func(id shoal.MachineID) { a.front.MachineGone(id); a.reach.Gone(id); a.gates.Gone(id) },
		Look:      func(id shoal.MachineID, which string) { a.hub.Send(id, api.Record{Look: which}) },
		Tell:      func(id shoal.MachineID, text string) { a.hub.Send(id, api.Record{Message: &api.Message{Text: text}}) }})
	a.broker = broker.New(broker.Config{Store: a.store, Accounts: accounts(func(ctx context.Context, id shoal.MachineID, rev shoal.Rev) error {
		return a.hub.AccountsReady(ctx, id, rev)
	}), Wake: a.engine.Wake, Suspect: a.engine.Suspect, Keep: keeper.Keep, Send: func(id shoal.MachineID, r api.Record) bool { return a.hub.Send(id, r) }, Log: a.log})
	a.budgets = billing.New(a.store, a.log, func() { a.batch.Reconsider(); a.engine.Wake() })
	a.logins = frugalLogins{a.broker, a.budgets, a.store}
	a.batch, err = batch.New(batch.Config{Store: a.store, Secrets: a.secrets, Dir: a.opts.path("output"), OutputCap: int64(a.opts.OutputCap), Wake: a.engine.Wake, Log: a.log,
		Send:     func(id shoal.MachineID, r api.Record) bool { return a.hub.Send(id, r) },
		Answered: func(id shoal.MachineID) time.Time { return a.hub.Answered(id) }, Lease: a.opts.TaskLease, Key: a.keys.agents, Held: a.budgets.Held, Moved: keeper.Moved})
	if err != nil {
		return err
	}
	a.apps = apps.New(apps.Config{Store: a.store, Broker: a.logins, URL: a.webURL, Keep: keeper.Keep, Log: a.log,
		Send: func(id shoal.MachineID, r api.Record) bool { return a.hub.Send(id, r) }})
	apart := func(name string) bool { p, ok := providers[name]; return ok && p.Capabilities().UserSlices }
	a.hub = agenthub.New(agenthub.Config{Store: a.store, Key: a.keys.agents, HostCA: a.keys.hostCA, CAKeys: func() []string { return a.gates.Keys() }, Beat: a.beat(), Lease: a.opts.TaskLease,
		UserSlices: apart,
		Engine:     a.engine, Sessions: a.broker, Batch: a.batch, Apps: a.apps, Doors: a.doors, Desktop: func(pool shoal.PoolName) (string, string, error) { return a.desk.Identity(pool) },
		Log: a.log})
	a.catalog = catalog.New(catalog.Config{Store: a.store, Check: vet.Providers(providers), Passwords: a.people,
		EndSession: a.broker.End, CancelJob: a.batch.CancelAs, Wake: a.engine.Wake, Log: a.log})
	a.makeReach()
	a.makeWays()
	a.makeDesktops()
	a.makeGateways()
	a.front, err = sshfront.New(sshfront.Config{HostKey: a.keys.gatewayHost, UserCA: a.keys.userCA, HostCA: a.keys.hostCA.PublicKey(),
		Directory: a.people.Patient(), Router: noting{a.logins, a.desk}, Dial: a.reach.Dial, Environ: a.environ, Lingers: a.opts.Linger > 0, Log: a.log})
	if err != nil {
		return err
	}
	token, err := tokenOf("admin", a.opts.path("admin.token"))
	if err != nil {
		return err
	}
	hubToken, err := tokenOf("hub's", a.opts.path("hub", "token"))
	if err != nil {
		return err
	}
	if err := a.makePages(); err != nil {
		return err
	}
	a.api = httpapi.New(httpapi.Config{Web: a.pages, Store: a.store, AdminToken: token, HubToken: hubToken, Apps: a.apps, Version: a.opts.Version, Log: a.log,
		Catalog: a.catalog, Secrets: a.secrets, Engine: explained{a.engine, a.endpoints, []func(context.Context, shoal.PoolName) []shoal.Reason{a.whyJupyter, a.whyTogether(apart)}, a.reach}, Rollouts: a.engine, Desktops: a.desk, Reach: a.reach, Gateways: a.gates, Broker: confiding{a.logins, a.secrets}, Batch: frugalBatch{a.batch, a.budgets}, Budgets: a.budgets, Files: a.batch, Hub: a.hub, People: a.people, Images: images(a.images),
		SSH: a.sshAddress, HubAPI: http.HandlerFunc(a.askJupyter), AppAt: a.appAt})
	return nil
}

// accounts makes a function a broker.AccountsWaiter.
type accounts func(context.Context, shoal.MachineID, shoal.Rev) error

func (f accounts) AccountsReady(ctx context.Context, id shoal.MachineID, rev shoal.Rev) error {
	return f(ctx, id, rev)
}

// appAccounts are the accounts of this host that reach machines' web apps: that of our own JupyterHub. Of somebody
// else's the account is not known, so that all do.
func (a *App) appAccounts() []int {
	if a.opts.Web.JupyterHub != ownHub {
		return nil
	}
	return []int{hub.Account()}
}

// doors are the addresses from which this gateway comes to a provider's machines.
func (a *App) doors(name string) []string {
	if a.images == nil || name != "local" {
		return nil
	}
	return []string{a.images.Gateway().String()}
}

func (a *App) onClose(f func(context.Context) error) { a.cleanups = append(a.cleanups, f) }

// Close undoes what New made, last first. Machines go on running and are adopted by the next server on the
// same data directory, which waits for this.
func (a *App) Close(ctx context.Context) error {
	var errs []error
	for _, f := range slices.Backward(a.cleanups) {
		errs = append(errs, f(ctx))
	}
	a.cleanups = nil
	return errors.Join(errs...)
}

// part is something that runs as long as the server does.
type part struct {
	name string
	run  func(context.Context) error
}

// Run serves until ctx ends or a part fails for good.
func (a *App) Run(ctx context.Context) error {
	asked := ctx
	g, ctx := errgroup.WithContext(asked)
	defer context.AfterFunc(ctx, a.store.GiveUp)()
	for _, part := range slices.Concat(a.webRuns(), a.jupyterRuns(), a.agentRuns(), []part{
		{"engine", a.engine.Run}, {"batch", a.runBatch}, {"broker", a.broker.Run}, {"apps", a.apps.Run}, {"agents", a.hub.Run},
		{"desktops", a.desk.Run}, {"endpoints", a.endpoints.Run},
		{"retire", a.retire}, {"shares", a.renewShares}, {"trim", a.trim}, {"pack", a.pack}, {"budgets", a.budgets.Run},
		{"ssh", a.serveSSH}, {"gateways", a.gates.Run},
		{"api", serve(a.sockets.Control, a.withGateways(a.api.Control()))},
		{"local api", serve(a.sockets.Local, a.api.Local())},
		{"agent api", serve(a.sockets.Agent, a.ledAgents(a.api.Agent()))}, {"lead", a.lead},
	}) {
		g.Go(func() error {
			err := part.run(ctx)
			if err == nil || ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s: %w", part.name, err)
		})
	}
	err := g.Wait()
	if asked.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func serve(l net.Listener, h http.Handler) func(context.Context) error {
	return func(ctx context.Context) error { return serveHTTP(ctx, l, h) }
}

// Run makes a server, or a gateway, and serves until ctx ends.
func Run(ctx context.Context, opts Options) error {
	if opts.Role == roleGateway {
		return runGateway(ctx, opts)
	}
	a, err := New(ctx, opts)
	if err != nil {
		return err
	}
	a.log.Info("serving", "ssh", a.sshAddress(), "api", a.sockets.Control.Addr(), "web", a.webURL(), "data", a.opts.Data)
	if a.web.ca != "" {
		a.log.Info("browsers are shown a certificate by an authority of our own: compare its SHA-256 fingerprint when you trust it", "file", a.opts.path("tls", certs.CAFile), "fingerprint", a.web.ca)
	}
	err = a.Run(ctx)
	err = errors.Join(err, a.Close(context.WithoutCancel(ctx)))
	lingering, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.opts.Linger)
	defer cancel()
	a.front.Linger(lingering)
	return err
}
