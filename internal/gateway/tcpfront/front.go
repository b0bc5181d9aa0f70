// Package tcpfront is the gateway for plain TCP endpoints. Such a connection says nothing about who comes, so it is led by
// where it comes from: it is for the user who has signed in from that address last, within the last hours, and goes to the
// machine of her session; for her a machine is started, too. Whoever shares an address shares that: what listens there
// has to ask for its own proof.
package tcpfront

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/route"
)

// Config is what a Front needs. All fields but Log and Limits must be set.
type Config struct {
	// Recent are the users who have lately signed in from an address, the latest first.
	Recent func(address string) []shoal.UserName
	Router gateway.Router
	Dial   gateway.Dial
	Log    *slog.Logger
	Limits Limits
}

// Limits bound what clients can take. Zero fields get their defaults.
type Limits struct {
	Door        gateway.DoorLimits
	Connections int           // of all users together; default 5000
	PerUser     int           // connections of one user; default 200
	Hold        time.Duration // for how long a connection waits for its machine; default 2 minutes
}

const dialTime = 10 * time.Second

// Front is the front end. Its methods may be called from any goroutine.
type Front struct {
	cfg   Config
	door  *gateway.Door
	users *gateway.Counts // connections
}

// New makes a front end. Serve makes it work.
func New(cfg Config) *Front {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &cfg.Limits
	if l.Connections <= 0 {
		l.Connections = 5000
	}
	if l.PerUser <= 0 {
		l.PerUser = 200
	}
	if l.Hold <= 0 {
		l.Hold = 2 * time.Minute
	}
	return &Front{cfg: cfg, door: gateway.NewDoor(l.Door), users: gateway.NewCounts(l.Connections, l.PerUser)}
}

// Serve leads the connections of one listener to a pool's endpoint, until the listener is closed; then it waits for
// them. They end with ctx.
func (f *Front) Serve(ctx context.Context, ln net.Listener, pool shoal.PoolName, e shoal.Endpoint) error {
	return gateway.AcceptEach(ctx, ln, func(c net.Conn) { f.receive(ctx, c, pool, e) })
}

// receive serves one connection from beginning to end.
func (f *Front) receive(ctx context.Context, conn net.Conn, pool shoal.PoolName, e shoal.Endpoint) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	gateway.Keepalive(conn)
	guest := f.door.Enter(ctx, gateway.Source(conn.RemoteAddr()), cancel)
	if guest == nil {
		f.door.TurnAway(ctx)
		return
	}
	defer guest.Leave()
	source := conn.RemoteAddr().String()
	users := f.cfg.Recent(source)
	if len(users) == 0 {
		f.cfg.Log.Debug("a connection was refused: nobody has signed in from its address lately", "source", source, "pool", pool, "endpoint", e.Name)
		f.door.TurnAway(ctx)
		return
	}
	user := users[0]
	guest.Leave()
	if !f.users.Enter(string(user)) {
		f.cfg.Log.Info("a connection was refused: there are too many", "user", user, "pool", pool, "endpoint", e.Name)
		return
	}
	defer f.users.Leave(string(user))
	id := make([]byte, 6)
	rand.Read(id) // never fails since Go 1.24
	part := "tcp-" + hex.EncodeToString(id)
	in := bufio.NewReaderSize(conn, 4<<10)
	target, back, err := f.reach(ctx, in, conn, route.Request{User: user, Pool: pool, Kind: e.Name, Source: source, Arrived: time.Now()}, part, e.Port)
	if err != nil {
		if ctx.Err() == nil {
			f.cfg.Log.Info("a connection was refused", "user", user, "pool", pool, "endpoint", e.Name, "source", source, "reason", err)
		}
		return
	}
	defer f.cfg.Router.Closed(target.Session, part)
	over := make(chan struct{})
	go func() {
		defer close(over)
		gateway.Pipe(conn, in, back, 0)
	}()
	select {
	case <-over:
	case <-ctx.Done():
	case <-target.Done:
	}
	conn.Close()
	back.Close()
	<-over
}

// reach finds a machine and connects to it, while the client is there. With a nil error the part is to be closed.
func (f *Front) reach(ctx context.Context, in *bufio.Reader, conn net.Conn, req route.Request, part string, port int) (target route.Target, back net.Conn, err error) {
	holding, cancel := context.WithTimeout(ctx, f.cfg.Limits.Hold)
	defer cancel()
	// A client that goes away before a byte is no demand any more. One that speaks first is held with what it said.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if _, err := in.Peek(1); errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			cancel()
		}
	}()
	defer func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		<-gone
		_ = conn.SetReadDeadline(time.Time{})
	}()
	target, err = f.cfg.Router.Login(holding, req, part, nil)
	if err != nil {
		return target, nil, err
	}
	host, _, err := net.SplitHostPort(target.Address)
	if err == nil {
		dialing, stop := context.WithTimeout(holding, dialTime)
		defer stop()
		back, err = f.cfg.Dial(dialing, target.Machine, net.JoinHostPort(host, strconv.Itoa(port)))
	}
	if err != nil {
		f.cfg.Router.Closed(target.Session, part)
		if !gateway.Refused(err) && ctx.Err() == nil && holding.Err() == nil {
			f.cfg.Router.Suspect(target.Machine)
		}
		return target, nil, fmt.Errorf("cannot reach port %d of machine %s: %w", port, target.Machine, err)
	}
	gateway.Keepalive(back)
	return target, back, nil
}
