package arm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Parameter is one that a template declares.
type Parameter struct {
	Name        string
	Type        string // string, securestring, int, bool, array, object, secureobject
	Description string
	Allowed     []*tree.Value
	Default     *tree.Value // nil: it needs a value
	At          tree.Place
	declared    *tree.Value
}

// Secure reports whether the parameter's value is shown nowhere.
func (p Parameter) Secure() bool { return strings.HasPrefix(p.Type, "secure") }

// parameterTypes are the types there are, in small letters.
var parameterTypes = strings.Fields("string securestring int bool array object secureobject")

func (r *reading) parameter(m tree.Member) Parameter {
	at := "parameters." + m.Name
	p := Parameter{Name: m.Name, At: m.At, declared: m.Value}
	if ref := m.Value.Get("$ref"); ref.Present() {
		if d, ok := r.defined(ref, at); ok {
			m.Value = laid(d, m.Value)
			p.declared = m.Value
		} else {
			return p
		}
	}
	if m.Value.Kind != tree.Object {
		r.wrong(m.Value.At, at, `write {"type": "string"}`, "the declaration of a parameter is an object, not %s", m.Value.Kind)
		return p
	}
	kind := m.Value.Get("type")
	p.Type = strings.ToLower(kind.Text())
	switch {
	case kind == nil:
		r.wrong(m.Value.At, at+".type", "there are: "+strings.Join(parameterTypes, ", "), "the parameter has no type")
	case !slices.Contains(parameterTypes, p.Type):
		r.wrong(kind.At, at+".type", spec.Suggest(p.Type, parameterTypes), "%s is no type", kind.Show())
	}
	p.Description = m.Value.Get("metadata", "description").Text()
	if d := m.Value.Get("defaultValue"); d != nil {
		p.Default = d
		if want, ok := literal(p.Type, d); !ok {
			r.wrong(d.At, at+".defaultValue", "", "the default is to be %s, not %s", want, d.Kind)
		}
		if p.Secure() && d.Kind != tree.Null {
			p.Default = d.Hidden()
		}
	}
	if a := m.Value.Get("allowedValues"); a.Present() {
		if a.Kind != tree.Array || a.Len() == 0 {
			r.wrong(a.At, at+".allowedValues", "", "a list of values is wanted here")
		}
		p.Allowed = a.Items()
	}
	for _, bound := range []string{"minValue", "maxValue", "minLength", "maxLength"} {
		if v := m.Value.Get(bound); v.Present() {
			if _, ok := v.AsInt(); !ok {
				r.wrong(v.At, at+"."+bound, "", "a whole number is wanted here, not %s", v.Kind)
			}
		}
	}
	return p
}

// defined finds a type that the template declares itself: #/definitions/NAME.
func (r *reading) defined(ref *tree.Value, at string) (*tree.Value, bool) {
	name, ok := strings.CutPrefix(ref.Text(), "#/definitions/")
	d := r.definitions.Get(name)
	if !ok || d == nil || d.Get("$ref").Present() {
		var names []string
		for _, m := range r.definitions.Members() {
			names = append(names, "#/definitions/"+m.Name)
		}
		r.wrong(ref.At, at+".$ref", tree.Clip(spec.Suggest(ref.Text(), names), 300), "%s is no type that the template defines", ref.Show())
		return nil, false
	}
	return d, true
}

// literal reports whether a default that is written out is of a type; one that is computed is looked at later.
func literal(kind string, d *tree.Value) (want tree.Kind, ok bool) {
	want, known := kindOf(kind)
	_, isInt := d.AsInt()
	_, isBool := d.AsBool()
	switch {
	case !known, d.Kind == tree.Null, evaluated(d), d.Kind == want:
		return want, true
	case want == tree.Int:
		return want, isInt
	case want == tree.Bool:
		return want, isBool
	}
	return want, false
}

// kindOf is what values of a type are.
func kindOf(kind string) (tree.Kind, bool) {
	switch kind {
	case "string", "securestring":
		return tree.String, true
	case "int":
		return tree.Int, true
	case "bool":
		return tree.Bool, true
	case "array":
		return tree.Array, true
	case "object", "secureobject":
		return tree.Object, true
	}
	return tree.Null, false
}

// Values are values of parameters from one place: a file, or the command line.
type Values struct {
	// From says whence they are, for people: the file's name.
	From  string
	Given []Given
	notes []Note
}

// Given is a parameter's value.
type Given struct {
	Name  string
	At    tree.Place
	Value *tree.Value // nil: it lies in a key vault
	Vault string      // the name of the secret there
}

// ReadValues reads a parameter file: with or without what is around the parameters. The error is of KindInvalid.
func ReadValues(f File) (Values, error) {
	out := Values{From: f.Name}
	root, twice, m := tree.Parse(f.Name, f.Data)
	if m != nil {
		return out, spec.Invalid([]shoal.Mistake{*m})
	}
	r := &reading{}
	if root.Get("resources") != nil {
		r.wrong(root.At, "", "give it with --template-file", "this is a template, not a parameter file")
		return out, spec.Invalid(r.mistakes)
	}
	all := root
	if p := root.Get("parameters"); p != nil {
		all = p
	}
	if all.Kind != tree.Object {
		r.wrong(all.At, "", `write {"name": {"value": 3}}`, "an object is wanted here, not %s", all.Kind)
		return out, spec.Invalid(r.mistakes)
	}
	for _, m := range all.Members() {
		if all == root && (m.Name == "$schema" || tree.Fold(m.Name) == "contentversion") {
			continue
		}
		out.Given = append(out.Given, r.given(m))
	}
	for _, m := range twice {
		out.notes = append(out.notes, Note{m.File, m.Line, m.Column, m.Msg})
	}
	if len(r.mistakes) > 0 {
		return out, spec.Invalid(r.mistakes)
	}
	return out, nil
}

func (r *reading) given(m tree.Member) Given {
	g := Given{Name: m.Name, At: m.At}
	value, reference := m.Value.Get("value"), m.Value.Get("reference")
	switch {
	case reference.Present():
		g.Vault = reference.Get("secretName").Text()
		if g.Vault == "" || reference.Get("keyVault", "id").Text() == "" {
			r.wrong(reference.At, m.Name+".reference", "write {keyVault: {id}, secretName}", "the reference names no key vault and secret")
		}
	case value != nil:
		g.Value = value
	case m.Value.Kind == tree.Object && len(m.Value.Members()) > 0:
		r.wrong(m.Value.At, m.Name, spec.Suggest(m.Value.Members()[0].Name, []string{"value", "reference"}), "the parameter has no value here, but %q", tree.Clip(m.Value.Members()[0].Name, 60))
	default:
		r.wrong(m.Value.At, m.Name, `write {"value": 3}`, "the parameter has no value here")
	}
	return g
}

// Word makes a value of a text for the parameter of a name: what the command line has behind KEY=. Where the
// template wants something else than a string the text is JSON.
func (t *Template) Word(name, text string) (Given, error) {
	g := Given{Name: name, Value: tree.StringValue(text)}
	i := slices.IndexFunc(t.parameters, func(p Parameter) bool { return strings.EqualFold(p.Name, name) })
	if i < 0 || strings.HasSuffix(t.parameters[i].Type, "string") {
		return g, nil // an unknown name is told with the others
	}
	p := t.parameters[i]
	v, _, m := tree.Parse("", []byte(text))
	switch {
	case m == nil:
		g.Value = v.Placed(tree.Place{})
	case p.Type != "int" && p.Type != "bool": // those are told with the others
		err := shoal.Errorf(shoal.KindInvalid, "parameter %s: the value is not JSON: %s", p.Name, m.Msg)
		if p.Secure() {
			err = shoal.Errorf(shoal.KindInvalid, "parameter %s: the value is not JSON", p.Name)
		}
		return g, err.WithHint("the template wants %s %s here", article(p.Type), p.Type)
	}
	return g, nil
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an"
	}
	return "a"
}

// bind gives the frame's parameters their values.
func (f *frame) bind(layers []Values) {
	chosen := map[string]Given{}
	for _, layer := range layers {
		f.run.notes = append(f.run.notes, layer.notes...)
		f.strangers(layer)
		for _, g := range layer.Given {
			if g.Value == nil && g.Vault == "" || g.Value != nil && g.Value.Kind == tree.Null {
				continue
			}
			chosen[tree.Fold(g.Name)] = g
		}
	}
	for _, p := range f.template.parameters {
		c := &cell{place: p.At, what: "parameter " + p.Name}
		f.parameters[tree.Fold(p.Name)] = c
		g, ok := chosen[tree.Fold(p.Name)]
		switch {
		case ok && g.Value == nil:
			if v := f.run.in.Answers.find(vaultAnswers, g.Vault); v != nil {
				g.Value = v
				f.give(p, c, g)
				continue
			}
			hint := "give the value itself: --parameters " + p.Name + "=@FILE or " + p.Name + "=env:NAME"
			if f.parent != nil {
				hint = `give its value in a file that only you can read: --answers FILE with {"keyVault": {"` + tree.Clip(g.Vault, 60) + `": "…"}}`
			}
			f.run.wrong(g.At, p.Name, hint,
				"the value lies in a key vault, which cannot be asked from here (secret %q)", tree.Clip(g.Vault, 60))
			c.fail()
		case ok:
			f.give(p, c, g)
		case p.Default != nil:
			c.evaluate = func() (*tree.Value, bool) { return f.fallback(p) }
		case nullable(p):
			c.done(tree.NullValue())
		default:
			hint := "give it: --parameters " + p.Name + "=VALUE"
			if p.Secure() {
				hint = "give it: --parameters " + p.Name + "=@FILE"
			}
			if p.Description != "" {
				hint += " (" + tree.Clip(p.Description, 120) + ")"
			}
			if f.parent != nil {
				hint = "deployment " + f.name + " has to give it a value"
			}
			f.run.wrong(p.At, "parameters."+p.Name, hint, "parameter %q has no value", p.Name)
			c.fail()
		}
	}
}

// nullable reports whether a parameter may be left out.
func nullable(p Parameter) bool {
	yes, _ := p.declared.Get("nullable").AsBool()
	return yes
}

// strangers tells values for parameters that the template does not have.
func (f *frame) strangers(layer Values) {
	var names []string
	for _, p := range f.template.parameters {
		names = append(names, p.Name)
	}
	var unknown []Given
	for _, g := range layer.Given {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, g.Name) }) {
			unknown = append(unknown, g)
		}
	}
	if len(unknown) > 2 && 2*len(unknown) > len(layer.Given) {
		var are []string
		for _, g := range unknown {
			are = append(are, g.Name)
		}
		f.run.wrong(unknown[0].At, "", "is it the parameter file of another template?", "the template %s has none of the parameters %s", f.template.name, tree.Clip(strings.Join(are, ", "), 200))
		return
	}
	for _, g := range unknown {
		if f.run.full() {
			f.run.more = true
			return
		}
		hint := "the template has no parameters"
		if len(names) > 0 {
			hint = spec.Suggest(g.Name, names)
		}
		f.run.wrong(g.At, g.Name, hint, "the template has no parameter %q", tree.Clip(g.Name, 60))
	}
}

// give checks a value that was given and takes it.
func (f *frame) give(p Parameter, c *cell, g Given) {
	v := g.Value
	if p.Secure() {
		v = v.Hidden()
		f.run.hide(v)
	}
	if v.Kind == tree.Unknown { // of a nested deployment: it is computed
		c.done(v)
		return
	}
	at := g.At
	if v.At.Line > 0 {
		at = v.At
	}
	v, ok := f.fit(p, v, at)
	if !ok {
		c.fail()
		return
	}
	if Placeholder(v.Text()) {
		f.run.note(at, "parameter %s: the value looks like a placeholder that somebody was to replace", p.Name)
	}
	c.done(v)
}

// Placeholder reports whether a text is what published parameter files have where a value is to be filled in.
func Placeholder(s string) bool {
	upper := strings.ToUpper(s)
	for _, head := range []string{"GEN-", "ENTER-", "YOUR-", "<YOUR", "CHANGEME", "REPLACE-"} {
		if strings.HasPrefix(upper, head) {
			return true
		}
	}
	return false
}

// fallback is a parameter's default.
func (f *frame) fallback(p Parameter) (*tree.Value, bool) {
	s := &scope{frame: f, phase: inDefaults, quiet: p.Secure(), path: "parameters." + p.Name + ".defaultValue"}
	v, ok := s.value(p.Default)
	if !ok {
		return nil, false
	}
	if p.Secure() {
		v = v.Hidden()
		f.run.hide(v)
	}
	if v.Kind == tree.Unknown || v.Kind == tree.Null {
		return v, true
	}
	return f.fit(p, v, p.Default.At)
}

// fit checks a value against what the template declares. Numbers and truth values may be in quotes.
func (f *frame) fit(p Parameter, v *tree.Value, at tree.Place) (*tree.Value, bool) {
	path := "parameters." + p.Name
	kind, _ := kindOf(p.Type)
	fitting := v
	switch kind {
	case tree.Int:
		if n, ok := v.AsInt(); ok {
			fitting = tree.IntValue(n)
		}
	case tree.Bool:
		if b, ok := v.AsBool(); ok {
			fitting = tree.BoolValue(b)
		}
	}
	if fitting.Kind != kind {
		hint := ""
		if kind == tree.String {
			hint = "write it in quotes"
		}
		f.run.wrong(at, path, hint, "parameter %q wants %s, not %s", p.Name, kind, v.Kind)
		return nil, false
	}
	if fitting != v && v.Kind == tree.String {
		f.run.note(at, "parameter %s: %s in quotes is read as %s", p.Name, v.Show(), kind)
	}
	v = fitting.Placed(v.At)
	v, ok := f.allowed(p, v, at)
	return v, f.bounded(p, v, at) && ok
}

func (f *frame) allowed(p Parameter, v *tree.Value, at tree.Place) (*tree.Value, bool) {
	if len(p.Allowed) == 0 {
		return v, true
	}
	var same *tree.Value
	for _, a := range p.Allowed {
		if tree.Equal(a, v, &f.run.budget.Steps) {
			return v, true
		}
		if strings.EqualFold(a.Text(), v.Text()) && v.Text() != "" {
			same = a
		}
	}
	if same != nil {
		if p.Secure() {
			return same.Hidden(), true
		}
		f.run.note(at, "parameter %s: %s is read as %s", p.Name, v.Show(), same.Show())
		return same.Placed(v.At), true
	}
	var known []string
	for _, a := range p.Allowed {
		if v.Kind == tree.Array { // each of its items must be allowed
			break
		}
		known = append(known, a.Text())
	}
	if v.Kind == tree.Array {
		return v, f.allAllowed(p, v, at)
	}
	hint := tree.Clip(spec.Suggest(v.Text(), known), 300)
	if p.Secure() {
		hint = ""
	}
	f.run.wrong(at, "parameters."+p.Name, hint, "parameter %q may not be %s", p.Name, v.Show())
	return v, false
}

// allAllowed checks the items of an array.
func (f *frame) allAllowed(p Parameter, v *tree.Value, at tree.Place) bool {
	for _, item := range v.Items() {
		if !slices.ContainsFunc(p.Allowed, func(a *tree.Value) bool { return tree.Equal(a, item, &f.run.budget.Steps) }) {
			f.run.wrong(at, "parameters."+p.Name, "", "parameter %q may not hold %s", p.Name, item.Show())
			return false
		}
	}
	return true
}

// bounded checks a value against minValue, maxLength and so on.
func (f *frame) bounded(p Parameter, v *tree.Value, at tree.Place) bool {
	n, what := int64(0), ""
	var low, high *tree.Value
	switch v.Kind {
	case tree.Int:
		n, what = v.Int(), fmt.Sprintf("is %s", v.Show())
		low, high = p.declared.Get("minValue"), p.declared.Get("maxValue")
	case tree.String:
		n = int64(len([]rune(v.Text())))
		what = fmt.Sprintf("has %d letters", n)
		low, high = p.declared.Get("minLength"), p.declared.Get("maxLength")
	case tree.Array:
		n = int64(v.Len())
		what = fmt.Sprintf("has %d items", n)
		low, high = p.declared.Get("minLength"), p.declared.Get("maxLength")
	default:
		return true
	}
	hint := ""
	if Placeholder(v.Text()) {
		hint = "the value is a placeholder: give one of your own, --parameters " + p.Name + "=VALUE"
	}
	if least, ok := low.AsInt(); ok && n < least {
		f.run.wrong(at, "parameters."+p.Name, hint, "parameter %q %s, less than %d", p.Name, what, least)
		return false
	}
	if most, ok := high.AsInt(); ok && n > most {
		f.run.wrong(at, "parameters."+p.Name, hint, "parameter %q %s, more than %d", p.Name, what, most)
		return false
	}
	return true
}

// used are the parameters' values.
func (f *frame) used() []Output {
	var all []Output
	for _, p := range f.template.parameters {
		if v, err := f.parameters[tree.Fold(p.Name)].get(); err == nil {
			all = append(all, Output{p.Name, p.Type, v})
		}
	}
	return all
}
