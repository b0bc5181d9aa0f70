package book

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/bell"
	"github.com/shoal-pool/shoal/internal/batch/book/lookup"
	"github.com/shoal-pool/shoal/internal/batch/book/outlook"
	"github.com/shoal-pool/shoal/internal/batch/book/vault"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// Config is what a Book needs.
type Config struct {
	Store     *store.DB
	Dir       string // for the output of tasks; made if it is not there
	OutputCap int64  // of what is kept of each stream of a task, in bytes; 0: output.DefaultCap
	// Send hands a record to a machine's agent. False means that no stream is open: the agent
	// will get a Snapshot. A Snapshot's orders are asked for after its stream takes records.
	Send func(shoal.MachineID, api.Record) bool
	// Answered is when a machine's agent was last answered; zero: not since the server's start. Nil: nothing
	// is taken for lost because its machine is silent.
	Answered func(shoal.MachineID) time.Time
	Lease    time.Duration // for which agents let tasks run without an answer; 0: fence.Longest
	// Held says why nothing more of a user's jobs starts now; empty: it does. Reconsider tells of a change.
	Held    func(shoal.UserName) string
	Moved   func(context.Context) (time.Duration, error) // see clock.Keeper; may be nil
	Secrets vault.Vault
	Key     []byte // a secret from which the keys of attempts follow; random if there is none
	Wake    func() // wakes the engine: demand changed; may be nil
	Log     *slog.Logger
}

// Book keeps the jobs. Its methods may be called from any goroutine; those that change something
// need a running Run.
type Book struct {
	cfg     Config
	output  *output.Store
	poke    chan struct{} // wakes Run
	ready   chan struct{} // closed once Run has read the store
	stopped chan struct{} // closed when Run has ended

	// Of Run alone.
	tables   *lookup.Tables
	rows     lookup.Rows
	tries    *retry.Tries
	world    outlook.World // as it was looked at last
	seen     shoal.Rev     // machines and pools are known as of this revision
	looked   time.Time
	lookCost time.Duration
	began    time.Time
	moved    time.Duration // what runs was moved by so much, of what Config.Moved says
	next     time.Time     // when package sched may have something new to say by itself
	saved    time.Time     // when what users used was last stored
	judge    time.Time     // when it may be known of more machines that they are silent for too long
	frozen   bool          // too many are silent together, in these pools
	frozenIn map[shoal.PoolName]bool
	failing  bool // the last transaction could not be stored
	ahead    bool // the scheduler was told what is not on disk
	busy     bool // the last turn changed something: there may be more to start
	many     bool // the last turn had several requests

	stale   atomic.Bool // others are held
	mu      sync.Mutex  // guards what follows; never held while waiting or in the store
	queue   []*request
	sched   *sched.State
	live    map[shoal.TaskRef]*live
	due     time.Time                               // when Run must look after what runs; zero: no need
	spare   map[shoal.AttemptRef]*live              // attempts of which another has taken the place, and which may be done first
	later   map[sched.Task]again                    // tasks that must start again, not at once
	waiting map[shoal.JobID][]waiter                // who waits for the key
	active  map[holder]int                          // jobs that have not ended
	ran     map[shoal.JobID]map[shoal.MachineID]int // where jobs with a release command have run something, with the epoch
	arrays  map[shoal.JobID]shoal.Array             // of jobs that have begun
	news    bell.Bells[shoal.TaskRef]               // rung at each news of a task
	ends    bell.Bells[shoal.JobID]                 // rung when a job ends
	behind  map[shoal.AttemptRef]shoal.TaskRef      // which task gets an attempt's place; of Run alone
}

// The patience of the batch service.
const (
	budget    = 256              // starts in one transaction
	tick      = time.Second      // between attempts at what the store refused
	holdFor   = time.Minute      // an end waits so long for output that is missing
	slack     = time.Minute      // beyond a time limit, which the agent enforces
	graceful  = 10 * time.Second // between SIGTERM and SIGKILL
	saveEvery = 5 * time.Minute  // what users have used is stored
	lookShare = 20               // looking at the machines takes at most one part in so many of the time
)

// New makes a Book. Run makes it work.
func New(cfg Config) (*Book, error) {
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	if cfg.Send == nil {
		cfg.Send = func(shoal.MachineID, api.Record) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	kept, err := output.Open(output.Config{Dir: cfg.Dir, Cap: cfg.OutputCap, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	if cfg.Key == nil {
		cfg.Key = make([]byte, 32)
		if _, err := rand.Read(cfg.Key); err != nil {
			return nil, fmt.Errorf("cannot make a secret: %w", err)
		}
	}
	return &Book{
		cfg:     cfg,
		output:  kept,
		poke:    make(chan struct{}, 1),
		ready:   make(chan struct{}),
		stopped: make(chan struct{}),
		tries:   retry.New(cfg.Log, "batch"),
		rows:    lookup.Rows{},
		sched:   sched.New(),
		live:    map[shoal.TaskRef]*live{},
		spare:   map[shoal.AttemptRef]*live{},
		later:   map[sched.Task]again{},
		waiting: map[shoal.JobID][]waiter{},
		active:  map[holder]int{},
		ran:     map[shoal.JobID]map[shoal.MachineID]int{},
		arrays:  map[shoal.JobID]shoal.Array{},
		news:    bell.Bells[shoal.TaskRef]{},
		ends:    bell.Bells[shoal.JobID]{},
		behind:  map[shoal.AttemptRef]shoal.TaskRef{},
	}, nil
}

// live is an attempt that is starting or running.
type live struct {
	attempt  shoal.Attempt // as stored; replaced under Book.mu
	position int
	limit    time.Duration
	output   *output.Attempt

	uses       shoal.Resources // on each node
	idempotent bool
	ready      time.Duration // in which all its nodes must be ready to begin

	// Guarded by Book.mu:
	held    map[int]ending // the ends of its nodes for which output is missing, by rank
	decided time.Time      // when it was settled how it ends
	nagged  time.Time      // when its agents were last reminded that it must end
}

// request is something to be done by Run.
type request struct {
	do   func(*Group) error // may run twice; see Group
	done chan error         // capacity 1
}

// Do has Run do something, and returns once it is stored. An error of do means that nothing
// of it was. When ctx ends first it may still be done.
func (b *Book) Do(ctx context.Context, do func(*Group) error) error {
	r := &request{do: do, done: make(chan error, 1)}
	b.mu.Lock()
	b.queue = append(b.queue, r)
	b.mu.Unlock()
	b.wake()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "the caller went away: %w", context.Cause(ctx))
	case <-b.stopped:
		select {
		case err := <-r.done:
			return err
		default:
			return ErrStopped()
		}
	}
}

// ErrStopped is what becomes of requests when Run ends.
func ErrStopped() error {
	return shoal.Errorf(shoal.KindUnavailable, "the server is stopping").WithHint("try again in a moment")
}

// begun waits until Run has read the store.
func (b *Book) begun(ctx context.Context) error {
	select {
	case <-b.ready:
		return nil
	case <-ctx.Done():
		return shoal.Errorf(shoal.KindCancelled, "the caller went away: %w", context.Cause(ctx))
	case <-b.stopped:
		return ErrStopped()
	}
}

func (b *Book) wake() {
	select {
	case b.poke <- struct{}{}:
	default:
	}
}
