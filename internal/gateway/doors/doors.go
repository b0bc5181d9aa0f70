// Package doors opens and closes the gateway's listeners for the rdp and tcp endpoints of pools, as pools come, change and
// go. A port that cannot be had is tried again; why, the pool can be asked.
package doors

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
)

// Front leads the connections of a listener to an endpoint until the listener is closed, and its connections have ended.
type Front func(ctx context.Context, ln net.Listener, pool shoal.PoolName, e shoal.Endpoint) error

// Config is what Doors need. All fields but Log must be set.
type Config struct {
	Store  *store.DB
	Host   string // on which address to listen
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	Fronts map[string]Front // by protocol
	Log    *slog.Logger
}

// Doors are the listeners. Run makes them work; the other methods may be called from any goroutine.
type Doors struct {
	cfg  Config
	poke chan struct{} // capacity 1: a front has failed

	mu   sync.Mutex
	open map[key]*door
	shut map[key]string // why it is not open
}

// key is all that a listener depends on.
type key struct {
	pool           shoal.PoolName
	name, protocol string
	listen, port   int
	affinity       string
}

type door struct {
	listener net.Listener
	failed   chan error // of its front; capacity 1
}

const (
	tryAgain = 5 * time.Second
	breath   = 100 * time.Millisecond // changes come in crowds
)

// New makes Doors. None is open yet.
func New(cfg Config) *Doors {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Doors{cfg: cfg, poke: make(chan struct{}, 1), open: map[key]*door{}, shut: map[key]string{}}
}

// Run keeps the doors as the pools want them until ctx ends, and waits for what goes through them.
func (d *Doors) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer d.closeAll()
	tries := retry.New(d.cfg.Log, "endpoints")
	for {
		changed := d.cfg.Store.Changed()
		var want []key
		ok := tries.Do(ctx, "read the pools", func(ctx context.Context) error {
			return d.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
				want, err = wanted(tx, d.cfg.Fronts)
				return err
			})
		})
		if ok {
			d.settle(ctx, want, &serving)
		}
		if err := retry.Sleep(ctx, breath); err != nil {
			return err
		}
		again := time.NewTimer(tryAgain)
		if ok && d.allOpen() {
			again.Stop()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-d.poke:
		case <-again.C:
		}
		again.Stop()
	}
}

// wanted lists what should be open, in order of pools' and endpoints' names.
func wanted(tx *store.Tx, fronts map[string]Front) ([]key, error) {
	pools, err := tx.Pools().List()
	if err != nil {
		return nil, err
	}
	var want []key
	for _, p := range pools {
		for _, e := range p.Endpoints {
			if fronts[e.Protocol] == nil || p.Deleting {
				continue
			}
			listen := e.Listen
			if listen == 0 {
				listen = e.Port
			}
			want = append(want, key{pool: p.Name, name: e.Name, protocol: e.Protocol, listen: listen, port: e.Port, affinity: e.Affinity})
		}
	}
	slices.SortFunc(want, func(a, b key) int {
		if c := strings.Compare(string(a.pool), string(b.pool)); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return want, nil
}

// settle closes what is not wanted and opens what is.
func (d *Doors) settle(ctx context.Context, want []key, serving *sync.WaitGroup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := map[int]key{}
	for k, o := range d.open {
		select {
		case err := <-o.failed:
			d.cfg.Log.Warn("an endpoint has failed; it is opened again", "pool", k.pool, "endpoint", k.name, "error", err)
			delete(d.open, k)
			continue
		default:
		}
		if !slices.Contains(want, k) {
			o.listener.Close()
			delete(d.open, k)
			d.cfg.Log.Info("an endpoint is closed", "pool", k.pool, "endpoint", k.name, "port", k.listen)
			continue
		}
		taken[k.listen] = k
	}
	before := d.shut
	d.shut = map[key]string{}
	for _, k := range want {
		if d.open[k] != nil {
			continue
		}
		if other, is := taken[k.listen]; is {
			d.fail(k, before, fmt.Sprintf("endpoint %s of pool %s listens there", other.name, other.pool))
			continue
		}
		address := net.JoinHostPort(d.cfg.Host, strconv.Itoa(k.listen))
		ln, err := d.cfg.Listen(ctx, "tcp", address)
		if err != nil {
			d.fail(k, before, err.Error())
			continue
		}
		o := &door{listener: ln, failed: make(chan error, 1)}
		d.open[k], taken[k.listen] = o, k
		d.cfg.Log.Info("an endpoint is open", "pool", k.pool, "endpoint", k.name, "address", ln.Addr())
		front := d.cfg.Fronts[k.protocol]
		serving.Go(func() {
			defer context.AfterFunc(ctx, func() { ln.Close() })()
			defer ln.Close()
			e := shoal.Endpoint{Name: k.name, Protocol: k.protocol, Port: k.port, Listen: k.listen, Affinity: k.affinity}
			if err := front(ctx, ln, k.pool, e); err != nil && ctx.Err() == nil {
				o.failed <- err
				select {
				case d.poke <- struct{}{}:
				default:
				}
			}
		})
	}
}

// fail notes why a door is not open. The caller holds mu.
func (d *Doors) fail(k key, before map[key]string, why string) {
	d.shut[k] = why
	if before[k] != why {
		d.cfg.Log.Warn("an endpoint cannot be opened; trying again", "pool", k.pool, "endpoint", k.name, "port", k.listen, "reason", why)
	}
}

func (d *Doors) allOpen() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.shut) == 0
}

func (d *Doors) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, o := range d.open {
		o.listener.Close()
		delete(d.open, k)
	}
}

// Address is where an endpoint is reached, or empty with why it is not. Both are empty before it was tried.
func (d *Doors) Address(pool shoal.PoolName, endpoint string) (address, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, o := range d.open {
		if k.pool == pool && k.name == endpoint {
			return o.listener.Addr().String(), ""
		}
	}
	for k, why := range d.shut {
		if k.pool == pool && k.name == endpoint {
			return "", k.shut(why)
		}
	}
	return "", ""
}

// shut says that a port cannot be had.
func (k key) shut(why string) string {
	return fmt.Sprintf("port %d of the gateway cannot be had: %s", k.listen, why)
}

// Why says of a pool's endpoints where they are reached, or why they are not.
func (d *Doors) Why(pool shoal.PoolName) []shoal.Reason {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []shoal.Reason
	for k, o := range d.open {
		if k.pool == pool {
			all = append(all, shoal.Reason{Code: "endpoint", Sentence: fmt.Sprintf("endpoint %s (%s) is reached at %s", k.name, k.protocol, o.listener.Addr())})
		}
	}
	for k, why := range d.shut {
		if k.pool == pool {
			all = append(all, shoal.Reason{Code: "endpointShut", Sentence: fmt.Sprintf("endpoint %s (%s) cannot be reached: %s; another port is chosen by the endpoint's listen", k.name, k.protocol, k.shut(why))})
		}
	}
	slices.SortFunc(all, func(a, b shoal.Reason) int { return strings.Compare(a.Sentence, b.Sentence) })
	return all
}
