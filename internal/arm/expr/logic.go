package expr

import (
	"cmp"
	"math"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// logic are the functions of truth values, comparisons and numbers.
func logic() []*Function {
	compare := func(name string, holds func(int) bool) *Function {
		return &Function{Name: name, Min: 2, Max: 2, bare: true, Call: func(c *Call) (*tree.Value, error) {
			n, err := order(c)
			if err != nil {
				return nil, err
			}
			return tree.BoolValue(holds(n)), nil
		}}
	}
	return []*Function{
		{Name: "if", Min: 3, Max: 3, lazy: true, Call: choose},
		{Name: "and", Min: 2, Max: -1, lazy: true, Call: func(c *Call) (*tree.Value, error) { return c.until(false) }},
		{Name: "or", Min: 2, Max: -1, lazy: true, Call: func(c *Call) (*tree.Value, error) { return c.until(true) }},
		{Name: "coalesce", Min: 1, Max: -1, lazy: true, Call: coalesce},
		{Name: "not", Min: 1, Max: 1, bare: true, Call: func(c *Call) (*tree.Value, error) {
			b, err := c.truth(0, c.Args[0])
			return tree.BoolValue(!b), err
		}},
		{Name: "xor", Min: 2, Max: 2, bare: true, Call: func(c *Call) (*tree.Value, error) {
			a, err := c.truth(0, c.Args[0])
			if err != nil {
				return nil, err
			}
			b, err := c.truth(1, c.Args[1])
			return tree.BoolValue(a != b), err
		}},
		{Name: "fail", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			return nil, c.Wrong(-1, "", "the template says: %s", c.Args[0].Show())
		}},
		{Name: "true", Call: func(*Call) (*tree.Value, error) { return tree.BoolValue(true), nil }},
		{Name: "false", Call: func(*Call) (*tree.Value, error) { return tree.BoolValue(false), nil }},
		{Name: "bool", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			if n, ok := c.Args[0].AsInt(); ok {
				return tree.BoolValue(n != 0), nil
			}
			b, err := c.truth(0, c.Args[0])
			return tree.BoolValue(b), err
		}},
		{Name: "equals", Min: 2, Max: 2, bare: true, Call: func(c *Call) (*tree.Value, error) {
			return tree.BoolValue(tree.Equal(c.Args[0], c.Args[1], &c.Budget.Steps)), nil
		}},
		compare("less", func(n int) bool { return n < 0 }),
		compare("lessOrEquals", func(n int) bool { return n <= 0 }),
		compare("greater", func(n int) bool { return n > 0 }),
		compare("greaterOrEquals", func(n int) bool { return n >= 0 }),
		{Name: "add", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return calculate(c, '+') }},
		{Name: "sub", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return calculate(c, '-') }},
		{Name: "mul", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return calculate(c, '*') }},
		{Name: "div", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return calculate(c, '/') }},
		{Name: "mod", Min: 2, Max: 2, Call: func(c *Call) (*tree.Value, error) { return calculate(c, '%') }},
		{Name: "min", Min: 1, Max: -1, Call: func(c *Call) (*tree.Value, error) { return extreme(c, -1) }},
		{Name: "max", Min: 1, Max: -1, Call: func(c *Call) (*tree.Value, error) { return extreme(c, 1) }},
		{Name: "int", Min: 1, Max: 1, Call: toInt},
		{Name: "float", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			f, ok := c.Args[0].AsFloat()
			if !ok {
				return nil, c.Wrong(0, "", "%s cannot be read as a number", c.Args[0].Show())
			}
			return tree.FloatValue(f), nil
		}},
	}
}

// arg evaluates an argument of a lazy function.
func (c *Call) arg(i int) (*tree.Value, error) { return c.node.args[i].Eval(c.scope, c.Budget) }

func (c *Call) truth(i int, v *tree.Value) (bool, error) {
	b, ok := v.AsBool()
	if !ok {
		if v.Kind == tree.String {
			return false, c.Wrong(i, "", "%s is neither true nor false", v.Show())
		}
		return false, c.Wrong(i, "", "a truth value is wanted here, not %s", v.Kind)
	}
	return b, nil
}

// choose evaluates the branch that counts, and no other.
func choose(c *Call) (*tree.Value, error) {
	v, err := c.arg(0)
	if err != nil || v.Kind == tree.Unknown {
		return v, err
	}
	yes, err := c.truth(0, v)
	if err != nil {
		return nil, err
	}
	if yes {
		return c.arg(1)
	}
	return c.arg(2)
}

// until evaluates truth values until one of them decides.
func (c *Call) until(decides bool) (*tree.Value, error) {
	var unknown *tree.Value
	for i := range c.Count() {
		v, err := c.arg(i)
		if err != nil {
			return nil, err
		}
		if v.Kind == tree.Unknown {
			unknown = v
			continue
		}
		b, err := c.truth(i, v)
		if err != nil || b == decides {
			return tree.BoolValue(b), err
		}
	}
	if unknown != nil {
		return unknown, nil
	}
	return tree.BoolValue(!decides), nil
}

func coalesce(c *Call) (*tree.Value, error) {
	for i := range c.Count() {
		if v, err := c.arg(i); err != nil || v.Kind != tree.Null {
			return v, err
		}
	}
	return tree.NullValue(), nil
}

func order(c *Call) (int, error) {
	a, b := c.Args[0], c.Args[1]
	if a.Kind == tree.String && b.Kind == tree.String {
		return strings.Compare(a.Text(), b.Text()), nil
	}
	for i, v := range c.Args {
		if v.Kind != tree.Int && v.Kind != tree.Float {
			return 0, c.Wrong(i, "int('3') makes a number of a text", "two numbers or two strings are compared, not %s and %s", a.Kind, b.Kind)
		}
	}
	if a.Kind == tree.Int && b.Kind == tree.Int {
		return cmp.Compare(a.Int(), b.Int()), nil
	}
	return cmp.Compare(a.Float(), b.Float()), nil
}

func calculate(c *Call, op byte) (*tree.Value, error) {
	a, err := c.int(0)
	if err != nil {
		return nil, err
	}
	b, err := c.int(1)
	if err != nil {
		return nil, err
	}
	var n int64
	over := false
	switch op {
	case '+':
		n = a + b
		over = (n > a) != (b > 0) && b != 0
	case '-':
		n = a - b
		over = (n < a) != (b > 0) && b != 0
	case '*':
		n = a * b
		over = a != 0 && (n/a != b || a == -1 && b == math.MinInt64)
	default:
		if b == 0 {
			return nil, c.Wrong(1, "", "%s by 0", c.node.name)
		}
		over = a == math.MinInt64 && b == -1
		switch {
		case over:
		case op == '/':
			n = a / b
		default:
			n = a % b
		}
	}
	if over {
		return nil, c.Wrong(-1, "", "the result is too large a number")
	}
	return tree.IntValue(n), nil
}

func extreme(c *Call, sign int) (*tree.Value, error) {
	all := c.Args
	if len(all) == 1 && all[0].Kind == tree.Array {
		all = all[0].Items()
	}
	var best *tree.Value
	for i, v := range all {
		switch {
		case v.Kind == tree.Unknown:
			return v, nil
		case v.Kind != tree.Int && v.Kind != tree.Float:
			return nil, c.Wrong(min(i, len(c.Args)-1), "", "numbers are wanted here, not %s", v.Kind)
		case best == nil || cmp.Compare(v.Float(), best.Float()) == sign:
			best = v
		}
	}
	if best == nil {
		return nil, c.Wrong(0, "", "the array is empty")
	}
	return best, nil
}

func toInt(c *Call) (*tree.Value, error) {
	v := c.Args[0]
	if n, ok := v.AsInt(); ok {
		return tree.IntValue(n), nil
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v.Text()), 64)
	if err != nil || math.Abs(f) >= 1<<53 || v.Kind != tree.Float {
		return nil, c.Wrong(0, "", "%s cannot be read as a whole number", v.Show())
	}
	return tree.IntValue(int64(f)), nil
}
