package after_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/after"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		condition shoal.Condition
		state     shoal.JobState
		want      after.Verdict
	}{
		{"", shoal.JobRunning, after.Wait}, {"", shoal.JobSucceeded, after.Ready}, {shoal.AfterOK, shoal.JobFailed, after.Never}, {"", shoal.JobCancelled, after.Never},
		{shoal.AfterAny, shoal.JobQueued, after.Wait}, {shoal.AfterAny, shoal.JobTimedOut, after.Ready},
		{shoal.AfterFailed, shoal.JobSucceeded, after.Never}, {shoal.AfterFailed, shoal.JobTimedOut, after.Ready}, {shoal.AfterFailed, shoal.JobStarting, after.Wait},
	} {
		if got := after.Of(shoal.Dependency{Job: "1", Condition: c.condition}, c.state); got != c.want {
			t.Errorf("%s of %s: %d, want %d", c.condition, c.state, got, c.want)
		}
	}
	if after.Ready.And(after.Wait) != after.Wait || after.Wait.And(after.Never) != after.Never || after.Ready.And(after.Ready) != after.Ready {
		t.Error("two together")
	}
}

func TestTasks(t *testing.T) {
	tasks := []shoal.TaskSpec{{Name: "fetch"}, {Name: "clean", After: []string{"fetch"}}, {Name: "train", After: []string{"clean", "fetch"}}, {Name: "free"}}
	if diff := cmp.Diff([]int{1, 0}, after.Before(tasks, 2)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{1, 2}, after.Behind(tasks, 0)); diff != "" {
		t.Error(diff)
	}
	if !after.Gated(shoal.JobSpec{Tasks: tasks}) || after.Gated(shoal.JobSpec{Tasks: tasks[:1]}) || !after.Gated(shoal.JobSpec{After: []shoal.Dependency{{Job: "1", Task: shoal.Corresponding}}}) {
		t.Error("gated")
	}
}
