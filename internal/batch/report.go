package batch

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/output"
)

// maxReason bounds the sentence an agent may give.
const maxReason = 2000

// Report takes what a machine's agent saw. Everything in it is stored when it returns without an
// error, except what Resend asks for and the ends of the tasks named there: such an end is kept in
// mind and recorded once the output has come, or has not for a minute.
func (b *Batch) Report(ctx context.Context, machine shoal.MachineID, reports []api.TaskReport, pieces []api.Output) ([]api.Resend, error) {
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
		err := b.ask(ctx, func(g *group) error {
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
	return lowest(again), nil
}

// lowest leaves one request for each stream.
func lowest(all []api.Resend) []api.Resend {
	slices.SortStableFunc(all, func(a, b api.Resend) int {
		if c := compareRefs(a.Ref.TaskRef, b.Ref.TaskRef); c != 0 {
			return c
		}
		return strings.Compare(a.Stream, b.Stream)
	})
	return slices.CompactFunc(all, func(a, b api.Resend) bool { return a.Ref == b.Ref && a.Stream == b.Stream })
}

// liveOf returns an attempt that runs on a machine, and the rank of its node there; nil if it does not. Of
// one that another has taken the place of before it was known to be over, news still count.
func (b *Batch) liveOf(machine shoal.MachineID, ref shoal.AttemptRef) (*live, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.liveAt(machine, ref)
}

// liveAt is liveOf. b.mu is held.
func (b *Batch) liveAt(machine shoal.MachineID, ref shoal.AttemptRef) (*live, int) {
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
func (b *Batch) keep(machine shoal.MachineID, p api.Output) ([]api.Resend, error) {
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
		b.news.ring(p.Ref.TaskRef)
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
func (b *Batch) sift(machine shoal.MachineID, reports []api.TaskReport, pieces []api.Output) (todo []api.TaskReport, missing []api.Resend) {
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
		gaps := l.gaps(rank, r)
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
		if len(l.gaps(rank, e.report)) == 0 {
			todo = append(todo, e.report)
			delete(l.held, rank)
		}
	}
	return todo, missing
}

// gaps is the output that the end of a node speaks of and that is not there.
func (l *live) gaps(rank int, r api.TaskReport) []api.Resend {
	var all []api.Resend
	if have := l.output.Size(rank, output.Stdout); have < r.StdoutBytes {
		all = append(all, api.Resend{Ref: r.Ref, Stream: "stdout", Offset: have})
	}
	if have := l.output.Size(rank, output.Stderr); have < r.StderrBytes {
		all = append(all, api.Resend{Ref: r.Ref, Stream: "stderr", Offset: have})
	}
	return all
}

// report records news of an attempt from a machine. News of an attempt that is not current, or not
// that machine's, change nothing: the agent is told to end or forget it.
func (g *group) report(machine shoal.MachineID, r api.TaskReport) error {
	a := g.attempt(r.Ref.TaskRef)
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
		return g.nodeEnded(g.change(a), rank, r)
	case r.State.Ended():
		return g.reportEnd(g.change(a), r)
	case !current:
		if l := g.b.spare[r.Ref]; l == nil { // one that may go on beside the one that took its place is let be
			g.send(machine, stopOrder(r.Ref, shoal.JobCancelled))
		}
		return nil
	case gang.Decided(*a):
		g.send(machine, stopOrder(r.Ref, stopState(*a)))
		return nil
	case len(a.Members) > 0 && a.Members[rank].State == shoal.JobStarting:
		if err := g.nodeReady(g.change(a), rank); err != nil || r.State != shoal.JobRunning {
			return err
		}
		a = g.attempt(r.Ref.TaskRef)
	}
	if r.State == shoal.JobRunning && a.State == shoal.JobStarting {
		return g.reportRunning(g.change(a), r)
	}
	return nil
}

func (g *group) reportRunning(a *shoal.Attempt, r api.TaskReport) error {
	from := a.State
	a.State, a.Started = shoal.JobRunning, g.within(r.Started, a.Placed)
	if a.Release {
		return nil
	}
	j, err := g.job(a.Job)
	if err != nil {
		return err
	}
	g.touch(j)
	j.Counts.Add(from, -1)
	j.Counts.Add(shoal.JobRunning, 1)
	if j.Started.IsZero() {
		j.Started = a.Started
	}
	return nil
}

// within bounds a time that an agent's clock gave: nothing happens before a task was placed nor
// after now.
func (g *group) within(t, from time.Time) time.Time {
	switch {
	case t.IsZero() || t.After(g.now):
		return g.now
	case t.Before(from):
		return from
	}
	return t.UTC().Round(0)
}

func (g *group) reportEnd(a *shoal.Attempt, r api.TaskReport) error {
	j, err := g.job(a.Job)
	if err != nil {
		return err
	}
	l := g.b.live[a.TaskRef]
	from := a.State
	decided, why := a.Cause, a.Reason
	if a.Started.IsZero() && !r.Started.IsZero() {
		a.Started = g.within(r.Started, a.Placed)
	}
	a.Ended = g.within(r.Ended, latest(a.Started, a.Placed))
	a.Cause, a.Reason, a.ExitCode, a.Signal = causeOf(r.Cause), clean(r.Reason), max(r.ExitCode, 0), max(r.Signal, 0)
	a.MaxMemory, a.CPUTime = max(r.MaxMemory, 0), max(r.CPUTime, 0)
	a.StdoutBytes, a.StderrBytes = l.output.Size(0, output.Stdout), l.output.Size(0, output.Stderr)
	if a.StdoutBytes < r.StdoutBytes || a.StderrBytes < r.StderrBytes {
		kept := a.StdoutBytes
		a.TruncatedAt = &kept
	}
	to := verdict(j.Job, *a, r.State)
	if told(to) && decided != "" && to != shoal.JobCancelled { // it was told to end: that is why it did
		to, a.Cause, a.Reason = gang.Outcome(decided, 0), decided, why
	}
	a.State = to
	if infrastructure(to) {
		a.Cause = gang.Causes(to)
	}
	if a.Signal > 0 && a.ExitCode == 0 {
		a.ExitCode = 128 + a.Signal
	}
	if to != shoal.JobSucceeded && a.ExitCode == 0 {
		a.ExitCode = exitOwn
	}
	if a.Reason == "" {
		a.Reason = reasonOf(*a, j.Spec)
	}
	g.forget[a.Machine] = append(g.forget[a.Machine], a.AttemptRef)
	return g.finish(a, from, to)
}

// told reports whether an attempt ended so because somebody told it to.
func told(s shoal.JobState) bool {
	return s == shoal.JobCancelled || s == shoal.JobLost || s == shoal.JobPreempted
}

// verdict is the state in which an attempt ended, by what its agent says and what was asked of it.
func verdict(j shoal.Job, a shoal.Attempt, said shoal.JobState) shoal.JobState {
	switch said {
	case shoal.JobSucceeded:
		if a.ExitCode != 0 || a.Signal != 0 {
			return shoal.JobFailed
		}
	case shoal.JobFailed:
		if j.Cancel && a.Cause == shoal.CauseSignal {
			return shoal.JobCancelled
		}
	case shoal.JobCancelled, shoal.JobLost, shoal.JobPreempted:
		if j.Cancel {
			return shoal.JobCancelled
		}
		if said == shoal.JobCancelled {
			return shoal.JobLost // nobody cancelled it: the agent did not know it any more
		}
	}
	return said
}

// causeOf lets pass what is a cause.
func causeOf(c shoal.Cause) shoal.Cause {
	switch c {
	case shoal.CauseExit, shoal.CauseSignal, shoal.CauseOOM, shoal.CauseTimeLimit, shoal.CauseCancelled, shoal.CauseMachineLost, shoal.CauseSetupFailed,
		shoal.CausePreempted, shoal.CauseQuota:
		return c
	}
	return ""
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clean bounds a sentence that came from outside.
func clean(s string) string {
	if len(s) > maxReason {
		s = s[:maxReason]
		for len(s) > 0 && !utf8.ValidString(s[len(s)-1:]) && !utf8.FullRuneInString(s[max(0, len(s)-utf8.UTFMax):]) {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return strings.ToValidUTF8(strings.TrimSpace(s), "�")
}
