package expr

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// The bounds of values.
const (
	MaxWeight = 4 << 20 // of a value, written out
	maxDepth  = tree.MaxDepth
	perValue  = 160 // bytes that a value takes in memory, beside its text
)

// Budget is what an evaluation may still take, of all expressions together, and the functions it knows.
type Budget struct {
	Steps int64
	Bytes int64
	vars  []binding            // of the lambdas around
	table map[string]*Function // the functions that need no deployment, by their names in small letters
}

type binding struct {
	name  string
	value *tree.Value
}

// NewBudget is enough for every template that a person wrote.
func NewBudget() *Budget { return &Budget{Steps: 4 << 20, Bytes: 128 << 20, table: builtins()} }

// errSpent is what the budget's end says.
var errSpent = errors.New("evaluating the template takes too long: it was stopped")

// errLarge is what a value that is too large says.
var errLarge = fmt.Errorf("the value would be larger than %d MiB", MaxWeight>>20)

// take takes steps and bytes from the budget.
func (b *Budget) take(steps, bytes int64) error {
	b.Steps -= steps
	b.Bytes -= bytes
	switch {
	case b.Steps < 0:
		return errSpent
	case b.Bytes < 0:
		return errors.New("evaluating the template takes too much memory: it was stopped")
	}
	return nil
}

// Take takes steps and bytes for what the caller does.
func (b *Budget) Take(steps, bytes int64) error { return b.take(steps, bytes) }

// Spent reports whether nothing more can be evaluated.
func (b *Budget) Spent() bool { return b.Steps < 0 || b.Bytes < 0 }

// Scope has the functions that look at a deployment.
type Scope interface {
	// Function finds one by its name in small letters; nil: there is none.
	Function(name string) *Function
	// Names are theirs, for suggestions.
	Names() []string
}

// Function is one that expressions can call.
type Function struct {
	Name     string // as it is documented
	Min, Max int    // how many arguments; Max < 0: any number
	Call     func(c *Call) (*tree.Value, error)

	// Own reports that the function says itself what of its result is secret or unknown.
	Own bool

	lazy bool // its arguments are evaluated by Call
	bare bool // its result says too little of its arguments to be secret
}

// Call is a call of a function.
type Call struct {
	Args   []*tree.Value
	Budget *Budget
	scope  Scope
	node   *Node
}

// Scope is that of the evaluation.
func (c *Call) Scope() Scope { return c.scope }

// Name is the function's, as the expression writes it.
func (c *Call) Name() string { return c.node.name }

// Count is how many arguments the call has.
func (c *Call) Count() int { return len(c.node.args) }

// Wrong is a mistake about an argument; i < 0: about the call.
func (c *Call) Wrong(i int, hint, format string, args ...any) error {
	at := c.node.at
	if i >= 0 && i < len(c.node.args) {
		at = c.node.args[i].at
	}
	return failure(at, hint, format, args...)
}

func failure(at int, hint, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Offset: at, Msg: err.Error(), Hint: hint, Err: errors.Unwrap(err)}
}

// Eval evaluates an expression. The error is an *Error, or wraps what a function of the scope said.
func (n *Node) Eval(s Scope, b *Budget) (*tree.Value, error) {
	if err := b.take(1, 0); err != nil {
		return nil, n.because(err)
	}
	switch n.kind {
	case literalNode:
		return n.value, nil
	case memberNode:
		of, err := n.args[0].Eval(s, b)
		if err != nil {
			return nil, err
		}
		return n.member(of, n.name)
	case indexNode:
		of, err := n.args[0].Eval(s, b)
		if err != nil {
			return nil, err
		}
		index, err := n.args[1].Eval(s, b)
		if err != nil {
			return nil, err
		}
		return n.item(of, index)
	}
	return n.call(s, b)
}

// because gives an error the place of the expression's part, if it has none.
func (n *Node) because(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Offset: n.at, Msg: err.Error(), Err: err}
}

func (n *Node) call(s Scope, b *Budget) (*tree.Value, error) {
	f := find(n.name, s, b)
	if f == nil {
		return nil, failure(n.at, "", "there is no function %q", tree.Clip(n.name, 60)).among(n.name, Known(s, b))
	}
	if err := n.countArgs(f); err != nil {
		return nil, err
	}
	c := &Call{Budget: b, scope: s, node: n}
	if f.lazy {
		v, err := f.Call(c)
		if err != nil {
			return nil, n.because(err)
		}
		return v, nil
	}
	c.Args = make([]*tree.Value, len(n.args))
	for i, a := range n.args {
		v, err := a.Eval(s, b)
		if err != nil {
			return nil, err
		}
		c.Args[i] = v
	}
	if f.Own {
		v, err := f.Call(c)
		if err != nil {
			return nil, n.because(err)
		}
		return v, nil
	}
	return c.pure(f)
}

// shaping are functions that put values together without looking into them: what is unknown or secret in them
// stays where it is.
var shaping = strings.Fields("array createarray createobject union shallowmerge concat take skip first last flatten items objectkeys tryget length empty")

// holding are those of them whose arguments become parts of the result.
var holding = strings.Fields("array createarray createobject")

// pure calls a function whose result depends on its arguments alone.
func (c *Call) pure(f *Function) (*tree.Value, error) {
	name := strings.ToLower(f.Name)
	shapes, holds := slices.Contains(shaping, name), slices.Contains(holding, name)
	secret, steps := false, int64(0)
	for _, a := range c.Args {
		secret = secret || a.Hides()
		steps += int64(len(a.Text())/32 + a.Len())
		if a.Kind == tree.Unknown && !holds || !shapes && a.Uncertain() {
			return c.unknown(f, a), nil
		}
	}
	if err := c.Budget.take(steps, 0); err != nil {
		return nil, c.node.because(err)
	}
	v, err := f.Call(c)
	if err != nil {
		return nil, c.node.because(err)
	}
	switch {
	case v.Weight() > MaxWeight:
		return nil, c.node.because(errLarge)
	case v.Depth() > maxDepth:
		return nil, failure(c.node.at, "", "the value nests deeper than %d levels", maxDepth)
	}
	if err := c.Budget.take(0, perValue+int64(len(v.Text()))+int64(v.Len())*64); err != nil {
		return nil, c.node.because(err)
	}
	if secret && !f.bare && (!shapes || v.Kind == tree.String) {
		v = v.Hidden()
	}
	return v, nil
}

// unknown is the result of a call with an unknown argument. Of a text that is put together, the rest is kept.
func (c *Call) unknown(f *Function, which *tree.Value) *tree.Value {
	v := tree.UnknownValue(which.Text())
	if which.Kind != tree.Unknown {
		v = tree.UnknownValue("part of " + which.Kind.String())
	}
	if f.Name == "concat" || f.Name == "format" {
		known := *c
		known.Args = slices.Clone(c.Args)
		for i, a := range c.Args {
			switch {
			case a.Kind == tree.Unknown:
				known.Args[i] = tree.StringValue(a.Sketch())
			case a.Hides():
				known.Args[i] = tree.StringValue(tree.HiddenText)
			}
		}
		if text, err := f.Call(&known); err == nil && text.Kind == tree.String && text.Weight() < 1<<16 {
			v = tree.PartialValue(text.Text())
		}
	}
	if slices.ContainsFunc(c.Args, (*tree.Value).Hides) {
		v = v.Hidden()
	}
	return v
}

func (n *Node) countArgs(f *Function) *Error {
	have := len(n.args)
	if have >= f.Min && (f.Max < 0 || have <= f.Max) {
		return nil
	}
	want := fmt.Sprint(f.Min)
	switch {
	case f.Max < 0:
		want = "at least " + want
	case f.Max > f.Min:
		want += fmt.Sprint(" to ", f.Max)
	}
	noun := "arguments"
	if want == "1" || want == "at least 1" {
		noun = "argument"
	}
	return failure(n.at, "", "%s takes %s %s, not %d", f.Name, want, noun, have)
}

// Check finds calls in an expression that cannot succeed: of functions that there are not, or with another
// number of arguments.
func (n *Node) Check(s Scope, b *Budget) []*Error {
	var all []*Error
	n.Walk(func(c *Node) {
		if c.kind != callNode {
			return
		}
		f := find(c.name, s, b)
		if f == nil {
			all = append(all, failure(c.at, "", "there is no function %q", tree.Clip(c.name, 60)).among(c.name, Known(s, b)))
			return
		}
		if err := c.countArgs(f); err != nil {
			all = append(all, err)
		}
	})
	return all
}

func (n *Node) member(of *tree.Value, name string) (*tree.Value, error) {
	switch {
	case of.Kind == tree.Unknown:
		return n.unknown(of, "."+name), nil
	case n.safe && of.Kind == tree.Null:
		return of, nil
	case of.Kind != tree.Object:
		return nil, failure(n.at, "", "%s has no %q: it is not an object", of.Kind, tree.Clip(name, 60))
	}
	m := of.Member(name)
	if m != nil {
		if of.Open {
			return m.Value.Opened(tree.Clip(of.Source()+"."+m.Name, 200)), nil
		}
		return m.Value, nil
	}
	switch {
	case of.Open:
		return n.unknown(tree.UnknownValue(of.Source()), "."+name), nil
	case n.safe:
		return tree.NullValue(), nil
	}
	var names []string
	for _, m := range of.Members()[:min(of.Len(), 100)] {
		names = append(names, m.Name)
	}
	err := failure(n.at, "it is empty", "the object has no %q", tree.Clip(name, 60))
	if len(names) > 0 {
		err.Hint = ""
		err = err.among(name, names)
	}
	return nil, err
}

// unknown is what is found in something unknown.
func (n *Node) unknown(of *tree.Value, more string) *tree.Value {
	v := tree.UnknownValue(tree.Clip(of.Text()+more, 200))
	if of.Secret {
		return v.Hidden()
	}
	return v
}

func (n *Node) item(of, index *tree.Value) (*tree.Value, error) {
	switch {
	case of.Kind == tree.Unknown:
		return n.unknown(of, "["+index.Show()+"]"), nil
	case index.Kind == tree.Unknown:
		return n.unknown(index, ""), nil
	case of.Kind == tree.Object && index.Hides():
		return nil, failure(n.at, "", "an object cannot be asked by a secret")
	case of.Kind == tree.Object && index.Kind == tree.String:
		return n.member(of, index.Text())
	case n.safe && of.Kind == tree.Null:
		return of, nil
	case of.Kind == tree.Object:
		return nil, failure(n.at, "write a name in single quotes", "an object is asked by name, not by %s", index.Kind)
	case of.Kind != tree.Array:
		return nil, failure(n.at, "", "%s has no items", of.Kind)
	}
	i, ok := index.AsInt()
	switch {
	case !ok:
		return nil, failure(n.at, "", "an item of an array is asked for by a whole number, not by %s", index.Kind)
	case i >= 0 && i < int64(of.Len()):
		if of.Open {
			return of.Items()[i].Opened(tree.Clip(fmt.Sprintf("%s[%d]", of.Source(), i), 200)), nil
		}
		return of.Items()[i], nil
	case of.Open:
		return tree.UnknownValue(tree.Clip(fmt.Sprintf("%s[%d]", of.Source(), i), 200)), nil
	case n.safe:
		return tree.NullValue(), nil
	}
	return nil, failure(n.at, "the first item is [0]", "the array has %d items, so there is no [%d]", of.Len(), i)
}

// find finds a function.
func find(name string, s Scope, b *Budget) *Function {
	lower := strings.ToLower(name)
	if f, ok := b.table[lower]; ok {
		return f
	}
	return s.Function(lower)
}

// Known are the names of all functions.
func Known(s Scope, b *Budget) []string {
	names := slices.Clone(s.Names())
	for _, f := range b.table {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	return names
}
