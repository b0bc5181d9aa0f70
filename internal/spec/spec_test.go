package spec_test

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files")

const team = `
kind: Share
name: team
source: /srv/team
groupDirs: [{path: "projects/{group}"}]
---
# the pool
kind: Pool
name: lab
image: host
machine: {cpus: 0.5, memory: 512MiB}
size: {max: 4}
mounts: [{share: team, path: /shared}]
home: {share: team}
setup: {command: "echo a\necho b"}
price: {perHour: 0.4, currency: EUR}
---
kind: User
name: alice
uid: 20001
keys: ["ssh-ed25519 AAAA alice@laptop"]
groups: [research]
---
kind: Group
name: research
members: [alice]
---
kind: Job
name: sweep
pool: lab
command: "python3 train.py --fold $SHOAL_ARRAY_INDEX"
array: 1-8
env: {FOLDS: 5, DEBUG: true}
timeLimit: 1h
after: [17]
`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := spec.Parse(spec.File{Name: "team.yaml", Data: []byte(team)})
	if err != nil {
		t.Fatalf("%v %+v", err, shoal.MistakesOf(err))
	}
	want := spec.Set{
		Shares: []shoal.Share{{Name: "team", Source: "/srv/team", GroupDirs: []shoal.GroupDir{{Path: "projects/{group}", Mode: "2770"}}}},
		Groups: []shoal.Group{{Name: "research", Members: []shoal.UserName{"alice"}}},
		Users: []shoal.User{{Name: "alice", UID: 20001, Keys: []string{"ssh-ed25519 AAAA alice@laptop"}, Groups: []shoal.GroupName{"research"},
			Role: shoal.RoleMember, Shell: "/bin/bash"}},
		Pools: []shoal.Pool{{Name: "lab", Provider: "local", Image: "host", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch},
			Machine: shoal.Resources{CPUs: 500, Memory: 512 << 20}, Size: shoal.Size{Max: 4}, Seats: 8, Placement: shoal.PlaceSpread,
			Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}}, Home: shoal.Home{Share: "team", Path: "home/{user}"},
			Setup: &shoal.Setup{Command: "echo a\necho b", Timeout: shoal.Duration(5 * time.Minute)},
			Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute), Warn: shoal.Duration(5 * time.Minute)}},
			Price: shoal.Price{PerHour: 0.4, Currency: "EUR"}}},
		Jobs: []shoal.JobSpec{{Name: "sweep", Pool: "lab", Command: "python3 train.py --fold $SHOAL_ARRAY_INDEX", Array: "1-8", Nodes: shoal.Fixed(1), Launcher: "each",
			Env:       map[string]string{"FOLDS": "5", "DEBUG": "true"},
			TimeLimit: shoal.Duration(time.Hour), After: []shoal.Dependency{{Job: "17"}}, Share: "private", Priority: "normal"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseJSON(t *testing.T) {
	t.Parallel()
	got, err := spec.Parse(spec.File{Data: []byte("{\n\t\"kind\": \"Pool\",\n\t\"name\": \"lab\",\n\t\"size\": {\"min\": 1, \"max\": 2}\n}\n")})
	if err != nil || len(got.Pools) != 1 || got.Pools[0].Size.Max != 2 {
		t.Errorf("%+v, %v, %+v", got, err, shoal.MistakesOf(err))
	}
}

// A file as editors of Windows write it is the same document.
func TestParseWindows(t *testing.T) {
	t.Parallel()
	for text, command := range map[string]string{
		"\ufeffkind: Job\r\nname: a\r\ncommand: |\r\n  echo a\r\n  echo b\r\n": "echo a\necho b\n",
		"kind: Job\r\nname: a\r\ncommand: \"echo\r\n  a\"\r\n":                 "echo a",
		"\ufeff{\"kind\": \"Job\", \"name\": \"a\",\r\n\"command\": \"b\"}":    "b",
	} {
		got, err := spec.Parse(spec.File{Data: []byte(text)})
		if err != nil || len(got.Jobs) != 1 || got.Jobs[0].Command != command {
			t.Errorf("%q: %+v, %v, %+v", text, got, err, shoal.MistakesOf(err))
		}
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	got, err := spec.Parse(spec.File{Data: []byte("kind: Pool\nname: a\nmachine: &m {cpus: 2}\n---\nkind: Job\ncommand: x\ninputs: &d {A: /a}\noutputs: *d\n")})
	if err != nil || got.Jobs[0].Outputs["A"].Path != "/a" {
		t.Errorf("%+v, %v, %+v", got, err, shoal.MistakesOf(err))
	}
}

// TestMistakes compares the messages for each file of testdata with the golden one beside it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = spec.Parse(spec.File{Name: filepath.Base(name), Data: data})
			if shoal.KindOf(err) != shoal.KindInvalid {
				t.Fatalf("%v, want an invalid error", err)
			}
			got := err.Error() + "\n" + spec.Format(shoal.MistakesOf(err))
			golden := strings.TrimSuffix(name, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDuplicatesAcrossFiles(t *testing.T) {
	t.Parallel()
	a := spec.File{Name: "a.yaml", Data: []byte("kind: Group\nname: x\n")}
	b := spec.File{Name: "b.yaml", Data: []byte("kind: User\nname: x\n---\nkind: Group\nname: x\n")}
	_, err := spec.Parse(a, b)
	got := spec.Format(shoal.MistakesOf(err))
	if want := "b.yaml:5:7: name: group \"x\" is there twice, first in a.yaml:2\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPlaceJob(t *testing.T) {
	t.Parallel()
	pool := shoal.Pool{Name: "lab", Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}}}
	written := shoal.JobSpec{Workdir: "team:/", Inputs: map[string]string{"a": "team:/data/x", "b": "/abs"}, Outputs: map[string]shoal.OutputDir{"m": {Path: "team:/out", Reuse: true}}, Stdout: "team:/logs/%j.txt"}
	job := written
	if m := spec.PlaceJob(&job, pool); m != nil {
		t.Errorf("%+v", m)
	}
	want := shoal.JobSpec{Workdir: "/shared", Inputs: map[string]string{"a": "/shared/data/x", "b": "/abs"}, Outputs: map[string]shoal.OutputDir{"m": {Path: "/shared/out", Reuse: true}}, Stdout: "/shared/logs/%j.txt"}
	if diff := cmp.Diff(want, job); diff != "" {
		t.Error(diff)
	}
	if written.Inputs["a"] != "team:/data/x" || written.Outputs["m"].Path != "team:/out" {
		t.Error("what was handed in has changed")
	}
	job = shoal.JobSpec{Inputs: map[string]string{"a": "sets:/x"}}
	if m := spec.PlaceJob(&job, pool); len(m) != 1 || m[0].Path != "inputs.a" || m[0].Hint != "it mounts team at /shared" {
		t.Errorf("%+v", m)
	}
}

func TestBatchAIJobsGetWholeMachines(t *testing.T) {
	t.Parallel()
	machine := shoal.Resources{CPUs: 4000, Memory: 8 << 30, GPUs: 1}
	for _, tt := range []struct{ job, want shoal.JobSpec }{
		{shoal.JobSpec{Dialect: "batchai"}, shoal.JobSpec{Dialect: "batchai", Resources: machine}},
		{shoal.JobSpec{Dialect: "batchai", Resources: shoal.Resources{CPUs: 500}}, shoal.JobSpec{Dialect: "batchai", Resources: shoal.Resources{CPUs: 500, Memory: 512 << 20}}},
		{shoal.JobSpec{}, shoal.JobSpec{Resources: shoal.Resources{CPUs: 1000, Memory: 512 << 20}}},
	} {
		if spec.FitJob(&tt.job, machine); tt.job.Resources != tt.want.Resources {
			t.Errorf("got %+v, want %+v", tt.job.Resources, tt.want.Resources)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"large":   "# " + strings.Repeat("x", spec.MaxSize),
		"flow":    "a: " + strings.Repeat("[", 100_000),
		"maps":    strings.Repeat("{a: ", 100_000),
		"dashes":  strings.Repeat("- ", 100_000),
		"steps":   steps(2000),
		"tags":    strings.Repeat("!a ", 100_000),
		"letters": "kind: Job\ncommand: \"\xff\"\n",
		"aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n" + bombs(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := spec.Parse(spec.File{Data: []byte(text)})
			if shoal.KindOf(err) != shoal.KindInvalid {
				t.Errorf("%v, want an invalid error", err)
			}
		})
	}
}

// steps nests mappings by indentation.
func steps(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i%700) + "a:\n")
	}
	return b.String()
}

// bombs nests aliases so that what is written in a kilobyte would be a billion values.
func bombs() string {
	var b strings.Builder
	b.WriteString("kind: Pool\nname: x\nproviderConfig:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		ref := "*a" + string(rune('0'+i))
		b.WriteString("  b" + string(rune('0'+i)) + ": &a" + string(rune('1'+i)) + " [" + strings.TrimSuffix(strings.Repeat(ref+", ", 10), ", ") + "]\n")
	}
	return b.String()
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	first, err := spec.Parse(spec.File{Data: []byte(team)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := spec.Documents(first)
	if err != nil {
		t.Fatal(err)
	}
	again, err := spec.Parse(spec.File{Data: text})
	if err != nil {
		t.Fatalf("%v\n%s", shoal.MistakesOf(err), text)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("%s\n%s", diff, text)
	}
	observed := shoal.Pool{Name: "x", Fixed: &shoal.FixedSize{Size: 1}, Meta: shoal.Meta{Rev: 5, Created: time.Unix(1, 0)}}
	if text, err := spec.Document(observed); err != nil || strings.Contains(string(text), "fixed") || strings.Contains(string(text), "rev") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	before := shoal.Pool{Name: "lab", Size: shoal.Size{Max: 4}, Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}}, Meta: shoal.Meta{Rev: 1}}
	after := shoal.Pool{Name: "lab", Size: shoal.Size{Max: 8}, Image: "host", Meta: shoal.Meta{Rev: 2}, Uses: []shoal.Use{"batch", "interactive"}}
	got, err := spec.Diff(before, after)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`image: "" → host`, "size.max: 4 → 8", "mounts[0].share: team → none", "mounts[0].path: /shared → none", "uses: none → [batch, interactive]"}
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
		t.Error(diff)
	}
	if got, err := spec.Diff(after, after); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDefaultsAreStable(t *testing.T) {
	t.Parallel()
	p := shoal.Pool{Name: "x"}
	spec.DefaultPool(&p)
	again := p
	spec.DefaultPool(&again)
	if !reflect.DeepEqual(p, again) {
		t.Errorf("%+v, then %+v", p, again)
	}
	if m := spec.CheckPool(p); m != nil {
		t.Errorf("the defaults are wrong: %+v", m)
	}
}

// Texts of several lines come back as they were, be they written as lines or quoted.
func TestTextsComeBack(t *testing.T) {
	t.Parallel()
	line := rapid.StringMatching(`[ \t]{0,2}([a-z"'#:{}|>&*!%@~\\$-]{1,3}[ \t]?){0,4}`)
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(line, 1, 5).Draw(t, "lines"), "\n") + "x"
		if rapid.Bool().Draw(t, "before") {
			text = "x" + text
		}
		job := shoal.JobSpec{Command: text, Env: map[string]string{"A": text}, Tasks: nil}
		spec.DefaultJob(&job)
		out, err := spec.Document(job)
		if err != nil {
			t.Fatal(err)
		}
		again, err := spec.Parse(spec.File{Data: out})
		if err != nil || again.Jobs[0].Command != text || again.Jobs[0].Env["A"] != text {
			t.Fatalf("%v %+v\n%q became\n%s\nand then %+v", err, shoal.MistakesOf(err), text, out, again.Jobs)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(team)
	f.Add("kind: Job\ncommand: x\nsweep: {search: random, count: 2, parameters: {A: {from: 0, to: 1}, B: [{c: 1}]}}\n")
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, name := range files {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 {
			return
		}
		first, err := spec.Parse(spec.File{Name: "x", Data: []byte(text)})
		if err != nil {
			if shoal.KindOf(err) != shoal.KindInvalid || len(shoal.MistakesOf(err)) == 0 {
				t.Fatalf("%v without mistakes", err)
			}
			return
		}
		out, err := spec.Documents(first)
		if err != nil {
			t.Fatal(err)
		}
		again, err := spec.Parse(spec.File{Name: "x", Data: out})
		if err != nil {
			t.Fatalf("%v\n%s", shoal.MistakesOf(err), out)
		}
		second, err := spec.Documents(again)
		if err != nil || string(second) != string(out) {
			t.Fatalf("%v\n%s\nbecame\n%s", err, out, second)
		}
	})
}
