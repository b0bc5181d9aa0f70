package agenthub

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// Engine is what the hub tells of machines. Joined and Boot are stored when they return; the others
// cost nothing and must not call the hub.
type Engine interface {
	Joined(ctx context.Context, id shoal.MachineID, epoch int, hostKey string) error
	Boot(ctx context.Context, id shoal.MachineID, epoch int, r api.BootReport) error
	Seen(id shoal.MachineID, load *shoal.Load)
	// Endpoints takes which endpoints answer, and returns in sentences which do not any more.
	Endpoints(ctx context.Context, id shoal.MachineID, epoch int, reports []api.EndpointReport) (ill []string, err error)
	Connected(id shoal.MachineID, up bool)
	// Looked tells that an agent has looked again, as it was asked to, and that what it saw is stored.
	Looked(id shoal.MachineID, which string)
}

// Sessions takes who has what on a machine; the broker does.
type Sessions interface {
	Activity(ctx context.Context, id shoal.MachineID, a api.Activity) error
}

// Batch knows the tasks of machines.
type Batch interface {
	Orders(ctx context.Context, machine shoal.MachineID) ([]api.TaskOrder, error)
	Report(ctx context.Context, machine shoal.MachineID, reports []api.TaskReport, output []api.Output) ([]api.Resend, error)
}

// Apps knows the web apps of machines.
type Apps interface {
	Orders(ctx context.Context, machine shoal.MachineID) ([]api.AppOrder, error)
	Report(ctx context.Context, machine shoal.MachineID, reports []api.AppReport) error
}

// Config is what a Hub needs.
type Config struct {
	Store  *store.DB
	Key    []byte          // 32 bytes: tokens are HMACs of it
	HostCA ssh.Signer      // signs the machines' host certificates
	CAKeys func() []string // the gateways' signing keys, authorized_keys form
	// UserSlices reports whether agents on a provider's machines make control groups for users; nil: all do.
	UserSlices func(provider string) bool
	// Desktop returns the certificate and the key of a pool's desktops, PEM; nil: there are none.
	Desktop func(pool shoal.PoolName) (cert, key string, err error)
	// Lease is for how long agents let tasks run without an answer; zero: five minutes.
	Lease time.Duration
	// Beat is how often something is sent by each stream at least, so that agents notice soon when this server is
	// frozen; zero: now and then, and it is not promised.
	Beat     time.Duration
	Engine   Engine
	Sessions Sessions
	Batch    Batch
	Apps     Apps // nil: there are none
	// Doors are the addresses from which the gateway comes to a provider's machines; nil: none are known.
	Doors func(provider string) []string
	Log   *slog.Logger
}

// Hub is where agents call. Its methods may be called from any goroutine.
type Hub struct {
	cfg  Config
	poke chan struct{} // wakes Run: somebody waits for accounts
	turn chan struct{} // held by who computes accounts; capacity 1

	// presence orders what the engine is told of streams. It is taken before mu.
	presence sync.Mutex

	mu       sync.Mutex // guards what follows; never held while waiting or in the store
	links    map[shoal.MachineID]*link
	effects  map[shoal.MachineID]effect
	known    map[Caller]bool // whose tokens were good while the store's machines were those of knownRev
	knownRev shoal.Rev
	answered map[shoal.MachineID]time.Time // the newest report of each that was answered
	pools    map[shoal.PoolName]*people
	mark     store.PeopleMark
	caKeys   []string
	upTo     shoal.Rev     // pools are what the store says at this revision
	news     chan struct{} // closed when effects, pools or upTo change
}

// effect is what a machine's agent has put into effect.
type effect struct {
	epoch int
	pool  shoal.PoolName
	rev   shoal.Rev
}

// New makes a Hub. Run makes it follow changes.
func New(cfg Config) *Hub {
	if cfg.CAKeys == nil {
		cfg.CAKeys = func() []string { return nil }
	}
	if cfg.UserSlices == nil {
		cfg.UserSlices = func(string) bool { return true }
	}
	if cfg.Doors == nil {
		cfg.Doors = func(string) []string { return nil }
	}
	if cfg.Lease == 0 {
		cfg.Lease = defaultLease
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Hub{
		cfg:      cfg,
		poke:     make(chan struct{}, 1),
		turn:     make(chan struct{}, 1),
		links:    map[shoal.MachineID]*link{},
		effects:  map[shoal.MachineID]effect{},
		known:    map[Caller]bool{},
		answered: map[shoal.MachineID]time.Time{},
		pools:    map[shoal.PoolName]*people{},
		news:     make(chan struct{}),
	}
}

// announce wakes who waits for effects or accounts. The caller holds mu.
func (h *Hub) announce() {
	close(h.news)
	h.news = make(chan struct{})
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
