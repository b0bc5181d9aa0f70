package spec

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/sweep"
)

type position struct{ line, column int }

// decoder fills Go values from nodes by their JSON names, so that a file, the API and the store
// agree on every key.
type decoder struct {
	file     string
	glob     func(pattern string) ([]string, error)
	budget   *int // nodes that may still be visited
	places   map[string]position
	mistakes []shoal.Mistake
}

func (d *decoder) wrong(n *node, path, hint, format string, args ...any) {
	d.mistakes = append(d.mistakes, shoal.Mistake{File: d.file, Line: n.line, Column: n.column, Path: path,
		Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// decode fills v. Nothing (an empty value, null) leaves v as it is.
func (d *decoder) decode(n *node, v reflect.Value, path string) {
	if *d.budget--; *d.budget < 0 {
		if *d.budget == -1 {
			d.wrong(n, path, "", "the file holds more than %d values", maxNodes)
		}
		return
	}
	d.places[path] = position{n.line, n.column}
	if n.kind == nullNode {
		return
	}
	if v.Type() == reflect.TypeFor[shoal.Item]() {
		text, _ := json.Marshal(d.free(n, path)) // of maps, lists, strings, numbers and bools
		v.SetBytes(text)
		return
	}
	if _, ok := v.Addr().Interface().(json.Unmarshaler); ok && (n.kind == scalarNode || v.Kind() != reflect.Struct) {
		d.custom(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		to := reflect.New(v.Type().Elem())
		d.decode(n, to.Elem(), path)
		v.Set(to)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Interface:
		if x := d.free(n, path); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		d.scalar(n, v, path)
	}
}

// custom is for types that read themselves from JSON: amounts and durations.
func (d *decoder) custom(n *node, v reflect.Value, path string) {
	if n.kind != scalarNode {
		d.wrong(n, path, "", "%s is wanted here, not %s", wanted(v.Type()), n.kind)
		return
	}
	text := []byte(n.text)
	if _, err := strconv.ParseFloat(n.text, 64); err != nil || n.quoted || !json.Valid(text) {
		text, _ = json.Marshal(n.text)
	}
	if err := v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(text); err != nil {
		d.wrong(n, path, shoal.HintOf(err), "%s", err)
	}
}

// wanted names a type for people.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[shoal.Bytes]():
		return "an amount of bytes such as 512MiB"
	case reflect.TypeFor[shoal.Duration]():
		return "a duration such as 30m"
	case reflect.TypeFor[shoal.MilliCPU]():
		return "a number of processors such as 0.5"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping"
}

func (d *decoder) scalar(n *node, v reflect.Value, path string) {
	ok := n.kind == scalarNode
	switch {
	case !ok:
	case v.Kind() == reflect.String:
		v.SetString(n.text) // a number or a word such as true is taken as it is written
	case n.quoted:
		ok = false
	case v.Kind() == reflect.Bool:
		v.SetBool(n.text == "true")
		ok = n.text == "true" || n.text == "false"
	case v.CanInt():
		i, err := strconv.ParseInt(n.text, 10, 32)
		v.SetInt(i)
		ok = err == nil
	case v.CanFloat():
		f, err := strconv.ParseFloat(n.text, 64)
		ok = err == nil && finite(f)
		v.SetFloat(f)
	default:
		ok = false
	}
	if ok {
		return
	}
	if n.kind == scalarNode {
		d.wrong(n, path, "", "%s is wanted here, not %q", wanted(v.Type()), clip(n.text))
		return
	}
	d.wrong(n, path, "", "%s is wanted here, not %s", wanted(v.Type()), n.kind)
}

func (d *decoder) list(n *node, v reflect.Value, path string) {
	if n.kind != listNode {
		d.wrong(n, path, "write [a, b], or one item per line with a dash", "a list is wanted here, not %s", n.kind)
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.values), len(n.values))
	for i, item := range n.values {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item.kind == nullNode {
			d.wrong(item, at, "", "this item is empty")
			continue
		}
		d.decode(item, list.Index(i), at)
	}
	v.Set(list)
}

func (d *decoder) mapping(n *node, v reflect.Value, path string) {
	if n.kind != mapNode {
		d.wrong(n, path, "write KEY: VALUE", "a mapping is wanted here, not %s", n.kind)
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(n.keys))
	for i, key := range n.keys {
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(n.values[i], value, join(path, key.text))
		m.SetMapIndex(reflect.ValueOf(key.text).Convert(v.Type().Key()), value)
	}
	v.Set(m)
}

// free decodes what no type is known for.
func (d *decoder) free(n *node, path string) any {
	switch n.kind {
	case mapNode:
		m := map[string]any{}
		d.mapping(n, reflect.ValueOf(&m).Elem(), path)
		return m
	case listNode:
		list := []any{}
		for i, item := range n.values {
			var x any
			d.decode(item, reflect.ValueOf(&x).Elem(), fmt.Sprintf("%s[%d]", path, i))
			list = append(list, x)
		}
		return list
	case nullNode:
		return nil
	}
	if n.quoted {
		return n.text
	}
	return sweep.Plain(n.text)
}

// guesses is how many unknown keys of a document are compared with those there are.
const guesses = 100

func (d *decoder) structure(n *node, v reflect.Value, path string) {
	if n.kind != mapNode {
		d.wrong(n, path, "write KEY: VALUE", "a mapping is wanted here, not %s", n.kind)
		return
	}
	known := fieldsOf(v.Type())
	for i, key := range n.keys {
		at := join(path, key.text)
		if path == "" && key.text == "kind" {
			continue
		}
		index := slices.IndexFunc(known, func(f field) bool { return f.name == key.text })
		switch {
		case index < 0:
			hint := ""
			if len(d.mistakes) < guesses { // which takes its time
				hint = suggest(key.text, namesOf(known))
			}
			d.wrong(key, at, hint, "unknown key %q", clip(key.text))
		case known[index].observed:
			d.wrong(key, at, "leave it out", "%q is filled in by Shoal and cannot be written", key.text)
		default:
			d.decode(n.values[i], v.FieldByIndex(known[index].index), at)
		}
	}
}

// field is a key of a struct.
type field struct {
	name     string
	index    []int
	observed bool // Shoal fills it in
}

// observed are the keys that objects have in the API and not in files.
func observed(t reflect.Type, name string) bool {
	switch t {
	case reflect.TypeFor[shoal.Pool]():
		return name == "fixed" || name == "deleting" || name == "paused" || name == "resumed"
	case reflect.TypeFor[shoal.User]():
		return name == "hasPassword"
	case reflect.TypeFor[shoal.Meta]():
		return true
	}
	return false
}

// fieldsOf lists the keys of a struct in their order, those of an embedded one as well.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			for _, inner := range fieldsOf(f.Type) {
				all = append(all, field{inner.name, append([]int{i}, inner.index...), inner.observed})
			}
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		all = append(all, field{name, []int{i}, observed(t, name)})
	}
	return all
}

// namesOf lists the keys that can be written.
func namesOf(fields []field) []string {
	var names []string
	for _, f := range fields {
		if !f.observed {
			names = append(names, f.name)
		}
	}
	return names
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
