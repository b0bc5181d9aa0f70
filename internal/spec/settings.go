package spec

// Setting is an entry of a file of settings, with the place of its value.
type Setting struct {
	Key          string
	Values       []string // one, or those of a list
	Line, Column int
}

// Settings reads a file of settings: one mapping, of keys to values or to lists of them.
func Settings(f File) ([]Setting, error) {
	r := reader{file: f.Name}
	var all []Setting
	for i, doc := range r.read(f.Data) {
		if i > 0 || doc.kind != mapNode {
			r.wrong(doc.line, doc.column, "write KEY: VALUE in each line", "a file of settings is one mapping")
			break
		}
		for k, key := range doc.keys {
			value := doc.values[k]
			s := Setting{Key: key.text, Line: value.line, Column: value.column}
			values := []*node{value}
			if value.kind == listNode {
				values = value.values
			}
			for _, v := range values {
				if v.kind != scalarNode {
					r.wrong(v.line, v.column, "", "%s: a value is wanted, not %s", clip(key.text), v.kind)
				}
				s.Values = append(s.Values, v.text)
			}
			all = append(all, s)
		}
	}
	if len(r.mistakes) > 0 {
		return nil, Invalid(r.mistakes)
	}
	return all, nil
}
