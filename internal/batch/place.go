package batch

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/sched"
)

// place starts what fits: it asks package sched, records the starts, then tells the agents.
func (b *Batch) place(ctx context.Context) error {
	b.mu.Lock()
	plan := b.sched.Plan(time.Now(), budget)
	b.mu.Unlock()
	b.exhausted = len(plan.Starts) == budget
	if len(plan.Starts) == 0 {
		return nil
	}
	_, err := b.update(ctx, func(g *group) error {
		p := placing{group: g, machines: map[shoal.MachineID]*shoal.Machine{}}
		for _, start := range plan.Starts {
			if err := p.start(start); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// placing is a group that starts tasks.
type placing struct {
	*group
	machines map[shoal.MachineID]*shoal.Machine // as they are now
	gpus     map[shoal.MachineID]map[int]bool   // taken
}

func (p *placing) start(s sched.Placement) error {
	m, err := p.machine(s.Machines[0])
	if err != nil {
		return err
	}
	j, err := p.job(s.Job)
	if err != nil {
		return err
	}
	if m == nil || !m.Accepts() || j.State.Ended() || j.Cancel {
		p.b.seen = -1 // the plan was made on old news
		return nil
	}
	array, err := p.b.array(j.Job)
	if err != nil {
		return err
	}
	a := &shoal.Attempt{User: j.User, Pool: j.Spec.Pool, Machine: m.ID, Epoch: m.Epoch, State: shoal.JobStarting, Placed: p.now}
	a.TaskRef = shoal.TaskRef{Job: j.ID, Index: array.Index(s.Position)}
	a.Attempt = 1
	if s.Position < j.Next {
		last, err := p.tx.Attempt(a.TaskRef)
		if err != nil {
			return err
		}
		a.Attempt, a.Failures = last.Attempt+1, last.Failures
	} else {
		j.Next = s.Position + 1
	}
	if n := j.Spec.Resources.GPUs; n > 0 {
		a.GPUs = p.takeGPUs(*m, n)
	}
	p.touch(j)
	j.Counts.Add(shoal.JobQueued, -1)
	j.Counts.Add(shoal.JobStarting, 1)
	p.put(a)
	p.position[a.TaskRef] = s.Position
	p.changes = append(p.changes, sched.Start{Placement: s, At: p.now})
	o := order(j.Job, *a, s.Position, *m)
	p.send(m.ID, api.Record{Run: &o})
	return nil
}

// machine returns a machine as the transaction sees it; nil if there is none.
func (p *placing) machine(id shoal.MachineID) (*shoal.Machine, error) {
	if m, ok := p.machines[id]; ok {
		return m, nil
	}
	m, err := p.tx.Machines().Get(id)
	if shoal.KindOf(err) == shoal.KindNotFound {
		p.machines[id] = nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.machines[id] = &m
	return &m, nil
}

// takeGPUs chooses GPUs of a machine that no other attempt has.
func (p *placing) takeGPUs(m shoal.Machine, n int) []int {
	if p.gpus == nil {
		p.gpus = map[shoal.MachineID]map[int]bool{}
		for _, l := range p.b.live {
			p.hasGPUs(l.attempt)
		}
	}
	var free []int
	for i := 0; i < m.Resources.GPUs && len(free) < n; i++ {
		if !p.gpus[m.ID][i] {
			free = append(free, i)
		}
	}
	p.hasGPUs(shoal.Attempt{Machine: m.ID, GPUs: free})
	return free
}

func (p *placing) hasGPUs(a shoal.Attempt) {
	taken := p.gpus[a.Machine]
	if taken == nil {
		taken = map[int]bool{}
		p.gpus[a.Machine] = taken
	}
	for _, i := range a.GPUs {
		taken[i] = true
	}
}

// array returns the indexes of a job that has begun.
func (b *Batch) array(j shoal.Job) (shoal.Array, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.arrays[j.ID]; ok {
		return a, nil
	}
	a, err := shoal.ParseArray(j.Spec.Array)
	if err == nil && j.Spec.Array != "" {
		b.arrays[j.ID] = a
	}
	return a, err
}

// bury ends what ran on machines that are no more as they were, and the jobs of pools that are gone.
func (b *Batch) bury(ctx context.Context) error {
	var lost []shoal.TaskRef
	for ref, l := range b.live {
		if b.gone(l.attempt) != "" {
			lost = append(lost, ref)
		}
	}
	b.mu.Lock()
	orphans := b.sched.Jobs(func(p shoal.PoolName) bool { return !b.pools[p] })
	b.mu.Unlock()
	orphans = slices.DeleteFunc(orphans, func(id shoal.JobID) bool { j, _ := b.sched.Job(id); return j.Next == j.Total && len(j.Again) == 0 })
	if len(lost) == 0 && len(orphans) == 0 {
		return nil
	}
	slices.SortFunc(lost, compareRefs)
	_, err := b.update(ctx, func(g *group) error {
		for _, ref := range lost {
			if err := g.lose(ref); err != nil {
				return err
			}
		}
		for _, id := range orphans {
			j, err := g.job(id)
			if err != nil {
				return err
			}
			if err := g.cancel(j, fmt.Sprintf("pool %s was deleted", j.Spec.Pool)); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// gone says why an attempt cannot be running any more; empty if it can.
func (b *Batch) gone(a shoal.Attempt) string {
	m, ok := b.machines[a.Machine]
	switch {
	case !ok:
		return fmt.Sprintf("its machine %s is gone", a.Machine)
	case m.State == shoal.MachineFailed && m.Reason != "":
		return fmt.Sprintf("its machine %s failed: %s", m.ID, m.Reason)
	case m.State == shoal.MachineStopped || m.State == shoal.MachineFailed || m.State == shoal.MachineGone:
		return fmt.Sprintf("its machine %s is %s", m.ID, m.State)
	case m.State == shoal.MachineRequested || m.State == shoal.MachineBooting || m.Epoch != a.Epoch:
		return fmt.Sprintf("its machine %s was started anew", m.ID)
	}
	return ""
}

// lose ends an attempt whose machine is no more as it was.
func (g *group) lose(ref shoal.TaskRef) error {
	l := g.b.live[ref]
	j, err := g.job(ref.Job)
	if err != nil {
		return err
	}
	a := g.change(g.attempt(ref))
	from := a.State
	a.Cause, a.Reason = shoal.CauseMachineLost, g.b.gone(*a)
	a.StdoutBytes, a.StderrBytes = l.output.Size(0, output.Stdout), l.output.Size(0, output.Stderr)
	kept := a.StdoutBytes
	a.TruncatedAt = &kept
	to := shoal.JobLost
	if j.Cancel {
		to, a.ExitCode = shoal.JobCancelled, exitOwn
	}
	return g.finish(a, from, to)
}

// chores looks after what has waited long enough: tasks that may start again, ends whose output
// does not come, and tasks that run beyond their time limit.
func (b *Batch) chores(ctx context.Context) error {
	now := time.Now()
	b.mu.Lock()
	for t, at := range b.later {
		if !now.Before(at) {
			delete(b.later, t)
			b.sched.Apply(sched.Again{Task: t})
		}
	}
	if b.due.IsZero() || now.Before(b.due) {
		b.mu.Unlock()
		return nil
	}
	b.due = time.Time{}
	overdue := map[shoal.MachineID][]shoal.AttemptRef{}
	var held []api.TaskReport
	for _, l := range b.live {
		if l.held != nil {
			if at := l.since.Add(holdFor); now.Before(at) {
				b.remind(at)
			} else {
				held = append(held, *l.held)
			}
		}
		if l.limit == 0 || l.attempt.Started.IsZero() {
			continue
		}
		at := l.attempt.Started.Add(l.limit + graceful + slack)
		if next := l.nagged.Add(slack); !l.nagged.IsZero() && next.After(at) {
			at = next
		}
		if !now.Before(at) {
			l.nagged, at = now, now.Add(slack)
			overdue[l.attempt.Machine] = append(overdue[l.attempt.Machine], l.attempt.AttemptRef)
		}
		b.remind(at)
	}
	b.mu.Unlock()
	for _, machine := range slices.Sorted(maps.Keys(overdue)) {
		for _, ref := range overdue[machine] {
			b.cfg.Send(machine, api.Record{Stop: &api.StopOrder{Ref: ref, State: shoal.JobTimedOut}})
		}
	}
	if len(held) == 0 {
		return nil
	}
	_, err := b.update(ctx, func(g *group) error {
		for _, r := range held {
			if err := g.report(b.live[r.Ref.TaskRef].attempt.Machine, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.mu.Lock()
		b.remind(now.Add(tick))
		b.mu.Unlock()
	}
	return err
}
