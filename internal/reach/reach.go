package reach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/atmost"
	"github.com/shoal-pool/shoal/internal/sshwire"
)

// The ways by which the gateway comes to a machine.
const (
	Direct = "direct" // by its address
	Agent  = "agent"  // by a connection that its agent makes
)

// Config is what a Reach needs. All fields but Back, Told and Log must be set; with Back, Send need not be.
type Config struct {
	// Machine is what is on record of one.
	Machine func(ctx context.Context, id shoal.MachineID) (shoal.Machine, error)
	// Here reports whether a provider's machines are on this host, which comes to all of them.
	Here func(provider string) bool
	// Send sends a record to a machine's agent; false: it has no stream now.
	Send func(id shoal.MachineID, r api.Record) bool
	// HostCA signs the machines' host certificates, whose principal is the machine's id.
	HostCA ssh.PublicKey
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	// Back connects a port of a machine to here in the other way, 0: that of its sshd. What goes that way ends with who leads it,
	// so it is taken only once it is known that the machine does not answer. Nil: its agent does, by Send.
	Back func(ctx context.Context, id shoal.MachineID, port int) (net.Conn, error)
	// Told takes by which way a machine is reached when that is news, with the reason.
	Told func(id shoal.MachineID, way, why string)
	Log  *slog.Logger
}

const (
	// proofTime bounds the look whether a machine answers at its address, and patience how long a stream waits for its outcome
	// where the other way is as good.
	proofTime = 5 * time.Second
	patience  = 150 * time.Millisecond
	// fresh is for how long what was found counts. Then it is looked at again beside the streams that still take that way,
	// and after stale ahead of them.
	fresh = time.Minute
	stale = 10 * time.Minute
	// directTime bounds a direct connection where there is the other way.
	directTime = 2 * time.Second
	// mostPaths bounds how many machines are remembered. A forgotten one costs a look.
	mostPaths = 1 << 14
)

// Reach connects to machines. Its methods may be called from any goroutine.
type Reach struct {
	cfg      Config
	patience time.Duration // how long a stream waits for the outcome of a look
	open     *atmost.Limit[shoal.MachineID]

	mu      sync.Mutex
	paths   map[shoal.MachineID]*path
	waiting map[string]*stream // by their secrets
}

// path is what is known of the way to one machine.
type path struct {
	id      shoal.MachineID
	address string // of its sshd
	here    bool

	// Guarded by Reach.mu:
	way     string // empty: not known yet
	why     string
	checked time.Time
	sealed  time.Time     // when nothing but TLS came through last; zero: never
	proving chan struct{} // closed at the end of the look under way; nil: there is none
}

// New makes a Reach.
func New(cfg Config) *Reach {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Told == nil {
		cfg.Told = func(shoal.MachineID, string, string) {}
	}
	r := &Reach{cfg: cfg, patience: proofTime, paths: map[shoal.MachineID]*path{}, waiting: map[string]*stream{}, open: atmost.New[shoal.MachineID](mostOfOne, mostOfAll)}
	if cfg.Back == nil {
		r.cfg.Back, r.patience = r.back, patience
	}
	return r
}

// Dial connects to an address of a machine: that of its sshd, or another port there.
func (r *Reach) Dial(ctx context.Context, id shoal.MachineID, address string) (net.Conn, error) {
	p, port, err := r.pathTo(ctx, id, address)
	if err != nil {
		return nil, err
	}
	if p.here {
		return r.cfg.Dial(ctx, "tcp", address)
	}
	var failed error
	if r.choose(ctx, p) == Direct {
		c, err := r.direct(ctx, address)
		if err == nil || refused(err) || ctx.Err() != nil {
			return c, err
		}
		failed = err
		r.found(p, Agent, err)
	}
	c, err := r.cfg.Back(ctx, p.id, port)
	if err != nil {
		return nil, errors.Join(err, failed)
	}
	return c, nil
}

// DialInside connects to a port of a machine at which nobody but the gateway on the same host is let in, and the machine's own root.
func (r *Reach) DialInside(ctx context.Context, id shoal.MachineID, address string) (net.Conn, error) {
	p, port, err := r.pathTo(ctx, id, address)
	if err != nil {
		return nil, err
	}
	if p.here {
		return r.cfg.Dial(ctx, "tcp", address)
	}
	return r.cfg.Back(ctx, p.id, port)
}

// Of tells by which way a machine is reached, and why. Empty: nobody has wanted to come to it yet, or it is on this host.
func (r *Reach) Of(id shoal.MachineID) (way, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.paths[id]
	if p == nil {
		return "", ""
	}
	return p.way, p.why
}

// Why says by which way a machine is reached, if that is known.
func (r *Reach) Why(id shoal.MachineID) []shoal.Reason {
	switch way, why := r.Of(id); way {
	case Direct:
		return []shoal.Reason{{Code: "reached", Sentence: "reached directly: " + why}}
	case Agent:
		return []shoal.Reason{{Code: "reached", Sentence: "reached through its agent: " + why}}
	}
	return nil
}

// Gone forgets a machine.
func (r *Reach) Gone(id shoal.MachineID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paths, id)
}

// pathTo returns what is known of the way to a machine, and which of its ports an address is; 0: that of its sshd.
func (r *Reach) pathTo(ctx context.Context, id shoal.MachineID, address string) (*path, int, error) {
	host, text, err := net.SplitHostPort(address)
	port, bad := strconv.Atoi(text)
	if err != nil || bad != nil || port < 1 || port > 65535 {
		return nil, 0, fmt.Errorf("cannot reach machine %s at %q: it is no HOST:PORT", id, address)
	}
	r.mu.Lock()
	p := r.paths[id]
	r.mu.Unlock()
	if p == nil || hostOf(p.address) != host {
		m, err := r.cfg.Machine(ctx, id)
		if err != nil {
			return nil, 0, fmt.Errorf("cannot reach machine %s: %w", id, err)
		}
		p = r.remember(&path{id: id, address: m.Address, here: r.cfg.Here(m.Provider)})
	}
	if address == p.address {
		port = 0
	}
	return p, port, nil
}

// remember keeps what is known of a machine, unless it is known already.
func (r *Reach) remember(p *path) *path {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.paths[p.id]; known != nil && known.address == p.address {
		return known
	}
	for id := range r.paths {
		if len(r.paths) < mostPaths {
			break
		}
		delete(r.paths, id)
	}
	r.paths[p.id] = p
	return p
}

func hostOf(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return host
}

// choose says which way to take, looking first where it has to.
func (r *Reach) choose(ctx context.Context, p *path) string {
	r.mu.Lock()
	age := time.Since(p.checked)
	if p.proving == nil && (p.way == "" || age > fresh) {
		p.proving = make(chan struct{})
		go r.prove(p)
	}
	way, proving := p.way, p.proving
	r.mu.Unlock()
	if way == Agent || way == Direct && age <= stale {
		return way
	}
	late := time.NewTimer(r.patience)
	defer late.Stop()
	select {
	case <-proving:
		r.mu.Lock()
		defer r.mu.Unlock()
		return p.way
	case <-late.C:
	case <-ctx.Done():
	}
	return Agent
}

// errProved ends a connection to an sshd that has shown who it is.
var errProved = errors.New("it is the machine")

// prove looks whether the machine itself answers at its address.
func (r *Reach) prove(p *path) {
	ctx, cancel := context.WithTimeout(context.Background(), proofTime)
	defer cancel()
	err := r.ask(ctx, p)
	way := Direct
	if err != nil {
		way = Agent
	}
	r.found(p, way, err)
	r.mu.Lock()
	close(p.proving)
	p.proving = nil
	r.mu.Unlock()
}

func (r *Reach) ask(ctx context.Context, p *path) error {
	c, err := r.direct(ctx, p.address)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	known := sshwire.KnownHost(r.cfg.HostCA, string(p.id))
	_, _, _, err = ssh.NewClientConn(c, p.address, &ssh.ClientConfig{
		User: "shoal", HostKeyAlgorithms: sshwire.HostAlgorithms(), ClientVersion: sshwire.Version,
		HostKeyCallback: func(name string, at net.Addr, key ssh.PublicKey) error {
			if err := known(name, at, key); err != nil {
				return err
			}
			return errProved // the signature over the exchange was checked before
		},
	})
	switch {
	case errors.Is(err, errProved):
		return nil
	case ctx.Err() != nil:
		return errors.New("what answers there does not speak ssh in time")
	case err == nil:
		return errors.New("what answers there asks for nothing")
	}
	return fmt.Errorf("what answers there is another: %w", err)
}

func (r *Reach) direct(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, directTime)
	defer cancel()
	return r.cfg.Dial(ctx, "tcp", address)
}

// found remembers by which way a machine is reached. Why it is not the direct one, err says.
func (r *Reach) found(p *path, way string, err error) {
	why := "it answers at " + p.address
	if way == Agent {
		why = fmt.Sprintf("it does not answer at %s: %v", p.address, err)
	}
	r.mu.Lock()
	news := p.way != way && r.paths[p.id] == p
	p.way, p.why, p.checked = way, why, time.Now()
	r.mu.Unlock()
	if news {
		r.cfg.Told(p.id, way, why)
	}
}
