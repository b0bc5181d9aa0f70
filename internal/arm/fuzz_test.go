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
	const secret = `"parameters": {"s": {"type": "secureString"}, "o": {"type": "secureObject", "defaultValue": {}}}`
	for _, e := range []string{"int(parameters('s'))", "split(parameters('s'), '-')[0]", "substring(parameters('s'), 0, 8)", "concat('x', parameters('s'))", "createObject(parameters('s'), 1)", "reference(parameters('s'))",
		"resourceId('A.B/c', parameters('s'))", "variables(parameters('s'))", "json(parameters('s'))", "toUpper(parameters('s'))", "listKeys(parameters('s'), '1')", "createObject('a', parameters('s'))[parameters('s')]", "uri('x:', parameters('s'))",
		"format(parameters('s'), 1)", "first(split(parameters('s'), '1'))", "map(split(parameters('s'), '-'), lambda('x', int(lambdaVariables('x'))))", "copyIndex(parameters('s'))", "dateTimeAdd(parameters('s'), parameters('s'))"} {
		all = append(all, template(secret, resources(disk("["+e+"]", ""), disk("x", `"dependsOn": ["[`+e+`]"], "tags": {"[`+e+`]": 1}, "properties": {"p": "[`+e+`]"}`)), `"outputs": {"o": {"type": "string", "value": "[`+e+`]"}}`))
		all = append(all, template(secret, resources(disk("x", `"properties": {"p": "[`+e+`]"}`)), `"outputs": {"o": {"type": "string", "value": "[`+e+`]"}}`))
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

// hush is the value of every secure parameter. No part of it may be told.
const hush = "qzxwvkjy-1234-qzxwvkjy"

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
				word := value
				if p.Secure() {
					word = hush
				}
				if g, err := parsed.Word(p.Name, word); err == nil && (p.Default == nil || p.Secure()) {
					v.Given = append(v.Given, g)
				}
			}
			in.Values = []arm.Values{v}
			var r *arm.Result
			r, err = arm.Evaluate(parsed, in)
			if said := strings.ToLower(told(r, err)); strings.Contains(said, hush[:8]) && !strings.Contains(strings.ToLower(text+value), hush[:8]) {
				t.Fatalf("a secret is told: %s", said)
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
