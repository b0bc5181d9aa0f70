package gang_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/gang"
)

func attempt(nodes int) *shoal.Attempt {
	a := &shoal.Attempt{State: shoal.JobRunning, Machine: "m-0"}
	for i := range nodes {
		a.Members = append(a.Members, shoal.Member{Machine: shoal.MachineID([]string{"m-0", "m-1", "m-2", "m-3"}[i]), State: shoal.JobRunning})
	}
	return a
}

func TestRank(t *testing.T) {
	a := *attempt(3)
	if r, ok := gang.Rank(a, "m-2"); r != 2 || !ok {
		t.Errorf("rank %d, %v", r, ok)
	}
	if _, ok := gang.Rank(a, "m-9"); ok {
		t.Error("it has a node on m-9")
	}
	one := shoal.Attempt{Machine: "m-1"}
	if r, ok := gang.Rank(one, "m-1"); r != 0 || !ok || len(gang.Nodes(one)) != 1 {
		t.Errorf("of one: rank %d, %v", r, ok)
	}
}

func TestBarrier(t *testing.T) {
	a := attempt(2)
	a.State, a.Members[0].State, a.Members[1].State = shoal.JobStarting, shoal.JobStarting, shoal.JobStarting
	if !gang.Held(*a) || gang.Missing(*a, "2m") != "2 of its 2 nodes were not ready to begin within 2m: m-0, m-1" {
		t.Errorf("at the start: %s", gang.Missing(*a, "2m"))
	}
	a.Members[0].State = shoal.JobRunning
	if !gang.Held(*a) {
		t.Error("one is not ready")
	}
	a.Members[1].State = shoal.JobRunning
	if gang.Held(*a) {
		t.Error("all are ready")
	}
}

// The end of each node in turn, and what becomes of the attempt.
func TestEnds(t *testing.T) {
	type end struct {
		rank  int
		state shoal.JobState
		cause shoal.Cause
		exit  int
	}
	ok := func(rank int) end { return end{rank, shoal.JobSucceeded, shoal.CauseExit, 0} }
	for _, c := range []struct {
		name    string
		rules   gang.Rules
		ends    []end
		decided int // after so many ends
		state   shoal.JobState
		exit    int
		reason  string
	}{
		{"each succeeds", gang.Rules{}, []end{ok(1), ok(0), ok(2)}, 3, shoal.JobSucceeded, 0, ""},
		{"one fails", gang.Rules{}, []end{ok(1), {2, shoal.JobFailed, shoal.CauseExit, 7}, {0, shoal.JobCancelled, shoal.CauseCancelled, 143}}, 2, shoal.JobFailed, 7, ""},
		{"one runs out of memory", gang.Rules{Continue: true}, []end{{1, shoal.JobFailed, shoal.CauseOOM, 137}}, 1, shoal.JobFailed, 137, ""},
		{"one runs out of time", gang.Rules{}, []end{{1, shoal.JobTimedOut, "", 143}}, 1, shoal.JobTimedOut, 143, ""},
		{"one is lost", gang.Rules{}, []end{{1, shoal.JobLost, shoal.CauseMachineLost, 0}, ok(0)}, 1, shoal.JobLost, 0, ""},
		{"one is lost, the others go on", gang.Rules{Continue: true}, []end{{1, shoal.JobLost, shoal.CauseMachineLost, 0}, ok(0), ok(2)}, 3, shoal.JobSucceeded, 0, ""},
		{"the last is lost, the others are done", gang.Rules{Continue: true}, []end{ok(0), ok(2), {1, shoal.JobLost, shoal.CauseMachineLost, 0}}, 3, shoal.JobSucceeded, 0, ""},
		{"the first is lost", gang.Rules{Continue: true}, []end{{0, shoal.JobLost, shoal.CauseMachineLost, 0}}, 1, shoal.JobLost, 0, ""},
		{"the head succeeds", gang.Rules{Head: true}, []end{ok(0), {1, shoal.JobCancelled, shoal.CauseCancelled, 143}}, 1, shoal.JobSucceeded, 0, ""},
		{"the head fails", gang.Rules{Head: true}, []end{{0, shoal.JobFailed, shoal.CauseExit, 3}}, 1, shoal.JobFailed, 3, ""},
		{"a place is not kept", gang.Rules{Head: true}, []end{ok(1)}, 1, shoal.JobLost, 0, "node 1 on m-1 did not keep its place"},
	} {
		a := attempt(3)
		for i, e := range c.ends {
			m := &a.Members[e.rank]
			m.State, m.Cause, m.ExitCode = e.state, e.cause, e.exit
			gang.Ended(a, e.rank, c.rules)
			if gang.Decided(*a) != (i+1 >= c.decided) {
				t.Errorf("%s: after %d ends: %+v", c.name, i+1, a)
			}
		}
		if got := gang.Outcome(a.Cause, a.ExitCode); got != c.state || a.ExitCode != c.exit || a.Reason != c.reason {
			t.Errorf("%s: %s with %d, %q", c.name, got, a.ExitCode, a.Reason)
		}
	}
}

// However its nodes end: it is decided at the latest with the last, once, and succeeds only if the first did.
func TestAlwaysDecided(t *testing.T) {
	states := []shoal.JobState{shoal.JobSucceeded, shoal.JobFailed, shoal.JobTimedOut, shoal.JobCancelled, shoal.JobLost, shoal.JobPreempted}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "nodes")
		a := attempt(n)
		r := gang.Rules{Head: rapid.Bool().Draw(t, "head"), Continue: rapid.Bool().Draw(t, "continue")}
		var cause shoal.Cause
		for _, rank := range rapid.Permutation([]int{0, 1, 2, 3}[:n]).Draw(t, "order") {
			a.Members[rank].State = rapid.SampledFrom(states).Draw(t, "state")
			first := gang.Ended(a, rank, r)
			if cause != "" && (first || a.Cause != cause) {
				t.Fatalf("decided twice: %+v", a)
			}
			cause = a.Cause
		}
		if !gang.Decided(*a) || !gang.Over(*a) {
			t.Fatalf("not decided: %+v", a)
		}
		if gang.Outcome(a.Cause, a.ExitCode) == shoal.JobSucceeded && a.Members[0].State != shoal.JobSucceeded {
			t.Fatalf("succeeded without its first node: %+v", a)
		}
	})
}
