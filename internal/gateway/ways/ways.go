// Package ways leads from ports of this host's loopback to web apps on machines that this host cannot dial. JupyterHub wants to come to the
// servers of its users by itself; where Shoal's own connections to a machine are made by its agent, the hub comes by these.
//
// A way admits accounts of this host only, by the kernel's word; who else could come to the app from here could as well where the machine
// is dialled.
package ways

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/host/owner"
)

const (
	// mostOfOne bounds the connections of one way.
	mostOfOne = 256
	dialTime  = 15 * time.Second
)

// Config is what Ways need. All fields but Log must be set.
type Config struct {
	// On returns the machine of the app that is reached at an address; false: there is none any more.
	On   func(address string) (shoal.MachineID, bool)
	Dial gateway.Dial
	// Admits reports whether an account of this host may come.
	Admits func(uid int) bool
	Log    *slog.Logger
}

// Ways are those that are open. Their methods may be called from any goroutine.
type Ways struct {
	cfg  Config
	ctx  context.Context // of the server
	work sync.WaitGroup

	mu   sync.Mutex
	to   map[string]net.Listener // by the address of the app
	from map[string]string       // the address of the app by that of the way
}

// New makes Ways, which end with ctx.
func New(ctx context.Context, cfg Config) *Ways {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Ways{cfg: cfg, ctx: ctx, to: map[string]net.Listener{}, from: map[string]string{}}
}

// To returns the address of this host that leads to an app, which is reached at an address of its machine.
func (w *Ways) To(address string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ln := w.to[address]; ln != nil {
		return ln.Addr().String(), nil
	}
	w.sweep()
	if w.ctx.Err() != nil {
		return "", w.ctx.Err()
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("cannot open a way to an app at %s: %w", address, err)
	}
	w.to[address], w.from[ln.Addr().String()] = ln, address
	stop := context.AfterFunc(w.ctx, func() { ln.Close() })
	places := make(chan struct{}, mostOfOne)
	w.work.Go(func() {
		defer stop()
		_ = gateway.AcceptEach(w.ctx, ln, func(c net.Conn) { w.lead(c, address, places) })
	})
	return ln.Addr().String(), nil
}

// From returns the address of the app to which an address of this host leads, or that address itself.
func (w *Ways) From(address string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to, ok := w.from[address]; ok {
		return to
	}
	return address
}

// sweep closes the ways to apps that are over; w.mu is held.
func (w *Ways) sweep() {
	for address, ln := range w.to {
		if _, ok := w.cfg.On(address); !ok {
			ln.Close()
			delete(w.to, address)
			delete(w.from, ln.Addr().String())
		}
	}
}

// Wait returns once everything has ended after ctx.
func (w *Ways) Wait() { w.work.Wait() }

// lead serves one connection.
func (w *Ways) lead(c net.Conn, address string, places chan struct{}) {
	defer c.Close()
	defer context.AfterFunc(w.ctx, func() { c.Close() })()
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		return
	}
	uid, err := whose(c)
	if err != nil || !w.cfg.Admits(uid) {
		w.cfg.Log.Info("a connection to an app was refused: its account may not come", "app", address, "uid", uid, "err", err)
		return
	}
	machine, ok := w.cfg.On(address)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(w.ctx, dialTime)
	defer cancel()
	back, err := w.cfg.Dial(ctx, machine, address)
	if err != nil {
		w.cfg.Log.Info("cannot come to an app", "app", address, "machine", machine, "err", err)
		return
	}
	defer context.AfterFunc(w.ctx, func() { back.Close() })()
	gateway.Pipe(c, c, back, 0)
}

// whose is the account at the other end of a connection within this host.
func whose(c net.Conn) (int, error) {
	theirs, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return -1, err
	}
	ours, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return -1, err
	}
	s, err := owner.Connection(theirs, ours)
	if err != nil {
		return -1, err
	}
	return s.UID, nil
}
