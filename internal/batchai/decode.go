package batchai

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

// text, number and their like are values with the place where they were written.
type (
	text struct {
		s  string
		at place
	}
	number struct {
		n   int
		set bool
		at  place
	}
	// ignored is what the service fills in, or what only it had a use for.
	ignored struct{ at place }
)

// Note is something that whoever submits a file should know: how a part was understood or, as a liberty,
// what lenient reading let pass.
type Note struct {
	File    string
	Line    int
	Column  int
	Text    string
	Liberty bool
}

// String is a line for people.
func (n Note) String() string {
	at := n.File
	if n.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", n.File, n.Line, n.Column)
	}
	s := n.Text
	if at != "" {
		s = at + ": " + s
	}
	if n.Liberty {
		s += " (--lenient)"
	}
	return s
}

// reading is one file while it is understood.
type reading struct {
	file      string
	options   Options
	mistakes  []shoal.Mistake
	notes     []Note
	used      map[string]bool // names of the user's table that mounts of the file have
	contained bool            // the job runs in a container
	top       place           // of the document's properties: where what is missing is missing
	more      bool            // there is more to say than is said
	unread    int             // mistakes that were found before rules were looked at
}

// most bounds what is said about one file.
const most = 100

// full reports whether so much has been said that nothing more is looked for.
func (r *reading) full() bool { return len(r.mistakes)+len(r.notes) >= most }

func (r *reading) wrong(at place, path, hint, format string, args ...any) {
	if r.full() {
		r.more = true
		return
	}
	if slices.ContainsFunc(r.mistakes[:r.unread], func(m shoal.Mistake) bool { return explains(m, path) }) {
		return
	}
	if at == (place{}) {
		at = r.top
	}
	r.mistakes = append(r.mistakes, shoal.Mistake{File: r.file, Line: at.line, Column: at.column, Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// explains reports whether a rule is broken only because something could not be read: what it speaks of, what
// is around that, or a key beside it that was probably meant to be it.
func explains(unread shoal.Mistake, path string) bool {
	if rest, ok := strings.CutPrefix(path, unread.Path); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
		return true
	}
	around := unread.Path[:strings.LastIndexByte(unread.Path, '.')+1]
	name, ok := strings.CutPrefix(unread.Hint, "did you mean ")
	return ok && around+strings.TrimSuffix(name, "?") == path
}

func (r *reading) note(at place, format string, args ...any) {
	if r.full() {
		r.more = true
		return
	}
	r.notes = append(r.notes, Note{File: r.file, Line: at.line, Column: at.column, Text: fmt.Sprintf(format, args...)})
}

// liberty is a mistake, or, in lenient reading, a note that says what is done about it.
func (r *reading) liberty(at place, path, hint, remedy, format string, args ...any) {
	if !r.options.Lenient {
		r.wrong(at, path, hint, format, args...)
		return
	}
	if r.full() {
		r.more = true
		return
	}
	r.notes = append(r.notes, Note{File: r.file, Line: at.line, Column: at.column, Liberty: true, Text: path + ": " + fmt.Sprintf(format, args...) + "; " + remedy})
}

// known is a key of a struct: its name, the names it had before, and the field's number.
type known struct {
	name  string
	old   []string
	index int
}

func keysOf(t reflect.Type) []known {
	var all []known
	for i := range t.NumField() {
		f := t.Field(i)
		if name := f.Tag.Get("key"); name != "" {
			all = append(all, known{name, strings.Fields(f.Tag.Get("old")), i})
		}
	}
	return all
}

// decode fills a struct from an object.
func (r *reading) decode(n *node, v reflect.Value, path string) {
	switch v.Interface().(type) {
	case text, number, ignored:
		r.scalar(n, v, path)
		return
	}
	if n.kind == nothing {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.decode(n, v.Elem(), path)
	case reflect.Slice:
		if n.kind != list {
			r.wrong(n.at, path, "", "a list is wanted here, not %s", n.kind)
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.values), len(n.values)))
		for i, item := range n.values {
			r.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		r.structure(n, v, path)
	}
}

func (r *reading) structure(n *node, v reflect.Value, path string) {
	if n.kind != object {
		r.wrong(n.at, path, "", "an object is wanted here, not %s", n.kind)
		return
	}
	if f := v.FieldByName("At"); f.IsValid() {
		f.Set(reflect.ValueOf(n.at))
	}
	keys := keysOf(v.Type())
	seen := map[string]int{}
	for i, k := range n.keys {
		at := join(path, k.text)
		found, ok := r.find(k, at, keys)
		if !ok {
			continue
		}
		if first, twice := seen[found.name]; twice {
			r.liberty(k.at, at, "", "the last one counts", "this key is there twice, first in line %d", first)
		}
		seen[found.name] = k.at.line
		r.decode(n.values[i], v.Field(found.index), join(path, found.name))
	}
}

// find is the field that a key means.
func (r *reading) find(k key, path string, keys []known) (known, bool) {
	for _, c := range keys {
		if strings.EqualFold(c.name, k.text) {
			return c, true
		}
	}
	if r.full() {
		r.more = true
		return known{}, false
	}
	names := make([]string, len(keys))
	for i, c := range keys {
		names[i] = c.name
		if slices.ContainsFunc(c.old, func(s string) bool { return strings.EqualFold(s, k.text) }) || bare(c.name) == bare(k.text) {
			r.liberty(k.at, path, "did you mean "+c.name+"?", "it is read as "+c.name, "unknown key %q", clip(k.text))
			return c, r.options.Lenient
		}
	}
	r.liberty(k.at, path, spec.Suggest(k.text, names), "it is left out", "unknown key %q", clip(k.text))
	return known{}, false
}

// bare is a name without what is between its words.
func bare(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
}

func (r *reading) scalar(n *node, v reflect.Value, path string) {
	switch n.kind {
	case object, list:
		if _, ok := v.Interface().(ignored); !ok {
			r.wrong(n.at, path, "", "a single value is wanted here, not %s", n.kind)
			return
		}
	case nothing:
		return
	}
	switch f := v.Addr().Interface().(type) {
	case *text:
		*f = text{n.text, n.at}
	case *ignored:
		*f = ignored{n.at}
	case *number:
		i, err := strconv.ParseInt(strings.TrimSpace(n.text), 10, 32)
		if err != nil {
			r.wrong(n.at, path, "", "a whole number is wanted here")
			return
		}
		*f = number{int(i), true, n.at}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const limit = 60
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
