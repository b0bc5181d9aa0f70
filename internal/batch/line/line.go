// Package line knows attempts that stand in line on a machine: each takes the place of the one before when that has ended.
// A line is for brief tasks. When one in it turns out not to be brief, those behind it are called back.
package line

import (
	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Live finds the attempt of a task that is live; nil if there is none.
type Live func(shoal.TaskRef) *shoal.Attempt

// Before is the attempt for whose end another waits; nil: it waits for none.
func Before(a shoal.Attempt, live Live) *shoal.Attempt {
	if a.Behind == nil {
		return nil
	}
	if b := live(a.Behind.TaskRef); b != nil && b.AttemptRef == *a.Behind && !b.State.Ended() {
		return b
	}
	return nil
}

// Overtaken reports whether an attempt waits behind one that is known to take long.
func Overtaken(a shoal.Attempt, live Live) bool {
	for b := Before(a, live); b != nil; b = Before(*b, live) {
		if b.State == shoal.JobRunning {
			return true
		}
	}
	return false
}

// Recall has an agent end an attempt, if it still waits in its line.
func Recall(ref shoal.AttemptRef) api.Record {
	return api.Record{Stop: &api.StopOrder{Ref: ref, State: shoal.JobPreempted, Waiting: true}}
}
