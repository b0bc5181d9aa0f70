package archtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

const page = "# A\n\n## Packages and levels\n\nText.\n\n```\n" +
	".            0 pure   words\n" +
	"low          1 pure   decides\n" +
	"                      goes on\n" +
	"seam         1\n" +
	"mid          2        acts\n" +
	"top          3\n```\n"

// tree writes a module and loads it.
func tree(t *testing.T, archive string) *Tree {
	t.Helper()
	dir := t.TempDir()
	files := txtar.Parse([]byte("-- go.mod --\nmodule example.org/m\n" + archive))
	for _, f := range files.Files {
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// sound is a module in which nothing is wrong with page's table.
const sound = `
-- m.go --
// Package m has words.
package m
-- low/low.go --
// Package low decides.
package low
-- seam/seam.go --
// Package seam is between.
package seam
-- mid/mid.go --
// Package mid acts.
package mid

import (
	_ "example.org/m"
	_ "example.org/m/low"
	_ "example.org/m/mid/part"
)
-- mid/part/part.go --
// Package part is a part of mid.
package part
-- top/top.go --
// Package top is above.
package top

import (
	"context"
	_ "example.org/m/mid"
)

// Run blocks.
func Run(ctx context.Context) {}
`

func TestRulesFindWhatTheyRefuse(t *testing.T) {
	t.Parallel()
	long := "\n-- mid/long.go --\npackage mid\n\nfunc long() {\n" + strings.Repeat("\tlong()\n", 79) + "}\n"
	tests := []struct {
		name, extra string
		want        []string // "rule place"
	}{
		{"nothing wrong", "", nil},
		{"upwards", "\n-- mid/a.go --\npackage mid\nimport _ \"example.org/m/top\"\n", []string{"level mid → top"}},
		{"sideways", "\n-- seam/a.go --\npackage seam\nimport _ \"example.org/m/low\"\n", []string{"level seam → low"}},
		{"sideways from a part", "\n-- mid/part/a.go --\npackage part\nimport _ \"example.org/m/mid/other\"\n-- mid/other/o.go --\n// Package other is another.\npackage other\n",
			[]string{"level mid/part → mid/other"}},
		{"a test may import upwards", "\n-- mid/a_test.go --\npackage mid\nimport _ \"example.org/m/top\"\n", nil},
		{"not in the table", "\n-- new/n.go --\n// Package new is not planned.\npackage new\n", []string{"table new"}},
		{"a module inside is another's", "\n-- new/go.mod --\nmodule x\n-- new/n.go --\npackage x\n", nil},
		{"a pure package reads the clock", "\n-- low/a.go --\npackage low\nimport clock \"time\"\nvar _ = clock.Hour\nfunc a() { clock.Now() }\n", []string{"pure low/a.go: time.Now"}},
		{"a pure package does two things at once", "\n-- low/a.go --\npackage low\nfunc a() { go a() }\n", []string{"pure low/a.go: go"}},
		{"a pure package opens files", "\n-- low/a.go --\npackage low\nimport _ \"os\"\n", []string{"pure low/a.go: os"}},
		{"a pure package throws dice", "\n-- low/a.go --\npackage low\nimport \"math/rand/v2\"\nfunc a(r *rand.Rand) int { return rand.IntN(6) + r.IntN(6) }\n", []string{"pure low/a.go: rand.IntN"}},
		{"other packages may", "\n-- mid/a.go --\npackage mid\nimport \"time\"\nfunc a() { time.Now(); go a() }\n", nil},
		{"a long function", long, []string{"size mid/long.go: long"}},
		{"a long file", "\n-- mid/a.go --\npackage mid\n" + strings.Repeat("\n", 600), []string{"size mid/a.go"}},
		{"a long test", "\n-- mid/a_test.go --\npackage mid\n" + strings.Repeat("\n", 600), nil},
		{"a large package", manyFiles(6), []string{"size mid"}},
		{"a large interface", "\n-- mid/a.go --\npackage mid\ntype i interface { a(); b(); c(); d(); e(); f(); g(); h(); i() }\n", []string{"interface mid/a.go: i"}},
		{"work before main", "\n-- mid/a.go --\npackage mid\nfunc init() {}\n", []string{"init mid/a.go"}},
		{"a variable", "\n-- mid/a.go --\npackage mid\nvar state int\n", []string{"variable mid/a.go: state"}},
		{"what is only read", "\n-- mid/a.go --\npackage mid\nimport \"errors\"\nvar errA = errors.New(\"a\")\nvar _ error = errA\nvar table = []int{1}\n\n//go:embed a.go\nvar text string\n", nil},
		{"no comment on a package", "\n-- mid/bare/a.go --\npackage bare\n", []string{"comment mid/bare"}},
		{"no comment on what is exported", "\n-- mid/a.go --\npackage mid\ntype T int\n\nfunc (T) Do() {}\nfunc (T) String() string { return \"\" }\n", []string{"comment mid/a.go: T", "comment mid/a.go: Do"}},
		{"a name that says nothing", "\n-- mid/util/a.go --\n// Package util is a drawer.\npackage util\n", []string{"name mid/util"}},
		{"a name of the standard library", "\n-- mid/http/a.go --\n// Package http shadows.\npackage http\n", []string{"name mid/http"}},
		{"a name unlike the directory", "\n-- mid/a/a.go --\n// Package b is elsewhere.\npackage b\n", []string{"name mid/a"}},
	}
	table, err := ReadTable(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, f := range Check(tree(t, sound+tt.extra), table) {
				got = append(got, f.Rule+" "+f.Place)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func manyFiles(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\n-- mid/f%d.go --\npackage mid\n%s", i, strings.Repeat("\n", 590))
	}
	return b.String()
}

func TestLongChain(t *testing.T) {
	t.Parallel()
	archive := sound
	for i := range 8 {
		archive += fmt.Sprintf("\n-- top/p%d/p.go --\n// Package p%d is one of many.\npackage p%d\nimport _ \"example.org/m/top/p%d/q\"\n", i, i, i, i)
	}
	deep := "top"
	for range 8 {
		archive += fmt.Sprintf("\n-- %s/q/q.go --\n// Package q goes on.\npackage q\nimport _ \"example.org/m/%s/q/q\"\n", deep, deep)
		deep += "/q"
	}
	archive += fmt.Sprintf("\n-- %s/q/q.go --\n// Package q ends.\npackage q\n", deep)
	table, err := ReadTable(page)
	if err != nil {
		t.Fatal(err)
	}
	found := chain(tree(t, archive), table)
	if len(found) != 1 || found[0].Place != "top/q" {
		t.Errorf("got %v, want only the chain of 9 from top/q", found)
	}
}

func TestTableRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no heading":   "# A\n",
		"no block":     "\n## Packages and levels\n",
		"open block":   "\n## Packages and levels\n\n```\na 1\n",
		"no level":     "\n## Packages and levels\n\n```\nlow pure\n```\n",
		"a row twice":  "\n## Packages and levels\n\n```\nlow 1\nlow 2\n```\n",
		"level of two": "\n## Packages and levels\n\n```\nlow 12\n```\n",
	} {
		if _, err := ReadTable(text); err == nil {
			t.Errorf("%s: read without a complaint", name)
		}
	}
}

func TestTheNearestRowHolds(t *testing.T) {
	t.Parallel()
	table := Table{{Path: "a", Level: 1}, {Path: "a/b", Level: 2}}
	for path, want := range map[string]int{"a": 1, "a/c": 1, "a/b": 2, "a/b/c": 2, "a/bc": 1} {
		if r, ok := table.Find(path); !ok || r.Level != want {
			t.Errorf("%s has level %d, want %d", path, r.Level, want)
		}
	}
	if _, ok := table.Find("ab"); ok {
		t.Error("ab is found below a")
	}
}

func TestAllowances(t *testing.T) {
	t.Parallel()
	list, err := ReadAllowances("# why\n\nsize a.go: f — is a table, read in order\nlevel b → c — for a while, until d is gone\n")
	if err != nil {
		t.Fatal(err)
	}
	left, idle := Subtract([]Finding{{"size", "a.go: f", ""}, {"size", "a.go: g", ""}}, list)
	if len(left) != 1 || left[0].Place != "a.go: g" || len(idle) != 1 || idle[0].Place != "b → c" {
		t.Errorf("left %v, idle %v", left, idle)
	}
	for _, bad := range []string{"size a.go", "size a.go — why", "size — because of something"} {
		if _, err := ReadAllowances(bad); err == nil {
			t.Errorf("%q is allowed without a reason", bad)
		}
	}
}

func TestWords(t *testing.T) {
	t.Parallel()
	here := "/wor" + "k/place"
	tr := tree(t, "-- doc.md --\nsee "+here+"/x\nfetch from goods.example.net\nand proxy.golang.org, or upper"+here+"\n-- bin/x.md --\n"+here+"\n")
	found := Words(tr, []string{"https://user@goods.example.net:8080/go", "https://proxy.golang.org", "direct", ""})
	if len(found) != 2 {
		t.Errorf("found %v, want two lines", found)
	}
}

func TestLoadRefusesWhatIsNotGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !os.IsNotExist(err) && !strings.Contains(err.Error(), fs.ErrNotExist.Error()) {
		t.Errorf("a directory without go.mod: %v", err)
	}
}
