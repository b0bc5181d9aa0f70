package outlook_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/book/outlook"
	"github.com/shoal-pool/shoal/internal/sched"
)

func TestUsage(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	text, err := outlook.WriteUsage([]sched.UserUsage{{Pool: "lab", Group: "research", User: "alice", Settled: 12.5, Usage: 20}, {Pool: "lab", User: "bob"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := outlook.ReadUsage(text)
	want := []sched.Change{sched.PutUsage{Pool: "lab", Group: "research", User: "alice", At: now, Usage: 12.5}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if none, err := outlook.ReadUsage(""); none != nil || err != nil {
		t.Errorf("of nothing: %v, %v", none, err)
	}
	if _, err := outlook.ReadUsage("{"); err == nil {
		t.Error("no error")
	}
}

func TestOf(t *testing.T) {
	w, changes := outlook.Of(
		[]shoal.Machine{{ID: "m-1", Pool: "lab", State: shoal.MachineReady, Wanted: shoal.WantRun}, {ID: "m-2", Pool: "lab", State: shoal.MachineStopped}},
		[]shoal.Session{{User: "bob", Machine: "m-1", State: shoal.SessionActive}, {User: "alice", Machine: "m-1", State: shoal.SessionDisconnected}, {User: "carol", State: shoal.SessionWaiting}},
		[]shoal.Pool{{Name: "lab", Size: shoal.Size{Max: 4}}}, []shoal.Group{{Name: "research", Weight: 2}, {Name: "other"}})
	want := []sched.Sitting{{User: "alice"}, {User: "bob", Active: true}}
	if diff := cmp.Diff(want, w.Sitting["m-1"]); diff != "" {
		t.Error(diff)
	}
	places, pools, weights := changes[0].(sched.PutMachines), changes[1].(sched.PutPools), changes[2].(sched.PutGroups)
	if places[0].Standing != sched.Open || len(places[0].Sessions) != 2 || places[1].Standing != sched.Leaving || pools[0].Room != 3 || len(weights) != 1 {
		t.Errorf("%+v %+v %+v", places, pools, weights)
	}
}
