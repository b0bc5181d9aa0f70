package book

import (
	"fmt"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/book/history"
	"github.com/shoal-pool/shoal/internal/batch/book/outlook"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// waiter is a job that waits for another, or whose tasks wait for the other's.
type waiter struct {
	id   shoal.JobID
	each bool
}

// holder is who has jobs in a pool.
type holder struct {
	user shoal.UserName
	pool shoal.PoolName
}

// Admits says why a job that could run cannot be taken now, and counts it if it can.
func (g *Group) Admits(user shoal.UserName, s shoal.JobSpec) error {
	if _, err := g.Blockers(s.After); err != nil && !after.Lost(s, err) {
		return err
	}
	p, err := g.Tables.Named(s.Pool)
	if err != nil {
		return err
	}
	k := holder{user, s.Pool}
	if most := p.Limits.PerUser.Jobs; most > 0 && g.b.active[k]+g.active[k] >= most {
		return shoal.Errorf(shoal.KindExhausted, "cannot submit the job: %s has %d jobs in pool %s that have not ended, as many as one user may", user, most, s.Pool).
			WithHint("wait for one to end; an array counts as one job")
	}
	g.active[k]++
	return nil
}

// Withdraw takes back what Admits counted, of a job that is not taken after all.
func (g *Group) Withdraw(user shoal.UserName, s shoal.JobSpec) { g.active[holder{user, s.Pool}]-- }

// Enter tells the scheduler of a job that is new, or goes on, what of it may start, and has it wait for
// others. Its row is in the group.
func (g *Group) Enter(r *Row) error {
	g.demand = true
	if !r.queued {
		g.changes = append(g.changes, sched.PutJob(g.schedJob(r.Job)))
	}
	for _, d := range r.Spec.After {
		id := shoal.JobID(d.Job)
		g.waits[id] = append(g.waits[id], waiter{r.ID, d.Task == shoal.Corresponding})
	}
	return g.sweep(r)
}

// Blockers says what jobs do still have to end; empty if all have as they should. It is an error of kind
// conflict if one of them never will.
func (g *Group) Blockers(list []shoal.Dependency) (string, error) {
	reason := ""
	for _, d := range list {
		if d.Task == shoal.Corresponding {
			continue
		}
		dep, err := g.Job(shoal.JobID(d.Job))
		if err != nil {
			return "", err
		}
		switch v := after.Of(d, dep.State); {
		case v == after.Never:
			return "", shoal.Errorf(shoal.KindConflict, "%s", after.Unmet(d, "job "+outcome.Title(dep.Job), outcome.Ended(dep.State))).
				WithHint("leave it out of `after`, or run it again")
		case v == after.Ready:
		case reason == "":
			reason = "waits for job " + outcome.Title(dep.Job)
		default:
			reason += " and " + outcome.Title(dep.Job)
		}
	}
	return reason, nil
}

// dependents frees or ends those that waited for a job that is over.
func (g *Group) dependents(r *Row) error {
	for _, w := range g.waitersOf(r.ID) {
		d, err := g.Job(w.id)
		if err != nil {
			return err
		}
		if d.State.Ended() || d.Cancel {
			continue
		}
		if w.each {
			err = g.sweep(d)
		} else {
			err = g.unblock(d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) waitersOf(id shoal.JobID) []waiter {
	return append(slices.Clone(g.b.waiting[id]), g.waits[id]...)
}

// unblock lets a job start if all that it waited for has ended as it should.
func (g *Group) unblock(d *Row) error {
	reason, err := g.Blockers(d.Spec.After)
	if err != nil && !store.Broken(err) { // one of them never will
		return g.Cancel(d, err.Error())
	}
	if err != nil {
		return err
	}
	was := d.Blocked
	d.Reason, d.Blocked = reason, reason != ""
	g.Touch(d)
	if was && !d.Blocked {
		g.demand = true
		s := g.schedJob(d.Job)
		if j, ok := g.b.sched.Job(d.ID); ok {
			s.Again = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(j.Again), g.again[d.ID]...))))
		}
		g.changes = append(g.changes, sched.PutJob(s))
	}
	return nil
}

// Followers looks at what waits for a task that is over: tasks of the same job, and those of the same
// index of others.
func (g *Group) Followers(r *Row, position, index int) error {
	for _, p := range after.Behind(r.Spec.Tasks, position) {
		if err := g.consider(r, p); err != nil {
			return err
		}
	}
	for _, w := range g.waitersOf(r.ID) {
		if !w.each {
			continue
		}
		d, err := g.Job(w.id)
		if err != nil {
			return err
		}
		array, err := g.b.array(d.Job)
		if err != nil {
			return err
		}
		if p, ok := array.Position(index); ok {
			if err := g.consider(d, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// consider lets a task of a gated job start, or puts on record that it never will, if that is settled.
func (g *Group) consider(r *Row, p int) error {
	array, err := g.b.array(r.Job)
	if err != nil || r.Cancel || r.State.Ended() {
		return err
	}
	ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
	last, err := g.Latest(ref)
	if err != nil || last != nil && last.State != shoal.JobQueued {
		return err
	}
	v, why, err := g.verdict(r, p, ref.Index)
	switch {
	case err != nil || v == after.Wait:
		return err
	case v == after.Ready:
		g.again[r.ID] = append(g.again[r.ID], p)
		g.changes = append(g.changes, sched.Again{Task: sched.Task{Job: r.ID, Position: p}})
		g.demand = true
		return nil
	}
	g.Touch(r)
	r.Counts.Add(shoal.JobQueued, -1)
	r.Counts.Add(shoal.JobCancelled, 1)
	g.Put(&shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: outcome.Following(last)}, User: r.User, Pool: r.Spec.Pool,
		State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: why, Ended: g.Now, ExitCode: outcome.ExitOwn})
	return g.Followers(r, p, ref.Index)
}

// verdict says whether a task of a gated job may start, by the tasks it waits for, and if not why.
func (g *Group) verdict(r *Row, p, index int) (after.Verdict, string, error) {
	v, why := after.Ready, ""
	for _, q := range after.Before(r.Spec.Tasks, p) {
		state, err := g.taskState(r, q)
		if err != nil {
			return v, "", err
		}
		one := after.Of(shoal.Dependency{}, state)
		if one == after.Never {
			why = after.Unmet(shoal.Dependency{}, "task "+r.Spec.Tasks[q].Name, outcome.Ended(state))
		}
		v = v.And(one)
	}
	for _, d := range r.Spec.After {
		if d.Task != shoal.Corresponding {
			continue
		}
		dep, err := g.Job(shoal.JobID(d.Job))
		if err != nil {
			return v, "", err
		}
		array, err := g.b.array(dep.Job)
		if err != nil {
			return v, "", err
		}
		q, ok := array.Position(index)
		if !ok {
			continue
		}
		state, err := g.taskState(dep, q)
		if err != nil {
			return v, "", err
		}
		one := after.Of(d, state)
		if one == after.Never {
			why = after.Unmet(d, fmt.Sprintf("task %s/%d", dep.ID, index), outcome.Ended(state))
		}
		v = v.And(one)
	}
	return v, why, nil
}

// taskState is the state of a task of a job, as others wait for it.
func (g *Group) taskState(r *Row, p int) (shoal.JobState, error) {
	array, err := g.b.array(r.Job)
	if err != nil {
		return "", err
	}
	ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
	a := g.Attempt(ref)
	if known, ok := g.known[r.ID]; ok && a == nil {
		if s, ok := known[ref.Index]; ok {
			return s, nil
		}
	} else if a == nil {
		if a, err = history.Latest(g.Tx, ref); err != nil {
			return "", err
		}
	}
	if a != nil {
		return outcome.State(r.Job, *a), nil
	}
	if r.Cancel || r.State.Ended() || p < r.Next && !after.Gated(r.Spec) {
		return shoal.JobCancelled, nil
	}
	return shoal.JobQueued, nil
}

// sweep considers all tasks of a gated job that had no attempt.
func (g *Group) sweep(r *Row) error {
	if !after.Gated(r.Spec) {
		return nil
	}
	array, err := g.b.array(r.Job)
	if err != nil {
		return err
	}
	idle := len(r.Spec.Tasks) == 0
	for _, d := range r.Spec.After {
		if d.Task != shoal.Corresponding {
			continue
		}
		dep, err := g.Job(shoal.JobID(d.Job))
		if err != nil {
			return err
		}
		idle = idle && dep.Next == 0 && !dep.State.Ended() && !dep.Cancel && dep.Spec.Array == r.Spec.Array
		if err := g.lookThrough(dep); err != nil {
			return err
		}
	}
	if idle { // nothing of what it waits for has begun
		return nil
	}
	if err := g.lookThrough(r); err != nil {
		return err
	}
	own := g.known[r.ID]
	done := map[int]bool{}
	if j, ok := g.b.sched.Job(r.ID); ok {
		for _, p := range j.Again {
			done[p] = true
		}
	}
	for _, p := range g.again[r.ID] {
		done[p] = true
	}
	for p := range array.Len() {
		s, begun := own[array.Index(p)]
		if a := g.Attempt(shoal.TaskRef{Job: r.ID, Index: array.Index(p)}); a != nil {
			s, begun = outcome.State(r.Job, *a), true
		}
		if done[p] || begun && s != shoal.JobQueued {
			continue
		}
		if err := g.consider(r, p); err != nil {
			return err
		}
	}
	return nil
}

// lookThrough reads how all tasks of a job stand that had an attempt, instead of one by one.
func (g *Group) lookThrough(r *Row) error {
	if g.known[r.ID] != nil {
		return nil
	}
	known := map[int]shoal.JobState{}
	err := history.Each(g.Tx, r.ID, func(a shoal.Attempt) { known[a.Index] = outcome.State(r.Job, a) })
	g.known[r.ID] = known
	return err
}

// schedJob is a job as placement sees it.
func (g *Group) schedJob(j shoal.Job) sched.Job {
	return outlook.Job(j, g.Tables.Account(j.User), graceful, g.b.cfg.Held(j.User) != "")
}
