package book

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch/gang"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/sched"
)

// What happens to attempts of several nodes. See package gang.

// nodeReady notes that a node is ready to begin. The last one lets all begin.
func (g *Group) nodeReady(a *shoal.Attempt, rank int) error {
	a.Members[rank].State = shoal.JobRunning
	if gang.Held(*a) {
		return nil
	}
	j, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	position := g.placeOf(a)
	g.changes = append(g.changes, sched.Began{Task: sched.Task{Job: a.Job, Position: position}, At: g.Now})
	p := placing{Group: g, machines: map[shoal.MachineID]*shoal.Machine{}}
	return p.command(j.Job, *a, position)
}

// nodeEnded records the end of a node. It may decide how the attempt ends, and have the others ended.
func (g *Group) nodeEnded(a *shoal.Attempt, rank int, r api.TaskReport) error {
	j, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	m := &a.Members[rank]
	one := *a
	one.Cause, one.ExitCode, one.Signal = outcome.Cause(r.Cause), max(r.ExitCode, 0), max(r.Signal, 0)
	if one.State = outcome.Verdict(j.Job, one, r.State); gang.Decided(*a) && r.State == shoal.JobCancelled {
		one.State = shoal.JobCancelled // for the sake of another node
	}
	if one.Signal > 0 && one.ExitCode == 0 {
		one.ExitCode = 128 + one.Signal
	}
	if one.Cause == "" || outcome.Told(one.State) {
		one.Cause = gang.Causes(one.State)
	}
	one.Reason = outcome.Clean(r.Reason)
	if one.Reason == "" {
		one.Reason = outcome.Reason(one, j.Spec)
	}
	if a.Started.IsZero() && !r.Started.IsZero() {
		a.Started = outcome.Within(r.Started, a.Placed, g.Now)
	}
	m.State, m.Cause, m.Reason, m.ExitCode, m.Signal = one.State, one.Cause, one.Reason, one.ExitCode, one.Signal
	m.MaxMemory, m.CPUTime = max(r.MaxMemory, 0), max(r.CPUTime, 0)
	g.forget[m.Machine] = append(g.forget[m.Machine], a.AttemptRef)
	if g.sizes(a, rank); rank == 0 && (m.StdoutBytes < r.StdoutBytes || m.StderrBytes < r.StderrBytes) {
		kept := m.StdoutBytes
		a.TruncatedAt = &kept
	}
	return g.nodeOver(j, a, rank)
}

// nodeLost records that a node's machine is no more as it was.
func (g *Group) nodeLost(a *shoal.Attempt, rank int, reason string) error {
	j, err := g.Job(a.Job)
	if err != nil {
		return err
	}
	m := &a.Members[rank]
	m.State, m.Cause, m.Reason = shoal.JobLost, shoal.CauseMachineLost, reason
	if g.sizes(a, rank); rank == 0 {
		kept := m.StdoutBytes
		a.TruncatedAt = &kept
	}
	return g.nodeOver(j, a, rank)
}

// sizes notes how much output of a node there is.
func (g *Group) sizes(a *shoal.Attempt, rank int) {
	m, l := &a.Members[rank], g.b.live[a.TaskRef]
	m.StdoutBytes, m.StderrBytes = l.output.Size(rank, output.Stdout), l.output.Size(rank, output.Stderr)
}

// nodeOver goes on after the end of a node.
func (g *Group) nodeOver(j *Row, a *shoal.Attempt, rank int) error {
	g.sizes(a, rank)
	if gang.Ended(a, rank, gang.RulesOf(j.Spec)) {
		g.Stop(*a, gang.StopState(*a))
	}
	if !gang.Over(*a) {
		return nil
	}
	gang.Sum(a)
	to := gang.Outcome(a.Cause, a.ExitCode)
	if j.Cancel && outcome.Told(to) {
		to = shoal.JobCancelled
	}
	from := a.State
	a.Ended = g.Now
	if to != shoal.JobSucceeded && a.ExitCode == 0 {
		a.ExitCode = outcome.ExitOwn
	}
	return g.finish(a, from, to)
}

// undo settles that an attempt is over for a reason of ours, and has its nodes ended.
func (g *Group) undo(a *shoal.Attempt, reason string) {
	a = g.Change(a)
	gang.Decide(a, shoal.CauseMachineLost, reason)
	g.Stop(*a, shoal.JobCancelled)
}
