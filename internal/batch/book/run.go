package book

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// Run does the work until ctx ends. Store errors are waited out. It can be called once.
func (b *Book) Run(ctx context.Context) error {
	defer b.output.Close()
	defer close(b.stopped)
	for !b.tries.Do(ctx, "read the jobs", b.load) {
		if err := retry.Sleep(ctx, tick); err != nil {
			return err
		}
	}
	close(b.ready)
	b.began = time.Now()
	for {
		ok := b.tries.Do(ctx, "look at the machines", b.look)
		ok = b.tries.Do(ctx, "have what runs fit the clock", b.fit) && b.tries.Do(ctx, "look after what runs", b.chores) && ok
		ok = b.tries.Do(ctx, "record what was asked and start tasks", b.turn) && ok
		ok = b.tries.Do(ctx, "store what was used", b.save) && ok
		if err := b.rest(ctx, ok); err != nil {
			return err
		}
	}
}

// rest waits until there is something to do. While no job is active it costs nothing.
func (b *Book) rest(ctx context.Context, ok bool) error {
	if b.busy && ok {
		return ctx.Err()
	}
	changed := b.cfg.Store.Changed()
	var due time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	b.mu.Lock()
	idle := b.sched.Empty()
	sooner(b.due)
	sooner(b.next)
	for _, w := range b.later {
		sooner(w.at)
	}
	b.mu.Unlock()
	switch {
	case !ok:
		changed, due = nil, time.Now().Add(tick)
	case idle:
		changed = nil
	case b.cfg.Store.Rev() != b.seen:
		changed = nil
		sooner(b.looked.Add(b.lookCost * lookShare))
	}
	var alarm <-chan time.Time
	if !due.IsZero() {
		timer := time.NewTimer(time.Until(due))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.poke:
	case <-alarm:
	case <-changed:
	}
	return nil
}

// turn does what was asked, and starts what fits and has go what must as package sched says: all of it in
// one transaction, so that under load each carries ends and the starts that they make room for. For that the
// scheduler is told of what is not on disk yet; if it does not get there, its state is made anew. While the
// store fails nothing is told ahead. Agents are told when all is on disk.
func (b *Book) turn(ctx context.Context) error {
	b.ahead = b.stale.Swap(false) || b.ahead
	if b.ahead {
		if err := b.load(ctx); err != nil {
			return err
		}
		b.ahead = false
	}
	if b.many {
		if err := retry.Sleep(ctx, gather); err != nil {
			return err
		}
	}
	b.mu.Lock()
	queue := b.queue
	b.queue = nil
	b.many = len(queue) > 1
	bold := !b.failing && len(queue) > 0
	var plan sched.Plan
	if !bold {
		plan = b.plan()
	}
	b.mu.Unlock()
	b.busy = len(queue)+len(plan.Starts)+len(plan.Preempt) > 0
	if !b.busy {
		return nil
	}
	results := make([]error, len(queue))
	runs := 0
	_, err := b.update(ctx, func(g *Group) error {
		runs++
		for i, r := range queue {
			err := r.do(g)
			if err != nil && store.Broken(err) {
				return err
			}
			results[i] = err
		}
		if bold {
			b.mu.Lock()
			if runs == 1 {
				b.sched.Apply(g.changes...)
				plan = b.plan()
			}
			b.mu.Unlock()
			g.told = len(g.changes)
		}
		return g.carryOut(plan)
	})
	b.failing = err != nil
	b.ahead = bold && (err != nil || runs > 1)
	for i, r := range queue {
		if err != nil {
			results[i] = err
		}
		r.done <- results[i]
	}
	return err
}

// gather is how long a turn waits for what is asked meanwhile, while many ask: each turn is a transaction, and a word
// to each machine.
const gather = 2 * time.Millisecond

// plan asks package sched. b.mu is held.
func (b *Book) plan() sched.Plan {
	now := time.Now()
	plan := b.sched.Plan(now, budget)
	b.next = b.sched.Next(now)
	return plan
}

// apply makes a committed group true in memory, and tells everybody whom it concerns.
func (b *Book) apply(g *Group) {
	if g.from == b.seen {
		b.seen = g.to // nobody else changed anything meanwhile
	}
	b.mu.Lock()
	for _, a := range g.attempts {
		b.applyAttempt(g, a)
	}
	b.sched.Apply(g.changes[g.told:]...)
	for k, n := range g.active {
		if b.active[k] += n; b.active[k] <= 0 {
			delete(b.active, k)
		}
	}
	for _, t := range g.drop {
		delete(b.later, t)
	}
	for t, w := range g.later {
		b.later[t] = w
	}
	for dep, list := range g.waits {
		b.waiting[dep] = append(b.waiting[dep], list...)
	}
	for _, ref := range g.unspare {
		delete(b.spare, ref)
	}
	for _, r := range g.jobs {
		b.rows.Keep(r.Job)
		if r.over || r.Cancel && !r.State.Ended() {
			b.drop(r.Job)
		}
	}
	b.mu.Unlock()
	for machine, refs := range g.forget {
		b.cfg.Send(machine, api.Record{Forget: &api.ForgetTask{Refs: refs, Jobs: g.done(refs)}})
	}
	for _, r := range g.records {
		b.cfg.Send(r.machine, r.record)
	}
	if g.demand {
		b.cfg.Wake()
	}
}

// done are the jobs among those of some attempts of which nothing comes to a machine any more.
func (g *Group) done(refs []shoal.AttemptRef) (all []shoal.JobID) {
	for _, ref := range refs {
		if r := g.jobs[ref.Job]; r != nil && r.State.Ended() && r.Spec.Release == "" && !slices.Contains(all, r.ID) {
			all = append(all, r.ID)
		}
	}
	return all
}

// applyAttempt keeps the list of what is live. b.mu is held.
func (b *Book) applyAttempt(g *Group, a *shoal.Attempt) {
	defer b.news.Ring(a.TaskRef)
	l := b.live[a.TaskRef]
	switch {
	case a.State.Ended():
		delete(b.behind, a.AttemptRef)
		if l == nil || l.attempt.Attempt > a.Attempt {
			return
		}
		delete(b.live, a.TaskRef)
		if slices.Contains(g.spare, a.AttemptRef) {
			l.attempt = *a
			b.spare[a.AttemptRef] = l
		} else {
			b.spares(g, a.TaskRef)
		}
		return
	case a.State == shoal.JobQueued:
		return
	}
	b.stand(*a)
	if l == nil || l.attempt.Attempt != a.Attempt {
		j := g.jobs[a.Job]
		l = newLive(b, j.Job, g.position[a.TaskRef], *a)
		b.live[a.TaskRef] = l
		if j.Spec.Release != "" && !a.Release {
			b.note(*a)
		}
	}
	if gang.Decided(*a) && !gang.Decided(l.attempt) {
		l.decided = time.Now()
	}
	l.attempt = *a
	b.watch(l)
}

// stand notes whose place an attempt takes, if it has yet to begin.
func (b *Book) stand(a shoal.Attempt) {
	if a.Behind != nil && a.State == shoal.JobStarting {
		b.behind[*a.Behind] = a.TaskRef
	}
}

// newLive is an attempt that begins, or has begun before the server did.
func newLive(b *Book, j shoal.Job, position int, a shoal.Attempt) *live {
	l := &live{attempt: a, position: position, output: b.output.Attempt(a.AttemptRef, j.Counts.Total() > 1),
		limit: time.Duration(j.Spec.TimeLimit), uses: j.Spec.Resources, idempotent: j.Spec.Idempotent, ready: gang.Readiness(j.Spec)}
	if a.Release {
		l.limit, l.uses = releaseLimit, shoal.Resources{}
	}
	if a.Memory > 0 {
		l.uses.Memory = a.Memory
	}
	return l
}

// watch has Run look after an attempt when it is due. b.mu is held.
func (b *Book) watch(l *live) {
	for _, at := range []time.Time{l.overdue(), l.readyBy(), b.judge} {
		if !at.IsZero() {
			b.remind(at)
		}
	}
	if b.judge.IsZero() && b.cfg.Answered != nil {
		b.remind(time.Now())
	}
}

// spares has what still runs of a task ended that is over. b.mu is held.
func (b *Book) spares(g *Group, ref shoal.TaskRef) {
	for other, l := range b.spare {
		if other.TaskRef == ref {
			delete(b.spare, other)
			g.send(l.attempt.Machine, gang.Stop(other, shoal.JobCancelled))
		}
	}
}

// remind has Run look after what runs at a time. b.mu is held.
func (b *Book) remind(at time.Time) {
	if b.due.IsZero() || at.Before(b.due) {
		b.due = at
	}
}

// drop forgets what is only needed for jobs of which something may start. b.mu is held.
func (b *Book) drop(j shoal.Job) {
	for t := range b.later {
		if t.Job == j.ID {
			delete(b.later, t)
		}
	}
	if !j.State.Ended() {
		return
	}
	delete(b.waiting, j.ID)
	delete(b.arrays, j.ID)
	delete(b.ran, j.ID)
	b.ends.Ring(j.ID)
	for ref := range b.news {
		if ref.Job == j.ID {
			b.news.Ring(ref)
		}
	}
}
