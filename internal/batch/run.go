package batch

import (
	"context"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// Run does the work until ctx ends. Store errors are waited out. It can be called once.
func (b *Batch) Run(ctx context.Context) error {
	defer b.output.Close()
	defer close(b.stopped)
	for !b.tries.Do(ctx, "read the jobs", b.load) {
		if err := retry.Sleep(ctx, tick); err != nil {
			return err
		}
	}
	close(b.ready)
	for {
		ok := b.tries.Do(ctx, "record what was asked", b.serve)
		ok = b.tries.Do(ctx, "look at the machines", b.look) && ok
		ok = b.tries.Do(ctx, "look after what runs", b.chores) && ok
		ok = b.tries.Do(ctx, "start tasks", b.place) && ok
		if err := b.rest(ctx, ok); err != nil {
			return err
		}
	}
}

// rest waits until there is something to do. While no job is active it costs nothing.
func (b *Batch) rest(ctx context.Context, ok bool) error {
	if b.exhausted && ok {
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
	for _, t := range b.later {
		sooner(t)
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

// serve does what was asked, all of it in one transaction.
func (b *Batch) serve(ctx context.Context) error {
	b.mu.Lock()
	queue := b.queue
	b.queue = nil
	b.mu.Unlock()
	if len(queue) == 0 {
		return nil
	}
	results := make([]error, len(queue))
	_, err := b.update(ctx, func(g *group) error {
		for i, r := range queue {
			err := r.do(g)
			if err != nil && broken(err) {
				return err
			}
			results[i] = err
		}
		return nil
	})
	for i, r := range queue {
		if err != nil {
			results[i] = err
		}
		r.done <- results[i]
	}
	return err
}

// broken reports whether an error is of the store rather than of one request.
func broken(err error) bool {
	switch shoal.KindOf(err) {
	case shoal.KindInternal, shoal.KindUnavailable, shoal.KindCancelled:
		return true
	}
	return false
}

// apply makes a committed group true in memory, and tells everybody whom it concerns.
func (b *Batch) apply(g *group) {
	if g.from == b.seen {
		b.seen = g.to // nobody else changed anything meanwhile
	}
	b.mu.Lock()
	for _, a := range g.attempts {
		b.applyAttempt(g, a)
	}
	b.sched.Apply(g.changes...)
	for t, at := range g.later {
		b.later[t] = at
	}
	for dep, ids := range g.waits {
		b.waiting[dep] = append(b.waiting[dep], ids...)
	}
	for _, r := range g.jobs {
		if r.Cancel || r.State.Ended() {
			b.drop(r.Job)
		}
	}
	b.mu.Unlock()
	for machine, refs := range g.forget {
		b.cfg.Send(machine, api.Record{Forget: &api.ForgetTask{Refs: refs}})
	}
	for _, r := range g.records {
		b.cfg.Send(r.machine, r.record)
	}
	if g.demand {
		b.cfg.Wake()
	}
}

// applyAttempt keeps the list of what is live. b.mu is held.
func (b *Batch) applyAttempt(g *group, a *shoal.Attempt) {
	defer b.news.ring(a.TaskRef)
	l := b.live[a.TaskRef]
	if a.State.Ended() {
		if l != nil && l.attempt.Attempt <= a.Attempt {
			delete(b.live, a.TaskRef)
		}
		return
	}
	if l == nil || l.attempt.Attempt != a.Attempt {
		l = &live{position: g.position[a.TaskRef], output: b.output.Attempt(a.AttemptRef, g.jobs[a.Job].Total() > 1), limit: time.Duration(g.jobs[a.Job].Spec.TimeLimit)}
		b.live[a.TaskRef] = l
	}
	l.attempt = *a
	if l.limit > 0 && !a.Started.IsZero() {
		b.remind(a.Started.Add(l.limit + graceful + slack))
	}
}

// remind has Run look after what runs at a time. b.mu is held.
func (b *Batch) remind(at time.Time) {
	if b.due.IsZero() || at.Before(b.due) {
		b.due = at
	}
}

// drop forgets what is only needed for jobs of which something may start. b.mu is held.
func (b *Batch) drop(j shoal.Job) {
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
	b.ends.ring(j.ID)
	for ref := range b.news {
		if ref.Job == j.ID {
			b.news.ring(ref)
		}
	}
}

// load reads from the store all that has not ended.
func (b *Batch) load(ctx context.Context) error {
	state := sched.New()
	lives := map[shoal.TaskRef]*live{}
	waiting := map[shoal.JobID][]shoal.JobID{}
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		serial, err := tx.Setting(serialSetting)
		if err != nil {
			return err
		}
		if serial != "" {
			if b.serial, err = strconv.ParseInt(serial, 10, 64); err != nil {
				return err
			}
		}
		attempts, err := tx.LiveAttempts()
		if err != nil {
			return err
		}
		of := map[shoal.JobID][]shoal.Attempt{}
		for _, a := range attempts {
			of[a.Job] = append(of[a.Job], a)
		}
		var again []shoal.Job // some of their tasks must start again
		err = tx.EachActiveJob(func(j shoal.Job) error {
			for _, dep := range j.Spec.After {
				if j.Blocked {
					waiting[shoal.JobID(dep.Job)] = append(waiting[shoal.JobID(dep.Job)], j.ID)
				}
			}
			if !j.Cancel && j.Counts.Queued > j.Counts.Total()-j.Next {
				again = append(again, j)
			}
			return b.loadJob(state, j, of[j.ID], lives)
		})
		for _, j := range again {
			if err == nil {
				err = loadAgain(tx, state, j)
			}
		}
		if err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range lives {
		l.output.Find(1)
	}
	b.mu.Lock()
	for _, l := range lives {
		if l.limit > 0 && !l.attempt.Started.IsZero() {
			b.remind(l.attempt.Started.Add(l.limit + graceful + slack))
		}
	}
	b.sched, b.live, b.waiting = state, lives, waiting
	for ref := range b.news { // whoever came early looks again
		b.news.ring(ref)
	}
	b.mu.Unlock()
	return nil
}

func (b *Batch) loadJob(state *sched.State, j shoal.Job, attempts []shoal.Attempt, lives map[shoal.TaskRef]*live) error {
	state.Apply(sched.PutJob(schedJob(j)))
	if len(attempts) == 0 {
		return nil
	}
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return err
	}
	for _, a := range attempts {
		p, ok := array.Position(a.Index)
		if !ok {
			b.cfg.Log.Error("batch: an attempt of a task that its job does not have", "attempt", a.AttemptRef.String())
			continue
		}
		lives[a.TaskRef] = &live{attempt: a, position: p, output: b.output.Attempt(a.AttemptRef, j.Counts.Total() > 1), limit: time.Duration(j.Spec.TimeLimit)}
		state.Apply(sched.Start{At: a.Placed, Placement: sched.Placement{Task: sched.Task{Job: j.ID, Position: p}, Machines: []shoal.MachineID{a.Machine}}})
	}
	return nil
}

// loadAgain finds which of a job's tasks must start again.
func loadAgain(tx *store.Tx, state *sched.State, j shoal.Job) error {
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return err
	}
	positions, err := waitingAgain(tx, j, array)
	for _, p := range positions {
		state.Apply(sched.Again{Task: sched.Task{Job: j.ID, Position: p}})
	}
	return err
}

// waitingAgain reads which of a job's tasks must start again.
func waitingAgain(tx *store.Tx, j shoal.Job, array shoal.Array) ([]int, error) {
	const page = 1000
	var again []int
	for from := 0; ; {
		attempts, err := tx.Attempts(j.ID, from, page)
		if err != nil {
			return nil, err
		}
		for _, a := range attempts {
			if p, ok := array.Position(a.Index); ok && repeats(j, a) {
				again = append(again, p)
			}
		}
		if len(attempts) < page {
			return again, nil
		}
		from = attempts[len(attempts)-1].Index + 1
	}
}

// look sees what became of machines and pools, unless nothing changed, nobody needs to know, or
// it was done just now.
func (b *Batch) look(ctx context.Context) error {
	b.mu.Lock()
	idle := b.sched.Empty()
	b.mu.Unlock()
	start := time.Now()
	if idle || b.cfg.Store.Rev() == b.seen || start.Sub(b.looked) < b.lookCost*lookShare {
		return nil
	}
	var machines []shoal.Machine
	var pools []shoal.Pool
	var rev shoal.Rev
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		if rev, err = tx.Rev(); err != nil {
			return err
		}
		if machines, err = tx.LiveMachines(); err != nil {
			return err
		}
		pools, err = tx.Pools().List()
		return err
	})
	if err != nil {
		return err
	}
	known := make(map[shoal.MachineID]shoal.Machine, len(machines))
	var places sched.PutMachines
	for _, m := range machines {
		known[m.ID] = m
		places = append(places, sched.MachineOf(m))
	}
	names := map[shoal.PoolName]bool{}
	var settings sched.PutPools
	for _, p := range pools {
		names[p.Name] = true
		settings = append(settings, sched.PoolOf(p))
	}
	b.mu.Lock()
	b.sched.Apply(places, settings)
	b.mu.Unlock()
	b.machines, b.pools, b.seen = known, names, rev
	b.looked, b.lookCost = time.Now(), time.Since(start)
	if err := b.bury(ctx); err != nil {
		b.seen = -1 // look again
		return err
	}
	return nil
}
