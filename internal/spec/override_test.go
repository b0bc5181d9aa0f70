package spec_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/sweep"
)

func TestOverride(t *testing.T) {
	t.Parallel()
	job := shoal.JobSpec{Command: "a\nb", Env: map[string]string{"A": "1"}, Container: &shoal.Container{Image: "x"}, Items: []shoal.Item{shoal.Item(`1`)}}
	spec.DefaultJob(&job)
	got, err := spec.Override(job, []string{"resources.cpus=2", "env.LR=0.1", "env.a.b=", "container=", "after=[17, prep:any]", "timeLimit=1h", "nodes=2-4", "command=echo a: b", "labels.team.x=y"})
	want := job
	want.Resources.CPUs, want.Env, want.Container = 2000, map[string]string{"A": "1", "LR": "0.1"}, nil
	want.After = []shoal.Dependency{{Job: "17"}, {Job: "prep", Condition: shoal.AfterAny}}
	want.TimeLimit, want.Nodes, want.Command, want.Labels = shoal.Duration(time.Hour), shoal.Nodes{Min: 2, Max: 4}, "echo a: b", map[string]string{"team.x": "y"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %v\n%s", err, shoal.MistakesOf(err), diff)
	}
	for set, msg := range map[string]string{"resources.cpus=x": "number of processors", "resorces.cpus=1": "did you mean resources", "cpus": "KEY=VALUE", "after=[": "", "priority=urgent": "not possible", "retries=9999": "between"} {
		if _, err := spec.Override(job, []string{set}); err == nil || !strings.Contains(err.Error()+spec.Format(shoal.MistakesOf(err)), msg) {
			t.Errorf("%s: %v %+v", set, err, shoal.MistakesOf(err))
		}
	}
}

// TestItemsAsWritten: a task is given the number that somebody wrote, not the nearest that can be counted with.
func TestItemsAsWritten(t *testing.T) {
	t.Parallel()
	set, err := spec.Parse(spec.File{Data: []byte("kind: Job\ncommand: x\nitems: [007, 20240101123456789, 1.5, yes, true, {id: 9007199254740993}]\n---\n" +
		"kind: Job\ncommand: x\nsweep: {parameters: {ID: [9007199254740993], N: {from: 1, to: 10000000000000000001, count: 2}}}\n")})
	if err != nil {
		t.Fatal(err, shoal.MistakesOf(err))
	}
	for i, want := range []string{`["007",20240101123456789,1.5,"yes",true,{"id":9007199254740993}]`, `[{"ID":9007199254740993,"N":1},{"ID":9007199254740993,"N":10000000000000000000}]`} {
		if got, err := json.Marshal(set.Jobs[i].Items); string(got) != want || err != nil {
			t.Errorf("the items are %s, %v, want %s", got, err, want)
		}
	}
}

func TestSweepItems(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"parameters:\n  A: [1, 2]\n  B: {from: 0, to: 1, count: 3}\n":                                                                              6,
		`{"params": [{"parameterName": "A", "paramType": "NumParam", "dataType": "INTEGER", "start": 1, "end": 4, "scale": "LINEAR", "step": 1}]}`: 4,
	} {
		items, err := spec.SweepItems(spec.File{Data: []byte(text)}, sweep.Sweep{})
		if len(items) != want || err != nil {
			t.Errorf("%s: %d items, %v", text, len(items), shoal.MistakesOf(err))
		}
	}
	items, err := spec.SweepItems(spec.File{Data: []byte("parameters: {A: [1, 2]}\n")}, sweep.Sweep{Search: sweep.Random, Count: 7})
	if len(items) != 7 || err != nil {
		t.Errorf("%d items, %v", len(items), err)
	}
	for text, place := range map[string]string{"parameters:\n  A: {from: 1, to: 0}\n": "s.yaml:2:20: parameters.A.to", "parameter: {}\n": "s.yaml:1:1: parameter", "": "one document", "- 1\n": "s.yaml:1"} {
		if _, err := spec.SweepItems(spec.File{Name: "s.yaml", Data: []byte(text)}, sweep.Sweep{}); err == nil || !strings.Contains(spec.Format(shoal.MistakesOf(err)), place) {
			t.Errorf("%q: %v", text, spec.Format(shoal.MistakesOf(err)))
		}
	}
}
