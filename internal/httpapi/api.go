package httpapi

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/batch/files"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/gatehub"
	"github.com/shoal-pool/shoal/internal/httpapi/figures"
	"github.com/shoal-pool/shoal/internal/httpapi/guess"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

// Catalog keeps what people write.
type Catalog interface {
	Apply(ctx context.Context, by access.Subject, req api.ApplyRequest) (api.ApplyResult, error)
	AddUser(ctx context.Context, by access.Subject, u shoal.User, password string) (shoal.User, error)
	DisableUser(ctx context.Context, by access.Subject, name shoal.UserName) (shoal.User, error)
	EnableUser(ctx context.Context, by access.Subject, name shoal.UserName) (shoal.User, error)
	RemoveUser(ctx context.Context, by access.Subject, name shoal.UserName) (api.Change, error)
	DeleteGroup(ctx context.Context, by access.Subject, name shoal.GroupName) error
	DeleteShare(ctx context.Context, by access.Subject, name shoal.ShareName) error
}

// Engine moves machines.
type Engine interface {
	ScalePool(ctx context.Context, by access.Subject, name shoal.PoolName, r api.ScaleRequest) (shoal.Pool, error)
	Rehearse(ctx context.Context, by access.Subject, name shoal.PoolName, r api.RehearsalRequest) (api.Rehearsal, error)
	DeletePool(ctx context.Context, by access.Subject, name shoal.PoolName) error
	Drain(ctx context.Context, by access.Subject, id shoal.MachineID, r api.DrainRequest) (shoal.Machine, error)
	Undrain(ctx context.Context, by access.Subject, id shoal.MachineID) (shoal.Machine, error)
	DeleteMachine(ctx context.Context, by access.Subject, id shoal.MachineID, force bool) error
	WhyPool(ctx context.Context, name shoal.PoolName) (api.Why, error)
	WhyMachine(ctx context.Context, id shoal.MachineID) (api.Why, error)
}

// Rollouts replaces machines that are not as their pools are now.
type Rollouts interface {
	Rollout(ctx context.Context, by access.Subject, name shoal.PoolName) (api.RolloutStatus, error)
	SteerRollout(ctx context.Context, by access.Subject, name shoal.PoolName, r api.RolloutRequest) (api.RolloutStatus, error)
}

// Broker keeps sessions. It does not ask who asks.
type Broker interface {
	End(ctx context.Context, id shoal.SessionID) error
	KeepAwake(ctx context.Context, id shoal.SessionID, d time.Duration) (shoal.Session, error)
	WhySession(ctx context.Context, id shoal.SessionID) (api.Why, error)
	WhyLogin(ctx context.Context, user shoal.UserName, pool shoal.PoolName) (api.Why, error)
}

// Batch runs jobs.
type Batch interface {
	Orders
	Tasks
	Status(ctx context.Context, by access.Subject, req api.StatusRequest) (api.StatusResult, error)
	Job(ctx context.Context, by access.Subject, id shoal.JobID) (shoal.Job, error)
	Jobs(ctx context.Context, by access.Subject, f store.JobFilter, cursor string, limit int) ([]shoal.Job, string, error)
	Wait(ctx context.Context, by access.Subject, id shoal.JobID) (api.Wait, error)
	Output(ctx context.Context, by access.Subject, q output.Request, w func(output.Piece) error) error
	WhyJob(ctx context.Context, by access.Subject, id shoal.JobID) (api.Why, error)
}

// Tasks tells of the tasks of jobs.
type Tasks interface {
	Tasks(ctx context.Context, by access.Subject, id shoal.JobID, from, limit int) ([]shoal.Attempt, error)
	Attempts(ctx context.Context, by access.Subject, ref shoal.TaskRef) ([]shoal.Attempt, error)
}

// Orders are what users ask to be done with jobs.
type Orders interface {
	Submit(ctx context.Context, by access.Subject, spec shoal.JobSpec, key string) (shoal.Job, error)
	SubmitBatch(ctx context.Context, by access.Subject, req api.BatchRequest, key string) (api.BatchResult, error)
	CancelTasks(ctx context.Context, by access.Subject, id shoal.JobID, which string) (shoal.Job, error)
	CancelBatch(ctx context.Context, by access.Subject, req api.CancelRequest) (api.CancelResult, error)
	Retry(ctx context.Context, by access.Subject, id shoal.JobID, r api.RetryRequest) (shoal.Job, error)
}

// Hub is where agents call.
type Hub interface {
	Join(ctx context.Context, j api.AgentJoin) (api.AgentJoined, error)
	Machine(ctx context.Context, bearer string) (agenthub.Caller, error)
	Stream(ctx context.Context, c agenthub.Caller, send func(...api.Record) error) error
	Report(ctx context.Context, c agenthub.Caller, r api.Report) (api.ReportAnswer, error)
	Relay(ctx context.Context, id shoal.MachineID, user shoal.UserName) (access.Subject, error)
	Answered(id shoal.MachineID) time.Time
}

// Reach takes the connections that agents bring, and knows how machines are reached. See package reach.
type Reach interface {
	Claim(machine shoal.MachineID, secret string, bare bool) (deliver func(net.Conn, error), err error)
	Failed(machine shoal.MachineID, f api.Unreached) error
	Of(machine shoal.MachineID) (way, why string)
}

// People is the built-in directory.
type People interface {
	TokenUser(ctx context.Context, token string) (shoal.User, error)
	IssueToken(ctx context.Context, name shoal.UserName, ttl time.Duration) (token string, expires time.Time, err error)
	CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error
	SetPassword(ctx context.Context, name shoal.UserName, password string) error
	RemovePassword(ctx context.Context, name shoal.UserName) error
	Challenge(ctx context.Context, name shoal.UserName) string
	VerifySignature(ctx context.Context, name shoal.UserName, challenge, signature string) error
}

// Images keeps images for pools.
type Images interface {
	Images(ctx context.Context) ([]api.Image, error)
	Snapshot(ctx context.Context, name string) (api.Image, error)
	RemoveImage(ctx context.Context, name string) error
}

// Config is what an API needs.
type Config struct {
	Store      *store.DB
	Catalog    Catalog
	Engine     Engine
	Rollouts   Rollouts
	Broker     Broker
	Batch      Batch
	Apps       Apps
	Files      Files
	Hub        Hub
	People     People
	Secrets    Secrets
	Budgets    Budgets                                       // nil: there are none
	Images     Images                                        // nil: there is nowhere to keep any
	Web        Web                                           // nil: there are no pages for browsers
	Desktops   Desktops                                      // nil: there are none
	Reach      Reach                                         // nil: machines are reached by nobody, or directly
	Gateways   *gatehub.Hub                                  // nil: there are none but this server's own
	AdminToken string                                        // empty: there is none
	HubToken   string                                        // JupyterHub's; empty: there is none
	HubAPI     http.Handler                                  // what machines may ask JupyterHub, each by its id as the remote address; nil: nothing
	AppAt      func(ctx context.Context, p shoal.App) string // where JupyterHub finds an app; nil: at its address
	Version    string
	SSH        func() string // host:port where the gateway listens; may be nil
	Log        *slog.Logger
}

// API serves the REST API and the agent protocol.
type API struct {
	cfg     Config
	desk    *rest.Desk
	openapi []byte
	guesses *guess.Brake
	ready   readiness
	metrics http.Handler
	files   *files.Reader
}

// readiness remembers the latest answer of /readyz, which anybody may ask for.
type readiness struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// New makes an API.
func New(cfg Config) *API {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SSH == nil {
		cfg.SSH = func() string { return "" }
	}
	a := &API{cfg: cfg, files: files.NewReader(), desk: rest.New(cfg.Log), guesses: guess.New()}
	a.openapi = a.describe()
	a.metrics = figures.New(cfg.Store)
	return a
}

// Control is the face for everybody with a token.
func (a *API) Control() http.Handler { return a.face(a.byToken, false) }

// Local is the face for the server's own socket: who can open it and sends no token is the host.
func (a *API) Local() http.Handler {
	return a.face(func(r *http.Request) (access.Subject, error) {
		if r.Header.Get("Authorization") == "" {
			return access.Subject{Host: true}, nil
		}
		return a.byToken(r)
	}, false)
}

// face is the whole API for those that ask tells of. With always it asks also where anybody may call.
func (a *API) face(ask who, always bool) http.Handler {
	mux := http.NewServeMux()
	for _, e := range a.table() {
		mux.Handle(e.method+" "+prefix+e.path, a.endpoint(e, ask, always || !e.may.open))
	}
	mux.Handle("GET /healthz", a.plain(func(http.ResponseWriter, *http.Request) error { return nil }))
	mux.Handle("GET /readyz", a.plain(func(_ http.ResponseWriter, r *http.Request) error { return a.writable(r.Context()) }))
	mux.Handle("GET /metrics", a.desk.Guard(func(w http.ResponseWriter, r *http.Request) error {
		by, err := ask(r)
		if err == nil {
			err = access.Check(by, access.View, access.Object{Kind: access.ObjectServer})
		}
		if err != nil {
			return err
		}
		a.metrics.ServeHTTP(w, r)
		return nil
	}))
	return rest.Fallback(mux, prefix+"/openapi.json")
}

const prefix = "/api/v1"

// plain answers ok, or a problem.
func (a *API) plain(check func(http.ResponseWriter, *http.Request) error) http.Handler {
	return a.desk.Guard(func(w http.ResponseWriter, r *http.Request) error {
		if err := check(w, r); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, err := w.Write([]byte("ok\n"))
		return rest.Ended(err)
	})
}

// readyEvery is how old an answer of writable may be.
const readyEvery = time.Second

// writable reports whether the store can be written to, by doing it.
func (a *API) writable(ctx context.Context) error {
	a.ready.mu.Lock()
	at, err := a.ready.at, a.ready.err
	a.ready.mu.Unlock()
	if time.Since(at) < readyEvery {
		return err
	}
	if err := a.cfg.Store.Leads(); err != nil {
		return err // a database that does not answer is not waited for
	}
	err = a.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.SetSetting("ready.probe", time.Now().UTC().Format(time.RFC3339Nano))
	})
	if ctx.Err() != nil { // who asked is gone, which says nothing of the store
		return err
	}
	a.ready.mu.Lock()
	a.ready.at, a.ready.err = time.Now(), err
	a.ready.mu.Unlock()
	return err
}
