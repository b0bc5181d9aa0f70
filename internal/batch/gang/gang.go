// Package gang moves attempts that have several nodes.
//
// A gang is one attempt whose members are its nodes by rank. All get ready, and begin together once
// the last is: a member is starting until its node is ready, and running from then on. The first
// thing that ends the whole decides how the attempt ends; it is noted in the attempt's cause while
// its other nodes are still being ended. The attempt ends with its last node, so that the next never
// runs beside it.
package gang

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Rank is the rank of an attempt's node on a machine, 0 for an attempt of one node; false if it has none there.
func Rank(a shoal.Attempt, machine shoal.MachineID) (int, bool) {
	if len(a.Members) == 0 {
		return 0, a.Machine == machine
	}
	for rank, m := range a.Members {
		if m.Machine == machine {
			return rank, true
		}
	}
	return 0, false
}

// Nodes are the nodes of an attempt by rank, also of one that has a single one.
func Nodes(a shoal.Attempt) []shoal.Member {
	if len(a.Members) > 0 {
		return a.Members
	}
	return []shoal.Member{{Machine: a.Machine, Epoch: a.Epoch, GPUs: a.GPUs, State: a.State}}
}

// Held reports whether the nodes of an attempt wait for each other.
func Held(a shoal.Attempt) bool { return len(Late(a)) > 0 && a.State == shoal.JobStarting }

// Late are the machines whose nodes are not ready to begin.
func Late(a shoal.Attempt) []shoal.MachineID {
	var all []shoal.MachineID
	for _, m := range a.Members {
		if m.State == shoal.JobStarting {
			all = append(all, m.Machine)
		}
	}
	return all
}

// Decided reports whether it is settled how a live attempt ends, and only its nodes are still to be ended.
func Decided(a shoal.Attempt) bool { return a.Cause != "" && !a.State.Ended() }

// Over reports whether no node of an attempt runs any more.
func Over(a shoal.Attempt) bool {
	for _, m := range a.Members {
		if !m.State.Ended() {
			return false
		}
	}
	return true
}

// Outcome is the state that goes with a cause.
func Outcome(c shoal.Cause, exit int) shoal.JobState {
	switch c {
	case shoal.CauseExit:
		if exit == 0 {
			return shoal.JobSucceeded
		}
	case shoal.CauseTimeLimit:
		return shoal.JobTimedOut
	case shoal.CauseCancelled:
		return shoal.JobCancelled
	case shoal.CausePreempted:
		return shoal.JobPreempted
	case shoal.CauseMachineLost:
		return shoal.JobLost
	}
	return shoal.JobFailed
}

// Rules are what a job says about the ends of its nodes.
type Rules struct {
	Head     bool // the first node's command decides; the others only keep their places
	Continue bool // a lost node, but for the first, does not end the others
}

// RulesOf are those of a job.
func RulesOf(s shoal.JobSpec) Rules {
	return Rules{Head: s.Launcher == "head" || s.Launcher == "mpi", Continue: s.OnNodeLoss == "continue"}
}

// Ended takes note that a node has ended as its member says. It returns true if that decides how the
// attempt ends, so that the other nodes are to be ended.
func Ended(a *shoal.Attempt, rank int, r Rules) (decided bool) {
	m := a.Members[rank]
	if Decided(*a) {
		return false
	}
	switch {
	case m.State == shoal.JobLost && r.Continue && rank > 0:
	case m.State == shoal.JobSucceeded && r.Head && rank > 0:
		Decide(a, shoal.CauseMachineLost, fmt.Sprintf("node %d on %s did not keep its place", rank, m.Machine))
	case m.State == shoal.JobSucceeded && !r.Head && !Over(*a):
	case m.State == shoal.JobSucceeded:
		Decide(a, shoal.CauseExit, "")
	default:
		Decide(a, m.Cause, m.Reason)
		a.ExitCode, a.Signal = m.ExitCode, m.Signal
		if a.Cause == "" || a.Cause == shoal.CauseExit && a.ExitCode == 0 {
			a.Cause, a.ExitCode = Causes(m.State), max(a.ExitCode, 1)
		}
		if a.Reason != "" {
			a.Reason = fmt.Sprintf("node %d on %s: %s", rank, m.Machine, a.Reason)
		}
	}
	if !Decided(*a) && Over(*a) { // the last that was left of those that could be lost
		Decide(a, shoal.CauseExit, "")
	}
	return Decided(*a)
}

// Causes is a cause that goes with a state whose cause is not known.
func Causes(s shoal.JobState) shoal.Cause {
	switch s {
	case shoal.JobTimedOut:
		return shoal.CauseTimeLimit
	case shoal.JobCancelled:
		return shoal.CauseCancelled
	case shoal.JobPreempted:
		return shoal.CausePreempted
	case shoal.JobLost:
		return shoal.CauseMachineLost
	}
	return shoal.CauseExit
}

// Decide settles how an attempt ends, once.
func Decide(a *shoal.Attempt, c shoal.Cause, reason string) {
	if !Decided(*a) {
		a.Cause, a.Reason = c, reason
	}
}

// Sum fills in what an attempt that is over has of its nodes.
func Sum(a *shoal.Attempt) {
	a.MaxMemory, a.CPUTime = 0, 0
	for _, m := range a.Members {
		a.MaxMemory = max(a.MaxMemory, m.MaxMemory)
		a.CPUTime += m.CPUTime
	}
	if len(a.Members) > 0 {
		a.StdoutBytes, a.StderrBytes = a.Members[0].StdoutBytes, a.Members[0].StderrBytes
	}
}

// Missing is the sentence for nodes that did not get ready in time.
func Missing(a shoal.Attempt, within string) string {
	late := Late(a)
	names := make([]string, len(late))
	for i, id := range late {
		names[i] = string(id)
	}
	return fmt.Sprintf("%d of its %d nodes were not ready to begin within %s: %s", len(late), len(a.Members), within, strings.Join(names, ", "))
}

// The patience with nodes that get ready.
const (
	readyIn   = 2 * time.Minute
	prepareIn = 15 * time.Minute // besides, where there is something to be done before
)

// Readiness is in what time the nodes of an attempt must be ready to begin.
func Readiness(s shoal.JobSpec) time.Duration {
	if s.Prepare != "" || s.Container != nil {
		return readyIn + prepareIn
	}
	return readyIn
}

// GPUs chooses so many of a machine's GPUs that are not taken.
func GPUs(have, n int, taken map[int]bool) []int {
	var free []int
	for i := 0; i < have && len(free) < n; i++ {
		if !taken[i] {
			free = append(free, i)
		}
	}
	return free
}

// Taken are the GPUs of machines that attempts have.
type Taken map[shoal.MachineID]map[int]bool

// Add notes those of some nodes.
func (t Taken) Add(nodes ...shoal.Member) {
	for _, m := range nodes {
		if t[m.Machine] == nil {
			t[m.Machine] = map[int]bool{}
		}
		for _, i := range m.GPUs {
			t[m.Machine][i] = true
		}
	}
}

// StopState is how the nodes of an attempt are to be ended whose end is decided.
func StopState(a shoal.Attempt) shoal.JobState {
	if a.Cause == shoal.CausePreempted {
		return shoal.JobPreempted
	}
	return shoal.JobCancelled
}

// Stop is what an agent is told to end a node of an attempt.
func Stop(ref shoal.AttemptRef, state shoal.JobState) api.Record {
	return api.Record{Stop: &api.StopOrder{Ref: ref, State: state}}
}
