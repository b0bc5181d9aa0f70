package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// suite is a command that is run in rounds, each with a seed of its own.
type suite struct {
	Name string
	Goal int    // rounds
	Each int    // what a round does, in units
	Unit string // checks, seconds of fuzzing, transfers, runs
	Env  []string
	Args func(seed int) []string // of the go command
}

// The counts of a round. Rounds are minutes long: so much is lost by an interruption.
const (
	checksPerRound   = 10_000
	checkRounds      = 10
	fuzzPerRound     = 60
	fuzzRounds       = 5
	transfers        = 1000
	raceRounds       = 10
	scriptRounds     = 10
	simulationRounds = 3
	simulatedRounds  = 10
	simulatedWeeks   = 100
	soakRounds       = 3
	faultRounds      = 3
	clusterLosses    = 12 // in one cluster
	clusterRounds    = 25 // a hundred of each: a node its power, a node its network, the API server
)

// findSuites makes the plan: what is always there, and the properties, fuzz targets and faults that
// the tests below root declare.
func findSuites(root string) ([]suite, error) {
	tests, err := findTests(root)
	if err != nil {
		return nil, err
	}
	var plan []suite
	for _, t := range tests {
		switch {
		case t.property:
			plan = append(plan, suite{Name: "property " + t.pkg + " " + t.name, Goal: checkRounds, Each: checksPerRound, Unit: "checks",
				Args: func(seed int) []string {
					return []string{"test", "-count=1", "-timeout=1h", "-run", "^" + t.name + "$", "./" + t.pkg,
						"-rapid.seed=" + strconv.Itoa(seed), "-rapid.checks=" + strconv.Itoa(checksPerRound)}
				}})
		case t.fuzz:
			plan = append(plan, suite{Name: "fuzz " + t.pkg + " " + t.name, Goal: fuzzRounds, Each: fuzzPerRound, Unit: "seconds of fuzzing",
				Args: func(int) []string {
					return []string{"test", "-run", "^$", "-fuzz", "^" + t.name + "$", "-fuzztime", strconv.Itoa(fuzzPerRound) + "s", "-fuzzminimizetime", "10x", "./" + t.pkg}
				}})
		case t.pkg == "internal/e2e":
			plan = append(plan, suite{Name: "faults " + t.pkg + " " + t.name, Goal: faultRounds, Each: 1, Unit: "runs", Env: []string{"SHOAL_PROVE=1"},
				Args: func(int) []string {
					return []string{"test", "-v", "-count=1", "-timeout=4h", "-run", "^" + t.name + "$", "./" + t.pkg}
				}})
		}
	}
	return append(plan, always()...), nil
}

func always() []suite {
	return []suite{
		{Name: "transfers", Goal: 3, Each: transfers, Unit: "transfers", Env: []string{fmt.Sprintf("SHOAL_COUNT=%d", transfers)},
			Args: func(int) []string {
				return []string{"test", "-count=1", "-timeout=4h", "-run", "^TestTransfers$", "./internal/gateway/sshfront"}
			}},
		{Name: "sockets of the front end, and JupyterHub's tests of it", Goal: soakRounds, Each: 1, Unit: "runs", Env: []string{"SHOAL_PROVE=1"},
			Args: func(int) []string {
				return []string{"test", "-count=1", "-timeout=4h", "-run", "Soak|JupyterHub", "./internal/chptest"}
			}},
		{Name: "partitions, restarts and dependencies in simulation", Goal: simulationRounds, Each: 1, Unit: "runs", Env: []string{"SHOAL_PROVE=1"},
			Args: func(int) []string {
				return []string{"test", "-count=1", "-timeout=4h", "-run", "Partitions|Chaos", "./internal/batch"}
			}},
		{Name: "weeks in simulation", Goal: simulatedRounds, Each: simulatedWeeks, Unit: "weeks of 200 people",
			Args: func(seed int) []string {
				return []string{"test", "-count=1", "-timeout=4h", "-run", "^TestWorlds$", "./internal/sim", "-sim.people=200", "-sim.length=168h",
					"-sim.worlds=" + strconv.Itoa(simulatedWeeks), "-sim.first=" + strconv.Itoa((seed-1)*simulatedWeeks)}
			}},
		{Name: "policies of scaling in simulation", Goal: simulatedRounds, Each: 1, Unit: "weeks of 200 people under four policies",
			Args: func(seed int) []string {
				return []string{"test", "-count=1", "-v", "-timeout=1h", "-run", "^TestPolicies$", "./internal/sim", "-sim.people=200", "-sim.first=" + strconv.Itoa(seed)}
			}},
		{Name: "browsers", Goal: scriptRounds, Each: 1, Unit: "runs",
			Args: func(int) []string { return []string{"test", "-count=1", "-timeout=1h", "./internal/browsertest"} }},
		{Name: "acceptance scripts", Goal: scriptRounds, Each: 1, Unit: "runs", Env: []string{"SHOAL_PROVE=1"},
			Args: func(int) []string { return []string{"test", "-count=1", "-timeout=1h", "./internal/scripttest"} }},
		{Name: "Kubernetes: losses in one cluster", Goal: clusterRounds, Each: clusterLosses, Unit: "losses", Env: []string{fmt.Sprintf("SHOAL_COUNT=%d", clusterLosses)},
			Args: func(int) []string {
				return []string{"test", "-C", "providers/kubernetes", "-count=1", "-timeout=2h", "-run", "^TestLosses$", "."}
			}},
		{Name: "Kubernetes: faults, edits, a thousand pods, a server that is killed", Goal: faultRounds, Each: 1, Unit: "runs", Env: []string{"SHOAL_PROVE=1"},
			Args: func(int) []string {
				return []string{"test", "-C", "providers/kubernetes", "-count=1", "-timeout=1h", "."}
			}},
		{Name: "race detector", Goal: raceRounds, Each: 1, Unit: "runs", Env: []string{"CGO_ENABLED=1"},
			Args: func(seed int) []string {
				return []string{"test", "-race", "-count=1", "-timeout=2h", "-shuffle=" + strconv.Itoa(seed), "./..."}
			}},
	}
}

// command runs one round; what it said comes back.
func (s suite) command(ctx context.Context, seed int) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", s.Args(seed)...)
	cmd.Env = append(os.Environ(), s.Env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd.CombinedOutput()
}

// test is a test function of a package.
type test struct {
	pkg, name      string
	property, fuzz bool
}

// findTests reads the test files below root.
func findTests(root string) ([]test, error) {
	var tests []test
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || fn.Name.Name == "TestMain" {
				continue
			}
			switch name := fn.Name.Name; {
			case strings.HasPrefix(name, "Fuzz"):
				tests = append(tests, test{pkg: filepath.ToSlash(pkg), name: name, fuzz: true})
			case strings.HasPrefix(name, "Test"):
				tests = append(tests, test{pkg: filepath.ToSlash(pkg), name: name, property: checks(fn)})
			}
		}
		return nil
	})
	slices.SortFunc(tests, func(a, b test) int { return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name) })
	return tests, err
}

// checks reports whether a function calls rapid.Check.
func checks(fn *ast.FuncDecl) bool {
	found := false
	ast.Inspect(fn, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Check" {
			x, ok := s.X.(*ast.Ident)
			found = found || ok && x.Name == "rapid"
		}
		return !found
	})
	return found
}
