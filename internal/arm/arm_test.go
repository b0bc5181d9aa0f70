package arm_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files")

// place is where the tests deploy to.
func place() arm.Context {
	return arm.Context{Deployment: "test", Group: "lab", Location: "local", Now: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
}

// files is a loader of files in memory.
type files map[string]string

func (f files) Load(uri string) (arm.File, error) {
	if text, ok := f[uri]; ok {
		return arm.File{Name: uri, Data: []byte(text)}, nil
	}
	return arm.File{}, shoal.Errorf(shoal.KindNotFound, "there is no file %s", uri)
}

// words are parameters as the command line has them: name=value.
func words(t testing.TB, template *arm.Template, pairs ...string) arm.Values {
	t.Helper()
	out := arm.Values{From: "the command line"}
	for _, p := range pairs {
		name, value, _ := strings.Cut(p, "=")
		g, err := template.Word(name, value)
		if err != nil {
			t.Fatal(err)
		}
		out.Given = append(out.Given, g)
	}
	return out
}

// told is all that an evaluation says.
func told(r *arm.Result, err error) string {
	if err != nil {
		return err.Error() + "\n" + spec.Format(shoal.MistakesOf(err))
	}
	var b strings.Builder
	for _, n := range r.Notes {
		fmt.Fprintln(&b, "#", n)
	}
	for _, p := range r.Used {
		fmt.Fprintln(&b, "parameter", p.Name, p.Value.Show())
	}
	for _, res := range r.Resources {
		fmt.Fprintf(&b, "resource %s %s (line %d)\n  %s\n", res.Type, res.Name, res.At.Line, res.ID)
		if res.Deployment != "" {
			fmt.Fprintf(&b, "  in %s\n", res.Deployment)
		}
		for _, a := range res.After {
			fmt.Fprintf(&b, "  after %s\n", a)
		}
		fmt.Fprintln(&b, indented(res.Body))
	}
	for _, o := range r.Outputs {
		value := indented(o.Value)
		if o.Value.Kind == tree.Unknown {
			value = "unknown: " + o.Value.Sketch()
		}
		fmt.Fprintf(&b, "output %s (%s) %s\n", o.Name, o.Type, value)
	}
	return b.String()
}

func indented(v *tree.Value) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "  ", "  "); err != nil {
		return err.Error()
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func read(t testing.TB, name string) arm.File {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return arm.File{Name: filepath.Base(name), Data: data}
}

// published are the cases, with what their placeholders are replaced by.
var published = []struct {
	name, template, parameters string
	words                      []string
}{
	{"cluster", "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster.json", "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster.parameters.json",
		[]string{"vmssName=lab", "adminPassword=very-secret-1", "storageAccountKey=very-secret-2", "storageAccountName=acct", "shareName=team"}},
	{"cluster-placeholders", "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster.json", "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster.parameters.json", nil},
	{"lowpri", "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-lowpri.json", "",
		[]string{"vmssName=lab", "adminUsername=dsvm", "adminPassword=very-secret-1"}},
	{"files", "azure-quickstart-templates__201-vmss-azure-files-linux__azuredeploy.json", "azure-quickstart-templates__201-vmss-azure-files-linux__azuredeploy.parameters.json",
		[]string{"vmssName=lab", "adminUsername=dsvm", "adminPasswordOrKey=ssh-ed25519 very-secret-1", "storageAccountName=acct", "storageAccountKey=very-secret-2"}},
	{"autoscale", "azure-quickstart-templates__201-vmss-ubuntu-autoscale__azuredeploy.json", "azure-quickstart-templates__201-vmss-ubuntu-autoscale__azuredeploy.parameters.json",
		[]string{"vmssName=scaleset", "adminUsername=dsvm", "adminPasswordOrKey=ssh-ed25519 very-secret-1"}},
	{"autoscale-without", "azure-quickstart-templates__201-vmss-ubuntu-autoscale__azuredeploy.json", "", nil},
}

func TestPublishedTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range published {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			template, err := arm.Read(read(t, "testdata/cases/"+c.template))
			if err != nil {
				t.Fatal(told(nil, err))
			}
			in := arm.Input{Context: place()}
			if c.parameters != "" {
				v, err := arm.ReadValues(read(t, "testdata/cases/"+c.parameters))
				if err != nil {
					t.Fatal(told(nil, err))
				}
				in.Values = append(in.Values, v)
			}
			in.Values = append(in.Values, words(t, template, c.words...))
			got := told(arm.Evaluate(template, in))
			if strings.Contains(got, "very-secret") || strings.Contains(got, "GEN-PASSWORD") {
				t.Error("a secret was printed")
			}
			golden(t, c.name, got)
		})
	}
}

// evaluate evaluates a template that a test wrote.
func evaluate(t testing.TB, text string, in arm.Input, pairs ...string) (*arm.Result, error) {
	t.Helper()
	template, err := arm.Read(arm.File{Name: "t.json", URI: "dir/t.json", Data: []byte(text)})
	if err != nil {
		return nil, err
	}
	if in.Context == (arm.Context{}) {
		in.Context = place()
	}
	in.Values = append(in.Values, words(t, template, pairs...))
	return arm.Evaluate(template, in)
}

// Templates of a directory that the environment names are read with values made up for what they need.
func TestOthers(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("SHOAL_ARM_CASES")
	if dir == "" {
		t.Skip("SHOAL_ARM_CASES names no directory")
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, name := range names {
		template, err := arm.Read(read(t, name))
		if err != nil {
			t.Errorf("%s: %s", name, told(nil, err))
			continue
		}
		var v arm.Values
		for _, p := range template.Parameters() {
			if p.Default != nil {
				continue
			}
			word := map[string]string{"int": "1", "bool": "true", "array": "[]", "object": "{}", "secureobject": "{}"}[p.Type]
			if word == "" {
				word = "abcdefgh"
			}
			g, err := template.Word(p.Name, word)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Allowed) > 0 {
				g.Value = p.Allowed[0]
			}
			v.Given = append(v.Given, g)
		}
		r, err := arm.Evaluate(template, arm.Input{Context: place(), Values: []arm.Values{v}})
		if err != nil {
			t.Errorf("%s: %s", name, told(nil, err))
			continue
		}
		t.Logf("%s: %d resources, %d outputs, %d notes", filepath.Base(name), len(r.Resources), len(r.Outputs), len(r.Notes))
	}
}
