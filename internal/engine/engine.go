package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/homes"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// Config is what an Engine needs.
type Config struct {
	Store     *store.DB
	Providers map[string]provider.Provider
	Control   map[string]Control // by provider
	// JoinToken gives the token with which a machine's agent joins. It must give the same for the same.
	JoinToken func(id shoal.MachineID, epoch int) string
	// Gone is told when a machine has failed or exists no more; may be nil.
	Gone func(shoal.MachineID)
	// Tell writes to all terminals on a machine, if that can be done at once; may be nil.
	Tell func(id shoal.MachineID, text string)
	// Look asks a machine's agent to look once more who is there; Looked is then called. Nil: nobody is asked.
	Look func(id shoal.MachineID, which string)
	// Held says why nothing more of a user's jobs starts now, so that it asks for no machines; empty, or nil: it does.
	Held func(shoal.UserName) string
	// Keep returns once what is on record fits the clock, which may have been set; without that nothing is decided. May be nil.
	Keep func(context.Context) error
	Log  *slog.Logger
}

// Control is how the agents of a provider's machines reach this server.
type Control struct {
	URL string // unix:///… in the machine, or https://…
	CA  string // PEM: who has signed the server's certificate
}

// Engine makes and unmakes machines. Its methods may be called from any goroutine.
type Engine struct {
	cfg      Config
	poke     chan struct{} // wakes Run; capacity 1
	turn     chan struct{} // holds a token while a pass is made
	watchers map[string]*watcher
	reader   world.Reader
	homes    *homes.Keeper
	began    time.Time

	mu sync.Mutex // guards memory; never held while waiting or in the store
	memory

	tries *retry.Tries // of Run alone
}

// New makes an Engine. Run makes it work.
func New(cfg Config) *Engine {
	if cfg.Gone == nil {
		cfg.Gone = func(shoal.MachineID) {}
	}
	if cfg.Keep == nil {
		cfg.Keep = func(context.Context) error { return nil }
	}
	if cfg.JoinToken == nil {
		cfg.JoinToken = func(shoal.MachineID, int) string { return "" }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{cfg: cfg, poke: make(chan struct{}, 1), turn: make(chan struct{}, 1), watchers: map[string]*watcher{},
		reader: world.Reader{Held: cfg.Held}, memory: newMemory(), began: time.Now(), tries: retry.New(cfg.Log, "engine")}
	for name, p := range cfg.Providers {
		e.watchers[name] = newWatcher(name, p)
	}
	e.homes = homes.New(homes.Config{Store: cfg.Store, Providers: cfg.Providers, Runs: e.runs, Log: cfg.Log})
	return e
}

// Wake tells that something may have changed. It returns at once.
func (e *Engine) Wake() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// The rhythm of passes.
const (
	restFactor  = 4 // the engine rests so many times as long as a pass took
	restMost    = 2 * time.Second
	changeRest  = time.Second // after a change of the store that nobody thought worth a Wake
	errorRest   = time.Second
	landingTime = 5 * time.Second // for effects under way when Run ends
)

// Run works until ctx ends. Errors of the store and of providers are waited out.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	for _, w := range e.watchers {
		watching.Go(func() { e.watch(ctx, w) })
	}
	watching.Go(func() { _ = e.homes.Run(ctx) })
	defer func() {
		cancel()
		watching.Wait()
		e.land(landingTime)
	}()
	for {
		changed := e.cfg.Store.Changed()
		began := time.Now()
		next, err := e.pass(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !e.tries.Done(ctx, "make a pass", err) {
			next = time.Now().Add(errorRest)
		}
		if err := e.rest(ctx, changed, min(restFactor*time.Since(began), restMost), next); err != nil {
			return err
		}
	}
}

// rest waits for a reason to make the next pass, and for pause at least.
func (e *Engine) rest(ctx context.Context, changed <-chan struct{}, pause time.Duration, next time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
	}
	var alarm, soon <-chan time.Time
	if !next.IsZero() {
		alarm = time.After(max(time.Until(next), time.Millisecond))
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.poke:
			return nil
		case <-alarm:
			return nil
		case <-soon:
			return nil
		case <-changed:
			changed, soon = nil, time.After(changeRest)
		}
	}
}

// Settle makes passes, observing before each, until nothing changes and nothing is under way. It is
// for tests; Run may be at work beside it.
func (e *Engine) Settle(ctx context.Context) error {
	for {
		for _, w := range e.watchers {
			e.observe(ctx, w)
		}
		rev := e.cfg.Store.Rev()
		if _, err := e.pass(ctx); err != nil {
			return err
		}
		if !e.flying() && e.cfg.Store.Rev() == rev {
			return nil
		}
		for e.flying() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}
}
