package arm

import (
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/expr"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Answers are what the user says that resources have which only a deployment would know: by function
// ("reference", "listkeys") and by the resource's id, Type/name or name, all in small letters.
type Answers map[string]map[string]*tree.Value

// vaultAnswers is where the values of secrets in key vaults are, by the secrets' names.
const vaultAnswers = "keyvault"

// ReadAnswers reads a file of answers: {"reference": {"NAME": {...}}, "listKeys": {"NAME": {...}}}. What a list
// function answers is secret.
func ReadAnswers(f File) (Answers, error) {
	root, _, m := tree.Parse(f.Name, f.Data)
	if m != nil {
		return nil, spec.Invalid([]shoal.Mistake{*m})
	}
	out := Answers{}
	r := &reading{}
	for _, function := range root.Members() {
		name := tree.Fold(function.Name)
		if name != "reference" && name != vaultAnswers && !strings.HasPrefix(name, "list") {
			r.wrong(function.At, function.Name, spec.Suggest(function.Name, []string{"reference", "listKeys", "keyVault"}), "%q is no function that asks a resource", tree.Clip(function.Name, 60))
			continue
		}
		out[name] = map[string]*tree.Value{}
		for _, m := range function.Value.Members() {
			v := m.Value
			if name != "reference" {
				v = v.Hidden()
			}
			out[name][tree.Fold(strings.Trim(m.Name, "/"))] = v
		}
	}
	if len(r.mistakes) > 0 {
		return nil, spec.Invalid(r.mistakes)
	}
	return out, nil
}

// find finds an answer by any name of a resource.
func (a Answers) find(function string, names ...string) *tree.Value {
	for _, name := range names {
		if v, ok := a[tree.Fold(function)][tree.Fold(strings.Trim(name, "/"))]; ok {
			return v
		}
	}
	return nil
}

// what an id is put together below.
type within int

const (
	atGroup within = iota
	atSubscription
	atTenant
	atResource
)

// callID is resourceId and its kin: [subscription,] [group,] type, name, …
func (s *scope) callID(c *expr.Call, at within) (*tree.Value, error) {
	words := make([]string, len(c.Args))
	for i, a := range c.Args {
		if a.Kind == tree.Unknown {
			return tree.UnknownValue(a.Text()), nil
		}
		w, err := c.Text(i)
		if err != nil {
			return nil, err
		}
		words[i] = w
	}
	base := ""
	if at == atResource {
		base, words = strings.TrimRight(words[0], "/"), words[1:]
	}
	k := slices.IndexFunc(words, func(w string) bool { return strings.Contains(strings.Trim(w, "/"), "/") })
	if k < 0 {
		return nil, c.Wrong(-1, "write resourceId('Microsoft.Network/virtualNetworks', 'name')", "%s has no type of a resource", c.Name())
	}
	before, kind, names := words[:k], strings.Trim(words[k], "/"), words[k+1:]
	place := s.frame.owner().context
	switch {
	case at == atGroup && len(before) == 1:
		place.Group = before[0]
	case at == atGroup && len(before) == 2:
		place.Subscription, place.Group = before[0], before[1]
	case at == atSubscription && len(before) == 1:
		place.Subscription = before[0]
	case len(before) > 0 && at != atTenant:
		return nil, c.Wrong(0, "", "too much stands before the type %s", tree.Clip(kind, 60))
	}
	if at == atSubscription {
		place.Group = ""
	}
	name := strings.Trim(strings.Join(names, "/"), "/")
	var id, problem string
	switch at {
	case atTenant, atResource:
		id, problem = interleave(kind, name)
		id = base + "/providers/" + id
	default:
		id, problem = idOf(place, kind, name)
	}
	if problem != "" {
		return nil, c.Wrong(-1, "give one name for each part of the type behind its first slash", "%s", problem)
	}
	v := tree.StringValue(id)
	if slices.ContainsFunc(c.Args, (*tree.Value).Hides) {
		v = v.Hidden()
	}
	return v, nil
}

// early refuses functions that ask resources where there are none yet.
func (s *scope) early(c *expr.Call) error {
	switch {
	case s.args != nil:
		return c.Wrong(-1, "", "a function of the template cannot ask a resource")
	case s.phase == inDefaults:
		return c.Wrong(-1, "", "%s has no answer in the default of a parameter: there are no resources yet", c.Name())
	case s.phase == inVariables:
		return c.Wrong(-1, "use it where the variable is used", "%s has no answer in a variable: there are no resources yet", c.Name())
	}
	return nil
}

// callReference answers from the deployment's own result, from what the user says, or with something unknown.
func (s *scope) callReference(c *expr.Call) (*tree.Value, error) {
	if err := s.early(c); err != nil {
		return nil, err
	}
	if c.Args[0].Kind == tree.Unknown {
		return c.Args[0], nil
	}
	name, err := named(c)
	if err != nil {
		return nil, err
	}
	full := len(c.Args) > 2 && strings.EqualFold(c.Args[2].Text(), "full")
	found := slices.DeleteFunc(slices.Clone(s.frame.find(name)), func(n *node) bool { return n.skipped && !n.existing })
	if len(found) > 1 {
		return nil, c.Wrong(0, "write reference(resourceId('TYPE', 'NAME'))", "%d resources are called %q", len(found), tree.Clip(name, 60))
	}
	if len(found) == 1 && !found[0].existing {
		return s.referenceTo(found[0], full)
	}
	names := []string{name, name[strings.LastIndexByte(name, '/')+1:]}
	if len(found) == 1 {
		names = append(names, found[0].id, found[0].name)
	}
	if v := s.frame.run.in.Answers.find("reference", names...); v != nil {
		return wrapped(v, full, name), nil
	}
	if !strings.Contains(name, "/") && len(found) == 0 && len(s.frame.find(name)) == 0 {
		return nil, c.Wrong(0, s.frame.suggest(name), "the template has no resource %q", tree.Clip(name, 60))
	}
	return tree.UnknownValue("reference(" + tree.Clip(name, 100) + ")"), nil
}

func (s *scope) referenceTo(n *node, full bool) (*tree.Value, error) {
	if s.node != nil {
		s.node.need(n)
	}
	if !n.settle() {
		return nil, errReported
	}
	what := "reference(" + tree.Clip(n.name, 100) + ")"
	v := n.body.Get("properties")
	if v == nil {
		v = tree.ObjectValue(nil)
	}
	if more := runtime(n); more != nil {
		v = laid(more, v)
	}
	if more := s.frame.run.in.Answers.find("reference", n.id, n.kind+"/"+n.name, n.name, n.symbol); more != nil {
		v = laid(v, more)
	}
	if !full {
		return v.Opened(what), nil
	}
	body := laid(n.body, tree.ObjectValue([]tree.Member{{Name: "properties", Value: v.Opened(what + ".properties")}}))
	return laid(body, object("apiVersion", n.source.Get("apiVersion").Text(), "resourceId", n.id)).Opened(what), nil
}

// wrapped is an answer as reference gives it.
func wrapped(v *tree.Value, full bool, name string) *tree.Value {
	what := "reference(" + tree.Clip(name, 100) + ")"
	if full && v.Get("properties") == nil {
		v = tree.ObjectValue([]tree.Member{{Name: "properties", Value: v.Opened(what + ".properties")}})
	}
	return v.Opened(what)
}

// laid lays one object over another.
func laid(under, over *tree.Value) *tree.Value {
	if under.Kind != tree.Object || over.Kind != tree.Object {
		return over
	}
	var members []tree.Member
	for _, m := range under.Members() {
		if o := over.Get(m.Name); o != nil {
			m.Value = laid(m.Value, o)
		}
		members = append(members, m)
	}
	for _, m := range over.Members() {
		if under.Member(m.Name) == nil {
			members = append(members, m)
		}
	}
	return tree.ObjectValue(members)
}

// runtime is what some resources have once they are there, where it follows from their names.
func runtime(n *node) *tree.Value {
	switch tree.Fold(n.kind) {
	case "microsoft.storage/storageaccounts":
		var members []tree.Member
		for _, kind := range []string{"blob", "file", "queue", "table"} {
			members = append(members, tree.Member{Name: kind, Value: tree.StringValue("https://" + n.name + "." + kind + ".core.windows.net/")})
		}
		return tree.ObjectValue([]tree.Member{{Name: "primaryEndpoints", Value: tree.ObjectValue(members)}, {Name: "provisioningState", Value: tree.StringValue("Succeeded")}})
	}
	return object("provisioningState", "Succeeded")
}

// callReferences is references('symbol'): all copies of a resource.
func (s *scope) callReferences(c *expr.Call) (*tree.Value, error) {
	if err := s.early(c); err != nil {
		return nil, err
	}
	name, err := named(c)
	if err != nil {
		return nil, err
	}
	full := len(c.Args) > 1 && strings.EqualFold(c.Args[1].Text(), "full")
	var all []*tree.Value
	for _, n := range s.frame.find(name) {
		if n.skipped {
			continue
		}
		v, err := s.referenceTo(n, full)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if len(all) == 0 && !s.frame.loops[tree.Fold(name)] {
		return nil, c.Wrong(0, s.frame.suggest(name), "the template has no resource %q", tree.Clip(name, 60))
	}
	return tree.ArrayValue(all), nil
}

// callList is listKeys and its kin. What they answer is secret.
func (s *scope) callList(c *expr.Call) (*tree.Value, error) {
	if err := s.early(c); err != nil {
		return nil, err
	}
	if c.Args[0].Kind == tree.Unknown {
		return c.Args[0].Hidden(), nil
	}
	name, err := named(c)
	if err != nil {
		return nil, err
	}
	names := []string{name, name[strings.LastIndexByte(name, '/')+1:]}
	for _, n := range s.frame.find(name) {
		if s.node != nil {
			s.node.need(n)
		}
		names = append(names, n.id, n.kind+"/"+n.name, n.name)
	}
	if v := s.frame.run.in.Answers.find(c.Name(), names...); v != nil {
		return v.Hidden().Opened(c.Name() + "(" + tree.Clip(name, 100) + ")"), nil
	}
	return tree.UnknownValue(c.Name() + "(" + tree.Clip(name, 100) + ")").Hidden(), nil
}

// outputs evaluates the template's outputs.
func (f *frame) outputs() []Output {
	if f.done {
		return f.results
	}
	f.done = true
	for _, m := range f.template.root.Get("outputs").Members() {
		if f.run.full() || f.run.budget.Spent() {
			break
		}
		if o, ok := f.output(m); ok {
			f.results = append(f.results, o)
		}
	}
	return f.results
}

func (f *frame) output(m tree.Member) (Output, bool) {
	s := &scope{frame: f, phase: inOutputs, path: "outputs." + m.Name}
	if f.outer != nil {
		s.loops = f.outer.loops
	}
	kind := strings.ToLower(m.Value.Get("type").Text())
	if ref, ok := strings.CutPrefix(m.Value.Get("$ref").Text(), "#/definitions/"); ok && kind == "" {
		kind = strings.ToLower(f.template.root.Get("definitions", ref, "type").Text())
	}
	o := Output{Name: m.Name, Type: kind}
	if !slices.Contains(parameterTypes, kind) {
		f.run.wrong(m.At, s.path+".type", spec.Suggest(kind, parameterTypes), "%q is no type of an output", tree.Clip(kind, 60))
		return o, false
	}
	if yes, ok := s.condition(m.Value); !yes || !ok {
		return o, false
	}
	var v *tree.Value
	var ok bool
	if l := m.Value.Get("copy"); l.Present() {
		loop := tree.ObjectValue(append(slices.Clone(l.Members()), tree.Member{Name: "name", Value: tree.StringValue(m.Name)})).Placed(l.At)
		v, ok = s.unroll(loop, s.path+".copy")
	} else {
		written := m.Value.Get("value")
		if written == nil {
			f.run.wrong(m.At, s.path, "", "the output has no value")
			return o, false
		}
		v, ok = s.with(s.path + ".value").value(written)
	}
	if !ok {
		return o, false
	}
	if strings.HasPrefix(kind, "secure") {
		v = v.Hidden()
	}
	want, _ := kindOf(kind)
	if v.Kind != want && v.Kind != tree.Unknown && v.Kind != tree.Null {
		f.run.note(m.At, "output %s is declared as %s and is %s", tree.Clip(m.Name, 60), kind, v.Kind)
	}
	o.Value = v
	return o, true
}
