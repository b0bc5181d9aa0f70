package translate_test

import (
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
	"github.com/shoal-pool/shoal/internal/arm/translate"
	"github.com/shoal-pool/shoal/internal/spec"
)

var update = flag.Bool("update", false, "write the golden files")

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampl alice"

// convert evaluates and translates a template.
func convert(t testing.TB, name string, data []byte, parameters string, o translate.Options, words ...string) (*translate.Result, error) {
	t.Helper()
	template, err := arm.Read(arm.File{Name: name, Data: data})
	if err != nil {
		return nil, err
	}
	in := arm.Input{Context: arm.Context{Deployment: "test", Group: "lab", Location: "local", Now: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}}
	if parameters != "" {
		text, err := os.ReadFile("../testdata/cases/" + parameters)
		if err != nil {
			t.Fatal(err)
		}
		v, err := arm.ReadValues(arm.File{Name: parameters, Data: text})
		if err != nil {
			return nil, err
		}
		in.Values = append(in.Values, v)
	}
	var inline arm.Values
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		g, err := template.Word(name, value)
		if err != nil {
			t.Fatal(err)
		}
		inline.Given = append(inline.Given, g)
	}
	in.Values = append(in.Values, inline)
	r, err := arm.Evaluate(template, in)
	if err != nil {
		return nil, err
	}
	return translate.Translate(r, o)
}

// told is all that a translation says.
func told(r *translate.Result, err error) string {
	if err != nil {
		return err.Error() + "\n" + spec.Format(shoal.MistakesOf(err))
	}
	var b strings.Builder
	for _, n := range r.Notes {
		fmt.Fprintln(&b, "#", n)
	}
	for _, s := range r.Secrets {
		fmt.Fprintln(&b, "secret", s.Name, s.Value.Show())
	}
	for _, p := range r.Passwords {
		fmt.Fprintln(&b, "password of", p.User, p.Value.Show())
	}
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "change %s: %+v %+v\n", c.Pool, c.Size, c.Machine)
	}
	text, err := spec.Documents(r.Set)
	if err != nil {
		return err.Error()
	}
	return b.String() + string(text)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if strings.Contains(got, "very-secret") || strings.Contains(got, "GEN-PASSWORD") {
		t.Error("a secret was printed")
	}
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

const (
	dsvm      = "DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-"
	quickVMSS = "azure-quickstart-templates__201-vmss-"
)

// Every published template becomes a pool from the file as it is.
func TestPublishedTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, template, parameters string
		options                    translate.Options
		words                      []string
	}{
		{"cluster", dsvm + "cluster.json", dsvm + "cluster.parameters.json", translate.Options{}, []string{"vmssName=lab"}},
		{"cluster-mapped", dsvm + "cluster.json", dsvm + "cluster.parameters.json", translate.Options{Shares: map[string]string{"team": "/srv/team"}, Images: map[string]string{"linux-data-science-vm-ubuntu": "/images/dsvm"}, Most: shoal.Resources{CPUs: 1000, Memory: 1 << 30}},
			[]string{"vmssName=lab", "shareName=team", "storageAccountName=acct", "storageAccountKey=very-secret-1"}},
		{"lowpri", dsvm + "lowpri.json", "", translate.Options{}, []string{"vmssName=lab", "adminUsername=Dsvm", "adminPassword=very-secret-1"}},
		{"lowpri-azure", dsvm + "lowpri.json", "", translate.Options{Provider: "azure"}, []string{"vmssName=lab", "adminUsername=dsvm", "adminPassword=very-secret-1"}},
		{"files", quickVMSS + "azure-files-linux__azuredeploy.json", quickVMSS + "azure-files-linux__azuredeploy.parameters.json", translate.Options{}, []string{"vmssName=lab", "adminUsername=dsvm", "adminPasswordOrKey=" + key}},
		{"autoscale", quickVMSS + "ubuntu-autoscale__azuredeploy.json", quickVMSS + "ubuntu-autoscale__azuredeploy.parameters.json", translate.Options{}, []string{"vmssName=scaleset", "adminUsername=dsvm", "adminPasswordOrKey=" + key}},
		{"autoscale-password", quickVMSS + "ubuntu-autoscale__azuredeploy.json", quickVMSS + "ubuntu-autoscale__azuredeploy.parameters.json", translate.Options{}, []string{"vmssName=scaleset", "adminUsername=dsvm", "authenticationType=password", "adminPasswordOrKey=very-secret-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile("../testdata/cases/" + c.template)
			if err != nil {
				t.Fatal(err)
			}
			got := told(convert(t, "template.json", data, c.parameters, c.options, c.words...))
			if !strings.Contains(got, "kind: Pool") {
				t.Error("there is no pool")
			}
			golden(t, c.name, got)
		})
	}
}

// Templates of the same kinds, in files of ours.
func TestKinds(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".json")
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, base, told(convert(t, filepath.Base(name), data, "", translate.Options{})))
			if strings.Contains(string(data), "CustomScript") {
				golden(t, base+"-scripts", told(convert(t, filepath.Base(name), data, "", translate.Options{AllowScripts: true})))
			}
		})
	}
}

// Whatever a template holds, translating it ends with objects that spec accepts, or with mistakes.
func FuzzTranslate(f *testing.F) {
	for _, pattern := range []string{"testdata/*.json", "../testdata/cases/*.json"} {
		names, _ := filepath.Glob(pattern) // the pattern is well formed
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		template, err := arm.Read(arm.File{Name: "t.json", Data: []byte(text)})
		if err != nil {
			return
		}
		var v arm.Values
		for _, p := range template.Parameters() {
			if g, err := template.Word(p.Name, "lab"); err == nil && p.Default == nil && p.Type != "int" {
				v.Given = append(v.Given, g)
			}
		}
		r, err := arm.Evaluate(template, arm.Input{Values: []arm.Values{v}})
		if err != nil {
			return
		}
		out, err := translate.Translate(r, translate.Options{AllowScripts: true})
		if err != nil {
			if len(shoal.MistakesOf(err)) == 0 {
				t.Fatal(err)
			}
			return
		}
		text = told(out, nil)
		if set, err := spec.Parse(spec.File{Name: "out", Data: []byte(text[strings.Index(text+"kind: ", "kind: "):])}); err != nil && out.Set.Len() > 0 {
			t.Fatalf("%d objects are written as %s: %v: %s", set.Len(), text, err, spec.Format(shoal.MistakesOf(err)))
		}
	})
}
