package batch

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// load reads from the store all that has not ended.
func (b *Batch) load(ctx context.Context) error {
	var l *loading
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		l = &loading{state: sched.New(), lives: map[shoal.TaskRef]*live{}, waiting: map[shoal.JobID][]waiter{}, of: map[shoal.JobID][]shoal.Attempt{}}
		l.group = newGroup(b, tx, l.lives)
		return l.read()
	})
	if err != nil {
		return err
	}
	for _, a := range l.lives {
		a.output.Find(len(gang.Nodes(a.attempt)))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sched, b.live, b.waiting, b.active = l.state, l.lives, l.waiting, l.active
	for _, a := range l.lives {
		b.watch(a)
	}
	for ref := range b.news { // whoever came early looks again
		b.news.ring(ref)
	}
	return nil
}

// loading is the state as it is read.
type loading struct {
	*group
	state   *sched.State
	lives   map[shoal.TaskRef]*live
	waiting map[shoal.JobID][]waiter
	of      map[shoal.JobID][]shoal.Attempt // those that are live
}

func (l *loading) read() error {
	serial, err := l.tx.Setting(serialSetting)
	if err != nil {
		return err
	}
	if serial != "" {
		if l.b.serial, err = strconv.ParseInt(serial, 10, 64); err != nil {
			return err
		}
	}
	attempts, err := l.tx.LiveAttempts()
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
	if err := l.usage(); err != nil {
		return err
	}
	users, err := l.tx.Users().List()
	if err != nil {
		return err
	}
	for _, u := range users { // the walk over the jobs must not read
		l.account(u.Name)
	}
	var again []shoal.Job // some of their tasks must start again
	err = l.tx.EachActiveJob(func(j shoal.Job) error {
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
		j, err := l.job(a.Job)
		if err != nil {
			return err
		}
		l.lives[a.TaskRef] = newLive(l.b, j.Job, -1, a)
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
		one := newLive(l.b, j, p, a)
		if gang.Decided(a) {
			one.decided = l.now
		}
		l.lives[a.TaskRef] = one
		l.state.Apply(startOf(a, p)...)
	}
	return nil
}

// startOf is what placement knows of an attempt that is live.
func startOf(a shoal.Attempt, position int) []sched.Change {
	task := sched.Task{Job: a.Job, Position: position}
	s := sched.Start{At: a.Placed, Placement: sched.Placement{Task: task, Memory: a.Memory, Backfilled: a.Backfilled}}
	for _, m := range gang.Nodes(a) {
		s.Machines = append(s.Machines, m.Machine)
	}
	changes := []sched.Change{s}
	if len(a.Members) > 0 && !a.Started.IsZero() {
		changes = append(changes, sched.Began{Task: task, At: a.Started})
	}
	if gang.Decided(a) && a.Cause == shoal.CausePreempted {
		changes = append(changes, sched.Preempting{Task: task})
	}
	return changes
}

// begun reads what is to be known beside of a job of which something runs.
func (l *loading) begun(id shoal.JobID) error {
	j, err := l.job(id)
	if err != nil || j.Spec.Release == "" {
		return err
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	return l.b.loadRan(l.tx, id)
}

// again1 finds which of a job's tasks must start again, or of a gated one may.
func (l *loading) again1(j shoal.Job) error {
	array, err := shoal.ParseArray(j.Spec.Array)
	if err != nil {
		return err
	}
	r := &row{Job: j}
	l.jobs[j.ID] = r // in short, which is enough
	gated := after.Gated(j.Spec)
	begun := map[int]bool{}
	var ready []sched.Change
	err = eachLatest(l.tx, j.ID, func(a shoal.Attempt) {
		p, ok := array.Position(a.Index)
		if !ok {
			return
		}
		if gated && a.State == shoal.JobQueued {
			return // like one that never had an attempt
		}
		begun[p] = true
		if repeats(j, a) {
			ready = append(ready, sched.Again{Task: sched.Task{Job: j.ID, Position: p}, Memory: l.memoryAfter(j, a)})
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
		dep, err := l.job(shoal.JobID(d.Job))
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

// memoryAfter is how much memory the next attempt of a task gets, if not what its job says.
func (g *group) memoryAfter(j shoal.Job, a shoal.Attempt) shoal.Bytes {
	if a.Cause == shoal.CauseOOM && j.Spec.Retry != nil {
		return g.more(j, a)
	}
	return a.Memory
}

// usageSetting holds what users have used, for fair share.
const usageSetting = "batch.usage"

// saveEvery is how often that is stored.
const saveEvery = 5 * time.Minute

type usedBy struct {
	Pool  shoal.PoolName  `json:"pool"`
	Group shoal.GroupName `json:"group,omitempty"`
	User  shoal.UserName  `json:"user"`
	At    time.Time       `json:"at"`
	Usage float64         `json:"usage"`
}

func (l *loading) usage() error {
	text, err := l.tx.Setting(usageSetting)
	if err != nil || text == "" {
		return err
	}
	var all []usedBy
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		l.b.cfg.Log.Error("batch: what users have used cannot be read; all are taken for new", "error", err)
		return nil
	}
	for _, u := range all {
		l.state.Apply(sched.PutUsage(u))
	}
	return nil
}

// save stores what users have used, now and then while something runs.
func (b *Batch) save(ctx context.Context) error {
	now := time.Now()
	if now.Sub(b.saved) < saveEvery {
		return nil
	}
	b.mu.Lock()
	usage := b.sched.Usage(now)
	b.mu.Unlock()
	all := make([]usedBy, 0, len(usage))
	for _, u := range usage {
		if u.Settled > 1 {
			all = append(all, usedBy{u.Pool, u.Group, u.User, now.UTC().Round(0), u.Settled})
		}
	}
	b.saved = now
	if len(all) == 0 {
		return nil
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return b.cfg.Store.Update(ctx, func(tx *store.Tx) error { return tx.SetSetting(usageSetting, string(text)) })
}

// look sees what became of machines, sessions and pools, unless nothing changed, nobody needs to know, or
// it was done just now.
func (b *Batch) look(ctx context.Context) error {
	b.mu.Lock()
	idle := b.sched.Empty() && len(b.live) == 0
	b.mu.Unlock()
	start := time.Now()
	if idle || b.cfg.Store.Rev() == b.seen || start.Sub(b.looked) < b.lookCost*lookShare {
		return nil
	}
	var machines []shoal.Machine
	var sessions []shoal.Session
	var pools []shoal.Pool
	var groups []shoal.Group
	var rev shoal.Rev
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		if rev, err = tx.Rev(); err != nil {
			return err
		}
		if machines, err = tx.LiveMachines(); err != nil {
			return err
		}
		if sessions, err = tx.LiveSessions(); err != nil {
			return err
		}
		if groups, err = tx.Groups().List(); err != nil {
			return err
		}
		pools, err = tx.Pools().List()
		return err
	})
	if err != nil {
		return err
	}
	b.sitting = map[shoal.MachineID][]sched.Sitting{}
	for _, s := range sessions {
		if s.Machine != "" {
			b.sitting[s.Machine] = append(b.sitting[s.Machine], sched.Sitting{User: s.User, Active: s.State != shoal.SessionDisconnected})
		}
	}
	known := make(map[shoal.MachineID]shoal.Machine, len(machines))
	alive := map[shoal.PoolName]int{}
	var places sched.PutMachines
	for _, m := range machines {
		known[m.ID] = m
		if m.Alive() {
			alive[m.Pool]++
		}
		place := sched.MachineOf(m)
		place.Sessions = b.sitting[m.ID]
		slices.SortFunc(place.Sessions, compareSittings)
		places = append(places, place)
	}
	names := map[shoal.PoolName]shoal.Pool{}
	var settings sched.PutPools
	for _, p := range pools {
		names[p.Name] = p
		s := sched.PoolOf(p)
		s.Room = max(mostMachines(p)-alive[p.Name], 0)
		settings = append(settings, s)
	}
	weights := sched.PutGroups{}
	for _, g := range groups {
		if g.Weight > 0 {
			weights[g.Name] = g.Weight
		}
	}
	b.mu.Lock()
	b.sched.Apply(places, settings, weights)
	b.mu.Unlock()
	b.machines, b.pools, b.seen = known, names, rev
	b.looked, b.lookCost = time.Now(), time.Since(start)
	if err := b.bury(ctx); err != nil {
		b.seen = -1 // look again
		return err
	}
	return nil
}

func compareSittings(a, b sched.Sitting) int {
	switch {
	case a.User < b.User:
		return -1
	case a.User > b.User:
		return 1
	}
	return 0
}

// mostMachines is how many machines a pool may have.
func mostMachines(p shoal.Pool) int {
	if p.Fixed != nil {
		return p.Fixed.Size
	}
	return p.Size.Max
}
