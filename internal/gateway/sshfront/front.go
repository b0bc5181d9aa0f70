package sshfront

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/sshwire"
)

// Config is what a Front needs. All fields but Log, Limits and Environ must be set.
type Config struct {
	HostKey   ssh.Signer    // what clients know the gateway by
	UserCA    ssh.Signer    // signs the certificates of minutes by which it logs in to machines
	HostCA    ssh.PublicKey // signs the machines' host certificates, whose principal is the machine's id
	Directory gateway.Directory
	Router    gateway.Router
	Dial      gateway.Dial
	Log       *slog.Logger
	Limits    Limits
	// Lingers: who is at a machine when Serve ends stays, for as long as Linger lets them.
	Lingers bool
	// Waits: who is on her way to one then stays likewise, since the Router goes on.
	Waits bool
	// Environ says what a login to a pool finds. It may take a moment, and is asked once for each connection. Nil: nothing.
	Environ func(ctx context.Context, user shoal.UserName, pool shoal.PoolName) gateway.Environ
}

// Limits bound what clients can take. Zero fields get their defaults.
type Limits struct {
	Door        gateway.DoorLimits
	Connections int // of all users together; default 10000
	PerUser     int // connections of one user; default 1000
	Channels    int // open at once on one connection; default 1000
	// UserChannels are open at once on all connections of one user; default 1000. Each may hold 2 MiB here
	// that its other end does not take.
	UserChannels int
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		of    *int
		value int
	}{{&l.Connections, 10000}, {&l.PerUser, 1000}, {&l.Channels, 1000}, {&l.UserChannels, 1000}} {
		if *d.of <= 0 {
			*d.of = d.value
		}
	}
	return l
}

// authTime is how long a client may take to authenticate. The time it is held does not count.
const authTime = 60 * time.Second

// Front is the SSH front end.
type Front struct {
	cfg   Config
	log   *slog.Logger
	door  *gateway.Door
	links *links
	calm  calm

	mu      sync.Mutex
	visits  map[*visit]struct{}
	perUser map[shoal.UserName]int
	opened  map[shoal.UserName]int // channels
	rest    func()                 // what Serve left for Linger to do
}

// New makes a front end. Serve makes it work.
func New(cfg Config) (*Front, error) {
	if cfg.HostKey == nil || cfg.HostCA == nil || cfg.Directory == nil || cfg.Router == nil || cfg.Dial == nil {
		return nil, errors.New("cannot make an SSH gateway without a host key, a host authority, a directory, a router and a dialer")
	}
	identity, err := sshwire.NewIdentity(cfg.UserCA)
	if err != nil {
		return nil, fmt.Errorf("cannot make an SSH gateway: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	return &Front{
		cfg:     cfg,
		log:     cfg.Log,
		door:    gateway.NewDoor(cfg.Limits.Door),
		links:   &links{cfg: cfg, identity: identity, shared: map[share]*link{}, all: map[*link]struct{}{}},
		visits:  map[*visit]struct{}{},
		perUser: map[shoal.UserName]int{},
		opened:  map[shoal.UserName]int{},
	}, nil
}

// Serve takes connections from ln, which it closes, until ctx ends. Then it tells the users that it does,
// ends their connections, and returns when the last one is gone. A Front that lingers ends only the connections that have
// come to no machine yet; one that waits, too, ends none.
func (f *Front) Serve(ctx context.Context, ln net.Listener) error {
	visiting, end := context.WithCancel(context.WithoutCancel(ctx))
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	closed := make(chan struct{})
	context.AfterFunc(accepting, func() { defer close(closed); ln.Close() })
	var visits sync.WaitGroup
	var err error
	for {
		var conn net.Conn
		if conn, err = gateway.Accept(accepting, ln); err != nil {
			break
		}
		visits.Go(func() { f.receive(visiting, conn) })
	}
	stop()
	<-closed
	finish := func() {
		end()
		visits.Wait()
		f.links.closeAll()
	}
	if ctx.Err() == nil {
		finish()
		return fmt.Errorf("cannot take SSH connections: %w", err)
	}
	f.farewell(f.cfg.Lingers)
	if f.cfg.Lingers {
		f.mu.Lock()
		f.rest = finish
		f.mu.Unlock()
		return nil
	}
	finish()
	return nil
}

// Linger waits, once Serve has returned, until those who stayed have gone or ctx ends, and ends what is left.
func (f *Front) Linger(ctx context.Context) {
	f.mu.Lock()
	finish := f.rest
	f.rest = nil
	f.mu.Unlock()
	if finish == nil {
		return
	}
	if n := len(f.present()); n > 0 {
		f.log.Info("ssh connections go on here; nobody new is taken", "connections", n)
	}
	for look := time.NewTicker(100 * time.Millisecond); len(f.present()) > 0 && ctx.Err() == nil; {
		select {
		case <-look.C:
		case <-ctx.Done():
		}
	}
	f.farewell(false)
	finish()
}

// farewell tells everybody why their connections end, and ends them; if some stay, only of those who are at no machine yet.
func (f *Front) farewell(stay bool) {
	var all sync.WaitGroup
	for _, v := range f.present() {
		if stay && (f.cfg.Waits || v.arrived()) {
			continue
		}
		all.Go(func() {
			v.leave("shoal: the gateway is shutting down; what runs on your machine goes on. Connect again in a while")
		})
	}
	all.Wait()
}

func (f *Front) present() []*visit {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.visits))
}

// Retire keeps connections to machines that stand for a user from being used by later logins:
// her keys or groups have changed. What runs goes on.
func (f *Front) Retire(user shoal.UserName) { f.links.retire(user) }

// MachineGone ends at once what goes to a machine, and lets those who wait for it be placed elsewhere:
// the provider says that it exists no more.
func (f *Front) MachineGone(id shoal.MachineID) { f.links.gone(id) }

// receive serves one connection from beginning to end.
func (f *Front) receive(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	f.mu.Lock()
	if len(f.visits) >= f.cfg.Limits.Connections {
		f.mu.Unlock()
		return
	}
	base := ctx
	ctx, cancel := context.WithCancel(ctx)
	v := &visit{front: f, base: base, ctx: ctx, cancel: cancel, source: conn.RemoteAddr(), pipes: map[*sshwire.Pipe]*link{}}
	f.visits[v] = struct{}{}
	f.mu.Unlock()
	defer func() {
		cancel()
		f.mu.Lock()
		delete(f.visits, v)
		f.mu.Unlock()
	}()
	defer f.rescue(conn)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	v.serve(conn)
}

// rescue keeps a mistake in the handling of one connection from ending all others.
func (f *Front) rescue(conn interface{ Close() error }) {
	if r := recover(); r != nil {
		f.log.Error("a connection failed through a mistake of ours", "panic", r, "stack", string(debug.Stack()))
		conn.Close()
	}
}

// count adds a connection of a user, unless she has too many.
func (f *Front) count(user shoal.UserName) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.perUser[user] >= f.cfg.Limits.PerUser {
		return false
	}
	f.perUser[user]++
	return true
}

func (f *Front) uncount(user shoal.UserName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.perUser[user]--; f.perUser[user] <= 0 {
		delete(f.perUser, user)
	}
}

// countChannel adds a channel of a user, unless she has too many.
func (f *Front) countChannel(user shoal.UserName) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[user] >= f.cfg.Limits.UserChannels {
		return false
	}
	f.opened[user]++
	return true
}

func (f *Front) uncountChannel(user shoal.UserName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[user]--; f.opened[user] <= 0 {
		delete(f.opened, user)
	}
}
