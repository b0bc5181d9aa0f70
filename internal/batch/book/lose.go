package book

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/fence"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/sched"
)

// loss is a node of an attempt that cannot be running any more.
type loss struct {
	ref    shoal.TaskRef
	rank   int
	reason string
	spare  bool // it may be running all the same, which does no harm
}

// bury ends what ran on machines that are no more as they were, and the jobs of pools that are gone.
func (b *Book) bury(ctx context.Context) error {
	var lost []loss
	for ref, l := range b.live {
		for rank, m := range gang.Nodes(l.attempt) {
			if m.State.Ended() {
				continue
			}
			if reason := b.world.Gone(m.Machine, m.Epoch); reason != "" {
				lost = append(lost, loss{ref: ref, rank: rank, reason: reason})
			} else if l.idempotent && b.world.Machines[m.Machine].Health == shoal.HealthDown {
				lost = append(lost, loss{ref, rank, fmt.Sprintf("its machine %s does not answer", m.Machine), len(l.attempt.Members) == 0})
			}
		}
	}
	b.mu.Lock()
	orphans := b.sched.Jobs(func(p shoal.PoolName) bool { _, there := b.world.Pools[p]; return !there })
	for ref, l := range b.spare {
		if b.world.Gone(l.attempt.Machine, l.attempt.Epoch) != "" {
			delete(b.spare, ref)
		}
	}
	b.mu.Unlock()
	orphans = slices.DeleteFunc(orphans, func(id shoal.JobID) bool {
		j, _ := b.sched.Job(id)
		return j.Next == j.Total && len(j.Again) == 0 && !j.Gated
	})
	if len(lost) == 0 && len(orphans) == 0 {
		return nil
	}
	return b.lose(ctx, lost, orphans)
}

// lose records what was lost, and cancels jobs whose pool is gone.
func (b *Book) lose(ctx context.Context, lost []loss, orphans []shoal.JobID) error {
	slices.SortFunc(lost, func(x, y loss) int { return outcome.CompareRefs(x.ref, y.ref) })
	_, err := b.update(ctx, func(g *Group) error {
		for _, l := range lost {
			if err := g.lose(l); err != nil {
				return err
			}
		}
		for _, id := range orphans {
			j, err := g.Job(id)
			if err != nil {
				return err
			}
			if j.Cancel || j.State.Ended() {
				continue
			}
			if err := g.Cancel(j, fmt.Sprintf("pool %s was deleted", j.Spec.Pool)); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// lose ends a node of an attempt whose machine is no more as it was.
func (g *Group) lose(l loss) error {
	a := g.Attempt(l.ref)
	if a == nil || a.State.Ended() {
		return nil
	}
	a = g.Change(a)
	if len(a.Members) > 0 {
		return g.nodeLost(a, l.rank, l.reason)
	}
	if l.spare {
		g.spare = append(g.spare, a.AttemptRef)
	}
	from, kept := a.State, g.b.live[l.ref].output
	a.StdoutBytes, a.StderrBytes = kept.Size(0, output.Stdout), kept.Size(0, output.Stderr)
	cut := a.StdoutBytes
	a.TruncatedAt = &cut
	to := shoal.JobLost
	if gang.Decided(*a) { // whatever was to end it, has
		to = gang.Outcome(a.Cause, a.ExitCode)
	} else {
		a.Cause, a.Reason = shoal.CauseMachineLost, l.reason
	}
	if j, err := g.Job(l.ref.Job); err != nil {
		return err
	} else if j.Cancel && !a.Release {
		to = shoal.JobCancelled
	}
	a.ExitCode = outcome.ExitOwn
	return g.finish(a, from, to)
}

// late takes the end of an attempt that is no more current. It counts if the task may run twice and this
// one is done first: then that is how the task has ended.
func (g *Group) late(machine shoal.MachineID, r api.TaskReport) error {
	old := g.b.spare[r.Ref]
	if old == nil || old.attempt.Machine != machine {
		return nil
	}
	g.unspare = append(g.unspare, r.Ref)
	now := g.Attempt(r.Ref.TaskRef)
	j, err := g.Job(r.Ref.Job)
	if err != nil || r.State != shoal.JobSucceeded || r.ExitCode != 0 || j.Cancel || now == nil || now.State.Ended() || gang.Decided(*now) || len(now.Members) > 0 {
		return err
	}
	first := old.attempt
	first.State, first.Cause, first.Reason, first.ExitCode = shoal.JobSucceeded, shoal.CauseExit, "", 0
	first.Ended = outcome.Within(r.Ended, outcome.Later(first.Started, first.Placed), g.Now)
	first.StdoutBytes, first.StderrBytes = old.output.Size(0, output.Stdout), old.output.Size(0, output.Stderr)
	first.TruncatedAt, first.MaxMemory, first.CPUTime = nil, max(r.MaxMemory, 0), max(r.CPUTime, 0)
	g.former = append(g.former, first)
	now = g.Change(now)
	g.Stop(*now, shoal.JobCancelled)
	from, kept := now.State, g.b.live[now.TaskRef].output
	now.Cause, now.Reason = shoal.CauseExit, fmt.Sprintf("attempt %d on %s was done first", first.Attempt, machine)
	now.StdoutBytes, now.StderrBytes = kept.Size(0, output.Stdout), kept.Size(0, output.Stderr)
	return g.finish(now, from, shoal.JobSucceeded)
}

// chores looks after what has waited long enough: tasks that may start again, nodes that do not get
// ready, ends whose output does not come, and tasks that run on although they were to end.
func (b *Book) chores(ctx context.Context) error {
	now := time.Now()
	b.mu.Lock()
	for t, w := range b.later {
		if !now.Before(w.at) {
			delete(b.later, t)
			b.sched.Apply(sched.Again{Task: t, Memory: w.memory})
		}
	}
	if b.due.IsZero() || now.Before(b.due) {
		b.mu.Unlock()
		return nil
	}
	b.due = time.Time{}
	nag := map[shoal.MachineID][]api.StopOrder{}
	var late []shoal.TaskRef
	held := map[shoal.MachineID][]api.TaskReport{}
	for _, l := range b.live {
		for rank, e := range l.held {
			if at := e.since.Add(holdFor); now.Before(at) {
				b.remind(at)
			} else {
				m := gang.Nodes(l.attempt)[rank].Machine
				held[m] = append(held[m], e.report)
			}
		}
		if at := l.overdue(); !at.IsZero() {
			if next := l.nagged.Add(slack); !l.nagged.IsZero() && next.After(at) {
				at = next
			}
			if !now.Before(at) {
				l.nagged, at = now, now.Add(slack)
				l.remind(nag)
			}
			b.remind(at)
		}
		if at := l.readyBy(); !at.IsZero() {
			if !now.Before(at) {
				late = append(late, l.attempt.TaskRef)
				at = now.Add(slack)
			}
			b.remind(at)
		}
	}
	b.mu.Unlock()
	for _, machine := range slices.Sorted(maps.Keys(nag)) {
		for _, o := range nag[machine] {
			b.cfg.Send(machine, api.Record{Stop: &o})
		}
	}
	err := b.choresOf(ctx, held, late)
	if err == nil {
		err = b.fence(ctx, now)
	}
	if err != nil {
		b.mu.Lock()
		b.remind(now.Add(tick))
		b.mu.Unlock()
	}
	return err
}

// overdue is when an attempt should have ended, and its agent is reminded of it; zero: never.
func (l *live) overdue() time.Time {
	a := l.attempt
	switch {
	case gang.Decided(a):
		return outcome.Later(l.nagged, l.decided).Add(graceful + slack)
	case l.limit == 0 || a.Started.IsZero():
		return time.Time{}
	}
	return a.Started.Add(l.limit + graceful + slack)
}

// remind notes what the agents of an attempt are to be reminded of.
func (l *live) remind(nag map[shoal.MachineID][]api.StopOrder) {
	state := shoal.JobTimedOut
	if gang.Decided(l.attempt) {
		state = gang.StopState(l.attempt)
	}
	for _, m := range gang.Nodes(l.attempt) {
		if !m.State.Ended() {
			nag[m.Machine] = append(nag[m.Machine], api.StopOrder{Ref: l.attempt.AttemptRef, State: state})
		}
	}
}

// readyBy is when all nodes of an attempt must be ready to begin; zero if none waits for another.
func (l *live) readyBy() time.Time {
	if !gang.Held(l.attempt) || gang.Decided(l.attempt) {
		return time.Time{}
	}
	return l.attempt.Placed.Add(l.ready)
}

// choresOf records ends without all of their output, and gives up what does not get ready.
func (b *Book) choresOf(ctx context.Context, held map[shoal.MachineID][]api.TaskReport, late []shoal.TaskRef) error {
	if len(held) == 0 && len(late) == 0 {
		return nil
	}
	slices.SortFunc(late, outcome.CompareRefs)
	_, err := b.update(ctx, func(g *Group) error {
		for _, machine := range slices.Sorted(maps.Keys(held)) {
			for _, r := range held[machine] {
				if err := g.report(machine, r); err != nil {
					return err
				}
			}
		}
		for _, ref := range late {
			if a := g.Attempt(ref); a != nil && gang.Held(*a) && !gang.Decided(*a) {
				g.undo(a, gang.Missing(*a, shoal.Duration(g.b.live[ref].ready).String()))
			}
		}
		return nil
	})
	return err
}

// fence takes for lost what ran on machines that are not heard of for so long that their agents have
// ended it.
func (b *Book) fence(ctx context.Context, now time.Time) error {
	if b.cfg.Answered == nil || len(b.live) == 0 {
		return nil
	}
	if !b.judge.IsZero() && now.Before(b.judge) {
		b.mu.Lock()
		b.remind(b.judge)
		b.mu.Unlock()
		return nil
	}
	answered, rules := map[shoal.MachineID]time.Time{}, fence.For(b.cfg.Lease)
	for id, m := range b.world.Machines {
		if m.State == shoal.MachineReady || m.State == shoal.MachineStopping {
			answered[id] = rules.Heard(m, b.cfg.Answered(id), b.began)
		}
	}
	v := fence.Judge(answered, b.world.Machines, now, rules)
	b.judge = v.Next
	if next := now.Add(rules.Margin); len(v.Frozen) > 0 || b.judge.IsZero() || b.judge.After(now.Add(rules.Over())) {
		b.judge = next
	}
	b.mu.Lock()
	b.remind(b.judge)
	b.mu.Unlock()
	var lost []loss
	for ref, l := range b.live {
		for rank, m := range gang.Nodes(l.attempt) {
			if v.Over[m.Machine] && !m.State.Ended() {
				lost = append(lost, loss{ref: ref, rank: rank, reason: fmt.Sprintf("its machine %s was not heard of for %s, after which its agent ends what runs", m.Machine, shoal.Duration(rules.Over()))})
			}
		}
	}
	if err := b.tellFrozen(ctx, v); err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	return b.lose(ctx, lost, nil)
}

// tellFrozen puts on record when so many machines are silent that nothing is taken for lost, and when
// that is over.
func (b *Book) tellFrozen(ctx context.Context, v fence.Verdict) error {
	if frozen := len(v.Frozen) > 0; frozen == b.frozen {
		return nil
	}
	pools := v.Pools(b.world.Machines, b.frozenIn)
	_, err := b.update(ctx, func(g *Group) error {
		for _, name := range slices.Sorted(maps.Keys(pools)) {
			e := shoal.Event{Time: g.Now, Kind: shoal.ObjectPool, Name: string(name), Pool: name}
			e.Code, e.Sentence = v.News(len(b.world.Machines))
			g.Tx.Event(e)
		}
		return nil
	})
	if err == nil {
		b.frozen, b.frozenIn = len(v.Frozen) > 0, pools
	}
	return err
}
