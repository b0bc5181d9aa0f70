package batch

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
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

// admits says why a job that could run cannot be taken now, and counts it if it can.
func (g *group) admits(user shoal.UserName, s shoal.JobSpec) error {
	if _, err := g.blockers(s.After); err != nil {
		return err
	}
	p, err := g.pool(s.Pool)
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

// enter tells the scheduler of a new job what of it may start, and has it wait for others. Its row is in
// the group.
func (g *group) enter(r *row) error {
	g.changes = append(g.changes, sched.PutJob(g.schedJob(r.Job)))
	for _, d := range r.Spec.After {
		id := shoal.JobID(d.Job)
		g.waits[id] = append(g.waits[id], waiter{r.ID, d.Task == shoal.Corresponding})
	}
	return g.sweep(r)
}

// blockers says what jobs do still have to end; empty if all have as they should. It is an error of kind
// conflict if one of them never will.
func (g *group) blockers(list []shoal.Dependency) (string, error) {
	reason := ""
	for _, d := range list {
		if d.Task == shoal.Corresponding {
			continue
		}
		dep, err := g.job(shoal.JobID(d.Job))
		if err != nil {
			return "", err
		}
		switch v := after.Of(d, dep.State); {
		case v == after.Never:
			return "", shoal.Errorf(shoal.KindConflict, "%s", after.Unmet(d, "job "+title(dep.Job), ended(dep.State))).
				WithHint("leave it out of `after`, or run it again")
		case v == after.Ready:
		case reason == "":
			reason = "waits for job " + title(dep.Job)
		default:
			reason += " and " + title(dep.Job)
		}
	}
	return reason, nil
}

// dependents frees or ends those that waited for a job that is over.
func (g *group) dependents(r *row) error {
	for _, w := range g.waitersOf(r.ID) {
		d, err := g.job(w.id)
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

func (g *group) waitersOf(id shoal.JobID) []waiter {
	return append(slices.Clone(g.b.waiting[id]), g.waits[id]...)
}

// unblock lets a job start if all that it waited for has ended as it should.
func (g *group) unblock(d *row) error {
	reason, err := g.blockers(d.Spec.After)
	if err != nil && !broken(err) { // one of them never will
		return g.cancel(d, err.Error())
	}
	if err != nil {
		return err
	}
	was := d.Blocked
	d.Reason, d.Blocked = reason, reason != ""
	g.touch(d)
	if was && !d.Blocked {
		g.demand = true
		s := g.schedJob(d.Job)
		if j, ok := g.b.sched.Job(d.ID); ok {
			s.Again = append(slices.Clone(j.Again), g.again[d.ID]...)
			slices.Sort(s.Again)
			s.Again = slices.Compact(s.Again)
		}
		g.changes = append(g.changes, sched.PutJob(s))
	}
	return nil
}

// followers looks at what waits for a task that is over: tasks of the same job, and those of the same
// index of others.
func (g *group) followers(r *row, position, index int) error {
	for _, p := range after.Behind(r.Spec.Tasks, position) {
		if err := g.consider(r, p); err != nil {
			return err
		}
	}
	for _, w := range g.waitersOf(r.ID) {
		if !w.each {
			continue
		}
		d, err := g.job(w.id)
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
func (g *group) consider(r *row, p int) error {
	array, err := g.b.array(r.Job)
	if err != nil || r.Cancel || r.State.Ended() {
		return err
	}
	ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
	last, err := g.latest(ref)
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
	g.touch(r)
	r.Counts.Add(shoal.JobQueued, -1)
	r.Counts.Add(shoal.JobCancelled, 1)
	g.put(&shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: ref, Attempt: following(last)}, User: r.User, Pool: r.Spec.Pool,
		State: shoal.JobCancelled, Cause: shoal.CauseCancelled, Reason: why, Ended: g.now, ExitCode: exitOwn})
	return g.followers(r, p, ref.Index)
}

// verdict says whether a task of a gated job may start, by the tasks it waits for, and if not why.
func (g *group) verdict(r *row, p, index int) (after.Verdict, string, error) {
	v, why := after.Ready, ""
	for _, q := range after.Before(r.Spec.Tasks, p) {
		state, err := g.taskState(r, q)
		if err != nil {
			return v, "", err
		}
		one := after.Of(shoal.Dependency{}, state)
		if one == after.Never {
			why = after.Unmet(shoal.Dependency{}, "task "+r.Spec.Tasks[q].Name, ended(state))
		}
		v = v.And(one)
	}
	for _, d := range r.Spec.After {
		if d.Task != shoal.Corresponding {
			continue
		}
		dep, err := g.job(shoal.JobID(d.Job))
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
			why = after.Unmet(d, fmt.Sprintf("task %s/%d", dep.ID, index), ended(state))
		}
		v = v.And(one)
	}
	return v, why, nil
}

// taskState is the state of a task of a job, as others wait for it.
func (g *group) taskState(r *row, p int) (shoal.JobState, error) {
	array, err := g.b.array(r.Job)
	if err != nil {
		return "", err
	}
	ref := shoal.TaskRef{Job: r.ID, Index: array.Index(p)}
	a := g.attempt(ref)
	if known, ok := g.known[r.ID]; ok && a == nil {
		if s, ok := known[ref.Index]; ok {
			return s, nil
		}
	} else if a == nil {
		if a, err = stored(g.tx, ref); err != nil {
			return "", err
		}
	}
	if a != nil {
		return stateOf(r.Job, *a), nil
	}
	if r.Cancel || r.State.Ended() || p < r.Next && !after.Gated(r.Spec) {
		return shoal.JobCancelled, nil
	}
	return shoal.JobQueued, nil
}

// stateOf is a task's state by its latest attempt.
func stateOf(j shoal.Job, a shoal.Attempt) shoal.JobState {
	if a.State.Ended() && repeats(j, a) {
		return shoal.JobQueued
	}
	return a.State
}

// sweep considers all tasks of a gated job that had no attempt.
func (g *group) sweep(r *row) error {
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
		dep, err := g.job(shoal.JobID(d.Job))
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
		if s, begun := own[array.Index(p)]; done[p] || begun && s != shoal.JobQueued {
			continue
		}
		if err := g.consider(r, p); err != nil {
			return err
		}
	}
	return nil
}

// lookThrough reads how all tasks of a job stand that had an attempt, instead of one by one.
func (g *group) lookThrough(r *row) error {
	if g.known[r.ID] != nil {
		return nil
	}
	known := map[int]shoal.JobState{}
	err := eachLatest(g.tx, r.ID, func(a shoal.Attempt) { known[a.Index] = stateOf(r.Job, a) })
	g.known[r.ID] = known
	return err
}

// eachLatest hands over the latest attempt of each task of a job that had one.
func eachLatest(tx *store.Tx, id shoal.JobID, fn func(shoal.Attempt)) error {
	const page = 1000
	for from := 0; ; {
		attempts, err := tx.Attempts(id, from, page)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			fn(a)
		}
		if len(attempts) < page {
			return nil
		}
		from = attempts[len(attempts)-1].Index + 1
	}
}

// asked are the positions of a job's tasks that were asked for again or must start again.
func asked(tx *store.Tx, j shoal.Job, array shoal.Array) (all []int, err error) {
	j.Cancel = false
	err = eachLatest(tx, j.ID, func(a shoal.Attempt) {
		if p, ok := array.Position(a.Index); ok && repeats(j, a) {
			all = append(all, p)
		}
	})
	return all, err
}

// schedJob is a job as placement sees it, without tasks that must start again.
func (g *group) schedJob(j shoal.Job) sched.Job {
	number, _ := strconv.ParseInt(string(j.ID), 10, 64)
	s := sched.Job{ID: j.ID, Number: number, User: j.User, Group: g.account(j.User), Pool: j.Spec.Pool, Priority: sched.PriorityOf(j.Spec.Priority),
		Resources: j.Spec.Resources, Nodes: j.Spec.Nodes, MaxRunning: j.Spec.MaxRunning, Preemptible: j.Spec.Preemptible == nil || *j.Spec.Preemptible,
		Total: j.Counts.Total(), Next: j.Next, Gated: after.Gated(j.Spec), Blocked: j.Blocked}
	if j.Spec.TimeLimit > 0 {
		s.Limit = time.Duration(j.Spec.TimeLimit) + graceful
	}
	if j.Cancel {
		s.Next, s.Gated = s.Total, false // nothing of it starts any more
	}
	return s
}

// account is the group to which a user's work is charged: her first, by name. Who cannot be read has none.
func (g *group) account(user shoal.UserName) shoal.GroupName {
	if name, ok := g.accounts[user]; ok {
		return name
	}
	var all []shoal.GroupName
	if u, err := g.tx.Users().Get(user); err == nil {
		all = append(all, u.Groups...)
	}
	if groups, err := g.groups(); err == nil {
		for _, other := range groups {
			if slices.Contains(other.Members, user) {
				all = append(all, other.Name)
			}
		}
	}
	name := shoal.GroupName("")
	if len(all) > 0 {
		name = slices.Min(all)
	}
	g.accounts[user] = name
	return name
}

func (g *group) groups() ([]shoal.Group, error) {
	if g.all == nil {
		all, err := g.tx.Groups().List()
		if err != nil {
			return nil, err
		}
		g.all = append([]shoal.Group{}, all...)
	}
	return g.all, nil
}
