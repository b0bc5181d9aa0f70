package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/wire"
)

// Config is how a program is run. Path, Dir and Installation are needed.
type Config struct {
	Path         string // absolute
	Dir          string // its own directory, made if absent
	Installation string // the tag of this server's machines
	ControlDir   string // see wire.EnvControlDir
	BinDir       string // see wire.EnvBinDir
	// Limit is how long a call may take, Observe half of it; zero: 50 s, which is less than the engine waits.
	Limit time.Duration
	// Grace is for how long a machine that is missing from complete lists is kept; zero: a minute, negative: not at all.
	Grace time.Duration
	// Anyone may own the program and write to it: whoever runs this is no more than they.
	Anyone bool
	Log    *slog.Logger
}

// Provider is a program as a provider. It implements provider.Provider, provider.Checker and provider.Notifier.
type Provider struct {
	cfg     Config
	slots   chan struct{} // bounds processes in mode once
	changed chan struct{}
	known   sightings
	asking  chan struct{} // held while the program is asked to describe itself; capacity 1

	mu       sync.Mutex
	about    *wire.Description    // nil: not known yet
	settings *jsonschema.Resolved // of about
	session  *session
	fails    int       // sessions in a row that ended early
	rested   time.Time // no session before
	last     error     // of the last session
	closed   bool
	waking   bool // a word that something changed is on its way
}

var _ interface {
	provider.Provider
	provider.Checker
	provider.Notifier
} = (*Provider)(nil)

// The bounds of a program.
const (
	limit        = 50 * time.Second
	describeTime = 10 * time.Second
	grace        = time.Minute
	processes    = 16
	changeGap    = 200 * time.Millisecond // between two words that something changed
)

// New opens a program and asks it to describe itself. One that cannot is no error: it is asked again with each call, and
// says what is wrong.
func New(ctx context.Context, cfg Config) (*Provider, error) {
	if cfg.Limit == 0 {
		cfg.Limit = limit
	}
	if cfg.Grace == 0 {
		cfg.Grace = grace
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("provider", filepath.Base(cfg.Path))
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of provider %s: %w", cfg.Path, err)
	}
	p := &Provider{cfg: cfg, slots: make(chan struct{}, processes), changed: make(chan struct{}, 1), asking: make(chan struct{}, 1),
		known: sightings{grace: cfg.Grace, log: cfg.Log}}
	if _, err := p.description(ctx); err != nil {
		cfg.Log.Error("a provider does not work, and is asked again whenever it is needed", "err", err)
	}
	return p, nil
}

// Close ends a session. The machines go on.
func (p *Provider) Close(context.Context) error {
	p.mu.Lock()
	s := p.session
	p.session, p.closed = nil, true
	p.mu.Unlock()
	if s != nil {
		s.close()
	}
	return nil
}

// Describe returns what the program says of itself.
func (p *Provider) Describe(ctx context.Context) (wire.Description, error) {
	d, err := p.description(ctx)
	if err != nil {
		return wire.Description{}, err
	}
	return *d, nil
}

// description returns what the program says of itself. It is asked until it has said so once.
func (p *Provider) description(ctx context.Context) (*wire.Description, error) {
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return nil, provider.Errorf(provider.Transient, "%w", context.Cause(ctx))
	}
	p.mu.Lock()
	known := p.about
	p.mu.Unlock()
	if known != nil {
		return known, nil
	}
	a, err := p.once(ctx, wire.Request{Op: wire.OpDescribe}, describeTime)
	if err != nil {
		return nil, fmt.Errorf("cannot ask what it can do: %w", err)
	}
	settings, err := vet(a.Description)
	if err != nil {
		return nil, provider.Errorf(provider.Transient, "cannot use what it says of itself: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.about, p.settings = a.Description, settings
	return p.about, nil
}

// vet refuses what makes no sense.
func vet(d *wire.Description) (*jsonschema.Resolved, error) {
	switch {
	case d == nil:
		return nil, errors.New("it answered without a description")
	case d.Protocol != wire.Protocol:
		return nil, fmt.Errorf("it speaks version %d of the protocol, and this server version %d", d.Protocol, wire.Protocol)
	case d.Mode != wire.Once && d.Mode != wire.Session:
		return nil, fmt.Errorf("its mode %s is neither %q nor %q", quote(string(d.Mode)), wire.Once, wire.Session)
	case d.Capabilities.Mounts != provider.MountsByAgent && d.Capabilities.Mounts != provider.MountsByProvider:
		return nil, fmt.Errorf("mounts are by %s, which is neither %q nor %q", quote(string(d.Capabilities.Mounts)), provider.MountsByProvider, provider.MountsByAgent)
	case d.Capabilities.Parallel < 0 || d.Capabilities.CPUs < 0 || d.Capabilities.MemoryBytes < 0 || d.Capabilities.GPUs < 0:
		return nil, errors.New("its capabilities hold a number below zero")
	}
	return readSchema(d.Settings)
}

// Capabilities implements provider.Provider. Until the program has described itself they are the least.
func (p *Provider) Capabilities() provider.Capabilities {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.about == nil {
		return provider.Capabilities{Mounts: provider.MountsByAgent}
	}
	return p.about.Capabilities.Seam()
}

// Changed implements provider.Notifier.
func (p *Provider) Changed() <-chan struct{} { return p.changed }

// wake tells that Observe would show something else, now and then.
func (p *Provider) wake(after time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waking || p.closed {
		return
	}
	p.waking = true
	time.AfterFunc(after, func() {
		p.mu.Lock()
		p.waking = false
		p.mu.Unlock()
		select {
		case p.changed <- struct{}{}:
		default:
		}
	})
}

// call asks the program for something.
func (p *Provider) call(ctx context.Context, r wire.Request) (wire.Answer, error) {
	if err := ctx.Err(); err != nil {
		return wire.Answer{}, provider.Errorf(provider.Transient, "%w", context.Cause(ctx))
	}
	about, err := p.description(ctx)
	if err != nil {
		return wire.Answer{}, err
	}
	most := p.cfg.Limit
	if r.Op == wire.OpObserve || r.Op == wire.OpCheck {
		most /= 2
	}
	if about.Mode == wire.Session {
		return p.inSession(ctx, r, most)
	}
	return p.once(ctx, r, most)
}

// Observe implements provider.Provider.
func (p *Provider) Observe(ctx context.Context) (provider.Observation, error) {
	began := time.Now()
	a, err := p.call(ctx, wire.Request{Op: wire.OpObserve})
	if err != nil {
		return provider.Observation{}, err
	}
	seen, err := judge(a.Machines, p.cfg.Installation)
	if err != nil {
		return provider.Observation{}, provider.Errorf(provider.Transient, "its list of machines cannot be true: %w", err)
	}
	all, missing := p.known.merge(seen, a.Complete, began)
	if missing {
		p.wake(min(p.cfg.Grace/4, 5*time.Second))
	}
	return provider.Observation{Machines: all, Complete: a.Complete, At: began}, nil
}

// Create implements provider.Provider.
func (p *Provider) Create(ctx context.Context, spec provider.MachineSpec) error {
	if !machineID.MatchString(string(spec.ID)) || spec.Token == "" {
		return provider.Errorf(provider.Invalid, "cannot create machine %s: it needs an id and a token", quote(string(spec.ID)))
	}
	if err := p.checkConfig(ctx, spec.Config); err != nil {
		return err
	}
	if _, err := p.call(ctx, wire.Request{Op: wire.OpCreate, Machine: wire.MachineOf(spec)}); err != nil {
		return about("create", spec.ID, err)
	}
	p.known.accepted(spec, time.Now())
	return nil
}

// Start implements provider.Provider.
func (p *Provider) Start(ctx context.Context, spec provider.MachineSpec) error {
	_, err := p.call(ctx, wire.Request{Op: wire.OpStart, Machine: wire.MachineOf(spec)})
	return about("start", spec.ID, err)
}

// Stop implements provider.Provider.
func (p *Provider) Stop(ctx context.Context, id shoal.MachineID) error {
	_, err := p.call(ctx, wire.Request{Op: wire.OpStop, Machine: &wire.Machine{ID: id}})
	return about("stop", id, err)
}

// Delete implements provider.Provider.
func (p *Provider) Delete(ctx context.Context, id shoal.MachineID) error {
	p.known.doom(id)
	_, err := p.call(ctx, wire.Request{Op: wire.OpDelete, Machine: &wire.Machine{ID: id}})
	if typed, ok := errors.AsType[*provider.Error](err); ok && typed.Code == provider.NotFound {
		return nil
	}
	return about("delete", id, err)
}

// about says what could not be done. The kind of the error stays.
func about(verb string, id shoal.MachineID, err error) error {
	typed, ok := errors.AsType[*provider.Error](err)
	if !ok {
		return err
	}
	out := provider.Errorf(typed.Code, "cannot %s machine %s: %w", verb, id, err)
	out.Until = typed.Until
	return out
}

// Check implements provider.Checker.
func (p *Provider) Check(ctx context.Context, pool shoal.Pool, shares []shoal.Share) error {
	d, err := p.description(ctx)
	if err != nil {
		return shoal.Errorf(shoal.KindUnavailable, "pool %s cannot work: its provider does not: %w", pool.Name, err).
			WithHint("shoal provider check %s", p.cfg.Path)
	}
	if err := p.checkConfig(ctx, pool.ProviderConfig); err != nil {
		return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: %w", pool.Name, err).WithHint("shoal provider schema %s", p.cfg.Path)
	}
	spec := provider.MachineSpec{Pool: pool.Name, Image: pool.Image, OS: pool.OS, Resources: pool.Machine, Config: pool.ProviderConfig, Private: !pool.Has(shoal.UseInteractive)}
	for _, m := range pool.Mounts {
		i := slices.IndexFunc(shares, func(s shoal.Share) bool { return s.Name == m.Share })
		switch {
		case i < 0:
			continue // the engine says so
		case d.Capabilities.Mounts != provider.MountsByProvider:
			return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: its provider mounts no shares", pool.Name).WithHint("leave mounts and home out")
		case !shares[i].Owned() || shares[i].Credentials != nil:
			return shoal.Errorf(shoal.KindInvalid, "pool %s cannot work: share %s needs credentials, or has no owners of files, and executable providers mount only what does without", pool.Name, m.Share).
				WithHint("mount a directory or an NFS share")
		}
		spec.Mounts = append(spec.Mounts, provider.Mount{Share: shares[i], Path: m.Path, ReadOnly: m.ReadOnly})
	}
	if !d.Capabilities.Check {
		return nil
	}
	_, err = p.call(ctx, wire.Request{Op: wire.OpCheck, Machine: wire.MachineOf(spec)})
	return err
}
