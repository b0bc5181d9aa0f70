package spec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Diff says what differs between two objects of one kind, a line for each field: "size.max: 4 → 8".
// What Shoal fills in does not count.
func Diff(before, after any) ([]string, error) {
	_, hidden := shape(after)
	a, err := ordered(before)
	if err != nil {
		return nil, err
	}
	b, err := ordered(after)
	if err != nil {
		return nil, err
	}
	old, now := map[string]string{}, map[string]string{}
	var order []string
	flatten("", a, old, &order)
	flatten("", b, now, &order)
	var lines []string
	for i, path := range order {
		root, _, _ := strings.Cut(path, ".")
		if slices.Index(order, path) != i || slices.Contains(hidden, root) || old[path] == now[path] {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: %s → %s", path, shown(old, path), shown(now, path)))
	}
	return lines, nil
}

// flatten gathers leaves by their path. A list of plain values is a leaf.
func flatten(path string, v any, to map[string]string, order *[]string) {
	switch v := v.(type) {
	case mapping:
		for _, e := range v {
			flatten(join(path, e.key), e.value, to, order)
		}
		return
	case []any:
		if slices.ContainsFunc(v, func(x any) bool { _, ok := x.(mapping); return ok }) {
			for i, x := range v {
				flatten(fmt.Sprintf("%s[%d]", path, i), x, to, order)
			}
			return
		}
		if len(v) == 0 {
			return
		}
	}
	to[path] = leaf(v)
	*order = append(*order, path)
}

func leaf(v any) string {
	switch v := v.(type) {
	case string:
		return scalar(v)
	case []any:
		items := make([]string, len(v))
		for i, x := range v {
			items[i] = leaf(x)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case json.Number:
		return v.String()
	case nil:
		return "none"
	}
	return fmt.Sprint(v)
}

// shown is a leaf as a person reads it; long ones are cut.
func shown(leaves map[string]string, path string) string {
	s, ok := leaves[path]
	if !ok {
		return "none"
	}
	const limit = 80
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
