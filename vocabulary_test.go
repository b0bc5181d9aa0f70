package shoal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/shoal-pool/shoal"
)

var machineStates = []shoal.MachineState{
	shoal.MachineRequested, shoal.MachineBooting, shoal.MachineReady, shoal.MachineStopping,
	shoal.MachineStopped, shoal.MachineFailed, shoal.MachineGone,
}

func TestMachineMoves(t *testing.T) {
	t.Parallel()
	for _, from := range machineStates {
		if got, want := from.CanMove(shoal.MachineFailed), from != shoal.MachineGone && from != shoal.MachineFailed; got != want {
			t.Errorf("%s → failed: %v, want %v", from, got, want)
		}
		if from.CanMove(from) {
			t.Errorf("%s moves to itself", from)
		}
		if shoal.MachineGone.CanMove(from) {
			t.Errorf("a machine that is gone becomes %s", from)
		}
	}
	if shoal.MachineFailed.CanMove(shoal.MachineBooting) {
		t.Error("a failed machine boots again; a retry is a new machine")
	}
}

func TestEndedAttemptsStay(t *testing.T) {
	t.Parallel()
	states := []shoal.JobState{
		shoal.JobQueued, shoal.JobStarting, shoal.JobRunning, shoal.JobSucceeded, shoal.JobFailed,
		shoal.JobCancelled, shoal.JobTimedOut, shoal.JobLost, shoal.JobPreempted,
	}
	for _, from := range states {
		for _, to := range states {
			if from.Ended() && from.CanMove(to) {
				t.Errorf("an attempt moves from %s to %s", from, to)
			}
		}
	}
}

func TestCountsOutcome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		counts shoal.Counts
		want   shoal.JobState
	}{
		{shoal.Counts{Queued: 3}, shoal.JobQueued},
		{shoal.Counts{Queued: 3, Succeeded: 1}, shoal.JobRunning},
		{shoal.Counts{Running: 1, Failed: 1}, shoal.JobRunning},
		{shoal.Counts{Succeeded: 8}, shoal.JobSucceeded},
		{shoal.Counts{Succeeded: 7, Cancelled: 1}, shoal.JobCancelled},
		{shoal.Counts{Succeeded: 6, Cancelled: 1, TimedOut: 1}, shoal.JobTimedOut},
		{shoal.Counts{Succeeded: 5, Cancelled: 1, TimedOut: 1, Failed: 1}, shoal.JobFailed},
	} {
		if got := c.counts.Outcome(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.counts, got, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("the disk is full")
	inner := shoal.Errorf(shoal.KindUnavailable, "cannot store job: %w", cause).WithHint("free some space")
	err := fmt.Errorf("cannot submit: %w", inner)
	if got := shoal.KindOf(err); got != shoal.KindUnavailable {
		t.Errorf("kind %q", got)
	}
	if got := shoal.HintOf(err); got != "free some space" {
		t.Errorf("hint %q", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if got := shoal.KindOf(cause); got != shoal.KindInternal {
		t.Errorf("an error of no kind reads as %q", got)
	}
}

func TestEveryKindHasAMeaning(t *testing.T) {
	t.Parallel()
	seen := map[shoal.Kind]bool{}
	for _, m := range shoal.Meanings() {
		if seen[m.Kind] || m.Status < 400 || m.Exit == 0 {
			t.Errorf("bad row %+v", m)
		}
		seen[m.Kind] = true
	}
	if got := shoal.Kind("?").Meaning().Kind; got != shoal.KindInternal {
		t.Errorf("an unknown kind means %q", got)
	}
}

func TestParseTaskRef(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]shoal.TaskRef{"17": {Job: "17", Index: -1}, "17/3": {Job: "17", Index: 3}} {
		if got, err := shoal.ParseTaskRef(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "x", "17/", "17/x", "-1", "17/-1", "17/99999999999"} {
		if _, err := shoal.ParseTaskRef(in); shoal.KindOf(err) != shoal.KindInvalid {
			t.Errorf("%q: %v, want an invalid error", in, err)
		}
	}
}

// What is on record of a provider's trouble from before it was called so is read.
func TestFormerOwnerOfACordon(t *testing.T) {
	t.Parallel()
	var m shoal.Machine
	if err := json.Unmarshal([]byte(`{"cordons":[{"owner":"share","reason":"x"},{"owner":"operator"}]}`), &m); err != nil || m.Cordons[0].Owner != shoal.CordonProvider || m.Cordons[1].Owner != shoal.CordonOperator {
		t.Errorf("%+v, %v", m.Cordons, err)
	}
}
