package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFindSuites(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/a_test.go", "package a\nfunc TestPlain(t *testing.T) {}\nfunc TestLaw(t *testing.T) { t.Run(\"x\", func(t *testing.T) { rapid.Check(t, nil) }) }\nfunc FuzzParse(f *testing.F) {}\nfunc helper() { rapid.Check(nil, nil) }\n")
	write("internal/e2e/e_test.go", "package e2e\nfunc TestMain(m *testing.M) {}\nfunc TestFault(t *testing.T) {}\n")
	write("a/testdata/b_test.go", "not go")
	plan, err := findSuites(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range plan {
		names = append(names, s.Name)
	}
	want := []string{"fuzz a FuzzParse", "property a TestLaw", "faults internal/e2e TestFault", "transfers", "sockets of the front end, and JupyterHub's tests of it", "partitions, restarts and dependencies in simulation", "weeks in simulation", "policies of scaling in simulation", "browsers", "acceptance scripts", "Kubernetes: losses in one cluster", "Kubernetes: faults, edits, a thousand pods, a server that is killed", "race detector"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q\nwant %q", names, want)
	}
	if args := strings.Join(plan[1].Args(7), " "); !strings.Contains(args, "-rapid.seed=7") || !strings.Contains(args, "./a ") {
		t.Errorf("a property is run by %s", args)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	got := counts("=== RUN   TestLeaderDies\n    faults_server_test.go:62: counted 7 jobs\n        faults_leader_test.go:92: counted 100 takeovers\n" +
		"    faults_server_test.go:62: counted 4 jobs\ncounted 5 lies\n    x_test.go:1: seed 9\n")
	if want := map[string]int{"jobs": 11, "takeovers": 100}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A suite goes on after an interruption where it was, and is begun anew for another commit.
func TestBookGoesOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "prove.json")
	works := suite{Name: "works", Goal: 5, Each: 10, Unit: "checks", Args: func(int) []string { return []string{"version"} }}
	fails := suite{Name: "fails", Goal: 5, Each: 1, Unit: "runs", Args: func(int) []string { return []string{"no-such-command"} }}
	b, err := open(path, "c1")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []suite{works, works, fails} {
		if err := b.round(t.Context(), s, b.suite(s)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := open(path, "c1")
	if err != nil {
		t.Fatal(err)
	}
	if r := again.suite(works); r.Rounds != 2 || r.Count != 20 || r.Seeds != [2]int{1, 2} || len(r.Failures) != 0 {
		t.Errorf("works: %+v", r)
	}
	if r := again.suite(fails); len(r.Failures) != 1 || r.Failures[0].Seed != 1 || !strings.Contains(r.Failures[0].Output, "no-such-command") {
		t.Errorf("fails: %+v", r)
	}
	other, err := open(path, "c2")
	if err != nil {
		t.Fatal(err)
	}
	if len(other.Suites) != 0 {
		t.Errorf("another commit inherits %d suites", len(other.Suites))
	}
}
