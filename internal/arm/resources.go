package arm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// node is a resource of a template, or one copy of it.
type node struct {
	frame    *frame
	source   *tree.Value
	path     string // of its declaration
	kind     string // Microsoft.Compute/virtualMachineScaleSets
	name     string
	symbol   string // its name in the template, where that gives names
	id       string
	loops    []loop
	skipped  bool // its condition is false
	existing bool // it is only looked at
	state    int
	body     *tree.Value
	location string
	needs    []*node
	inner    *frame // of a nested deployment
}

// what names the resource in messages.
func (n *node) what() string { return tree.Clip(n.kind+" "+n.name, 120) }

// resourceKeys are the keys of a resource.
var resourceKeys = strings.Fields(`type name apiVersion location properties dependsOn sku tags zones plan kind identity copy condition resources comments
	resourceGroup subscriptionId scope existing extendedLocation metadata managedBy placement etag import asserts tier`)

// evaluate evaluates the frame's template: its resources.
func (f *frame) evaluate() {
	s := &scope{frame: f, phase: inResources, nulls: true}
	if f.outer != nil {
		s.loops = f.outer.loops
	}
	for _, p := range f.template.parameters {
		f.run.ask(f.parameters[tree.Fold(p.Name)]) //nolint:errcheck // it is told already
	}
	if f.outer == nil {
		for _, m := range f.template.root.Get("variables").Members() {
			if c := f.variables[tree.Fold(m.Name)]; c != nil {
				f.run.ask(c) //nolint:errcheck // it is told already
			}
		}
	}
	all := f.template.root.Get("resources")
	for i, v := range all.Items() {
		f.expand(s, v, fmt.Sprintf("resources[%d]", i), nil, "")
	}
	for _, m := range all.Members() {
		f.expand(s, m.Value, "resources."+m.Name, nil, m.Name)
	}
	for _, n := range f.nodes {
		if !n.skipped {
			f.depend(n)
		}
	}
	for _, n := range f.nodes {
		if !n.skipped {
			n.settle() // what is wrong is told
		}
	}
	f.circles()
}

// expand makes the nodes of a resource, with its copies and children.
func (f *frame) expand(s *scope, v *tree.Value, path string, parent *node, symbol string) {
	r := f.run
	if r.full() || r.budget.Spent() {
		return
	}
	if v.Kind != tree.Object {
		r.wrong(v.At, path, "", "a resource is an object, not %s", v.Kind)
		return
	}
	for _, m := range v.Members() {
		if !slices.ContainsFunc(resourceKeys, func(k string) bool { return strings.EqualFold(k, m.Name) }) {
			if hint := spec.Suggest(m.Name, resourceKeys); strings.HasPrefix(hint, "did you mean") {
				r.note(m.At, "%s.%s: a resource has no such key; %s", path, tree.Clip(m.Name, 60), hint)
			}
		}
	}
	loops := v.Get("copy")
	if !loops.Present() {
		f.add(s.with(path), v, path, parent, symbol)
		return
	}
	if loops.Kind != tree.Object {
		r.wrong(loops.At, path+".copy", "write {name, count}", "an object is wanted here, not %s", loops.Kind)
		return
	}
	name := loops.Get("name").Text()
	if symbol != "" && name == "" {
		name = symbol
	}
	if name == "" {
		r.wrong(loops.At, path+".copy.name", "", "the loop has no name")
		return
	}
	f.loops[tree.Fold(name)] = true
	count, ok := s.with(path).count(loops, path+".copy")
	if !ok {
		return
	}
	for i := range count {
		if r.budget.Spent() {
			return // which is told
		}
		inner := s.with(path)
		inner.loops = append(slices.Clone(s.loops), loop{name: name, index: i, resource: true})
		if !f.add(inner, v, path, parent, symbol) {
			return // the others would say the same
		}
	}
}

// word evaluates a key of a resource that must be a string.
func (s *scope) word(v *tree.Value, key string) (string, bool) {
	written := v.Get(key)
	path := s.path + "." + key
	if written == nil {
		s.frame.run.wrong(v.At, path, "", "the resource has no %s", key)
		return "", false
	}
	out, ok := s.with(path).value(written)
	switch {
	case !ok:
		return "", false
	case out.Kind == tree.Unknown:
		s.undecided(written, path, out)
		return "", false
	case out.Kind != tree.String && out.Kind != tree.Int || out.Text() == "":
		s.frame.run.wrong(written.At, path, "", "the %s of a resource is a string, not %s", key, out.Show())
		return "", false
	case out.Secret:
		s.frame.run.wrong(written.At, path, "", "the %s of a resource cannot be made of a secret", key)
		return "", false
	}
	return out.Text(), true
}

// condition evaluates whether a resource or output is there.
func (s *scope) condition(v *tree.Value) (yes, ok bool) {
	written := v.Get("condition")
	if !written.Present() {
		return true, true
	}
	path := s.path + ".condition"
	out, ok := s.with(path).value(written)
	if !ok {
		return false, false
	}
	if out.Kind == tree.Unknown {
		s.undecided(written, path, out)
		return false, false
	}
	yes, ok = out.AsBool()
	if !ok {
		s.frame.run.wrong(written.At, path, "", "a truth value is wanted here, not %s", out.Show())
	}
	return yes, ok
}

// add makes one node, and those of its children.
func (f *frame) add(s *scope, v *tree.Value, path string, parent *node, symbol string) bool {
	r := f.run
	n := &node{frame: f, source: v, path: path, symbol: symbol, loops: s.loops}
	yes, ok := s.condition(v)
	if !ok {
		return false
	}
	n.skipped = !yes || parent != nil && parent.skipped
	if n.existing, _ = v.Get("existing").AsBool(); n.existing {
		n.skipped = true
	}
	kind, ok1 := s.word(v, "type")
	name, ok2 := s.word(v, "name")
	if !ok1 || !ok2 {
		return n.skipped // what is not there may lack a name
	}
	n.kind, n.name = strings.Trim(kind, "/"), strings.Trim(name, "/")
	if parent != nil && !strings.EqualFold(n.kind[:min(len(n.kind), len(parent.kind))], parent.kind) {
		n.kind, n.name = parent.kind+"/"+n.kind, parent.name+"/"+n.name
	}
	c := f.place(s, v)
	id, problem := idOf(c, n.kind, n.name)
	if problem != "" {
		r.wrong(v.Get("name").At, path+".name", "", "%s: %s", n.what(), problem)
		return false
	}
	n.id = id
	if in := v.Get("scope"); in.Present() {
		if at, ok := s.with(path + ".scope").value(in); ok && strings.HasPrefix(at.Text(), "/") {
			n.id = strings.TrimRight(at.Text(), "/") + id[strings.LastIndex(id, "/providers/"):]
		}
	}
	if r.resources++; r.resources > maxAll || len(f.nodes) >= maxResources {
		if !f.crowded {
			r.wrong(v.At, path, "", "the template has more than %d resources", maxResources)
		}
		f.crowded = true
		return false
	}
	if old := r.byID[tree.Fold(n.id)]; old != nil && !old.skipped && !n.skipped && n.inSameDeployment(old) {
		r.wrong(v.Get("name").At, path+".name", "copies are told apart by copyIndex() in their names", "%s is there twice, first in line %d", n.what(), old.source.At.Line)
		return false
	}
	if old := r.byID[tree.Fold(n.id)]; old == nil || old.skipped {
		r.byID[tree.Fold(n.id)] = n
	}
	f.nodes = append(f.nodes, n)
	f.spell(n)
	for i, child := range v.Get("resources").Items() {
		f.expand(s, child, fmt.Sprintf("%s.resources[%d]", path, i), n, "")
	}
	return true
}

func (n *node) inSameDeployment(o *node) bool { return n.frame == o.frame }

// place is the group and subscription that a resource lies in.
func (f *frame) place(s *scope, v *tree.Value) Context {
	c := f.context
	for key, field := range map[string]*string{"resourceGroup": &c.Group, "subscriptionId": &c.Subscription} {
		if in := v.Get(key); in.Present() {
			if out, ok := s.with(s.path + "." + key).value(in); ok && out.Kind == tree.String && out.Text() != "" {
				*field = out.Text()
			}
		}
	}
	return c
}

// idOf puts an id together: the parts of the type and of the name in turn.
func idOf(c Context, kind, name string) (id, problem string) {
	within := "/subscriptions/" + c.Subscription
	if strings.EqualFold(kind, "Microsoft.Resources/resourceGroups") {
		return within + "/resourceGroups/" + name, ""
	}
	if c.Group != "" {
		within += "/resourceGroups/" + c.Group
	}
	path, problem := interleave(kind, name)
	return within + "/providers/" + path, problem
}

func interleave(kind, name string) (path, problem string) {
	kinds, names := strings.Split(kind, "/"), strings.Split(name, "/")
	if len(kinds) < 2 || slices.Contains(kinds, "") {
		return "", fmt.Sprintf("%q is no type such as Microsoft.Compute/virtualMachines", tree.Clip(kind, 60))
	}
	if len(kinds)-1 != len(names) {
		return "", fmt.Sprintf("the type has %d parts behind the first slash and the name has %d", len(kinds)-1, len(names))
	}
	parts := kinds[:1:1]
	for i, n := range names {
		if n == "" {
			return "", "a part of the name is empty"
		}
		parts = append(parts, kinds[i+1], n)
	}
	return strings.Join(parts, "/"), ""
}

// spell notes the spellings by which dependsOn and reference may mean a resource.
func (f *frame) spell(n *node) {
	path, _ := interleave(n.kind, n.name)
	words := []string{n.id, n.kind + "/" + n.name, path, n.name}
	if n.symbol != "" {
		words = append(words, n.symbol)
	}
	for _, l := range n.loops {
		if l.resource && f.loops[tree.Fold(l.name)] {
			words = append(words, l.name)
		}
	}
	for _, w := range words {
		key := tree.Fold(w)
		if !slices.Contains(f.named[key], n) {
			f.named[key] = append(f.named[key], n)
		}
	}
}

// find finds what a text means: an id, Type/name, or a name of a resource or a loop.
func (f *frame) find(text string) []*node {
	key := tree.Fold(strings.TrimRight(strings.TrimSpace(text), "/"))
	if found := f.named[key]; len(found) > 0 {
		return found
	}
	if found := f.named[strings.TrimLeft(key, "/")]; len(found) > 0 {
		return found
	}
	if n := f.run.byID[key]; n != nil {
		return []*node{n}
	}
	if f.outer != nil {
		return f.outer.frame.find(text)
	}
	return nil
}

// depend reads a resource's dependsOn.
func (f *frame) depend(n *node) {
	s := n.scope()
	written := n.source.Get("dependsOn")
	if !written.Present() {
		return
	}
	path := n.path + ".dependsOn"
	v, ok := s.with(path).value(written)
	if !ok {
		return
	}
	list := v.Items()
	if v.Kind == tree.String {
		list = []*tree.Value{v}
	} else if v.Kind != tree.Array {
		f.run.wrong(written.At, path, "", "an array of names is wanted here, not %s", v.Kind)
		return
	}
	seen := map[string]bool{}
	for i, d := range list {
		if seen[d.Text()] && d.Kind == tree.String {
			continue
		}
		seen[d.Text()] = true
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case d.Kind == tree.Unknown || d.Kind == tree.Null || d.Kind == tree.String && d.Text() == "":
			continue
		case d.Kind != tree.String || d.Secret:
			f.run.wrong(d.At, at, "", "the name of a resource is wanted here, not %s", d.Kind)
			continue
		}
		found := f.find(d.Text())
		if len(found) == 0 && !f.loops[tree.Fold(d.Text())] {
			f.run.wrong(d.At, at, f.suggest(d.Text()), "%s depends on %q, which the template does not have", n.what(), tree.Clip(d.Text(), 200))
		}
		for _, o := range found {
			if o == n {
				f.run.wrong(d.At, at, "", "%s depends on itself", n.what())
				continue
			}
			n.need(o)
		}
	}
}

// suggest says which resource was probably meant.
func (f *frame) suggest(text string) string {
	last := text[strings.LastIndexByte(text, '/')+1:]
	var names []string
	for _, n := range f.nodes {
		if len(names) < 20 {
			names = append(names, n.name)
		}
		if strings.EqualFold(n.name, last) {
			return "did you mean " + n.kind + "/" + n.name + "?"
		}
	}
	if len(names) == 0 {
		return ""
	}
	return tree.Clip(spec.Suggest(last, names), 150)
}

func (n *node) need(o *node) {
	if !o.skipped && o != n && !slices.Contains(n.needs, o) {
		n.needs = append(n.needs, o)
	}
}

func (n *node) scope() *scope {
	return &scope{frame: n.frame, phase: inResources, path: n.path, loops: n.loops, node: n, nulls: true}
}

// apart are the keys of a resource that are not part of its body.
var apart = strings.Fields("type name apiversion copy condition dependson resources comments metadata existing scope")

// settle evaluates a resource's body. It answers false where that failed, which is told.
func (n *node) settle() bool {
	r := n.frame.run
	switch n.state {
	case good, bad:
		return n.state == good
	case busy:
		r.circle(r.stack[slices.Index(r.stack, n):])
		n.state = bad
		return false
	}
	if r.budget.Spent() || r.full() {
		n.state = bad
		return false
	}
	n.state = busy
	r.stack = append(r.stack, n)
	ok := n.fill()
	r.stack = r.stack[:len(r.stack)-1]
	if ok && n.state == busy {
		n.state = good
		return true
	}
	n.state = bad
	return false
}

func (n *node) fill() bool {
	r := n.frame.run
	s := n.scope()
	if strings.EqualFold(n.kind, "Microsoft.Resources/deployments") {
		return n.nest(s)
	}
	ok := true
	var members []tree.Member
	for _, m := range n.source.Members() {
		if slices.Contains(apart, tree.Fold(m.Name)) {
			continue
		}
		v, fine := s.with(n.path + "." + m.Name).value(m.Value)
		if !fine {
			ok = false
			continue
		}
		if v.Kind != tree.Null {
			members = append(members, tree.Member{Name: m.Name, At: m.At, Value: v})
		}
	}
	n.body = tree.ObjectValue(members).Placed(n.source.At)
	n.location = n.body.Get("location").Text()
	if r.bodies += n.body.Weight(); r.bodies > maxBodies {
		r.wrong(n.source.At, n.path, "", "the resources would be larger than %d MiB together", maxBodies>>20)
		return false
	}
	return ok
}
