package arm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/expr"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// frame is one template being evaluated: the deployment's own, or one nested in it.
type frame struct {
	run        *run
	template   *Template
	context    Context
	parent     *frame
	outer      *scope // of a nested template whose expressions see what is around it; nil: they see their own
	depth      int
	name       string // of the nested deployment
	parameters map[string]*cell
	variables  map[string]*cell
	nodes      []*node
	named      map[string][]*node // by every spelling that dependsOn and reference may have
	loops      map[string]bool
	results    []Output
	done       bool
	crowded    bool            // it has too many resources
	checked    map[string]bool // expressions that are well formed
}

func (r *run) newFrame(t *Template, c Context, parent *frame) *frame {
	f := &frame{run: r, template: t, context: c, parent: parent, parameters: map[string]*cell{}, variables: map[string]*cell{},
		named: map[string][]*node{}, loops: map[string]bool{}, checked: map[string]bool{}}
	if parent != nil {
		f.depth = parent.depth + 1
	}
	for _, n := range t.notes {
		r.note(tree.Place{File: n.File, Line: n.Line, Column: n.Column}, "%s", n.Text)
	}
	f.declareVariables()
	return f
}

// cell is a value that is computed when it is first asked for.
type cell struct {
	what     string
	place    tree.Place
	evaluate func() (*tree.Value, bool)
	value    *tree.Value
	state    int
}

const (
	fresh = iota
	busy
	good
	bad
)

func (c *cell) done(v *tree.Value) { c.value, c.state = v, good }

func (c *cell) fail() { c.state = bad }

// get computes a cell's value. Circles are told once, with their path.
func (c *cell) get() (*tree.Value, error) { return c.value, c.settled() }

func (c *cell) settled() error {
	if c.state == good {
		return nil
	}
	return errReported
}

// ask is the value of a cell, which is computed if it was not yet. A circle is told once, with its path.
func (r *run) ask(c *cell) (*tree.Value, error) {
	switch c.state {
	case good, bad:
		return c.get()
	case busy:
		var path []string
		for _, x := range r.cells[slices.Index(r.cells, c):] {
			path = append(path, x.what)
			x.state = bad
		}
		r.wrong(c.place, "", "let one of them do without the other", "%s depends on itself: %s", c.what, tree.Clip(strings.Join(append(path, c.what), " → "), 300))
		return nil, errReported
	}
	c.state = busy
	r.cells = append(r.cells, c)
	v, ok := c.evaluate()
	r.cells = r.cells[:len(r.cells)-1]
	if !ok || c.state == bad {
		c.fail()
		return nil, errReported
	}
	c.done(v)
	return v, nil
}

// declareVariables makes cells of the variables; those of copy loops are arrays.
func (f *frame) declareVariables() {
	for _, m := range f.template.root.Get("variables").Members() {
		if strings.EqualFold(m.Name, "copy") && m.Value.Kind == tree.Array {
			for i, l := range m.Value.Items() {
				name := l.Get("name").Text()
				path := fmt.Sprintf("variables.copy[%d]", i)
				if name == "" {
					f.run.wrong(l.At, path, "", "the loop has no name")
					continue
				}
				f.variable(name, l.At, func(s *scope) (*tree.Value, bool) { return s.unroll(l, path) })
			}
			continue
		}
		f.variable(m.Name, m.At, func(s *scope) (*tree.Value, bool) { return s.value(m.Value) })
	}
}

func (f *frame) variable(name string, at tree.Place, evaluate func(*scope) (*tree.Value, bool)) {
	c := &cell{what: "variable " + tree.Clip(name, 60), place: at}
	c.evaluate = func() (*tree.Value, bool) {
		return evaluate(&scope{frame: f, phase: inVariables, path: "variables." + name})
	}
	f.variables[tree.Fold(name)] = c
}

// owner is the frame whose parameters and variables expressions see.
func (f *frame) owner() *frame {
	for f.outer != nil {
		f = f.outer.frame
	}
	return f
}

// phase is the part of a template that is evaluated.
type phase int

const (
	inDefaults phase = iota
	inVariables
	inResources
	inOutputs
)

// scope is where an expression stands.
type scope struct {
	frame *frame
	phase phase
	path  string // for messages
	loops []loop
	node  *node // whose body it is
	args  map[string]*tree.Value
	nulls bool // of an object's members, those that are null are left out
	quiet bool // the expression itself may hold a secret
}

// loop is a copy loop that runs.
type loop struct {
	name     string
	index    int64
	resource bool
}

func (s *scope) with(path string) *scope {
	c := *s
	c.path = path
	return &c
}

// value evaluates all expressions in a value. If that fails it is told, and the answer is false.
func (s *scope) value(v *tree.Value) (*tree.Value, bool) {
	switch v.Kind {
	case tree.String:
		return s.text(v)
	case tree.Array, tree.Object:
		if s.frame.run.fixed(v) && (!s.nulls || !v.HasNull()) {
			return v, true
		}
		if v.Kind == tree.Object {
			return s.object(v)
		}
		ok := true
		items := make([]*tree.Value, len(v.Items()))
		for i, item := range v.Items() {
			if s.frame.run.fixed(item) && (!s.nulls || !item.HasNull()) {
				items[i] = item
				continue
			}
			c, fine := s.with(fmt.Sprintf("%s[%d]", s.path, i)).value(item)
			if ok = ok && fine; !fine {
				c = tree.NullValue()
			}
			items[i] = c
		}
		return s.made(v, tree.ArrayValue(items), ok)
	}
	return v, true
}

// made checks the size of a value that was put together.
func (s *scope) made(from, v *tree.Value, ok bool) (*tree.Value, bool) {
	err := s.frame.run.budget.Take(1, 160+int64(v.Len())*64)
	switch {
	case !ok:
		return nil, false
	case err != nil:
		s.frame.run.wrong(from.At, s.path, "", "%s", err)
		return nil, false
	case v.Weight() > expr.MaxWeight || v.Depth() > tree.MaxDepth:
		s.frame.run.wrong(from.At, s.path, "", "the value is larger than %d MiB, or nests deeper than %d levels", expr.MaxWeight>>20, tree.MaxDepth)
		return nil, false
	}
	return v.Placed(from.At), true
}

// fixed reports whether nothing in a value is to be evaluated.
func (r *run) fixed(v *tree.Value) bool {
	switch v.Kind {
	case tree.String:
		return !strings.HasPrefix(v.Text(), "[")
	case tree.Array, tree.Object:
		if known, ok := r.static[v]; ok {
			return known
		}
		fixed := !slices.ContainsFunc(v.Items(), func(c *tree.Value) bool { return !r.fixed(c) }) &&
			!slices.ContainsFunc(v.Members(), func(m tree.Member) bool {
				return strings.HasPrefix(m.Name, "[") || strings.EqualFold(m.Name, "copy") || !r.fixed(m.Value)
			})
		r.static[v] = fixed
		return fixed
	}
	return true
}

func (s *scope) object(v *tree.Value) (*tree.Value, bool) {
	ok := true
	members := make([]tree.Member, 0, v.Len())
	for _, m := range v.Members() {
		path := m.Name
		if s.path != "" {
			path = s.path + "." + m.Name
		}
		inner := s.with(path)
		if strings.EqualFold(m.Name, "copy") && isLoops(m.Value) {
			more, fine := inner.unrollAll(m.Value)
			members, ok = append(members, more...), ok && fine
			continue
		}
		name := m.Name
		if expr.Is(name) {
			n, fine := inner.text(tree.StringValue(name).Placed(m.At))
			if !fine {
				ok = false
				continue
			}
			if n.Kind != tree.String || n.Secret {
				s.frame.run.wrong(m.At, path, "", "the name of a key is a string that is no secret, not %s", n.Show())
				ok = false
				continue
			}
			name = n.Text()
		} else {
			name = expr.Literal(name)
		}
		c, fine := inner.value(m.Value)
		if !fine {
			ok = false
			continue
		}
		if s.nulls && c.Kind == tree.Null {
			continue
		}
		members = append(members, tree.Member{Name: name, At: m.At, Value: c})
	}
	return s.made(v, tree.ObjectValue(members), ok)
}

// isLoops reports whether a value is the list of loops that make members: [{name, count, input}].
func isLoops(v *tree.Value) bool {
	return v.Kind == tree.Array && v.Len() > 0 && !slices.ContainsFunc(v.Items(), func(l *tree.Value) bool {
		return l.Get("count") == nil || l.Get("input") == nil
	})
}

func (s *scope) unrollAll(loops *tree.Value) ([]tree.Member, bool) {
	ok := true
	var members []tree.Member
	for i, l := range loops.Items() {
		name := l.Get("name").Text()
		path := fmt.Sprintf("%s[%d]", s.path, i)
		if name == "" {
			s.frame.run.wrong(l.At, path, "", "the loop has no name")
			ok = false
			continue
		}
		v, fine := s.with(path).unroll(l, path)
		if ok = ok && fine; fine {
			members = append(members, tree.Member{Name: name, At: l.At, Value: v})
		}
	}
	return members, ok
}

// unroll makes the array of a loop {name, count, input}.
func (s *scope) unroll(l *tree.Value, path string) (*tree.Value, bool) {
	count, ok := s.count(l, path)
	if !ok {
		return nil, false
	}
	input := l.Get("input")
	if input == nil {
		s.frame.run.wrong(l.At, path, "", "the loop has no input")
		return nil, false
	}
	items := make([]*tree.Value, 0, count)
	weight := int64(0)
	for i := range count {
		inner := s.with(path + ".input")
		inner.loops = append(slices.Clone(s.loops), loop{name: l.Get("name").Text(), index: i})
		v, fine := inner.value(input)
		if !fine {
			return nil, false // the others would say the same
		}
		if weight += v.Weight(); weight > expr.MaxWeight {
			s.frame.run.wrong(l.At, path, "", "the loop makes more than %d MiB", expr.MaxWeight>>20)
			return nil, false
		}
		items = append(items, v)
	}
	return s.made(l, tree.ArrayValue(items), true)
}

// count is how often a loop runs.
func (s *scope) count(l *tree.Value, path string) (int64, bool) {
	written := l.Get("count")
	if written == nil {
		s.frame.run.wrong(l.At, path+".count", "", "the loop has no count")
		return 0, false
	}
	v, ok := s.with(path + ".count").value(written)
	if !ok {
		return 0, false
	}
	n, isInt := v.AsInt()
	switch {
	case v.Kind == tree.Unknown:
		s.undecided(written, path+".count", v)
		return 0, false
	case !isInt:
		s.frame.run.wrong(written.At, path+".count", "", "a whole number is wanted here, not %s", v.Show())
		return 0, false
	case n < 0 || n > maxLoop:
		s.frame.run.wrong(written.At, path+".count", "", "a loop runs 0 to %d times, not %d", maxLoop, n)
		return 0, false
	}
	return n, true
}

// undecided tells that a template's shape depends on what only a deployment would know.
func (s *scope) undecided(v *tree.Value, path string, unknown *tree.Value) {
	s.frame.run.wrong(v.At, path, "say what it is in a file: --answers FILE", "this must be known before anything is deployed, and %s is not, in %s", unknown.Text(), expressionOf(v))
}

// text evaluates a string.
func (s *scope) text(v *tree.Value) (*tree.Value, bool) {
	if !expr.Is(v.Text()) {
		if lit := expr.Literal(v.Text()); lit != v.Text() {
			return tree.StringValue(lit).Placed(v.At), true
		}
		return v, true
	}
	r := s.frame.run
	if r.full() || r.budget.Spent() && r.more {
		return nil, false
	}
	n, ok := r.parsed[v.Text()]
	if !ok {
		parsed, err := expr.Parse(v.Text())
		if err != nil {
			s.say(v, err)
			return nil, false
		}
		n = parsed
		r.parsed[v.Text()] = n
	}
	out, err := n.Eval(s, r.budget)
	if err != nil {
		s.say(v, err)
		return nil, false
	}
	if v.Secret {
		out = out.Hidden()
	}
	return out.Placed(v.At), true
}

// quoted are the words of an expression in a message.
var quoted = regexp.MustCompile(`(?s)".*"`)

// say tells what is wrong with an expression.
func (s *scope) say(v *tree.Value, err error) {
	r := s.frame.run
	switch {
	case is(err, errReported):
		return
	case r.full():
		r.more = true
		return
	}
	at, hint, msg := v.At, "", err.Error()
	if e, ok := asError(err); ok {
		hint = e.Hint
		if e.Word != "" {
			hint = tree.Clip(spec.Suggest(e.Word, e.Known), 300)
		}
		if e.Offset >= 0 {
			at = v.Within(e.Offset)
		}
	}
	if s.quiet || v.Secret {
		msg, hint = quoted.ReplaceAllString(msg, tree.HiddenText), ""
	} else {
		msg += ", in " + expressionOf(v)
	}
	r.wrong(at, s.path, hint, "%s", msg)
	if r.budget.Spent() {
		r.more = true // and nothing else is evaluated
	}
}

// check looks at all expressions of the template before any is evaluated: those that are never reached too.
func (f *frame) check() {
	s := &scope{frame: f}
	f.checkAll(f.template.root, s, "")
}

func (f *frame) checkAll(v *tree.Value, s *scope, path string) {
	const steps = 8 // for a value, an expression most of all
	if f.run.fixed(v) || f.run.full() || f.run.budget.Take(steps, 0) != nil {
		return
	}
	for i, item := range v.Items() {
		if evaluated(item) && f.checked[item.Text()] || f.run.fixed(item) {
			continue
		}
		f.checkAll(item, s, fmt.Sprintf("%s[%d]", path, i))
	}
	for _, m := range v.Members() {
		inner := m.Name
		if path != "" {
			inner = path + "." + m.Name
		}
		switch {
		case strings.EqualFold(m.Name, "metadata") || strings.EqualFold(m.Name, "comments"): // for people
		case strings.EqualFold(m.Name, "template") && strings.HasSuffix(path, "properties"): // it is checked when it is evaluated
		case path == "" && strings.EqualFold(m.Name, "parameters"):
			for _, p := range m.Value.Members() {
				if d := p.Value.Get("defaultValue"); d != nil {
					secure := strings.HasPrefix(strings.ToLower(p.Value.Get("type").Text()), "secure")
					f.checkAll(d, &scope{frame: f, quiet: secure}, "parameters."+p.Name+".defaultValue")
				}
			}
		case path == "" && strings.EqualFold(m.Name, "functions"):
		default:
			f.checkAll(m.Value, s, inner)
		}
	}
	if evaluated(v) {
		f.checkOne(v, s.with(path))
	}
}

func (f *frame) checkOne(v *tree.Value, s *scope) {
	if f.checked[v.Text()] {
		return
	}
	before := len(f.run.mistakes)
	defer func() {
		if len(f.run.mistakes) == before {
			f.checked[v.Text()] = true
		}
	}()
	n, ok := f.run.parsed[v.Text()]
	if !ok {
		parsed, err := expr.Parse(v.Text())
		if err != nil {
			s.say(v, err)
			return
		}
		n = parsed
		f.run.parsed[v.Text()] = n
	}
	for _, err := range n.Check(s, f.run.budget) {
		s.say(v, err)
	}
	owner := f.owner()
	for kind, cells := range map[string]map[string]*cell{"parameters": owner.parameters, "variables": owner.variables} {
		for _, use := range n.Calls(kind) {
			if _, ok := cells[tree.Fold(use.Text)]; !ok {
				s.say(v, missing(kind, use.Text, use.Offset, owner))
			}
		}
	}
}

// missing is the mistake of asking for a parameter or variable that there is not.
func missing(kind, name string, offset int, owner *frame) *expr.Error {
	singular := strings.TrimSuffix(kind, "s")
	var names []string
	cells, others := owner.parameters, owner.variables
	if kind == "variables" {
		cells, others = others, cells
	}
	for _, c := range cells {
		names = append(names, strings.TrimPrefix(c.what, singular+" "))
	}
	slices.Sort(names)
	hint := "the template has no " + kind
	if len(names) > 0 {
		hint = tree.Clip(spec.Suggest(name, names), 300)
	}
	if c, ok := others[tree.Fold(name)]; ok {
		hint = "there is a " + c.what
	}
	return &expr.Error{Offset: offset, Msg: fmt.Sprintf("the template has no %s %q", singular, tree.Clip(name, 60)), Hint: hint}
}
