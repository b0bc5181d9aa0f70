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
	position map[shoal.TaskRef]int // of attempts placed here
	again    map[shoal.JobID][]int // positions that must start again
	later    map[sched.Task]time.Time
	waits    map[shoal.JobID][]shoal.JobID // new dependents by what they wait for
	ended    []shoal.JobID
	changes  []sched.Change
	records  []record
	forget   map[shoal.MachineID][]shoal.AttemptRef
	demand   bool // the engine should know
	from, to shoal.Rev
}

// row is a job within a group.
type row struct {
	shoal.Job
	dirty bool
	lost  int // tasks that lost their machine
	retry int // tasks that failed and are tried again
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
		g = &group{b: b, tx: tx, now: time.Now().UTC().Round(0),
			jobs: map[shoal.JobID]*row{}, current: map[shoal.TaskRef]*shoal.Attempt{}, position: map[shoal.TaskRef]int{},
			again: map[shoal.JobID][]int{}, later: map[sched.Task]time.Time{}, waits: map[shoal.JobID][]shoal.JobID{},
			forget: map[shoal.MachineID][]shoal.AttemptRef{}}
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
	if l := g.b.live[ref]; l != nil { // read by Run, the only one who writes it
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
	return g.b.live[a.TaskRef].position
}

// finish ends an attempt that is live, whose fields but State are filled in, and moves its task on.
func (g *group) finish(a *shoal.Attempt, from, to shoal.JobState) error {
	j, err := g.job(a.Job)
	if err != nil {
		return err
	}
	g.touch(j)
	a.State = to
	if a.Ended.IsZero() {
		a.Ended = g.now
	}
	task := sched.Task{Job: a.Job, Position: g.placeOf(a)}
	g.changes = append(g.changes, sched.End{Task: task, At: a.Ended})
	if j.Started.IsZero() && !a.Started.IsZero() {
		j.Started = a.Started
	}
	if to == shoal.JobFailed {
		a.Failures++
	}
	j.Counts.Add(from, -1)
	if !repeats(j.Job, *a) {
		j.Counts.Add(to, 1)
		return nil
	}
	j.Counts.Add(shoal.JobQueued, 1)
	g.demand = true
	if to == shoal.JobFailed {
		j.retry++
	} else {
		j.lost++
	}
	g.again[a.Job] = append(g.again[a.Job], task.Position)
	if wait := postpone(a.Attempt); wait > 0 {
		g.later[task] = g.now.Add(wait)
	} else {
		g.changes = append(g.changes, sched.Again{Task: task})
	}
	return nil
}

// repeats reports whether a task whose latest attempt ended as a must start again.
func repeats(j shoal.Job, a shoal.Attempt) bool {
	switch a.State {
	case shoal.JobLost, shoal.JobPreempted:
		return !j.Cancel
	case shoal.JobFailed:
		return !j.Cancel && a.Failures <= j.Spec.Retries
	}
	return false
}

// postpone is how long a task waits before its next attempt: not at all at first, then ever longer,
// so that a task that nobody can run does not keep everybody busy.
func postpone(attempt int) time.Duration {
	if attempt < 3 {
		return 0
	}
	return min(time.Second<<min(attempt-3, 10), maxPostpone)
}

// settle writes what the group changed, and ends the jobs that are over.
func (g *group) settle() error {
	for _, a := range g.attempts {
		if err := g.tx.PutAttempt(*a); err != nil {
			return err
		}
	}
	for len(g.dirty) > 0 { // an end can touch the jobs that waited for it
		r := g.dirty[0]
		g.dirty = g.dirty[1:]
		r.dirty = false
		if err := g.settleJob(r); err != nil {
			return err
		}
	}
	return nil
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

// end completes the row of a job that is over, and frees or ends those that waited for it.
func (g *group) end(r *row) error {
	r.Ended, r.Blocked = g.now, false
	if err := g.outcome(r); err != nil {
		return err
	}
	g.ended = append(g.ended, r.ID)
	g.changes = append(g.changes, sched.EndJob{ID: r.ID})
	g.demand = true
	sentence := fmt.Sprintf("job %s %s", title(r.Job), ended(r.State))
	if r.Reason != "" {
		sentence += ": " + r.Reason
	}
	g.event(r, "jobEnded", "%s", sentence)
	for _, id := range append(slices.Clone(g.b.waiting[r.ID]), g.waits[r.ID]...) {
		d, err := g.job(id)
		if err != nil {
			return err
		}
		if d.State.Ended() || d.Cancel {
			continue
		}
		if r.State != shoal.JobSucceeded {
			if err := g.cancel(d, fmt.Sprintf("job %s, which had to succeed first, %s", title(r.Job), ended(r.State))); err != nil {
				return err
			}
			continue
		}
		if err := g.unblock(d); err != nil {
			return err
		}
	}
	return nil
}

// outcome gives a job that is over its reason, if it is not a success.
func (g *group) outcome(r *row) error {
	if r.State == shoal.JobSucceeded {
		r.Reason = ""
		return nil
	}
	cancelled := ""
	if r.Cancel && r.Reason != "" {
		if r.State == shoal.JobCancelled {
			return nil
		}
		cancelled = r.Reason + "; "
	}
	worst, err := g.tx.Failures(r.ID, 1)
	if err != nil {
		return err
	}
	c := r.Counts
	switch {
	case len(worst) == 0:
	case c.Total() == 1:
		r.Reason = cancelled + worst[0].Reason
	default:
		r.Reason = cancelled + fmt.Sprintf("%d of %s did not succeed; the first is %s: %s", c.Failed+c.TimedOut+c.Cancelled, tasks(c.Total()), worst[0].TaskRef, worst[0].Reason)
	}
	return nil
}

// unblock lets a job start if all it waited for has succeeded.
func (g *group) unblock(d *row) error {
	reason, err := g.blockers(d.Spec.After)
	if err != nil && !broken(err) { // one of them never will succeed
		return g.cancel(d, err.Error())
	}
	if err != nil {
		return err
	}
	d.Reason, d.Blocked = reason, reason != ""
	g.touch(d)
	if !d.Blocked {
		g.demand = true
		g.changes = append(g.changes, sched.PutJob(schedJob(d.Job)))
	}
	return nil
}

// blockers says what jobs do still have to end; empty if all have succeeded. It is an error of kind
// conflict if one of them never will.
func (g *group) blockers(after []shoal.Dependency) (string, error) {
	reason := ""
	for _, d := range after {
		dep, err := g.job(shoal.JobID(d.Job))
		if err != nil {
			return "", err
		}
		switch {
		case dep.State == shoal.JobSucceeded:
		case dep.State.Ended():
			return "", shoal.Errorf(shoal.KindConflict, "job %s, which has to succeed first, %s", title(dep.Job), ended(dep.State)).
				WithHint("leave it out of `after`, or run it again")
		case reason == "":
			reason = "waits for job " + title(dep.Job)
		default:
			reason += " and " + title(dep.Job)
		}
	}
	return reason, nil
}

// cancel ends what waits of a job at once, and has what runs stopped.
func (g *group) cancel(r *row, reason string) error {
	g.touch(r)
	r.Cancel, r.Reason, r.Blocked = true, reason, false
	queued := r.Counts.Queued
	r.Counts.Add(shoal.JobQueued, -queued)
	r.Counts.Add(shoal.JobCancelled, queued)
	if again := queued - (r.Total() - r.Next); again > 0 {
		if err := g.cancelAgain(r, reason); err != nil {
			return err
		}
	}
	g.changes = append(g.changes, sched.PutJob(schedJob(r.Job)))
	for ref, l := range g.b.live {
		if a := g.attempt(ref); ref.Job == r.ID && !a.State.Ended() {
			g.send(l.attempt.Machine, api.Record{Stop: &api.StopOrder{Ref: a.AttemptRef, State: shoal.JobCancelled}})
		}
	}
	return nil
}

// cancelAgain records for tasks that were to start again that they will not: their latest attempt
// is the task's state.
func (g *group) cancelAgain(r *row, reason string) error {
	array, err := shoal.ParseArray(r.Spec.Array)
	if err != nil {
		return err
	}
	positions := slices.Clone(g.again[r.ID])
	if j, ok := g.b.sched.Job(r.ID); ok {
		positions = append(positions, j.Again...)
	}
	for t := range g.b.later {
		if t.Job == r.ID {
			positions = append(positions, t.Position)
		}
	}
	for _, p := range positions {
		delete(g.later, sched.Task{Job: r.ID, Position: p})
		ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
		last := g.current[ref]
		if last == nil {
			stored, err := g.tx.Attempt(ref)
			if err != nil {
				return err
			}
			last = &stored
		}
		g.put(&shoal.Attempt{
			AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: last.Attempt + 1}, User: r.User, Pool: r.Spec.Pool, Failures: last.Failures,
			State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: reason, Ended: g.now, ExitCode: exitOwn})
	}
	return nil
}

// Total is the number of the job's tasks.
func (r *row) Total() int { return r.Counts.Total() }

func (g *group) event(r *row, code, format string, args ...any) {
	g.tx.Event(shoal.Event{Time: g.now, Kind: shoal.ObjectJob, Name: string(r.ID), Pool: r.Spec.Pool, User: r.User,
		Code: code, Sentence: fmt.Sprintf(format, args...)})
}

// schedJob is a job as placement sees it, without tasks that must start again.
func schedJob(j shoal.Job) sched.Job {
	number, _ := strconv.ParseInt(string(j.ID), 10, 64)
	s := sched.Job{ID: j.ID, Number: number, User: j.User, Pool: j.Spec.Pool, Priority: sched.PriorityOf(j.Spec.Priority),
		Resources: j.Spec.Resources, Total: j.Counts.Total(), Next: j.Next, Blocked: j.Blocked}
	if j.Cancel {
		s.Next = s.Total // nothing of it starts any more
	}
	return s
}
