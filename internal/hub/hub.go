package hub

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
)

// Config is what a hub is made with. All but Machines and Program is needed.
type Config struct {
	Store *store.DB
	Dir   string // its own, made if absent
	// API is where it asks Shoal, as in http://127.0.0.1:7420, by Token.
	API   func() string
	Token string
	// Routes is the API of the proxy, by which the hub says where requests go, by RoutesToken.
	Routes      http.Handler
	RoutesToken string
	// Public is the address that people type, as in https://pool.example.org:7443.
	Public func() string
	// AppsDomain: each user's server has a host name of its own below it; empty: all have the hub's.
	AppsDomain string
	// External is where a hub of somebody else is asked, as in http://127.0.0.1:8081: machines get to its API, and
	// none is run here. Of the above only Store and Dir are needed then.
	External string
	// Machines opens a port of the host to machines, and says at which address they find it; nil: they find
	// the hub at Public.
	Machines func(ctx context.Context, port int) (net.Listener, error)
	Program  string // the hub's; empty: jupyterhub, of the host
	Log      *slog.Logger

	patience patience // tests have less
}

// patience is how long things are waited for.
type patience struct {
	start  time.Duration // until it must answer
	probe  time.Duration // between two questions whether it is well
	answer time.Duration // that one may take
	fails  int           // in a row: it hangs
	steady time.Duration // up for so long, it starts again at once
	most   time.Duration // the longest pause
	stop   time.Duration // until it is killed
	look   time.Duration // for a program that is not installed
}

func usual() patience {
	return patience{start: 5 * time.Minute, probe: 15 * time.Second, answer: 10 * time.Second, fails: 4,
		steady: 5 * time.Minute, most: time.Minute, stop: 10 * time.Second, look: 30 * time.Second}
}

// Hub runs a JupyterHub while a pool wants it.
type Hub struct {
	cfg Config

	mu     sync.Mutex
	state  state
	reason string // of missing and down
	since  time.Time
}

type state string

const (
	off      state = "off"
	missing  state = "missing"
	starting state = "starting"
	up       state = "up"
	ill      state = "ill"
	down     state = "down"
)

// New makes a hub. Run makes it work.
func New(cfg Config) *Hub {
	cfg.Program = cmp.Or(cfg.Program, "jupyterhub")
	if cfg.patience == (patience{}) {
		cfg.patience = usual()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Hub{cfg: cfg, state: off, since: time.Now()}
}

// Wanted reports whether some pool has it, so that what belongs to it is about to come if it is not there.
func (h *Hub) Wanted(ctx context.Context) bool {
	if h.cfg.External != "" {
		return false
	}
	pools, err := h.pools(ctx)
	return err == nil && len(pools) > 0
}

// Why says how JupyterHub is, for `shoal why pool` of a pool that has it; nothing where all is well.
func (h *Hub) Why(ctx context.Context, name shoal.PoolName) []shoal.Reason {
	wanted, err := h.pools(ctx)
	if err != nil || h.cfg.External != "" || !slices.Contains(wanted, name) {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	since := forSince(time.Since(h.since))
	text := map[state]string{
		off:      "JupyterHub is about to be started",
		missing:  "JupyterHub does not run: " + h.reason,
		starting: fmt.Sprintf("JupyterHub is starting%s", since),
		ill:      fmt.Sprintf("JupyterHub does not answer%s", since),
		down:     fmt.Sprintf("JupyterHub is down%s and will be started again: %s", since, h.reason),
	}[h.state]
	if h.state == starting && h.reason != "" {
		text += ", after this: " + h.reason
	}
	if text == "" {
		return nil
	}
	return []shoal.Reason{{Code: "hub", Sentence: text}}
}

// Ill says that JupyterHub does not answer, if so: nobody needs to wait for it.
func (h *Hub) Ill() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != ill {
		return ""
	}
	return fmt.Sprintf("JupyterHub does not answer%s.", forSince(time.Since(h.since)))
}

// forSince says for how long something is so, if for long enough that it can be said.
func forSince(d time.Duration) string {
	if d = d.Round(time.Second); d <= 0 {
		return ""
	}
	return " for " + shoal.Duration(d).String()
}

// wants: the pool has an endpoint whose apps are JupyterHub's servers.
func wants(p shoal.Pool) bool {
	e, ok := p.Endpoint(shoal.EndpointJupyter)
	return ok && e.Protocol == shoal.ProtocolHTTP && e.Command == "" && !p.Deleting
}

// pools are those that want it, by name.
func (h *Hub) pools(ctx context.Context) (names []shoal.PoolName, err error) {
	err = h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.Pools().List()
		for _, p := range all {
			if wants(p) {
				names = append(names, p.Name)
			}
		}
		return err
	})
	return names, err
}

// Run keeps the hub running while a pool wants it, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	if h.cfg.External != "" {
		return h.leadTo(ctx, h.cfg.External)
	}
	for h.until(ctx, true) {
		wanted, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.keep(wanted)
		}()
		h.until(ctx, false)
		cancel()
		<-done
		h.set(off, "")
	}
	return nil
}

// leadTo lets machines get to the API of somebody else's hub.
func (h *Hub) leadTo(ctx context.Context, to string) error {
	at, err := url.Parse(to)
	if err != nil {
		return err
	}
	if err := h.makeDir(); err != nil {
		return err
	}
	door, err := h.listenForMachines(ctx)
	if err != nil || door == nil {
		return err
	}
	defer serveHTTP(door, onlyAPI(forwardTo(at.Scheme, at.Host, http.DefaultTransport, h.cfg.Log)), h.cfg.Log)()
	h.cfg.Log.Info("machines reach JupyterHub's API", "c.Spawner.hub_connect_url", "http://"+door.Addr().String())
	<-ctx.Done()
	return nil
}

// until waits until a pool wants the hub, or none does; false: ctx has ended.
func (h *Hub) until(ctx context.Context, wanted bool) bool {
	tries := retry.New(h.cfg.Log, "jupyterhub")
	for {
		changed, looked := h.cfg.Store.Changed(), time.Now()
		pools, err := h.pools(ctx)
		known := tries.Done(ctx, "read the pools", err)
		if known && len(pools) > 0 == wanted {
			return true
		}
		if known {
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
		if retry.Sleep(ctx, time.Second-time.Since(looked)) != nil { // much else changes
			return false
		}
	}
}

// keep starts it again whenever it ends.
func (h *Hub) keep(ctx context.Context) {
	pause := time.Second
	for ctx.Err() == nil {
		if _, err := exec.LookPath(h.cfg.Program); err != nil {
			h.lacks(ctx)
			continue
		}
		began := time.Now()
		err := h.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > h.cfg.patience.steady {
			pause = time.Second
		}
		h.cfg.Log.Warn("JupyterHub has ended", "err", err, "again", pause)
		h.fails(ctx, err.Error())
		_ = retry.Sleep(ctx, pause)
		pause = min(2*pause, h.cfg.patience.most)
	}
}

// lacks waits for the program to be installed.
func (h *Hub) lacks(ctx context.Context) {
	text := "it is not installed on this host; `apt-get install --no-install-recommends jupyterhub` installs it"
	if h.set(missing, text) {
		h.cfg.Log.Warn("a pool wants JupyterHub", "err", text)
		h.tell(ctx, "hubMissing", "JupyterHub does not run: "+text)
	}
	_ = retry.Sleep(ctx, h.cfg.patience.look)
}

func (h *Hub) fails(ctx context.Context, reason string) {
	h.mu.Lock()
	same := h.reason == reason
	h.mu.Unlock()
	if h.set(down, reason); !same {
		h.tell(ctx, "hubDown", "JupyterHub is down and will be started again; notebook servers go on: "+reason)
	}
}

// set moves the state; it reports whether that is news. A reason is kept until the hub is up again.
func (h *Hub) set(to state, reason string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if to == up || to == off || reason != "" {
		h.reason = reason
	}
	if h.state == to {
		return false
	}
	h.state, h.since = to, time.Now()
	return true
}

// rises notes that it answers.
func (h *Hub) rises(ctx context.Context) {
	h.mu.Lock()
	failed := h.reason != ""
	h.mu.Unlock()
	if h.set(up, "") && failed {
		h.tell(ctx, "hubUp", "JupyterHub runs")
	}
}

// tell records an event of each pool that has the hub.
func (h *Hub) tell(ctx context.Context, code, sentence string) {
	pools, err := h.pools(ctx)
	if err == nil {
		err = h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			for _, p := range slices.Sorted(slices.Values(pools)) {
				tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: string(p), Pool: p, Code: code, Sentence: sentence})
			}
			return nil
		})
	}
	if err != nil && ctx.Err() == nil {
		h.cfg.Log.Warn("an event of JupyterHub cannot be recorded", "err", err)
	}
}
