package remote

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/identity/local"
)

// Config is what a Gateway needs. All fields but TokenFile, Dial, Log and Seal must be set.
type Config struct {
	Servers    []string      // URLs of the control plane's servers
	Dir        string        // where it keeps who it is, and the mirror: only its owner's to read
	TokenFile  string        // with what it enrols, if it has not yet
	Key        ssh.PublicKey // that of its signing key
	Seal       []byte        // 32 bytes, with which the mirror on disk is encrypted
	OfflineFor time.Duration // how old the mirror may be
	Dial       func(ctx context.Context, network, address string) (net.Conn, error)
	Log        *slog.Logger
}

// Gateway is a Directory, and a Router, for a front end.
type Gateway struct {
	*local.Directory
	cfg      Config
	log      *slog.Logger
	control  *control
	identity identity
	at       string // names this process

	mu       sync.Mutex // guards what follows; never held while waiting
	state    state
	barred   error
	mirror   *mirror
	unsaved  bool
	changed  chan struct{} // closed when state changes
	parts    map[string]*part
	counts   int // of logins, for the names of their parts
	sessions map[shoal.SessionID]*session
	news     api.GatewayReport       // to be reported
	wake     chan struct{}           // capacity 1: there is some
	stop     context.CancelCauseFunc // ends the stream; nil: there is none
	retire   func(shoal.UserName)
	gone     func(shoal.MachineID)
}

type state int

const (
	away state = iota
	joining
	up
)

var _ gateway.Directory = (*Gateway)(nil)
var _ gateway.Router = (*Gateway)(nil)

// Open makes a Gateway that is known to the control plane. One that is not yet enrols, and waits until the control plane answers. Run makes it work.
func Open(ctx context.Context, cfg Config) (*Gateway, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	g := &Gateway{cfg: cfg, log: cfg.Log, at: rand.Text(), changed: make(chan struct{}), mirror: newMirror(), wake: make(chan struct{}, 1),
		parts: map[string]*part{}, sessions: map[shoal.SessionID]*session{}, retire: func(shoal.UserName) {}, gone: func(shoal.MachineID) {}}
	g.Directory = local.New(people{g})
	var err error
	if g.identity, g.control, err = enrolled(ctx, cfg); err != nil {
		return nil, err
	}
	g.load()
	return g, nil
}

// HostKey is what ssh clients know the gateway by.
func (g *Gateway) HostKey() ssh.Signer { return g.identity.hostKey }

// HostCA signs machines' host certificates.
func (g *Gateway) HostCA() ssh.PublicKey { return g.identity.hostCA }

// Name is what the gateway enrolled as.
func (g *Gateway) Name() api.GatewayName { return g.identity.Name }

// Back connects to the sshd of a machine through the control plane. Port is 0: a gateway comes to no other.
func (g *Gateway) Back(ctx context.Context, id shoal.MachineID, port int) (net.Conn, error) {
	return g.control.dial(ctx, id, port)
}

// Front is what hears of users that have changed and of machines that are gone.
type Front interface {
	Retire(user shoal.UserName)
	MachineGone(id shoal.MachineID)
}

// Run keeps the stream and reports what there is, until ctx ends.
func (g *Gateway) Run(ctx context.Context, front Front) error {
	g.mu.Lock()
	g.retire, g.gone = front.Retire, front.MachineGone
	g.mu.Unlock()
	defer g.control.close()
	var loops sync.WaitGroup
	loops.Go(func() { g.follow(ctx) })
	loops.Go(func() { g.report(ctx) })
	loops.Go(func() { g.keep(ctx) })
	loops.Wait()
	g.farewell(context.WithoutCancel(ctx))
	return ctx.Err()
}

// Ready waits until the gateway knows whom to let in.
func (g *Gateway) Ready(ctx context.Context) error {
	for {
		g.mu.Lock()
		ready, changed := g.state == up || g.fresh() == nil, g.changed
		g.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// enter moves the state. The caller holds mu.
func (g *Gateway) enter(s state) {
	g.state = s
	close(g.changed)
	g.changed = make(chan struct{})
}

// Machine is what is known of a machine to which somebody goes.
func (g *Gateway) Machine(_ context.Context, id shoal.MachineID) (shoal.Machine, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.parts {
		if p.route.Machine == id {
			return shoal.Machine{ID: id, Address: p.route.Address}, nil
		}
	}
	return shoal.Machine{}, shoal.Errorf(shoal.KindNotFound, "nobody is on machine %s", id)
}
