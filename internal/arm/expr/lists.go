package expr

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// maxRange is how many numbers range gives, as in the old services.
const maxRange = 10_000

// lists are the functions on arrays and objects.
func lists() []*Function {
	return []*Function{
		{Name: "array", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			if c.Args[0].Kind == tree.Array {
				return c.Args[0], nil
			}
			return tree.ArrayValue([]*tree.Value{c.Args[0]}), nil
		}},
		{Name: "createArray", Max: -1, Call: func(c *Call) (*tree.Value, error) { return tree.ArrayValue(slices.Clone(c.Args)), nil }},
		{Name: "createObject", Max: -1, Call: createObject},
		{Name: "length", Min: 1, Max: 1, bare: true, Call: length},
		{Name: "empty", Min: 1, Max: 1, bare: true, Call: func(c *Call) (*tree.Value, error) {
			if c.Args[0].Kind == tree.Null {
				return tree.BoolValue(true), nil
			}
			n, err := length(c)
			if err != nil {
				return nil, err
			}
			return tree.BoolValue(n.Int() == 0), nil
		}},
		{Name: "contains", Min: 2, Max: 2, bare: true, Call: contains},
		{Name: "first", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) { return end(c, true) }},
		{Name: "last", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) { return end(c, false) }},
		{Name: "take", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return part(c, true) }},
		{Name: "skip", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return part(c, false) }},
		{Name: "range", Min: 2, Max: 2, Call: numbers},
		{Name: "union", Min: 2, Max: -1, Call: union},
		{Name: "intersection", Min: 2, Max: -1, Call: intersection},
		{Name: "shallowMerge", Min: 1, Max: 1, Call: shallowMerge},
		{Name: "flatten", Min: 1, Max: 1, Call: flatten},
		{Name: "items", Min: 1, Max: 1, Call: items},
		{Name: "objectKeys", Min: 1, Max: 1, Call: objectKeys},
		{Name: "tryGet", Min: 2, Max: -1, Call: tryGet},
		{Name: "null", Call: func(*Call) (*tree.Value, error) { return tree.NullValue(), nil }},
	}
}

func createObject(c *Call) (*tree.Value, error) {
	if len(c.Args)%2 != 0 {
		return nil, c.Wrong(-1, "give a name and a value in turn", "createObject takes names and values, an even number of arguments")
	}
	var b builder
	for i := 0; i < len(c.Args); i += 2 {
		name, err := c.text(i)
		if err != nil {
			return nil, err
		}
		if c.Args[i].Hides() {
			return nil, c.Wrong(i, "", "the name of a key cannot be a secret")
		}
		b.set(name, c.Args[i].At, c.Args[i+1])
	}
	return b.value(), nil
}

// builder makes an object in which a name is there once.
type builder struct {
	members []tree.Member
	at      map[string]int
}

func (b *builder) set(name string, at tree.Place, v *tree.Value) {
	if b.at == nil {
		b.at = map[string]int{}
	}
	if i, ok := b.at[tree.Fold(name)]; ok {
		b.members[i].Value = v
		return
	}
	b.at[tree.Fold(name)] = len(b.members)
	b.members = append(b.members, tree.Member{Name: name, At: at, Value: v})
}

func (b *builder) value() *tree.Value { return tree.ObjectValue(b.members) }

func length(c *Call) (*tree.Value, error) {
	switch v := c.Args[0]; v.Kind {
	case tree.String:
		return tree.IntValue(int64(len([]rune(v.Text())))), nil
	case tree.Array, tree.Object:
		return tree.IntValue(int64(v.Len())), nil
	default:
		return nil, c.Wrong(0, "", "a string, an array or an object is wanted here, not %s", v.Kind)
	}
}

func contains(c *Call) (*tree.Value, error) {
	in, what := c.Args[0], c.Args[1]
	switch in.Kind {
	case tree.String:
		s, err := c.plain(1)
		if err != nil {
			return nil, err
		}
		return tree.BoolValue(strings.Contains(in.Text(), s)), nil
	case tree.Array:
		return tree.BoolValue(slices.ContainsFunc(in.Items(), func(v *tree.Value) bool { return tree.Equal(v, what, &c.Budget.Steps) })), nil
	case tree.Object:
		s, err := c.plain(1)
		if err != nil {
			return nil, err
		}
		return tree.BoolValue(in.Member(s) != nil), nil
	}
	return nil, c.Wrong(0, "", "a string, an array or an object is wanted here, not %s", in.Kind)
}

func end(c *Call, front bool) (*tree.Value, error) {
	switch v := c.Args[0]; v.Kind {
	case tree.Array:
		if v.Len() == 0 {
			return tree.NullValue(), nil
		}
		if front {
			return v.Items()[0], nil
		}
		return v.Items()[v.Len()-1], nil
	case tree.String:
		r := []rune(v.Text())
		switch {
		case len(r) == 0:
			return tree.StringValue(""), nil
		case front:
			return tree.StringValue(string(r[0])), nil
		}
		return tree.StringValue(string(r[len(r)-1])), nil
	default:
		return nil, c.Wrong(0, "", "a string or an array is wanted here, not %s", v.Kind)
	}
}

// part takes a number of items or letters from the front, or skips them.
func part(c *Call, front bool) (*tree.Value, error) {
	n, err := c.int(1)
	if err != nil {
		return nil, err
	}
	switch v := c.Args[0]; v.Kind {
	case tree.Array:
		i := int(min(max(n, 0), int64(v.Len())))
		if front {
			return tree.ArrayValue(v.Items()[:i:i]), nil
		}
		return tree.ArrayValue(v.Items()[i:]), nil
	case tree.String:
		r := []rune(v.Text())
		i := int(min(max(n, 0), int64(len(r))))
		if front {
			return tree.StringValue(string(r[:i])), nil
		}
		return tree.StringValue(string(r[i:])), nil
	default:
		return nil, c.Wrong(0, "", "a string or an array is wanted here, not %s", v.Kind)
	}
}

func numbers(c *Call) (*tree.Value, error) {
	from, err := c.int(0)
	if err != nil {
		return nil, err
	}
	count, err := c.int(1)
	if err != nil {
		return nil, err
	}
	if count < 0 || count > maxRange || from > 1<<40 || from < -1<<40 {
		return nil, c.Wrong(1, "", "a range has 0 to %d numbers, not %d", maxRange, count)
	}
	if err := c.Budget.take(count, count*perValue); err != nil {
		return nil, err
	}
	all := make([]*tree.Value, count)
	for i := range all {
		all[i] = tree.IntValue(from + int64(i))
	}
	return tree.ArrayValue(all), nil
}

// same checks that all arguments are arrays, or all objects.
func (c *Call) same() error {
	kind := c.Args[0].Kind
	for i, a := range c.Args {
		if a.Kind != kind || kind != tree.Array && kind != tree.Object {
			return c.Wrong(i, "", "all arrays or all objects are wanted here, not %s", a.Kind)
		}
	}
	return nil
}

func union(c *Call) (*tree.Value, error) {
	if err := c.same(); err != nil {
		return nil, err
	}
	if c.Args[0].Kind == tree.Object {
		v := c.Args[0]
		for _, other := range c.Args[1:] {
			v = merge(v, other, c.Budget)
		}
		return v, c.Budget.take(0, 0)
	}
	var all []*tree.Value
	seen := distinct{budget: c.Budget}
	for _, a := range c.Args {
		for _, item := range a.Items() {
			if seen.add(item) {
				all = append(all, item)
			}
		}
	}
	return tree.ArrayValue(all), c.Budget.take(0, 0)
}

// distinct finds values that were there already.
type distinct struct {
	budget *Budget
	texts  map[string]bool
	others []*tree.Value
}

func (d *distinct) add(v *tree.Value) bool {
	if d.texts == nil {
		d.texts = map[string]bool{}
	}
	if v.Kind == tree.String || v.Kind == tree.Int {
		key := v.Kind.String() + v.Text()
		old := d.texts[key]
		d.texts[key] = true
		return !old
	}
	if d.budget.Spent() || slices.ContainsFunc(d.others, func(o *tree.Value) bool { return tree.Equal(o, v, &d.budget.Steps) }) {
		return false
	}
	d.others = append(d.others, v)
	return true
}

// merge lays one object over another; objects in both are merged in turn.
func merge(a, b *tree.Value, budget *Budget) *tree.Value {
	if budget.take(int64(1+a.Len()+b.Len()), int64(a.Len()+b.Len())*64) != nil {
		return a
	}
	var out builder
	for _, m := range a.Members() {
		out.set(m.Name, m.At, m.Value)
	}
	for _, m := range b.Members() {
		v := m.Value
		if old := a.Get(m.Name); old != nil && old.Kind == tree.Object && v.Kind == tree.Object {
			v = merge(old, v, budget)
		}
		out.set(m.Name, m.At, v)
	}
	return out.value()
}

func intersection(c *Call) (*tree.Value, error) {
	if err := c.same(); err != nil {
		return nil, err
	}
	v := c.Args[0]
	for _, other := range c.Args[1:] {
		if v.Kind == tree.Object {
			v = common(v, other, c.Budget)
			continue
		}
		var both []*tree.Value
		for _, item := range v.Items() {
			if err := c.Budget.take(1, 0); err != nil {
				return nil, err
			}
			if slices.ContainsFunc(other.Items(), func(o *tree.Value) bool { return tree.Equal(o, item, &c.Budget.Steps) }) {
				both = append(both, item)
			}
		}
		v = tree.ArrayValue(both)
	}
	return v, c.Budget.take(0, 0)
}

// common is what two objects have both.
func common(a, b *tree.Value, budget *Budget) *tree.Value {
	var out builder
	for _, m := range a.Members() {
		other := b.Get(m.Name)
		switch {
		case other == nil || budget.take(1, 0) != nil:
		case m.Value.Kind == tree.Object && other.Kind == tree.Object:
			out.set(m.Name, m.At, common(m.Value, other, budget))
		case tree.Equal(m.Value, other, &budget.Steps):
			out.set(m.Name, m.At, m.Value)
		}
	}
	return out.value()
}

func shallowMerge(c *Call) (*tree.Value, error) {
	all, err := c.array(0)
	if err != nil {
		return nil, err
	}
	var out builder
	for _, o := range all {
		if o.Kind != tree.Object {
			return nil, c.Wrong(0, "", "an array of objects is wanted here, not of %s", o.Kind)
		}
		if err := c.Budget.take(int64(o.Len()), int64(o.Len())*64); err != nil {
			return nil, err
		}
		for _, m := range o.Members() {
			out.set(m.Name, m.At, m.Value)
		}
	}
	return out.value(), nil
}

func flatten(c *Call) (*tree.Value, error) {
	all, err := c.array(0)
	if err != nil {
		return nil, err
	}
	var out []*tree.Value
	for _, a := range all {
		if a.Kind != tree.Array {
			return nil, c.Wrong(0, "", "an array of arrays is wanted here, not of %s", a.Kind)
		}
		if err := c.Budget.take(int64(a.Len()), int64(a.Len())*8); err != nil {
			return nil, err
		}
		out = append(out, a.Items()...)
	}
	return tree.ArrayValue(out), nil
}

func byName(a, b tree.Member) int { return cmp.Compare(tree.Fold(a.Name), tree.Fold(b.Name)) }

func items(c *Call) (*tree.Value, error) {
	if c.Args[0].Kind != tree.Object {
		return nil, c.Wrong(0, "", "an object is wanted here, not %s", c.Args[0].Kind)
	}
	if err := c.Budget.take(0, int64(c.Args[0].Len())*3*perValue); err != nil {
		return nil, err
	}
	var all []*tree.Value
	for _, m := range slices.SortedFunc(slices.Values(c.Args[0].Members()), byName) {
		all = append(all, tree.ObjectValue([]tree.Member{{Name: "key", Value: tree.StringValue(m.Name)}, {Name: "value", Value: m.Value}}))
	}
	return tree.ArrayValue(all), nil
}

func objectKeys(c *Call) (*tree.Value, error) {
	if c.Args[0].Kind != tree.Object {
		return nil, c.Wrong(0, "", "an object is wanted here, not %s", c.Args[0].Kind)
	}
	if err := c.Budget.take(0, int64(c.Args[0].Len())*perValue); err != nil {
		return nil, err
	}
	var all []*tree.Value
	for _, m := range slices.SortedFunc(slices.Values(c.Args[0].Members()), byName) {
		all = append(all, tree.StringValue(m.Name))
	}
	return tree.ArrayValue(all), nil
}

func tryGet(c *Call) (*tree.Value, error) {
	v := c.Args[0]
	for _, step := range c.Args[1:] {
		n := &Node{kind: indexNode, at: c.node.at, safe: true}
		next, err := n.item(v, step)
		if err != nil {
			return tree.NullValue(), nil //nolint:nilerr // nothing is the answer where there is no such thing
		}
		v = next
	}
	return v, nil
}
