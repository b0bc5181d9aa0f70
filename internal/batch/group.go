package batch

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// group is one transaction of Run: what several requests change together. It is built anew if the
// store runs the transaction twice, and touches the Batch only after the commit, in apply.
type group struct {
	b   *Batch
	tx  *store.Tx
	now time.Time

	jobs     map[shoal.JobID]*row
	dirty    []*row
	attempts []*shoal.Attempt // to be written, in order
	current  map[shoal.TaskRef]*shoal.Attempt
	position map[shoal.TaskRef]int                  // of attempts placed here
	again    map[shoal.JobID][]int                  // positions that must start again
	later    map[sched.Task]again                   // those that must start again, not at once
	drop     []sched.Task                           // those of the former that are taken out
	waits    map[shoal.JobID][]waiter               // new dependents by what they wait for
	known    map[shoal.JobID]map[int]shoal.JobState // tasks with an attempt, by index, of jobs looked through
	lives    map[shoal.TaskRef]*live
	spare    []shoal.AttemptRef // that may go on beside those that take their places
	unspare  []shoal.AttemptRef
	former   []shoal.Attempt // attempts before the current ones of which there was news
	all      []shoal.Group   // read once
	accounts map[shoal.UserName]shoal.GroupName
	pools    map[shoal.PoolName]shoal.Pool
	active   map[holder]int // jobs that were taken, less those that ended
	changes  []sched.Change
	records  []record
	forget   map[shoal.MachineID][]shoal.AttemptRef
	demand   bool // the engine should know
	from, to shoal.Rev
}

// row is a job within a group.
type row struct {
	shoal.Job
	dirty     bool
	lost      int // tasks that lost their machine
	preempted int // tasks that had to go
	retry     int // tasks that failed and are tried again
}

// record is what a machine's agent is told after the commit.
type record struct {
	machine shoal.MachineID
	record  api.Record
}

const serialSetting = "batch.serial"

// update runs a transaction and applies it. When its commit failed it may have reached the disk all
// the same: its serial number, stored with it, tells.
func (b *Batch) update(ctx context.Context, do func(*group) error) (*group, error) {
	b.serial++
	var g *group
	err := b.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		g = newGroup(b, tx, b.live)
		if g.from, err = tx.Rev(); err != nil {
			return err
		}
		if err := do(g); err != nil {
			return err
		}
		if err := g.settle(); err != nil {
			return err
		}
		if err := tx.SetSetting(serialSetting, strconv.FormatInt(b.serial, 10)); err != nil {
			return err
		}
		g.to, err = tx.Rev()
		return err
	})
	if err != nil && (g == nil || !b.committed(ctx)) {
		return nil, err
	}
	b.apply(g)
	return g, nil
}

func newGroup(b *Batch, tx *store.Tx, lives map[shoal.TaskRef]*live) *group {
	return &group{b: b, tx: tx, lives: lives, now: time.Now().UTC().Round(0),
		jobs: map[shoal.JobID]*row{}, current: map[shoal.TaskRef]*shoal.Attempt{}, position: map[shoal.TaskRef]int{},
		again: map[shoal.JobID][]int{}, later: map[sched.Task]again{}, waits: map[shoal.JobID][]waiter{},
		known: map[shoal.JobID]map[int]shoal.JobState{}, accounts: map[shoal.UserName]shoal.GroupName{}, pools: map[shoal.PoolName]shoal.Pool{}, active: map[holder]int{},
		forget: map[shoal.MachineID][]shoal.AttemptRef{}}
}

// committed finds out whether the last transaction is on disk. It waits for a store that cannot be
// read; when ctx ends first the answer does not matter any more.
func (b *Batch) committed(ctx context.Context) bool {
	for {
		serial := ""
		err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
			serial, err = tx.Setting(serialSetting)
			return err
		})
		if err == nil {
			return serial == strconv.FormatInt(b.serial, 10)
		}
		if retry.Sleep(ctx, tick) != nil {
			return false
		}
	}
}

// job returns a job's row, or KindNotFound.
func (g *group) job(id shoal.JobID) (*row, error) {
	if r := g.jobs[id]; r != nil {
		return r, nil
	}
	j, err := g.tx.Jobs().Get(id)
	if err != nil {
		return nil, err
	}
	r := &row{Job: j}
	g.jobs[id] = r
	return r, nil
}

// pool returns a pool; one that is gone has only its name.
func (g *group) pool(name shoal.PoolName) (shoal.Pool, error) {
	if pool, ok := g.pools[name]; ok {
		return pool, nil
	}
	pool, err := g.tx.Pools().Get(name)
	if shoal.KindOf(err) == shoal.KindNotFound {
		pool, err = shoal.Pool{Name: name}, nil
	}
	if err == nil {
		g.pools[name] = pool
	}
	return pool, err
}

// touch notes that a row is to be written.
func (g *group) touch(r *row) {
	if !r.dirty {
		r.dirty = true
		g.dirty = append(g.dirty, r)
	}
}

// attempt returns a task's attempt that is live, or was when the group began; nil if there is none.
// To change it, use change.
func (g *group) attempt(ref shoal.TaskRef) *shoal.Attempt {
	if a := g.current[ref]; a != nil {
		return a
	}
	if l := g.lives[ref]; l != nil { // read by Run, the only one who writes it
		return &l.attempt
	}
	return nil
}

// change returns a copy of an attempt that will be written.
func (g *group) change(a *shoal.Attempt) *shoal.Attempt {
	if g.current[a.TaskRef] == a {
		return a
	}
	c := *a
	c.Members = slices.Clone(c.Members)
	g.put(&c)
	return &c
}

func (g *group) put(a *shoal.Attempt) {
	g.current[a.TaskRef] = a
	g.attempts = append(g.attempts, a)
}

func (g *group) send(machine shoal.MachineID, r api.Record) {
	g.records = append(g.records, record{machine, r})
}

// placeOf is a task's position in its job's array.
func (g *group) placeOf(a *shoal.Attempt) int {
	if p, ok := g.position[a.TaskRef]; ok {
		return p
	}
	return g.lives[a.TaskRef].position
}

// settle writes what the group changed, and ends the jobs that are over.
func (g *group) settle() error {
	for _, a := range g.former {
		if err := g.tx.PutAttempt(a); err != nil {
			return err
		}
	}
	for written := 0; ; { // an end can touch the jobs that waited for it, and their tasks
		for ; written < len(g.attempts); written++ {
			if err := g.tx.PutAttempt(*g.attempts[written]); err != nil {
				return err
			}
		}
		if len(g.dirty) == 0 {
			return nil
		}
		r := g.dirty[0]
		g.dirty = g.dirty[1:]
		r.dirty = false
		if err := g.settleJob(r); err != nil {
			return err
		}
	}
}

func (g *group) settleJob(r *row) error {
	was := r.State
	state := r.Counts.Outcome()
	if r.Counts.Starting > 0 && r.Counts.Starting+r.Counts.Queued == r.Counts.Total() {
		state = shoal.JobStarting
	}
	if !was.Ended() && state != was {
		r.State, r.Since = state, g.now
		if state == shoal.JobRunning && r.Started.IsZero() {
			r.Started = g.now
		}
	}
	if !was.Ended() && (was == shoal.JobQueued || was == shoal.JobStarting) && state == shoal.JobRunning {
		g.event(r, "jobRunning", "job %s is running", title(r.Job))
	}
	for _, n := range []struct {
		count           *int
		code, one, many string
	}{{&r.lost, "tasksLost", "lost its machine and waits again", "lost their machines and wait again"},
		{&r.preempted, "tasksPreempted", "had to go and waits again", "had to go and wait again"},
		{&r.retry, "tasksRetried", "failed and is tried again", "failed and are tried again"}} {
		if *n.count > 0 && !state.Ended() {
			g.event(r, n.code, "%s of job %s %s", tasks(*n.count), title(r.Job), verb(*n.count, n.one, n.many))
		}
		*n.count = 0
	}
	if state.Ended() && !was.Ended() {
		if err := g.end(r); err != nil {
			return err
		}
	}
	stored, err := g.tx.Jobs().Put(r.Job)
	if err != nil {
		return err
	}
	r.Job = stored
	return nil
}

// Total is the number of the job's tasks.
func (r *row) Total() int { return r.Counts.Total() }

func (g *group) event(r *row, code, format string, args ...any) {
	g.tx.Event(shoal.Event{Time: g.now, Kind: shoal.ObjectJob, Name: string(r.ID), Pool: r.Spec.Pool, User: r.User,
		Code: code, Sentence: fmt.Sprintf(format, args...)})
}
