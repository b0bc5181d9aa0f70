package book

import (
	"context"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/batch/output"
)

// Report takes what a machine's agent saw. Everything in it is stored when it returns without an
// error, except what Resend asks for and the ends of the tasks named there: such an end is kept in
// mind and recorded once the output has come, or has not for a minute.
func (b *Book) Report(ctx context.Context, machine shoal.MachineID, reports []api.TaskReport, pieces []api.Output) ([]api.Resend, error) {
	if len(reports) == 0 && len(pieces) == 0 {
		return nil, nil
	}
	if err := b.begun(ctx); err != nil {
		return nil, err
	}
	var again []api.Resend
	for _, p := range pieces {
		resend, err := b.keep(machine, p)
		if err != nil {
			return nil, err
		}
		again = append(again, resend...)
	}
	reports = slices.DeleteFunc(slices.Clone(reports), func(r api.TaskReport) bool {
		return !shoal.JobRunning.CanMove(r.State) && r.State != shoal.JobRunning && r.State != shoal.JobStarting
	})
	todo, missing := b.sift(machine, reports, pieces)
	again = append(again, missing...)
	if len(todo) > 0 {
		err := b.Do(ctx, func(g *Group) error {
			for _, r := range todo {
				if err := g.report(machine, r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return output.Resends(again), nil
}

// liveOf returns an attempt that runs on a machine, and the rank of its node there; nil if it does not. Of
// one that another has taken the place of before it was known to be over, news still count.
func (b *Book) liveOf(machine shoal.MachineID, ref shoal.AttemptRef) (*live, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.liveAt(machine, ref)
}

// liveAt is liveOf. b.mu is held.
func (b *Book) liveAt(machine shoal.MachineID, ref shoal.AttemptRef) (*live, int) {
	l := b.live[ref.TaskRef]
	if l == nil || l.attempt.AttemptRef != ref {
		if l = b.spare[ref]; l == nil {
			return nil, 0
		}
	}
	rank, there := gang.Rank(l.attempt, machine)
	if !there || gang.Nodes(l.attempt)[rank].State.Ended() && b.spare[ref] == nil {
		return nil, 0
	}
	return l, rank
}

// keep stores a piece of output. What is not of a current attempt of that machine's is let go.
func (b *Book) keep(machine shoal.MachineID, p api.Output) ([]api.Resend, error) {
	stream, ok := output.ParseStream(p.Stream)
	l, rank := b.liveOf(machine, p.Ref)
	if !ok || l == nil {
		return nil, nil
	}
	had := l.output.Size(rank, stream)
	whole, err := l.output.Add(rank, stream, p.Offset, p.Data)
	if err != nil {
		return nil, err
	}
	if !whole {
		return []api.Resend{{Ref: p.Ref, Stream: p.Stream, Offset: had}}, nil
	}
	if l.output.Size(rank, stream) != had {
		b.mu.Lock()
		b.news.Ring(p.Ref.TaskRef)
		b.mu.Unlock()
	}
	return nil, nil
}

// ending is the end of an attempt's node for which output is missing.
type ending struct {
	report api.TaskReport
	since  time.Time
}

// sift tells the reports to be recorded now from ends for which output is missing, and finds ends
// that waited for what has just come.
func (b *Book) sift(machine shoal.MachineID, reports []api.TaskReport, pieces []api.Output) (todo []api.TaskReport, missing []api.Resend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := map[shoal.AttemptRef]bool{}
	for _, r := range reports {
		l, rank := b.liveAt(machine, r.Ref)
		if l == nil || !r.State.Ended() {
			todo = append(todo, r)
			continue
		}
		told[r.Ref] = true
		gaps := l.output.Gaps(rank, r)
		if len(gaps) == 0 {
			delete(l.held, rank)
			todo = append(todo, r)
			continue
		}
		missing = append(missing, gaps...)
		e, waits := l.held[rank]
		if !waits {
			e.since = time.Now()
			b.remind(e.since.Add(holdFor))
			b.wake() // Run sets its alarm
		}
		e.report = r
		if l.held == nil {
			l.held = map[int]ending{}
		}
		l.held[rank] = e
	}
	for _, p := range pieces {
		l, rank := b.liveAt(machine, p.Ref)
		if l == nil || told[p.Ref] {
			continue
		}
		e, waits := l.held[rank]
		if !waits {
			continue
		}
		told[p.Ref] = true
		if len(l.output.Gaps(rank, e.report)) == 0 {
			todo = append(todo, e.report)
			delete(l.held, rank)
		}
	}
	return todo, missing
}

// report records news of an attempt from a machine. News of an attempt that is not current, or not
// that machine's, change nothing: the agent is told to end or forget it.
func (g *Group) report(machine shoal.MachineID, r api.TaskReport) error {
	a := g.Attempt(r.Ref.TaskRef)
	rank, current := 0, a != nil && a.AttemptRef == r.Ref && !a.State.Ended()
	if current {
		rank, current = gang.Rank(*a, machine)
		current = current && !gang.Nodes(*a)[rank].State.Ended()
	}
	switch {
	case r.State.Ended() && !current:
		g.forget[machine] = append(g.forget[machine], r.Ref)
		return g.late(machine, r)
	case r.State.Ended() && len(a.Members) > 0:
		return g.nodeEnded(g.Change(a), rank, r)
	case r.State.Ended():
		return g.reportEnd(g.Change(a), r)
	case !current:
		if l := g.b.spare[r.Ref]; l == nil { // one that may go on beside the one that took its place is let be
			g.send(machine, gang.Stop(r.Ref, shoal.JobCancelled))
		}
		return nil
	case gang.Decided(*a):
		g.send(machine, gang.Stop(r.Ref, gang.StopState(*a)))
		return nil
	case len(a.Members) > 0 && a.Members[rank].State == shoal.JobStarting:
		if err := g.nodeReady(g.Change(a), rank); err != nil || r.State != shoal.JobRunning {
			return err
		}
		a = g.Attempt(r.Ref.TaskRef)
	}
	if r.State == shoal.JobRunning && a.State == shoal.JobStarting {
		return g.reportRunning(g.Change(a), r)
	}
	return nil
}

func (g *Group) reportRunning(a *shoal.Attempt, r api.TaskReport) error {
	from := a.State
	g.recall(a.AttemptRef) // it is not as brief as was thought, or its start would not have been told
	a.State, a.Started = shoal.JobRunning, outcome.Within(r.Started, a.Placed, g.Now)
	if a.Release {
		return nil
	}
	j, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	g.Touch(j)
	j.Counts.Add(from, -1)
	j.Counts.Add(shoal.JobRunning, 1)
	if j.Started.IsZero() {
		j.Started = a.Started
	}
	return nil
}

func (g *Group) reportEnd(a *shoal.Attempt, r api.TaskReport) error {
	j, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	l := g.b.live[a.TaskRef]
	from := a.State
	decided, why := a.Cause, a.Reason
	if a.Started.IsZero() && !r.Started.IsZero() {
		a.Started = outcome.Within(r.Started, a.Placed, g.Now)
	}
	a.Ended = outcome.Within(r.Ended, outcome.Later(a.Started, a.Placed), g.Now)
	a.Cause, a.Reason, a.ExitCode, a.Signal = outcome.Cause(r.Cause), outcome.Clean(r.Reason), max(r.ExitCode, 0), max(r.Signal, 0)
	a.MaxMemory, a.CPUTime = max(r.MaxMemory, 0), max(r.CPUTime, 0)
	a.StdoutBytes, a.StderrBytes = l.output.Size(0, output.Stdout), l.output.Size(0, output.Stderr)
	if a.StdoutBytes < r.StdoutBytes || a.StderrBytes < r.StderrBytes {
		kept := a.StdoutBytes
		a.TruncatedAt = &kept
	}
	to := outcome.Verdict(j.Job, *a, r.State)
	if outcome.Told(to) && decided != "" && to != shoal.JobCancelled { // it was told to end: that is why it did
		to, a.Cause, a.Reason = gang.Outcome(decided, 0), decided, why
	}
	a.State = to
	if outcome.Infrastructure(to) {
		a.Cause = gang.Causes(to)
	}
	if a.Signal > 0 && a.ExitCode == 0 {
		a.ExitCode = 128 + a.Signal
	}
	if to != shoal.JobSucceeded && a.ExitCode == 0 {
		a.ExitCode = outcome.ExitOwn
	}
	if a.Reason == "" {
		a.Reason = outcome.Reason(*a, j.Spec)
	}
	g.forget[a.Machine] = append(g.forget[a.Machine], a.AttemptRef)
	return g.finish(a, from, to)
}
