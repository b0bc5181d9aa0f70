package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Document writes an object as the document that Parse reads: its kind first, nothing that Shoal
// fills in. The object is a Share, Group, User, Pool or JobSpec.
func Document(object any) ([]byte, error) {
	kind, hidden := shape(object)
	if kind == "" {
		return nil, fmt.Errorf("cannot write a %T as a document", object)
	}
	v, err := ordered(object)
	if err != nil {
		return nil, err
	}
	m, ok := v.(mapping)
	if !ok {
		return nil, fmt.Errorf("cannot write a %T as a document", object)
	}
	m = slices.DeleteFunc(m, func(e entry) bool {
		unsaid := kind == shoal.ObjectJob && e.value == "" // a job's pool, or its command where it has tasks
		return unsaid || slices.Contains(hidden, e.key)
	})
	var b bytes.Buffer
	fmt.Fprintf(&b, "kind: %s\n", kind)
	m.write(&b, 0)
	return b.Bytes(), nil
}

// Documents writes a set as one file.
func Documents(s Set) ([]byte, error) {
	var all []any
	for _, o := range s.Shares {
		all = append(all, o)
	}
	for _, o := range s.Groups {
		all = append(all, o)
	}
	for _, o := range s.Users {
		all = append(all, o)
	}
	for _, o := range s.Pools {
		all = append(all, o)
	}
	for _, o := range s.Jobs {
		all = append(all, o)
	}
	var parts [][]byte
	for _, o := range all {
		doc, err := Document(o)
		if err != nil {
			return nil, err
		}
		parts = append(parts, doc)
	}
	return bytes.Join(parts, []byte("---\n")), nil
}

// YAML writes any value that encoding/json can write, keys in the same order.
func YAML(v any) ([]byte, error) {
	o, err := ordered(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	switch o := o.(type) {
	case mapping:
		if len(o) > 0 {
			o.write(&b, 0)
			return b.Bytes(), nil
		}
	case []any:
		if len(o) > 0 {
			writeList(&b, o, 0)
			return b.Bytes(), nil
		}
	}
	writeValue(&b, o, 0)
	return bytes.TrimLeft(b.Bytes(), " "), nil
}

// shape returns an object's kind and the keys it does not show in a document.
func shape(object any) (shoal.ObjectKind, []string) {
	hidden := []string{"rev", "created", "updated"}
	switch object.(type) {
	case shoal.Share:
		return shoal.ObjectShare, hidden
	case shoal.Group:
		return shoal.ObjectGroup, hidden
	case shoal.User:
		return shoal.ObjectUser, append(hidden, "hasPassword")
	case shoal.Pool:
		return shoal.ObjectPool, append(hidden, "fixed", "deleting", "paused", "resumed")
	case shoal.JobSpec:
		return shoal.ObjectJob, nil
	}
	return "", nil
}

// mapping is a JSON object that keeps its order.
type mapping []entry

type entry struct {
	key   string
	value any // mapping, []any, string, json.Number, bool or nil
}

// ordered turns a value into mappings, lists and scalars by way of its JSON.
func ordered(v any) (any, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return orderedValue(d)
}

func orderedValue(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		m := mapping{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			value, err := orderedValue(d)
			if err != nil {
				return nil, err
			}
			name, _ := key.(string)
			m = append(m, entry{name, value})
		}
		_, err = d.Token()
		return m, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := orderedValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

func (m mapping) write(b *bytes.Buffer, indent int) {
	for i, e := range m {
		if i > 0 || indent == 0 {
			b.WriteString(strings.Repeat(" ", indent))
		}
		b.WriteString(scalar(e.key))
		b.WriteByte(':')
		writeValue(b, e.value, indent)
	}
}

// writeValue writes what stands behind a key, and the end of the line.
func writeValue(b *bytes.Buffer, v any, indent int) {
	switch v := v.(type) {
	case mapping:
		if len(v) == 0 {
			b.WriteString(" {}\n")
			return
		}
		b.WriteString("\n" + strings.Repeat(" ", indent+2))
		v.write(b, indent+2)
	case []any:
		if len(v) == 0 {
			b.WriteString(" []\n")
			return
		}
		b.WriteByte('\n')
		writeList(b, v, indent+2)
	case string:
		if readable(v) {
			b.WriteString(" |-\n")
			for line := range strings.SplitSeq(v, "\n") {
				b.WriteString(strings.TrimRight(strings.Repeat(" ", indent+2)+line, " ") + "\n")
			}
			return
		}
		b.WriteString(" " + scalar(v) + "\n")
	case nil:
		b.WriteString(" null\n")
	default:
		fmt.Fprintf(b, " %v\n", v)
	}
}

func writeList(b *bytes.Buffer, list []any, indent int) {
	for _, v := range list {
		b.WriteString(strings.Repeat(" ", indent) + "-")
		switch v := v.(type) {
		case mapping:
			if len(v) > 0 {
				b.WriteByte(' ')
				v.write(b, indent+2)
				continue
			}
			b.WriteString(" {}\n")
		default:
			writeValue(b, v, indent)
		}
	}
}

// plain are strings that YAML reads as themselves without quotes, in any version of it.
var plain = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./@+-]*( [A-Za-z0-9_./@+-]+)*$`)

var notPlain = strings.Fields("true false yes no on off null y n")

// readable reports whether a string is some lines of text that YAML's literal form keeps as they are. What
// has blanks where YAML looks at them is quoted.
func readable(s string) bool {
	if !strings.Contains(s, "\n") || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
		return false
	}
	lines := strings.Split(s, "\n")
	for _, l := range lines {
		if strings.TrimSpace(l) == "" && l != "" || strings.HasSuffix(l, " ") {
			return false
		}
	}
	return lines[0] != "" && lines[0][0] != ' ' && lines[len(lines)-1] != ""
}

// scalar writes a string: as it is where that is safe, else quoted as in JSON, which YAML reads.
func scalar(s string) string {
	if plain.MatchString(s) && !slices.Contains(notPlain, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return `""` // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}
