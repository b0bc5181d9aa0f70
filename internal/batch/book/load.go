package book

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/book/history"
	"github.com/shoal-pool/shoal/internal/batch/book/outlook"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// load reads from the store all that has not ended. What is known of attempts beside stays.
func (b *Book) load(ctx context.Context) error {
	var l *loading
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		l = &loading{state: sched.New(), lives: map[shoal.TaskRef]*live{}, waiting: map[shoal.JobID][]waiter{}, of: map[shoal.JobID][]shoal.Attempt{}}
		l.Group = newGroup(b, tx, l.lives)
		return l.read()
	})
	if err != nil {
		return err
	}
	for ref, a := range l.lives {
		if b.live[ref] != a {
			a.output.Find(len(gang.Nodes(a.attempt)))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = -1
	clear(b.behind)
	b.sched, b.live, b.waiting, b.active, b.moved = l.state, l.lives, l.waiting, l.active, l.moved
	for _, a := range l.lives {
		b.stand(a.attempt)
		b.watch(a)
	}
	for ref := range b.news { // whoever came early looks again
		b.news.Ring(ref)
	}
	return nil
}

// loading is the state as it is read.
type loading struct {
	*Group
	state   *sched.State
	lives   map[shoal.TaskRef]*live
	waiting map[shoal.JobID][]waiter
	of      map[shoal.JobID][]shoal.Attempt // those that are live
	moved   time.Duration
}

func (l *loading) read() error {
	var err error
	if l.moved, err = l.Tx.DurationSetting(outlook.MovedSetting); err != nil {
		return err
	}
	attempts, err := l.Tx.LiveAttempts()
	if err != nil {
		return err
	}
	var releases []shoal.Attempt
	for _, a := range attempts {
		if a.Release {
			releases = append(releases, a)
		} else {
			l.of[a.Job] = append(l.of[a.Job], a)
		}
	}
	used, err := outlook.LoadUsage(l.Tx, l.b.sched, l.Now)
	if err != nil {
		l.b.cfg.Log.Error("batch: all users are taken for new", "error", err)
	}
	l.state.Apply(used...)
	if err := l.Tables.Seal(); err != nil { // the walk over the jobs must not read
		return err
	}
	var again []shoal.Job // some of their tasks must start again
	err = l.Tx.EachActiveJob(func(j shoal.Job) error {
		for _, d := range j.Spec.After {
			if id := shoal.JobID(d.Job); j.Blocked || d.Task == shoal.Corresponding {
				l.waiting[id] = append(l.waiting[id], waiter{j.ID, d.Task == shoal.Corresponding})
			}
		}
		if !j.Cancel && (j.Counts.Queued > j.Counts.Total()-j.Next || after.Gated(j.Spec)) {
			again = append(again, j)
		}
		return l.job1(j)
	})
	if err != nil {
		return err
	}
	for _, a := range releases {
		j, err := l.Job(a.Job)
		if err != nil {
			return err
		}
		if l.lives[a.TaskRef] = l.b.live[a.TaskRef]; l.lives[a.TaskRef] == nil {
			l.lives[a.TaskRef] = newLive(l.b, j.Job, -1, a)
		}
	}
	for id := range l.of {
		if err := l.begun(id); err != nil {
			return err
		}
	}
	for _, j := range again {
		if err := l.again1(j); err != nil {
			return err
		}
	}
	return nil
}

// job1 tells the scheduler of a job and of what runs of it.
func (l *loading) job1(j shoal.Job) error {
	l.state.Apply(sched.PutJob(l.schedJob(j)))
	l.active[holder{j.User, j.Spec.Pool}]++
	attempts := l.of[j.ID]
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
			l.b.cfg.Log.Error("batch: an attempt of a task that its job does not have", "attempt", a.AttemptRef.String())
			continue
		}
		one := l.b.live[a.TaskRef]
		if one == nil || one.attempt.AttemptRef != a.AttemptRef {
			one = newLive(l.b, j, p, a)
		}
		if gang.Decided(a) && one.decided.IsZero() {
			one.decided = time.Now()
		}
		l.lives[a.TaskRef] = one
		l.state.Apply(outlook.Start(a, p, l.Now.Add(graceful+slack))...)
	}
	return nil
}

// begun reads what is to be known beside of a job of which something runs.
func (l *loading) begun(id shoal.JobID) error {
	j, err := l.Job(id)
	if err != nil || j.Spec.Release == "" {
		return err
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	return history.Placed(l.Tx, id, l.b.note)
}

// again1 finds which of a job's tasks must start again, or of a gated one may.
func (l *loading) again1(j shoal.Job) error {
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return err
	}
	r := &Row{Job: j}
	l.jobs[j.ID] = r // in short, which is enough
	gated := after.Gated(j.Spec)
	begun := map[int]bool{}
	var ready []sched.Change
	err = history.Each(l.Tx, j.ID, func(a shoal.Attempt) {
		p, ok := array.Position(a.Index)
		if !ok {
			return
		}
		if gated && a.State == shoal.JobQueued {
			return // like one that never had an attempt
		}
		begun[p] = true
		if _, waits := l.b.later[sched.Task{Job: j.ID, Position: p}]; !waits && outcome.Repeats(j, a) {
			ready = append(ready, sched.Again{Task: sched.Task{Job: j.ID, Position: p}, Memory: outcome.Memory(j, a, l.b.world.Pools[j.Spec.Pool])})
		}
	})
	if err != nil {
		return err
	}
	l.state.Apply(ready...)
	if !gated {
		return nil
	}
	for _, d := range j.Spec.After {
		if d.Task != shoal.Corresponding {
			continue
		}
		dep, err := l.Job(shoal.JobID(d.Job))
		if err != nil {
			return err
		}
		if err := l.lookThrough(dep); err != nil {
			return err
		}
	}
	for p := range array.Len() {
		if begun[p] {
			continue
		}
		v, _, err := l.verdict(r, p, array.Index(p))
		if err != nil {
			return err
		}
		if v == after.Ready {
			l.state.Apply(sched.Again{Task: sched.Task{Job: j.ID, Position: p}})
		}
	}
	return nil
}

// save stores what users have used, now and then while something runs.
func (b *Book) save(ctx context.Context) error {
	now := time.Now()
	if now.Sub(b.saved) < saveEvery {
		return nil
	}
	b.mu.Lock()
	usage := b.sched.Usage(now)
	b.mu.Unlock()
	b.saved = now
	return outlook.SaveUsage(ctx, b.cfg.Store, usage, now)
}

// look sees what became of machines, sessions and pools, unless nothing changed, nobody needs to know, or
// it was done just now.
func (b *Book) look(ctx context.Context) error {
	b.mu.Lock()
	idle := b.sched.Empty() && len(b.live) == 0
	b.mu.Unlock()
	start := time.Now()
	if idle || b.cfg.Store.Rev() == b.seen || start.Sub(b.looked) < b.lookCost*lookShare {
		return nil
	}
	var world outlook.World
	var changes []sched.Change
	var rev shoal.Rev
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		world, changes, rev, err = outlook.Look(tx)
		return err
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.sched.Apply(changes...)
	b.mu.Unlock()
	b.world, b.seen = world, rev
	b.looked, b.lookCost = time.Now(), time.Since(start)
	if err := b.bury(ctx); err != nil {
		b.seen = -1 // look again
		return err
	}
	return nil
}
