package book

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/book/lookup"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// Group is one transaction of Run: what several requests change together. It is built anew if the
// store runs the transaction twice, and touches the Book only after the commit, in apply.
type Group struct {
	b      *Book
	Tx     *store.Tx
	Tables *lookup.Tables
	Now    time.Time // of all that the group changes

	jobs     map[shoal.JobID]*Row
	dirty    []*Row
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
	active   map[holder]int  // jobs that were taken, less those that ended
	changes  []sched.Change
	told     int // of changes: those the scheduler knows already
	records  []record
	forget   map[shoal.MachineID][]shoal.AttemptRef
	demand   bool // the engine should know
	from, to shoal.Rev
	own      bool // it is Run's own, which may look at what only Run knows
}

// Row is a job within a group.
type Row struct {
	shoal.Job
	dirty     bool
	lost      int  // tasks that lost their machine
	over      bool // it ended just now
	queued    bool // the scheduler was told what of it waits
	preempted int  // tasks that had to go
	retry     int  // tasks that failed and are tried again
}

// record is what a machine's agent is told after the commit.
type record struct {
	machine shoal.MachineID
	record  api.Record
}

// update runs a transaction and applies it.
func (b *Book) update(ctx context.Context, do func(*Group) error) (*Group, error) {
	var g *Group
	tables := b.tables
	b.tables = nil // until what was read is known to be stored
	err := b.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		g = newGroup(b, tx, b.live)
		g.own, g.Tables, tables = true, tables.In(tx), nil
		if g.from, err = tx.Rev(); err != nil {
			return err
		}
		if err := do(g); err != nil {
			return err
		}
		if err := g.settle(); err != nil {
			return err
		}
		g.to, err = tx.Rev()
		return err
	})
	if err != nil {
		clear(b.rows)
		return nil, err
	}
	b.tables = g.Tables
	b.apply(g)
	return g, nil
}

func newGroup(b *Book, tx *store.Tx, lives map[shoal.TaskRef]*live) *Group {
	return &Group{b: b, Tx: tx, lives: lives, Tables: lookup.Of(tx), Now: time.Now().UTC().Round(0),
		jobs: map[shoal.JobID]*Row{}, current: map[shoal.TaskRef]*shoal.Attempt{}, position: map[shoal.TaskRef]int{},
		again: map[shoal.JobID][]int{}, later: map[sched.Task]again{}, waits: map[shoal.JobID][]waiter{},
		known: map[shoal.JobID]map[int]shoal.JobState{}, active: map[holder]int{},
		forget: map[shoal.MachineID][]shoal.AttemptRef{}}
}

// Job returns a job's row, or KindNotFound.
func (g *Group) Job(id shoal.JobID) (*Row, error) {
	if r := g.jobs[id]; r != nil {
		return r, nil
	}
	var rows lookup.Rows
	if g.own {
		rows = g.b.rows
	}
	j, err := rows.Get(g.Tx, id)
	if err != nil {
		return nil, err
	}
	r := &Row{Job: j}
	g.jobs[id] = r
	return r, nil
}

// Adopt takes a row into the group that was stored just now.
func (g *Group) Adopt(j shoal.Job) *Row {
	r := &Row{Job: j}
	g.jobs[j.ID] = r
	return r
}

// Running reports whether something of a job is starting or running, a release command aside.
func (g *Group) Running(id shoal.JobID) bool {
	for ref, l := range g.b.live {
		if ref.Job == id && !l.attempt.Release {
			return true
		}
	}
	return false
}

// Touch notes that a row is to be written.
func (g *Group) Touch(r *Row) {
	if !r.dirty {
		r.dirty = true
		g.dirty = append(g.dirty, r)
	}
}

// Attempt returns a task's attempt that is live, or was when the group began; nil if there is none.
// To change it, use Change.
func (g *Group) Attempt(ref shoal.TaskRef) *shoal.Attempt {
	if a := g.current[ref]; a != nil {
		return a
	}
	if l := g.lives[ref]; l != nil { // read by Run, the only one who writes it
		return &l.attempt
	}
	return nil
}

// Change returns a copy of an attempt that will be written.
func (g *Group) Change(a *shoal.Attempt) *shoal.Attempt {
	if g.current[a.TaskRef] == a {
		return a
	}
	c := *a
	c.Members = slices.Clone(c.Members)
	g.Put(&c)
	return &c
}

// Put has an attempt written.
func (g *Group) Put(a *shoal.Attempt) {
	g.current[a.TaskRef] = a
	g.attempts = append(g.attempts, a)
}

func (g *Group) send(machine shoal.MachineID, r api.Record) {
	g.records = append(g.records, record{machine, r})
}

// placeOf is a task's position in its job's array.
func (g *Group) placeOf(a *shoal.Attempt) int {
	if p, ok := g.position[a.TaskRef]; ok {
		return p
	}
	return g.lives[a.TaskRef].position
}

// settle writes what the group changed, and ends the jobs that are over.
func (g *Group) settle() error {
	for _, a := range g.former {
		if err := g.Tx.PutAttempt(a); err != nil {
			return err
		}
	}
	for written := 0; ; { // an end can touch the jobs that waited for it, and their tasks
		for ; written < len(g.attempts); written++ {
			if err := g.Tx.PutAttempt(*g.attempts[written]); err != nil {
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

func (g *Group) settleJob(r *Row) error {
	was := r.State
	state := r.Counts.Outcome()
	if r.Counts.Starting > 0 && r.Counts.Starting+r.Counts.Queued == r.Counts.Total() {
		state = shoal.JobStarting
	}
	if !was.Ended() && state != was {
		r.State, r.Since = state, g.Now
		if state == shoal.JobRunning && r.Started.IsZero() {
			r.Started = g.Now
		}
	}
	if !was.Ended() && (was == shoal.JobQueued || was == shoal.JobStarting) && state == shoal.JobRunning {
		g.Event(r, "jobRunning", "job %s is running", outcome.Title(r.Job))
	}
	for _, n := range []struct {
		count           *int
		code, one, many string
	}{{&r.lost, "tasksLost", "lost its machine and waits again", "lost their machines and wait again"},
		{&r.preempted, "tasksPreempted", "had to go and waits again", "had to go and wait again"},
		{&r.retry, "tasksRetried", "failed and is tried again", "failed and are tried again"}} {
		if *n.count > 0 && !state.Ended() {
			g.Event(r, n.code, "%s of job %s %s", outcome.Tasks(*n.count), outcome.Title(r.Job), outcome.Verb(*n.count, n.one, n.many))
		}
		*n.count = 0
	}
	if state.Ended() && !was.Ended() {
		if err := g.end(r); err != nil {
			return err
		}
	}
	stored, err := g.Tx.Jobs().Put(r.Job)
	if err != nil {
		return err
	}
	r.Job = stored
	return nil
}

// Total is the number of the job's tasks.
func (r *Row) Total() int { return r.Counts.Total() }

// Event tells people of a change of a job.
func (g *Group) Event(r *Row, code, format string, args ...any) {
	g.Tx.Event(shoal.Event{Time: g.Now, Kind: shoal.ObjectJob, Name: string(r.ID), Pool: r.Spec.Pool, User: r.User,
		Code: code, Sentence: fmt.Sprintf(format, args...)})
}
