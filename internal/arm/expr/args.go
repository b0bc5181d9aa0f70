package expr

import (
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// builtins are the functions that need no deployment, by their names in small letters.
func builtins() map[string]*Function {
	table := map[string]*Function{}
	for _, some := range [][]*Function{lists(), logic(), texts(), encodings(), times(), addresses(), lambdas()} {
		for _, f := range some {
			table[tree.Fold(f.Name)] = f
		}
	}
	return table
}

// plain is an argument that must be a string.
func (c *Call) plain(i int) (string, error) {
	if a := c.Args[i]; a.Kind != tree.String {
		return "", c.Wrong(i, "", "a string is wanted here, not %s", a.Kind)
	}
	return c.Args[i].Text(), nil
}

// Text is an argument as a string: numbers and truth values as they are written.
func (c *Call) Text(i int) (string, error) { return c.text(i) }

func (c *Call) text(i int) (string, error) {
	switch a := c.Args[i]; a.Kind {
	case tree.Array, tree.Object, tree.Null, tree.Unknown:
		return "", c.Wrong(i, "", "a string is wanted here, not %s", a.Kind)
	default:
		return written(a), nil
	}
}

// written is a value as a text: that of a truth value begins with a capital letter, as the old services had it.
func written(v *tree.Value) string {
	switch v.Kind {
	case tree.Bool:
		if v.Bool() {
			return "True"
		}
		return "False"
	case tree.Null:
		return ""
	case tree.Array, tree.Object:
		return v.Reveal()
	}
	return v.Text()
}

// Int is an argument that is a whole number, perhaps in quotes.
func (c *Call) Int(i int) (int64, error) { return c.int(i) }

func (c *Call) int(i int) (int64, error) {
	n, ok := c.Args[i].AsInt()
	if !ok {
		return 0, c.Wrong(i, "", "a whole number is wanted here, not %s", c.Args[i].Kind)
	}
	return n, nil
}

func (c *Call) array(i int) ([]*tree.Value, error) {
	if c.Args[i].Kind != tree.Array {
		return nil, c.Wrong(i, "", "an array is wanted here, not %s", c.Args[i].Kind)
	}
	return c.Args[i].Items(), nil
}

// roomFor refuses a text that would be too large before it is made.
func (c *Call) roomFor(n int64) error {
	if n > MaxWeight {
		return c.Wrong(-1, "", "%w", errLarge)
	}
	return c.Budget.take(n/64, 0)
}
