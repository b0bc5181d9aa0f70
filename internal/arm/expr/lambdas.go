package expr

import (
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// lambdas are the functions that evaluate an expression for each item of an array.
func lambdas() []*Function {
	return []*Function{
		{Name: "lambda", Min: 1, Max: -1, lazy: true, Call: func(c *Call) (*tree.Value, error) {
			return nil, c.Wrong(-1, "", "a lambda is an argument of map, filter, sort, reduce, toObject, groupBy or mapValues, and nothing else")
		}},
		{Name: "lambdaVariables", Min: 1, Max: 1, Own: true, Call: func(c *Call) (*tree.Value, error) {
			name, err := c.plain(0)
			if err != nil {
				return nil, err
			}
			for _, v := range slices.Backward(c.Budget.vars) {
				if strings.EqualFold(v.name, name) {
					return v.value, nil
				}
			}
			return nil, c.Wrong(0, "", "no lambda around has a variable %s", c.Args[0].Show())
		}},
		{Name: "map", Min: 2, Max: 2, lazy: true, Call: mapItems},
		{Name: "filter", Min: 2, Max: 2, lazy: true, Call: filter},
		{Name: "sort", Min: 2, Max: 2, lazy: true, Call: sorted},
		{Name: "reduce", Min: 3, Max: 3, lazy: true, Call: reduce},
		{Name: "toObject", Min: 2, Max: 3, lazy: true, Call: toObject},
		{Name: "groupBy", Min: 2, Max: 2, lazy: true, Call: groupBy},
		{Name: "mapValues", Min: 2, Max: 2, lazy: true, Call: mapValues},
	}
}

// over evaluates the first argument, which must be an array.
func (c *Call) over() (*tree.Value, bool, error) {
	v, err := c.arg(0)
	switch {
	case err != nil:
		return nil, false, err
	case v.Kind == tree.Unknown:
		return v, false, nil
	case v.Kind != tree.Array:
		return nil, false, c.Wrong(0, "", "an array is wanted here, not %s", v.Kind)
	}
	return v, true, c.Budget.take(int64(v.Len()), int64(v.Len())*64)
}

// apply evaluates the lambda that is an argument.
func (c *Call) apply(i int, values ...*tree.Value) (*tree.Value, error) {
	n := c.node.args[i]
	if n.kind != callNode || !strings.EqualFold(n.name, "lambda") || len(n.args) == 0 || len(n.args)-1 > len(values) {
		return nil, c.Wrong(i, "write lambda('x', add(lambdaVariables('x'), 1))", "a lambda of at most %d variables is wanted here", len(values))
	}
	names := n.args[:len(n.args)-1]
	for k, name := range names {
		if name.kind != literalNode || name.value.Kind != tree.String {
			return nil, c.Wrong(i, "write its name in single quotes", "a lambda's variable has no name")
		}
		c.Budget.vars = append(c.Budget.vars, binding{name.value.Text(), values[k]})
	}
	v, err := n.args[len(n.args)-1].Eval(c.scope, c.Budget)
	c.Budget.vars = c.Budget.vars[:len(c.Budget.vars)-len(names)]
	return v, err
}

// applyTruth is apply for a lambda that answers true or false.
func (c *Call) applyTruth(i int, values ...*tree.Value) (bool, error) {
	v, err := c.apply(i, values...)
	if err != nil {
		return false, err
	}
	return c.truth(i, v)
}

// applyText is apply for a lambda that gives a name.
func (c *Call) applyText(i int, values ...*tree.Value) (string, error) {
	v, err := c.apply(i, values...)
	if err != nil {
		return "", err
	}
	switch {
	case v.Kind != tree.String && v.Kind != tree.Int:
		return "", c.Wrong(i, "", "the lambda gives a name, not %s", v.Kind)
	case v.Hides():
		return "", c.Wrong(i, "", "the name of a key cannot be a secret")
	}
	return v.Text(), nil
}

func mapItems(c *Call) (*tree.Value, error) {
	in, ok, err := c.over()
	if !ok || err != nil {
		return in, err
	}
	out := make([]*tree.Value, in.Len())
	for i, v := range in.Items() {
		if out[i], err = c.apply(1, v, tree.IntValue(int64(i))); err != nil {
			return nil, err
		}
	}
	return c.sized(tree.ArrayValue(out))
}

// sized refuses what is too large.
func (c *Call) sized(v *tree.Value) (*tree.Value, error) {
	if v.Weight() > MaxWeight || v.Depth() > maxDepth {
		return nil, errLarge
	}
	return v, nil
}

func filter(c *Call) (*tree.Value, error) {
	in, ok, err := c.over()
	if !ok || err != nil {
		return in, err
	}
	var out []*tree.Value
	for i, v := range in.Items() {
		keep, err := c.applyTruth(1, v, tree.IntValue(int64(i)))
		if err != nil {
			return nil, err
		}
		if keep {
			out = append(out, v)
		}
	}
	return tree.ArrayValue(out), nil
}

func sorted(c *Call) (*tree.Value, error) {
	in, ok, err := c.over()
	if !ok || err != nil {
		return in, err
	}
	out := slices.Clone(in.Items())
	slices.SortStableFunc(out, func(a, b *tree.Value) int {
		if err != nil {
			return 0
		}
		var less bool
		if less, err = c.applyTruth(1, a, b); less {
			return -1
		}
		if less, err = c.applyTruth(1, b, a); less {
			return 1
		}
		return 0
	})
	return tree.ArrayValue(out), err
}

func reduce(c *Call) (*tree.Value, error) {
	in, ok, err := c.over()
	if !ok || err != nil {
		return in, err
	}
	sum, err := c.arg(1)
	if err != nil {
		return nil, err
	}
	for i, v := range in.Items() {
		if sum, err = c.apply(2, sum, v, tree.IntValue(int64(i))); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

func toObject(c *Call) (*tree.Value, error) {
	in, ok, err := c.over()
	if !ok || err != nil {
		return in, err
	}
	var out builder
	for _, v := range in.Items() {
		name, err := c.applyText(1, v)
		if err != nil {
			return nil, err
		}
		value := v
		if c.Count() > 2 {
			if value, err = c.apply(2, v); err != nil {
				return nil, err
			}
		}
		out.set(name, v.At, value)
	}
	return c.sized(out.value())
}

func groupBy(c *Call) (*tree.Value, error) {
	in, ok, err := c.over()
	if !ok || err != nil {
		return in, err
	}
	var names []string
	groups := map[string][]*tree.Value{}
	for _, v := range in.Items() {
		name, err := c.applyText(1, v)
		if err != nil {
			return nil, err
		}
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], v)
	}
	var out builder
	for _, name := range names {
		out.set(name, in.At, tree.ArrayValue(groups[name]))
	}
	return out.value(), nil
}

func mapValues(c *Call) (*tree.Value, error) {
	in, err := c.arg(0)
	if err != nil || in.Kind == tree.Unknown {
		return in, err
	}
	if in.Kind != tree.Object {
		return nil, c.Wrong(0, "", "an object is wanted here, not %s", in.Kind)
	}
	var out builder
	for _, m := range in.Members() {
		if err := c.Budget.take(1, perValue); err != nil {
			return nil, err
		}
		v, err := c.apply(1, m.Value)
		if err != nil {
			return nil, err
		}
		out.set(m.Name, m.At, v)
	}
	return c.sized(out.value())
}
