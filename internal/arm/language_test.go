package arm_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/arm"
)

// template is a template of sections that a test writes.
func template(sections ...string) string {
	return `{"$schema": "https://schema.management.azure.com/schemas/2015-01-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",` + "\n" + strings.Join(sections, ",\n") + "}"
}

const noResources = `"resources": []`

// output is a template whose output x is an expression's value, after other sections.
func output(expression string, sections ...string) string {
	if !strings.Contains(strings.Join(sections, ""), `"resources"`) {
		sections = append(sections, noResources)
	}
	return template(append(sections, `"outputs": {"x": {"type": "object", "value": "`+expression+`"}}`)...)
}

// disk is a resource of a name, with more keys.
func disk(name, more string) string {
	if more != "" {
		more = ", " + more
	}
	return `{"type": "A.B/disks", "apiVersion": "1", "name": "` + name + `"` + more + "}\n"
}

func resources(all ...string) string {
	return "\"resources\": [\n" + strings.Join(all, ",") + "]"
}

// Expressions that look at the deployment.
func TestExpressions(t *testing.T) {
	t.Parallel()
	const vars = `"variables": {"Name": "lab", "list": ["a", "b"], "nested": {"deep": {"k": "[variables('name')]"}},
		"copy": [{"name": "many", "count": 3, "input": {"i": "[copyIndex('many', 1)]"}}],
		"inside": {"x": 1, "copy": [{"name": "y", "count": "2", "input": "[concat('n', copyIndex('y'))]"}]}}`
	const params = `"parameters": {"P": {"type": "String", "defaultValue": "dflt"}, "q": {"type": "int", "defaultValue": "[length(parameters('p'))]"}}`
	const functions = `"functions": [{"namespace": "my", "members": {"hello": {"parameters": [{"name": "who", "type": "string"}], "output": {"type": "string", "value": "[concat('hello ', parameters('WHO'))]"}}}}]`
	const sub = "/subscriptions/00000000-0000-0000-0000-000000000000"
	for _, c := range [][2]string{
		{"[variables('nAME')]", `"lab"`}, {"[Variables('nested').Deep.k]", `"lab"`}, {"[parameters('p')]", `"dflt"`}, {"[parameters('Q')]", "4"},
		{"[variables('many')[2].i]", "3"}, {"[variables('inside').y]", `["n0","n1"]`}, {"[my.hello('you')]", `"hello you"`}, {"[MY.Hello('you')]", `"hello you"`},
		{"[[x]", `"[x]"`}, {"[x] y", `"[x] y"`}, {"[variables('list')[add(0, 1)]]", `"b"`},
		{"[resourceGroup().name]", `"lab"`}, {"[resourceGroup().location]", `"local"`}, {"[resourceGroup().id]", `"` + sub + `/resourceGroups/lab"`},
		{"[subscription().subscriptionId]", `"00000000-0000-0000-0000-000000000000"`}, {"[deployment().name]", `"test"`}, {"[deployment().properties.templateLink.uri]", `"dir/t.json"`},
		{"[uri('https://h/d/azuredeploy.json', 'nested/x.json')]", `"https://h/d/nested/x.json"`},
		{"[resourceId('Microsoft.Network/virtualNetworks/', 'v')]", `"` + sub + `/resourceGroups/lab/providers/Microsoft.Network/virtualNetworks/v"`},
		{"[resourceID('Microsoft.Network/virtualNetworks/subnets', 'v', 's')]", `"` + sub + `/resourceGroups/lab/providers/Microsoft.Network/virtualNetworks/v/subnets/s"`},
		{"[resourceId('other', 'A.B/c', 'v')]", `"` + sub + `/resourceGroups/other/providers/A.B/c/v"`},
		{"[resourceId('11111111-1111-1111-1111-111111111111', 'other', 'A.B/c', 'v')]", `"/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/other/providers/A.B/c/v"`},
		{"[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'r')]", `"` + sub + `/providers/Microsoft.Authorization/roleDefinitions/r"`},
		{"[tenantResourceId('A.B/c', 'r')]", `"/providers/A.B/c/r"`}, {"[extensionResourceId('/x/y', 'A.B/c', 'r')]", `"/x/y/providers/A.B/c/r"`},
		{"[utcNow()]", `"20260131T120000Z"`}, {"[utcNow('d')]", `"1/31/2026"`}, {"[length(newGuid())]", "36"}, {"[environment().suffixes.storage]", `"core.windows.net"`},
		{"[reference('one').size]", "5"}, {"[reference(resourceId('A.B/disks', 'one'), '1').size]", "5"}, {"[reference('ONE', '1', 'Full').location]", `"west"`}, {"[reference('one').address]", "null"},
		{"[reference('two').size]", "6"},
	} {
		r, err := evaluate(t, output(c[0], vars, params, functions, resources(
			disk("one", `"location": "west", "properties": {"size": 5}`), disk("two", `"properties": {"size": "[add(reference('one').size, 1)]"}`))), arm.Input{})
		if err != nil {
			t.Errorf("%s: %s", c[0], told(nil, err))
			continue
		}
		got, err := r.Outputs[0].Value.MarshalJSON()
		if err != nil || string(got) != c[1] {
			t.Errorf("%s is %s, not %s", c[0], got, c[1])
		}
	}
}

// Everything that is wrong is told with its place, all at once, in golden files.
func TestMistakes(t *testing.T) {
	t.Parallel()
	deep := `"x"`
	for range 150 {
		deep = "[" + deep + "]"
	}
	for name, text := range map[string]string{
		"functions":         output("[cocnat('a', toLower())]", `"variables": {"a": "[parametres('x')]", "b": "[concat('x']", "c": "[reference('x')]"}`),
		"names":             output("[concat(parameters('vmNmae'), variables('sise'), variables('vmName'))]", `"parameters": {"vmName": {"type": "string", "defaultValue": "x"}}`, `"variables": {"size": 3}`),
		"circle-variables":  output("[variables('a')]", `"variables": {"a": "[variables('b')]",`+"\n"+`"b": "[concat(variables('c'), 'x')]",`+"\n"+`"c": "[variables('A')]"}`),
		"circle-parameters": template(noResources, `"parameters": {"a": {"type": "string", "defaultValue": "[parameters('b')]"}, "b": {"type": "string", "defaultValue": "[parameters('a')]"}}`),
		"circle-resources":  template(resources(disk("a", `"dependsOn": ["b"]`), disk("b", `"dependsOn": ["[resourceId('A.B/disks', 'c')]"]`), disk("c", `"dependsOn": ["A.B/disks/a"]`))),
		"circle-references": template(resources(disk("a", `"properties": {"x": "[reference('b').y]"}`), disk("b", `"properties": {"y": "[reference('a').x]"}`))),
		"circle-mixed":      template(resources(disk("a", `"properties": {"x": "[reference('b').y]"}`), disk("b", `"dependsOn": ["a"], "properties": {"y": 1}`))),
		"depends":           template(resources(disk("alpha", `"dependsOn": ["alhpa"]`), disk("b", `"dependsOn": ["[resourceId('X.Y/z', 'alpha')]", 3]`), disk("c", `"dependsOn": ["c"]`))),
		"twice":             template(resources(disk("a", ""), disk("A", ""), disk("b", `"copy": {"name": "l", "count": 2}`))),
		"loops": template(resources(disk("[concat('a', copyIndex('lop'))]", `"copy": {"name": "loop", "count": 2}`), disk("b", `"copy": {"name": "l", "count": 801}`), disk("c", `"copy": {"name": "l", "count": -1}`),
			disk("d", `"copy": {"count": 1}`), disk("[concat('e', copyIndex())]", ""), disk("f", `"copy": {"name": "l", "count": "many"}`))),
		"resources":      template(resources(`{"name": "x"}`, `{"type": "A.B/c/d", "name": "x"}`, `"text"`, `{"type": "A.B/c", "name": ""}`, `{"type": "disks", "name": "x"}`, `{"type": "A.B/c", "name": "y", "condition": "perhaps"}`)),
		"unknown-shape":  template(resources(disk("a", ""), disk("[reference('a').name]", ""), disk("c", `"condition": "[reference('a').there]"`), disk("d", `"copy": {"name": "l", "count": "[reference('a').count]"}`))),
		"sections":       `{"resources": [], "paramters": {}, "variables": []}`,
		"types":          template(noResources, `"parameters": {"a": {"type": "strnig", "defaultValue": 1}, "b": {"defaultValue": 1}, "c": {"type": "int", "defaultValue": "x"}, "d": {"type": "string", "defaultValue": 3}, "e": {"type": "string", "allowedValues": [], "minLength": "x", "defaultValue": ""}}`),
		"definitions":    template(noResources, `"definitions": {"port": {"type": "int", "minValue": 1}}`, `"parameters": {"p": {"$ref": "#/definitions/prot", "defaultValue": 8000}, "q": {"$ref": "#/definitions/port", "defaultValue": "x"}}`),
		"outputs":        template(noResources, `"outputs": {"a": {"type": "text", "value": 1}, "b": {"type": "string"}, "c": {"type": "string", "value": "[nothing()]"}}`),
		"not-json":       "{\n  \"resources\": [\n    {]\n}",
		"cut-off":        `{"resources": [`,
		"not-a-template": `["a"]`,
		"parameter-file": `{"$schema": "https://schema.management.azure.com/schemas/2015-01-01/deploymentParameters.json#", "parameters": {}}`,
		"deep":           template(resources(disk("a", `"properties": `+deep))),
		"secrets": output("[div(1, parameters('p'))]", `"parameters": {"p": {"type": "secureString", "defaultValue": "[concat('very-secret', int('very-secret'))]"}, "o": {"type": "secureObject", "defaultValue": {"k": "very-secret"}},
			"q": {"type": "securestring", "defaultValue": "very-secret", "allowedValues": ["a"]}}`, `"variables": {"a": "[int(parameters('o').k)]"}`, resources(disk("[parameters('o').k]", ""))),
		"nested": template(resources(
			nested("inner", `"expressionEvaluationOptions": {"scope": "inner"}, "template": {"resources": [], "outputs": {"o": {"type": "string", "value": "[variables('x')]"}}}`),
			nested("linked", `"templateLink": {"uri": "https://user:pw@h/x.json?sig=very-secret"}`), nested("none", `"mode": "Incremental"`),
			nested("params", `"expressionEvaluationOptions": {"scope": "inner"}, "parameters": {"y": {"value": 1}}, "template": {"parameters": {"x": {"type": "int"}}, "resources": []}`))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := evaluate(t, text, arm.Input{Loader: files{}})
			if err == nil {
				t.Errorf("accepted: %s", told(r, err))
			}
			got := told(r, err)
			if strings.Contains(strings.ReplaceAll(text, "very-secret", ""), "very-secret") || strings.Contains(got, "very-secret") {
				t.Errorf("a secret is told: %s", got)
			}
			golden(t, "mistakes-"+name, got)
		})
	}
}

func nested(name, properties string) string {
	return `{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "` + name + `", "properties": {` + properties + "}}\n"
}

// Parameters: what is refused, and what is taken with a word about it.
func TestParameters(t *testing.T) {
	t.Parallel()
	declared := template(noResources, `"parameters": {"name": {"type": "string", "minLength": 3, "maxLength": 9},
"count": {"type": "int", "minValue": 1, "maxValue": 100, "defaultValue": 2},
"kind": {"type": "string", "allowedValues": ["sshPublicKey", "password"], "defaultValue": "password"},
"flag": {"type": "bool", "defaultValue": false},
"list": {"type": "array", "defaultValue": [], "maxLength": 2},
"key": {"type": "securestring", "defaultValue": "", "maxLength": 5}, "secret": {"type": "secureObject", "defaultValue": {}}}`)
	for name, text := range map[string]string{
		"good":        `{"parameters": {"NAME": {"value": "[not(evaluated)]"}, "count": {"value": 3}}}`,
		"bare":        `{"name": {"value": "abc"}}`,
		"quoted":      `{"parameters": {"name": {"value": "abc"}, "count": {"value": "7"}, "flag": {"value": "True"}, "kind": {"value": "SSHPUBLICKEY"}}}`,
		"comments":    "\ufeff{ // c\n\"parameters\": {'name': {value: \"abc\",},} /* d */ }",
		"bounds":      `{"parameters": {"name": {"value": "ab"}, "count": {"value": 101}, "kind": {"value": "pasword"}, "list": {"value": [1, 2, 3]}, "key": {"value": "very-secret"}}}`,
		"types":       `{"parameters": {"name": {"value": 12345}, "count": {"value": "three"}, "flag": {"value": "maybe"}, "list": {"value": {}}, "secret": {"value": "very-secret"}}}`,
		"strangers":   `{"parameters": {"naem": {"value": "abc"}, "name": {"value": "abc"}}}`,
		"another":     `{"parameters": {"siteName": {"value": "abc"}, "planSku": {"value": "abc"}, "repo": {"value": 1}}}`,
		"vault":       `{"parameters": {"name": {"value": "abc"}, "key": {"reference": {"keyVault": {"id": "/x"}, "secretName": "s1"}}}}`,
		"placeholder": `{"parameters": {"name": {"value": "GEN-UNIQUE-8"}}}`,
		"shapes":      `{"parameters": {"name": "abc", "count": {"vlaue": 3}, "key": {"reference": {}}}}`,
		"template":    `{"resources": []}`,
		"list":        `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := arm.ReadValues(arm.File{Name: "p.json", Data: []byte(text)})
			got := ""
			if err == nil {
				var r *arm.Result
				r, err = evaluate(t, declared, arm.Input{Values: []arm.Values{v}})
				got = told(r, err)
			} else {
				got = told(nil, err)
			}
			if strings.Contains(got, "very-secret") {
				t.Error("a secret is told")
			}
			golden(t, "parameters-"+name, got)
		})
	}
}

// What the command line says comes before what a file says, also where that leads into a key vault.
func TestLayers(t *testing.T) {
	t.Parallel()
	file, err := arm.ReadValues(arm.File{Data: []byte(`{"a": {"value": "file"}, "b": {"reference": {"keyVault": {"id": "/x"}, "secretName": "s"}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	text := template(noResources, `"parameters": {"a": {"type": "string", "defaultValue": "d"}, "b": {"type": "securestring"}, "c": {"type": "object", "defaultValue": {}}}`)
	r, err := evaluate(t, text, arm.Input{Values: []arm.Values{file}}, "a=inline", "B=x", `c={"k": [1]}`)
	if err != nil {
		t.Fatal(told(nil, err))
	}
	if got := told(r, nil); got != "parameter a \"inline\"\nparameter b (secret)\nparameter c {\"k\":[1]}\n" {
		t.Error(got)
	}
}

// Loops, conditions, children, the spellings of dependsOn, nested and linked templates.
func TestShapes(t *testing.T) {
	t.Parallel()
	linked := files{
		"dir/nested/net.json": `{"parameters": {"prefix": {"type": "string"}}, "resources": [{"type": "A.B/nets", "name": "[concat(parameters('prefix'), resourceGroup().name)]", "properties": {"up": "[deployment().name]"}},
			{"type": "Microsoft.Resources/deployments", "name": "deeper", "properties": {"templateLink": {"relativePath": "deep.json"}}}],
			"outputs": {"id": {"type": "string", "value": "[resourceId('A.B/nets', concat(parameters('prefix'), resourceGroup().name))]"}}}`,
		"dir/nested/deep.json": `{"resources": [{"type": "A.B/deeps", "name": "d"}], "outputs": {}}`,
		"https://h/p.json?sig": `{"parameters": {}}`,
	}
	for name, text := range map[string]string{
		"loops": template(`"variables": {"n": 2}`, resources(
			disk("[concat('d', copyIndex(1))]", `"copy": {"name": "dl", "count": "[variables('n')]", "mode": "serial"}, "dependsOn": ["last"], "properties": {"i": "[copyIndex()]", "copy": [{"name": "luns", "count": 2, "input": {"lun": "[copyIndex('luns')]", "of": "[copyIndex()]"}}]}`),
			disk("last", ""), disk("after", `"dependsOn": ["DL", "A.B/disks/last", "[resourceId('A.B/disks', 'last')]"]`), disk("[concat('none', copyIndex())]", `"copy": {"name": "nl", "count": 0}`), disk("z", `"dependsOn": ["nl"]`)),
			`"outputs": {"all": {"type": "array", "copy": {"count": 2, "input": "[reference(concat('d', copyIndex(1))).i]"}}}`),
		"conditions": template(`"parameters": {"no": {"type": "bool", "defaultValue": "false"}}`, resources(
			disk("gone", `"condition": "[parameters('no')]"`), disk("there", `"condition": "true", "dependsOn": ["gone"], "tags": {"[concat('a', 'b')]": "x", "none": "[json('null')]"}, "zones": "[json('null')]"`)),
			`"outputs": {"no": {"type": "string", "condition": "[parameters('no')]", "value": "[reference('gone').x]"}, "yes": {"type": "int", "value": 1}}`),
		"children": template(resources(`{"type": "A.B/parents", "name": "p", "apiversion": "1", "resources": [{"type": "kids", "name": "k", "dependsOn": ["p"]}, {"type": "A.B/parents/kids", "name": "p/l", "dependsOn": ["[concat('A.B/parents/', 'p')]", "A.B/parents/p/kids/k", "A.B/parents/kids/p/k"]}]}`)),
		"nested-outer": template(`"variables": {"v": "outer"}`, resources(nested("n", `"template": {"variables": {"v": "inner"}, "resources": [{"type": "A.B/c", "name": "[variables('v')]"}], "outputs": {"o": {"type": "string", "value": "[variables('v')]"}}}`)),
			`"outputs": {"o": {"type": "string", "value": "[reference('n').outputs.o.value]"}}`),
		"nested-inner": template(`"variables": {"v": "outer"}`, resources(nested("[concat('n', copyIndex())]", `"expressionEvaluationOptions": {"scope": "Inner"}, "parameters": {"p": {"value": "[concat(variables('v'), copyIndex())]"}},
			"template": {"parameters": {"p": {"type": "string"}}, "variables": {"v": "inner"}, "resources": [{"type": "A.B/c", "name": "[concat(variables('v'), parameters('p'))]"}], "outputs": {"o": {"type": "string", "value": "[parameters('p')]"}}}}, "copy": {"name": "l", "count": 2`)),
			`"outputs": {"o": {"type": "string", "value": "[reference('n1').outputs.o.value]"}}`),
		"linked": template(resources(strings.Replace(nested("net", `"templateLink": {"uri": "[uri('https://h/', 'x')]", "relativePath": "nested/net.json"}, "parameters": {"prefix": {"value": "p-"}}`), `"uri": "[uri('https://h/', 'x')]", `, "", 1),
			disk("user", `"properties": {"net": "[reference('net').outputs.id.value]"}`))),
		"answers": template(resources(disk("a", `"properties": {"key": "[listKeys('a', '1').keys[0].value]", "ip": "[reference('ip').address]", "other": "[listKeys(resourceId('S/t', 'acct'), '1').keys[0].value]"}`), disk("ip", "")),
			`"outputs": {"url": {"type": "string", "value": "[concat('http://', reference('ip').address)]"}, "key": {"type": "string", "value": "[listKeys('a', '1').keys[0].value]"}, "later": {"type": "string", "value": "[concat('x', reference('ip').fqdn)]"}}`),
		"symbols": template(`"languageVersion": "2.0"`, `"resources": {"one": {"type": "A.B/c", "name": "first", "properties": {"x": 1}}, "many": {"type": "A.B/c", "name": "[concat('m', copyIndex())]", "copy": {"name": "many", "count": 2}, "dependsOn": ["one"], "properties": {"x": "[reference('one').x]"}},
			"old": {"existing": true, "type": "A.B/c", "name": "old"}}`, `"outputs": {"n": {"type": "int", "value": "[length(references('many'))]"}, "o": {"type": "string", "value": "[reference('old').x]"}}`),
		"definitions": template(`"languageVersion": "2.0"`, `"definitions": {"port": {"type": "int", "minValue": 1, "metadata": {"__bicep_export!": true}}}`, `"parameters": {"p": {"$ref": "#/definitions/port", "defaultValue": 8000}, "n": {"type": "string", "nullable": true}}`,
			`"resources": {}`, `"outputs": {"o": {"$ref": "#/definitions/port", "value": "[parameters('p')]"}, "n": {"type": "string", "value": "[coalesce(parameters('n'), 'none')]"}}`),
		"tolerant": "\ufeff// a comment\n" + template(`'Variables': {"text": "over
two lines", "v": "x", "V": "y",}`, `"Resources": [{"TYPE": "A.B/c", "Name": "[variables('V')]", "dependson": "", "properties": {"on": "true", "n": "3", "text": "[variables('text')]", "nothing": null,}, "propertes": {}},]`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers, err := arm.ReadAnswers(arm.File{Data: []byte(`{"reference": {"ip": {"address": "10.0.0.1"}}, "listKeys": {"S/t/acct": {"keys": [{"value": "very-secret"}]}, "acct": {"keys": [{"value": "very-secret"}]}}}`)})
			if err != nil {
				t.Fatal(err)
			}
			got := told(evaluate(t, text, arm.Input{Loader: linked, Answers: answers}))
			if strings.Contains(got, "very-secret") {
				t.Error("a secret is told")
			}
			golden(t, "shape-"+name, got)
		})
	}
}

// doubled are variables of which each is twice the one before.
func doubled(name, first string, n int) string {
	all := fmt.Sprintf(`"%s0": %s`, name, first)
	for i := range n {
		all += fmt.Sprintf(`, "%s%d": "[concat(variables('%s%d'), variables('%s%d'))]"`, name, i+1, name, i, name, i)
	}
	return all
}

// Templates made to be too much are stopped with a sentence.
func TestBombs(t *testing.T) {
	t.Parallel()
	chain, text := doubled("v", `["aaaaaaaaaa"]`, 40), doubled("v", `"aaaaaaaaaa"`, 40)
	sharing := `"v0": {"a": 1}`
	for i := range 40 {
		sharing += fmt.Sprintf(`, "v%d": "[createArray(variables('v%d'), variables('v%d'))]"`, i+1, i, i)
	}
	loop := func(input string) string { return `{"copy": [{"name": "x", "count": 800, "input": ` + input + `}]}` }
	self := files{"https://h/self": template(resources(nested("a", `"templateLink": {"uri": "https://h/self"}`), nested("b", `"templateLink": {"uri": "https://h/self"}`)))}
	users := `"functions": [{"namespace": "f", "members": {"a": {"parameters": [], "output": {"type": "string", "value": "[f.a()]"}}}}]`
	for name, text := range map[string]string{
		"arrays":        output("[variables('v40')]", `"variables": {`+chain+"}"),
		"strings":       output("[variables('v40')]", `"variables": {`+text+"}"),
		"sharing":       output("[variables('v40')]", `"variables": {`+sharing+"}"),
		"loops":         template(resources(disk("a", `"properties": `+loop(loop(loop(`"x"`)))))),
		"copies":        template(resources(strings.Repeat(disk("[concat('a', copyIndex())]", `"copy": {"name": "l", "count": 800}`)+",", 3) + disk("[guid(string(copyIndex()))]", `"copy": {"name": "m", "count": 800}`))),
		"bodies":        template(`"variables": {"big": "[padLeft('x', 1000000)]"}`, resources(disk("[concat('a', copyIndex())]", `"copy": {"name": "l", "count": 800}, "properties": {"x": "[variables('big')]"}`))),
		"self":          self["https://h/self"],
		"functions":     output("[f.a()]", users),
		"nested":        template(resources(nested("[concat('n', copyIndex())]", `"expressionEvaluationOptions": {"scope": "inner"}, "template": {"variables": {"big": [`+strings.Repeat(`"[guid('x')]",`, 50_000)+`]}, "resources": []}}, "copy": {"name": "l", "count": 800`))),
		"intersection":  output("[length(intersection(variables('v14'), variables('w14')))]", `"variables": {`+doubled("v", `[{"a": 1}, {"b": 2}]`, 14)+", "+doubled("w", `[{"c": 1}, {"d": 2}]`, 14)+"}"),
		"needs":         template(resources(disk("[concat('a', copyIndex())]", `"copy": {"name": "l", "count": 700}`), disk("[concat('b', copyIndex())]", `"copy": {"name": "m", "count": 90}, "dependsOn": [`+strings.Repeat(`"l",`, 20_000)+`"x"]`))),
		"mistakes":      template(`"variables": [`+strings.Repeat(`"[cocnat()]",`, 20_000)+"]", `"outputs": {"a": {"type": "array", "value": [`+strings.Repeat(`"[cocnat()]",`, 20_000)+"]}}", noResources),
		"more-mistakes": template(`"outputs": {"a": {"type": "array", "value": [`+strings.Repeat(`"[cocnat(1)]",`, 20_000)+"]}}", noResources),
		"steps":         template(resources(disk("[concat('a', copyIndex())]", `"copy": {"name": "l", "count": 800}, "properties": {"x": "[length(map(range(0, 10000), lambda('x', lambdaVariables('x'))))]"}`))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := evaluate(t, text, arm.Input{Loader: self})
			if err == nil {
				t.Fatalf("accepted, with %d resources", len(r.Resources))
			}
			got := told(nil, err)
			if len(got) > 20_000 {
				t.Errorf("%d bytes are said", len(got))
			}
			golden(t, "bomb-"+name, got)
		})
	}
}
