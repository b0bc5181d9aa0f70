// Package runner is the part of the agent that takes orders for tasks, knows every attempt, and reports. See package tasks.
package runner

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Config is how a Runner is set up. Dir, Agent, Lookup and Log are needed.
type Config struct {
	Dir    string        // on the machine's disk, root's alone
	Agent  string        // the agent's binary
	Groups *cgroups.Tree // nil: none
	Lookup func(shoal.UserName) (tasks.Person, bool)
	Log    *slog.Logger
	// Places are where tasks' own directories are made; what is empty is as package api has it.
	tasks.Places
	// GPUs are the machine's; nil: it has none.
	GPUs *tasks.GPUs
	// Adapt changes an order to this machine, on a copy; nil: not.
	Adapt func(api.TaskOrder) api.TaskOrder
	// Mounts are the shares of the machine, for containers; nil: none.
	Mounts func() []string
	// Env is added to the environment of every task, as "NAME=value"; orders win over it.
	Env []string
	// Working is told when there are tasks, and when there have been none for a while; nil: nobody needs to know.
	Working func(bool)
	// Idle is how long the supervisor stays when there is nothing to do; zero: half a minute.
	Idle time.Duration
	// OutputLimit bounds what is kept of each stream of a task; zero: 4 GiB.
	OutputLimit int64

	helloTime, startTime, jobTime time.Duration // tests are less patient
}

// Runner runs the attempts of one machine. Its methods may be called concurrently.
type Runner struct {
	cfg     Config
	lock    *os.File // held while this Runner lives
	changed chan struct{}
	wake    chan struct{} // capacity 1: there is something for the supervisor
	done    chan struct{} // closed by Close
	ended   chan struct{} // closed when link has returned

	mu        sync.Mutex
	attempts  map[shoal.AttemptRef]*attempt
	newest    map[shoal.TaskRef]*attempt // the newest of each task
	forgotten memory
	queue     []tasks.Request // for the supervisor
	dirty     []*attempt      // those with something to report, in the order in which that came up
	came      int64           // attempts so far
	live      int             // attempts that the supervisor is to have, or has
	jobs      map[shoal.JobID]*job
	lease     time.Duration // until when, by the kernel's clock; zero: for ever
	leaseTold time.Duration // to the supervisor
	spares    []string      // records of forgotten attempts, which may become others'
}

// Open makes a Runner and adopts what runs from a former process.
func Open(cfg Config) (*Runner, error) {
	cfg.Scratch, cfg.Run = cmp.Or(cfg.Scratch, "/var/lib/shoal-scratch"), cmp.Or(cfg.Run, "/run/shoal")
	cfg.jobTime = cmp.Or(cfg.jobTime, jobTime)
	if cfg.Idle == 0 {
		cfg.Idle = 30 * time.Second
	}
	if cfg.helloTime == 0 {
		cfg.helloTime, cfg.startTime = helloTime, startTime
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep tasks: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(cfg.Dir, "run.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot keep tasks: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, shoal.Errorf(shoal.KindConflict, "cannot run tasks: another agent does, from %s: %w", cfg.Dir, err)
	}
	r := &Runner{cfg: cfg, lock: lock, changed: make(chan struct{}, 1), wake: make(chan struct{}, 1), done: make(chan struct{}),
		ended: make(chan struct{}), attempts: map[shoal.AttemptRef]*attempt{}, newest: map[shoal.TaskRef]*attempt{}, jobs: map[shoal.JobID]*job{}}
	r.forgotten.load(cfg.Dir)
	c, h := r.find()
	if err := r.adopt(h); err != nil {
		_ = lock.Close()
		if c != nil {
			_ = c.conn.Close()
		}
		return nil, err
	}
	r.adoptJobs()
	go r.link(c)
	return r, nil
}

// Close lets go. Tasks run on and are adopted by the next Runner.
func (r *Runner) Close() error {
	r.mu.Lock()
	select {
	case <-r.done:
		r.mu.Unlock()
		return nil
	default:
		close(r.done)
	}
	r.mu.Unlock()
	<-r.ended
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.attempts {
		a.saveAck(r.cfg.Dir)
	}
	for _, name := range r.spares {
		r.remove(name)
	}
	r.spares = nil
	return errors.Join(r.forgotten.close(), r.lock.Close())
}

// Want takes the whole set of a Snapshot: it starts what is missing, and ends what is not listed.
func (r *Runner) Want(orders []api.TaskOrder) {
	listed := make(map[shoal.AttemptRef]bool, len(orders))
	for _, o := range orders {
		listed[o.Ref] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range orders {
		r.start(o)
	}
	for ref, a := range r.attempts {
		switch {
		case listed[ref]:
		case a.phase != ended:
			r.stop(a, shoal.JobCancelled)
		case a.ackedEnd: // stored, and the record that said so was lost
			r.forget(a)
		}
	}
	poke(r.wake)
}

// Start starts an attempt. One that is known, or older than one that is known, is left as it is.
func (r *Runner) Start(o api.TaskOrder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start(o)
	poke(r.wake)
}

// Stop ends an attempt. One that never came here is reported as ended, and does not start any more.
func (r *Runner) Stop(o api.StopOrder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[o.Ref]
	switch {
	case o.Waiting:
		if a != nil && a.phase == sent {
			r.queue = append(r.queue, tasks.Request{Stop: &o})
		}
	case a != nil && a.phase == ended:
		a.ackedEnd = false
		r.mark(a)
	case a != nil:
		r.stop(a, o.State)
	case !r.forgotten.has(o.Ref):
		r.refuse(api.TaskOrder{Ref: o.Ref}, stopped(o.State, "it was not running on this machine"))
	}
	poke(r.wake)
}

// Renew says until when tasks may run that are not idempotent, by the clock of tasks.Uptime.
func (r *Runner) Renew(until time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease != 0 && tasks.Uptime() >= r.lease {
		r.lapse()
	}
	r.lease = max(r.lease, until)
	// Not each report needs to be told of: a twentieth of what is left is as good.
	if r.live > 0 && r.lease-r.leaseTold >= (r.lease-tasks.Uptime())/20 {
		r.tellLease()
		poke(r.wake)
	}
}

// lapse ends what had not begun when the lease ran out: the control plane may have given it away meanwhile. What the
// supervisor has is ended there.
func (r *Runner) lapse() {
	var late []*attempt
	for _, a := range r.attempts { // first, since the end of an older one would let them begin
		if a.phase == waiting && !a.start.Order.Idempotent {
			late = append(late, a)
		}
	}
	r.queue = slices.DeleteFunc(r.queue, func(q tasks.Request) bool {
		if q.Start == nil || q.Start.Order.Idempotent {
			return false
		}
		if a := r.attempts[q.Start.Order.Ref]; a != nil && a.phase == sent {
			late = append(late, a)
		}
		return true
	})
	for _, a := range late {
		r.endHere(a, tasks.Result{State: shoal.JobLost, Cause: shoal.CauseMachineLost, Reason: tasks.LeaseOver})
	}
}

// tellLease queues the lease for the supervisor.
func (r *Runner) tellLease() {
	if r.lease != r.leaseTold {
		r.leaseTold = r.lease
		r.queue = append(r.queue, tasks.Request{Lease: r.lease})
	}
}

// Forget drops what is kept of ended attempts, and of jobs that have ended.
func (r *Runner) Forget(f api.ForgetTask) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range f.Jobs {
		r.unshare(id)
		r.jobOver(id)
	}
	for _, ref := range f.Refs {
		a := r.attempts[ref]
		switch {
		case a == nil:
		case a.phase == ended:
			r.forget(a)
		default: // of an attempt that is superseded, the end is of no interest
			a.unwanted = true
			r.stop(a, shoal.JobCancelled)
		}
	}
	poke(r.wake)
}

// Changed has a value when there is something to report.
func (r *Runner) Changed() <-chan struct{} { return r.changed }

// Running counts live attempts by user.
func (r *Runner) Running() map[shoal.UserName]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live == 0 {
		return nil
	}
	out := map[shoal.UserName]int{}
	for _, a := range r.attempts {
		if a.phase != ended {
			out[a.user]++
		}
	}
	return out
}

// poke wakes who waits on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
