package rdpfront

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/gateway/rdpfront/desk"
)

// Config is what a Front needs. All fields but Prove, Log and Limits must be set.
type Config struct {
	Desk   *desk.Desk
	Router gateway.Router
	Dial   gateway.Dial
	// Prove returns an error unless who listens at the other end of a connection, which it uses up, is the pool's own.
	Prove  func(ctx context.Context, c net.Conn, pool shoal.PoolName) error
	Log    *slog.Logger
	Limits Limits
}

// Limits bound what clients can take. Zero fields get their defaults.
type Limits struct {
	Door        gateway.DoorLimits
	Connections int // of all users together; default 2000
	PerUser     int // connections of one user; default 20
	// Hold is for how long a connection waits for its machine: clients give up after a minute or so. Default 55 s.
	Hold time.Duration
	// Login is how long a user may take for her password. Default 3 minutes.
	Login time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.Connections <= 0 {
		l.Connections = 2000
	}
	if l.PerUser <= 0 {
		l.PerUser = 20
	}
	if l.Hold <= 0 {
		l.Hold = 55 * time.Second
	}
	if l.Login <= 0 {
		l.Login = 3 * time.Minute
	}
	return l
}

// Front is the front end for remote desktops. Its methods may be called from any goroutine.
type Front struct {
	cfg  Config
	door *gateway.Door
	log  quiet

	all   *gateway.Counts // connections that the door has let in
	users *gateway.Counts // those that have said whose they are
}

// New makes a front end. Serve makes it work.
func New(cfg Config) *Front {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Limits = cfg.Limits.withDefaults()
	return &Front{cfg: cfg, door: gateway.NewDoor(cfg.Limits.Door), log: quiet{log: cfg.Log}, all: gateway.NewCounts(cfg.Limits.Connections, cfg.Limits.Connections), users: gateway.NewCounts(cfg.Limits.Connections, cfg.Limits.PerUser)}
}

// Serve leads the connections of one listener to a pool's endpoint, until the listener is closed; then it waits for
// them. They end with ctx.
func (f *Front) Serve(ctx context.Context, ln net.Listener, pool shoal.PoolName, e shoal.Endpoint) error {
	return gateway.AcceptEach(ctx, ln, func(c net.Conn) { f.receive(ctx, c, pool, e) })
}

// receive serves one connection from beginning to end.
func (f *Front) receive(ctx context.Context, conn net.Conn, pool shoal.PoolName, e shoal.Endpoint) {
	defer conn.Close()
	defer func() {
		if r := recover(); r != nil { // of one connection, not of all
			f.cfg.Log.Error("a connection failed through a mistake of ours", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	gateway.Keepalive(conn)
	id := make([]byte, 6)
	rand.Read(id) // never fails since Go 1.24
	v := &visit{front: f, conn: conn, source: conn.RemoteAddr().String(), pool: pool, endpoint: e, part: "rdp-" + hex.EncodeToString(id)}
	v.serve(ctx, cancel)
}

// portOf is the endpoint's port of the machine at an address, which is that of its sshd.
func portOf(address string, port int) (string, error) {
	host, _, err := net.SplitHostPort(address)
	return net.JoinHostPort(host, strconv.Itoa(port)), err
}

// quiet logs what strangers can cause at will, a few lines a minute at most.
type quiet struct {
	log *slog.Logger

	mu      sync.Mutex
	since   time.Time
	lines   int
	dropped int
}

const (
	quietSpan  = time.Minute
	quietLines = 20
)

// refused logs a refusal, unless there were many lately: then it is false.
func (q *quiet) refused(reason string, args ...any) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now(); now.Sub(q.since) >= quietSpan {
		if q.dropped > 0 {
			q.log.Info("more connections to desktops were refused", "connections", q.dropped)
		}
		q.since, q.lines, q.dropped = now, 0, 0
	}
	if q.lines++; q.lines > quietLines {
		q.dropped++
		return false
	}
	q.log.Info("a connection to a desktop was refused", append([]any{"reason", reason}, args...)...)
	return true
}
