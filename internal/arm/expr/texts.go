package expr

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// texts are the functions on strings.
func texts() []*Function {
	simple := func(name string, of func(string) string) *Function {
		return &Function{Name: name, Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.plain(0)
			if err != nil {
				return nil, err
			}
			return tree.StringValue(of(s)), nil
		}}
	}
	found := func(name string, bare bool, of func(s, what string) *tree.Value) *Function {
		return &Function{Name: name, Min: 2, Max: 2, bare: bare, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.plain(0)
			if err != nil {
				return nil, err
			}
			what, err := c.plain(1)
			if err != nil {
				return nil, err
			}
			return of(strings.ToLower(s), strings.ToLower(what)), nil
		}}
	}
	index := func(name string, first bool) *Function {
		in := found(name, true, func(s, what string) *tree.Value {
			i := strings.LastIndex(s, what)
			if first {
				i = strings.Index(s, what)
			}
			return tree.IntValue(position(s, i))
		})
		text := in.Call
		in.Call = func(c *Call) (*tree.Value, error) {
			if c.Args[0].Kind == tree.Array {
				return indexIn(c, first), nil
			}
			return text(c)
		}
		return in
	}
	return []*Function{
		{Name: "concat", Max: -1, Call: concat},
		{Name: "string", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			if err := c.roomFor(c.Args[0].Weight()); err != nil {
				return nil, err
			}
			return tree.StringValue(written(c.Args[0])), nil
		}},
		{Name: "format", Min: 1, Max: -1, Call: format},
		{Name: "join", Min: 2, Max: 2, Call: join},
		{Name: "padLeft", Min: 2, Max: 3, Call: padLeft},
		{Name: "replace", Min: 3, Max: 3, Call: replace},
		{Name: "split", Min: 2, Max: 2, Call: split},
		{Name: "substring", Min: 2, Max: 3, Call: substring},
		simple("toLower", strings.ToLower),
		simple("toUpper", strings.ToUpper),
		simple("trim", strings.TrimSpace),
		found("startsWith", true, func(s, what string) *tree.Value { return tree.BoolValue(strings.HasPrefix(s, what)) }),
		found("endsWith", true, func(s, what string) *tree.Value { return tree.BoolValue(strings.HasSuffix(s, what)) }),
		index("indexOf", true),
		index("lastIndexOf", false),
		{Name: "uri", Min: 2, Max: 2, Call: uri},
		simple("uriComponent", escape),
		{Name: "uriComponentToString", Min: 1, Max: 1, Call: func(c *Call) (*tree.Value, error) {
			s, err := c.plain(0)
			if err != nil {
				return nil, err
			}
			out, err := url.PathUnescape(s)
			if err != nil || !utf8.ValidString(out) {
				return nil, c.Wrong(0, "", "%s is no encoded part of an address", c.Args[0].Show())
			}
			return tree.StringValue(out), nil
		}},
	}
}

// position is an offset in letters.
func position(s string, offset int) int64 {
	if offset < 0 {
		return -1
	}
	return int64(utf8.RuneCountInString(s[:offset]))
}

func indexIn(c *Call, first bool) *tree.Value {
	at := int64(-1)
	for i, v := range c.Args[0].Items() {
		if tree.Equal(v, c.Args[1], &c.Budget.Steps) {
			if at = int64(i); first {
				break
			}
		}
	}
	return tree.IntValue(at)
}

func concat(c *Call) (*tree.Value, error) {
	if len(c.Args) > 0 && c.Args[0].Kind == tree.Array {
		var all []*tree.Value
		for i := range c.Args {
			items, err := c.array(i)
			if err != nil {
				return nil, err
			}
			if err := c.Budget.take(0, int64(len(items))*8); err != nil {
				return nil, err
			}
			all = append(all, items...)
		}
		return tree.ArrayValue(all), nil
	}
	var total int64
	for _, a := range c.Args {
		total += a.Weight()
	}
	if err := c.roomFor(total); err != nil {
		return nil, err
	}
	var b strings.Builder
	for i := range c.Args {
		s, err := c.text(i)
		if err != nil {
			return nil, err
		}
		b.WriteString(s)
	}
	return tree.StringValue(b.String()), nil
}

func join(c *Call) (*tree.Value, error) {
	all, err := c.array(0)
	if err != nil {
		return nil, err
	}
	between, err := c.plain(1)
	if err != nil {
		return nil, err
	}
	if err := c.roomFor(c.Args[0].Weight() + int64(len(all)*len(between))); err != nil {
		return nil, err
	}
	parts := make([]string, len(all))
	for i, v := range all {
		parts[i] = written(v)
	}
	return tree.StringValue(strings.Join(parts, between)), nil
}

func padLeft(c *Call) (*tree.Value, error) {
	s, err := c.text(0)
	if err != nil {
		return nil, err
	}
	width, err := c.int(1)
	if err != nil {
		return nil, err
	}
	with := " "
	if len(c.Args) > 2 {
		if with, err = c.text(2); err != nil {
			return nil, err
		}
		if utf8.RuneCountInString(with) != 1 {
			return nil, c.Wrong(2, "", "one letter is wanted here, not %s", c.Args[2].Show())
		}
	}
	if err := c.roomFor(min(width, MaxWeight+1) * int64(len(with))); err != nil {
		return nil, err
	}
	missing := width - int64(utf8.RuneCountInString(s))
	return tree.StringValue(strings.Repeat(with, int(max(missing, 0))) + s), nil
}

func replace(c *Call) (*tree.Value, error) {
	s, err := c.plain(0)
	if err != nil {
		return nil, err
	}
	old, err := c.plain(1)
	if err != nil {
		return nil, err
	}
	with, err := c.plain(2)
	if err != nil {
		return nil, err
	}
	if old == "" {
		return nil, c.Wrong(1, "", "there is nothing to replace: the text is empty")
	}
	if err := c.roomFor(int64(len(s)) + int64(strings.Count(s, old))*int64(len(with)-len(old))); err != nil {
		return nil, err
	}
	return tree.StringValue(strings.ReplaceAll(s, old, with)), nil
}

func split(c *Call) (*tree.Value, error) {
	s, err := c.plain(0)
	if err != nil {
		return nil, err
	}
	ends := []string{c.Args[1].Text()}
	if c.Args[1].Kind == tree.Array {
		ends = nil
		for _, v := range c.Args[1].Items() {
			ends = append(ends, v.Text())
		}
	} else if _, err := c.plain(1); err != nil {
		return nil, err
	}
	pieces := []string{s}
	for _, end := range ends {
		if end == "" {
			continue
		}
		var next []string
		for _, p := range pieces {
			if err := c.Budget.take(int64(1+len(p)/32), int64(strings.Count(p, end)+1)*perValue); err != nil {
				return nil, err
			}
			next = append(next, strings.Split(p, end)...)
		}
		pieces = next
	}
	all := make([]*tree.Value, len(pieces))
	for i, p := range pieces {
		all[i] = tree.StringValue(p)
	}
	return tree.ArrayValue(all), nil
}

func substring(c *Call) (*tree.Value, error) {
	s, err := c.plain(0)
	if err != nil {
		return nil, err
	}
	from, err := c.int(1)
	if err != nil {
		return nil, err
	}
	r := []rune(s)
	if from < 0 || from > int64(len(r)) {
		return nil, c.Wrong(1, "", "the text has %d letters, so none begins at %d", len(r), from)
	}
	n := int64(len(r)) - from
	if len(c.Args) > 2 {
		if n, err = c.int(2); err != nil {
			return nil, err
		}
		if n < 0 || n > int64(len(r))-from {
			return nil, c.Wrong(2, "take('text', 9) takes what there is", "the text has %d letters from %d on, not %d", int64(len(r))-from, from, n)
		}
	}
	return tree.StringValue(string(r[from : from+n])), nil
}

// uri puts an address together from a base and what is relative to it.
func uri(c *Call) (*tree.Value, error) {
	base, err := c.plain(0)
	if err != nil {
		return nil, err
	}
	relative, err := c.plain(1)
	if err != nil {
		return nil, err
	}
	b, err := url.Parse(base)
	if err != nil || b.Scheme == "" {
		return nil, c.Wrong(0, "give an address such as https://host/path/", "%s is no address", c.Args[0].Show())
	}
	r, err := b.Parse(relative)
	if err != nil {
		return nil, c.Wrong(1, "", "%s is no part of an address", c.Args[1].Show())
	}
	return tree.StringValue(r.String()), nil
}

// escape encodes all but letters, digits and -_.~.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}
