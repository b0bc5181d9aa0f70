package arm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
)

// seeds are the published templates and some of the tests' own.
func seeds(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/cases/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	all := []string{
		template(`"variables": {"a": "[variables('b')]", "b": "[concat('x', string(2))]"}`, resources(disk("[concat('d', copyIndex())]", `"copy": {"name": "l", "count": 3}, "dependsOn": ["z"]`), disk("z", "")), `"outputs": {"o": {"type": "string", "value": "[reference('z').x]"}}`),
		template(`"functions": [{"namespace": "f", "members": {"a": {"parameters": [{"name": "x", "type": "int"}], "output": {"type": "int", "value": "[add(parameters('x'), 1)]"}}}}]`, resources(nested("n", `"template": {"resources": [], "outputs": {"v": {"type": "int", "value": "[f.a(1)]"}}}`))),
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(data))
	}
	return all
}

// Whatever a file holds, reading it ends with a result or with mistakes that have places.
func FuzzEvaluate(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, "lab")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		parsed, err := arm.Read(arm.File{Name: "t.json", Data: []byte(text)})
		if err == nil {
			in := arm.Input{Context: place(), Loader: files{"x": text}}
			var v arm.Values
			for _, p := range parsed.Parameters() {
				if g, err := parsed.Word(p.Name, value); err == nil && p.Default == nil {
					v.Given = append(v.Given, g)
				}
			}
			in.Values = []arm.Values{v}
			var r *arm.Result
			if r, err = arm.Evaluate(parsed, in); err == nil {
				told(r, nil)
			}
		}
		if err != nil && (shoal.KindOf(err) != shoal.KindInvalid || len(shoal.MistakesOf(err)) == 0) {
			t.Fatalf("%v", err)
		}
		if _, err := arm.ReadValues(arm.File{Data: []byte(text)}); err != nil && len(shoal.MistakesOf(err)) == 0 {
			t.Fatalf("%v", err)
		}
	})
}

// large is a template of some 300 KB: scale sets with all that belongs to them.
func large(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/cases/DataScienceVM__Scripts__CreateDSVM__Ubuntu__dsvm-vmss-cluster.json")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	from := strings.Index(text, `"resources": [`) + len(`"resources": [`)
	to := strings.LastIndex(text, "]")
	body := text[from:to]
	var b strings.Builder
	for i := 0; b.Len() < 300<<10; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		suffix := fmt.Sprintf("concat(variables('%%s'), '%d')", i)
		part := body
		for _, name := range []string{"virtualNetworkName", "publicIPAddressName", "loadBalancerName"} {
			part = strings.ReplaceAll(part, "variables('"+name+"')", fmt.Sprintf(suffix, name))
		}
		b.WriteString(strings.ReplaceAll(part, "parameters('vmssName')", fmt.Sprintf("concat(parameters('vmssName'), '%d')", i)))
	}
	return text[:from] + b.String() + text[to:]
}

func BenchmarkEvaluate300KB(b *testing.B) {
	text := large(b)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		r, err := evaluate(b, text, arm.Input{}, "vmssName=lab", "instanceCount=2", "adminUsername=a", "adminPassword=b", "storageAccountKey=c")
		if err != nil {
			b.Fatal(told(nil, err))
		}
		if len(r.Resources) < 100 {
			b.Fatal(len(r.Resources))
		}
	}
}
