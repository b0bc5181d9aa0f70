package line_test

import (
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/line"
)

func TestLine(t *testing.T) {
	var all [4]*shoal.Attempt
	live := func(ref shoal.TaskRef) *shoal.Attempt { return all[ref.Index] }
	for i := range all {
		all[i] = &shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "1", Index: i}, Attempt: 1}, State: shoal.JobStarting}
		if i > 0 {
			all[i].Behind = &all[i-1].AttemptRef
		}
	}
	if line.Overtaken(*all[3], live) || line.Before(*all[3], live) != all[2] || line.Before(*all[0], live) != nil {
		t.Error("in a line of brief tasks")
	}
	all[0].State = shoal.JobRunning
	if !line.Overtaken(*all[3], live) || line.Overtaken(*all[0], live) {
		t.Error("behind a long one")
	}
	all[1].State = shoal.JobSucceeded
	if line.Before(*all[2], live) != nil || line.Overtaken(*all[3], live) {
		t.Error("whose turn it is still waits")
	}
	next := *all[1]
	next.Attempt, next.State, all[1] = 2, shoal.JobStarting, &next
	if line.Before(*all[2], live) != nil {
		t.Error("the next attempt is not the one that was waited for")
	}
}
