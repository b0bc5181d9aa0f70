package arm

import (
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/expr"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Template is a template that was read.
type Template struct {
	name       string
	uri        string
	root       *tree.Value
	parameters []Parameter
	functions  map[string]*custom
	notes      []Note
}

// custom is a function that the template declares.
type custom struct {
	name       string
	parameters []string
	value      *tree.Value
}

// sections are the keys of a template.
var sections = strings.Fields("$schema contentVersion apiProfile languageVersion metadata parameters variables functions resources outputs definitions")

// Read reads a template. The error is of KindInvalid and lists the mistakes in its structure.
func Read(f File) (*Template, error) {
	root, twice, m := tree.Parse(f.Name, f.Data)
	if m != nil {
		return nil, spec.Invalid([]shoal.Mistake{*m})
	}
	t, mistakes := open(f, root)
	if len(mistakes) > 0 {
		return nil, spec.Invalid(mistakes)
	}
	for _, m := range twice {
		t.notes = append(t.notes, Note{m.File, m.Line, m.Column, m.Msg})
	}
	return t, nil
}

// reading is a template's structure while it is looked at.
type reading struct {
	mistakes    []shoal.Mistake
	definitions *tree.Value
}

func (r *reading) wrong(at tree.Place, path, hint, format string, args ...any) {
	if len(r.mistakes) < maxTold {
		r.mistakes = append(r.mistakes, shoal.Mistake{File: at.File, Line: at.Line, Column: at.Column, Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// open looks at a template's structure.
func open(f File, root *tree.Value) (*Template, []shoal.Mistake) {
	r := &reading{definitions: root.Get("definitions")}
	t := &Template{name: f.Name, uri: f.URI, root: root, functions: map[string]*custom{}}
	if root.Kind != tree.Object {
		r.wrong(root.At, "", "", "a template is an object, not %s", root.Kind)
		return nil, r.mistakes
	}
	if schema := root.Get("$schema").Text(); strings.Contains(strings.ToLower(schema), "deploymentparameters") {
		r.wrong(root.At, "$schema", "give it with --parameters @FILE", "this is a parameter file, not a template")
		return nil, r.mistakes
	}
	if root.Get("$schema") == nil && root.Get("resources") == nil {
		r.wrong(root.At, "", "", "this is no deployment template: it has neither $schema nor resources")
		return nil, r.mistakes
	}
	for _, m := range root.Members() {
		known := false
		for _, s := range sections {
			known = known || strings.EqualFold(s, m.Name)
		}
		if !known {
			r.wrong(m.At, m.Name, spec.Suggest(m.Name, sections), "a template has no section %q", tree.Clip(m.Name, 60))
		}
	}
	r.kind(root, "parameters", tree.Object, maxParameters)
	r.kind(root, "variables", tree.Object, maxVariables)
	r.kind(root, "outputs", tree.Object, maxOutputs)
	switch v := root.Get("resources"); {
	case v == nil:
		r.wrong(root.At, "resources", "", "the template has no resources")
	case v.Kind != tree.Array && v.Kind != tree.Object:
		r.wrong(v.At, "resources", "", "an array is wanted here, not %s", v.Kind)
	}
	for _, m := range root.Get("parameters").Members() {
		t.parameters = append(t.parameters, r.parameter(m))
	}
	r.functions(t, root.Get("functions"))
	return t, r.mistakes
}

func (r *reading) kind(root *tree.Value, section string, kind tree.Kind, most int) {
	v := root.Get(section)
	switch {
	case !v.Present():
	case v.Kind != kind:
		r.wrong(v.At, section, "", "%s is wanted here, not %s", kind, v.Kind)
	case v.Len() > most:
		r.wrong(v.At, section, "", "there are %d %s, more than %d", v.Len(), section, most)
	}
}

// functions reads the functions that a template declares: [{namespace, members: {name: {parameters, output}}}].
func (r *reading) functions(t *Template, v *tree.Value) {
	if !v.Present() {
		return
	}
	if v.Kind != tree.Array {
		r.wrong(v.At, "functions", "", "an array is wanted here, not %s", v.Kind)
		return
	}
	for i, n := range v.Items() {
		at := fmt.Sprintf("functions[%d]", i)
		space := n.Get("namespace").Text()
		if space == "" {
			r.wrong(n.At, at+".namespace", "", "the functions have no namespace")
			continue
		}
		for _, m := range n.Get("members").Members() {
			path := at + ".members." + m.Name
			value := m.Value.Get("output", "value")
			if value == nil {
				r.wrong(m.At, path+".output", "write output: {type, value}", "the function has no output")
				continue
			}
			f := &custom{name: space + "." + m.Name, value: value}
			for k, p := range m.Value.Get("parameters").Items() {
				name := p.Get("name").Text()
				if name == "" {
					r.wrong(p.At, fmt.Sprintf("%s.parameters[%d]", path, k), "", "the parameter has no name")
				}
				f.parameters = append(f.parameters, name)
			}
			t.functions[tree.Fold(f.name)] = f
		}
	}
}

// Parameters are those that the template declares, in its order.
func (t *Template) Parameters() []Parameter { return t.parameters }

// scopeWord is what the template is for: a resource group, as nearly all are, or more.
func (t *Template) scopeWord() string {
	schema := strings.ToLower(t.root.Get("$schema").Text())
	for _, word := range []string{"subscription", "managementgroup", "tenant"} {
		if strings.Contains(schema, word+"deploymenttemplate") {
			return word
		}
	}
	return "group"
}

// expressionOf is an expression for a message.
func expressionOf(v *tree.Value) string {
	return tree.Clip(strings.Join(strings.Fields(v.Text()), " "), 120)
}

// evaluated reports whether a value is a string that is to be evaluated.
func evaluated(v *tree.Value) bool { return v != nil && v.Kind == tree.String && expr.Is(v.Text()) }
