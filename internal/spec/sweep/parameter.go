package sweep

import (
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// span is a range of numbers.
type span struct {
	from, to float64
	log      bool
	integer  bool
}

// at is the number at a part of the way from the first to the last.
func (s span) at(part float64) float64 {
	switch {
	case part <= 0:
		return s.from
	case part >= 1:
		return s.to
	case s.log:
		return math.Exp(math.Log(s.from) + part*(math.Log(s.to)-math.Log(s.from)))
	}
	return s.from + part*(s.to-s.from)
}

// parameter reads what was written for one.
func (e *expansion) parameter(name string, written any) parameter {
	at := "parameters." + name
	p := parameter{name: name}
	if !parameterName.MatchString(name) {
		e.wrong(at, "use letters, digits and _, at most 64", "this cannot be the name of a parameter")
		return p
	}
	switch w := written.(type) {
	case []any:
		p.values = e.list(at, name, w)
	case map[string]any:
		e.mapping(at, &p, w)
	default:
		e.wrong(at, "write [1, 2, 3], {from: 0, to: 1, count: 5} or {files: \"data/*.csv\"}", "a list of values or a range is wanted here")
	}
	return p
}

func (e *expansion) mapping(at string, p *parameter, w map[string]any) {
	has := func(key string) bool { _, ok := w[key]; return ok }
	var known []string
	switch {
	case has("values"):
		known = []string{"values"}
		list, ok := w["values"].([]any)
		if !ok {
			e.wrong(at+".values", "write [1, 2, 3]", "a list is wanted here")
			return
		}
		p.values = e.list(at+".values", p.name, list)
	case has("files"):
		known = []string{"files", "prefix"}
		p.values = e.files(at, p.name, w)
	case has("from") || has("to"):
		known = []string{"from", "to", "step", "count", "scale", "integer"}
		e.numbers(at, p, w)
	default:
		e.wrong(at, "give values, from and to, or files", "this says nothing about the parameter's values")
		return
	}
	for _, key := range slices.Sorted(maps.Keys(w)) {
		if !slices.Contains(known, key) {
			e.wrong(at+"."+key, "there are: "+strings.Join(known, ", "), "unknown key %q", clip(key))
		}
	}
}

// list reads values that were written one by one.
func (e *expansion) list(at, name string, written []any) []value {
	switch {
	case len(written) == 0:
		e.wrong(at, "", "the parameter has no values")
		return nil
	case len(written) > MaxItems:
		e.wrong(at, "", "there are more than %d values", MaxItems)
		return nil
	}
	var keys []string
	values := make([]value, 0, len(written))
	for i, w := range written {
		m, mapped := w.(map[string]any)
		if i == 0 && mapped {
			keys = slices.Sorted(maps.Keys(m))
		}
		switch {
		case mapped != (keys != nil):
			e.wrong(at, "", "values and mappings are mixed")
			return nil
		case !mapped:
			if !plain(w) {
				e.wrong(at, "", "a value is a string, a number, true or false")
				return nil
			}
			values = append(values, value{{name, text(w)}})
			continue
		}
		if !slices.Equal(slices.Sorted(maps.Keys(m)), keys) {
			e.wrong(at, "", "the mappings of a parameter must have the same keys")
			return nil
		}
		var v value
		for _, key := range keys {
			if !parameterName.MatchString(key) || !plain(m[key]) {
				e.wrong(at, "use letters, digits and _; a value is a string, a number, true or false", "%q cannot be used as a key with a value", clip(key))
				return nil
			}
			v = append(v, field{name + "__" + key, text(m[key])})
		}
		values = append(values, v)
	}
	return values
}

// Plain is a value as a person writes it without quotes: a number, true, false, or else a string. What would be another number
// after it was read stays as it is written: 007 is a string, and a whole number keeps its digits, however many.
func Plain(s string) any {
	if s == "true" || s == "false" {
		return s == "true"
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > 1e300 || strings.ContainsAny(s, "xXpP_") || padded.MatchString(s) {
		return s
	}
	if whole.MatchString(s) && strconv.FormatFloat(f, 'f', 0, 64) != s {
		return json.Number(s)
	}
	return f
}

var (
	padded = regexp.MustCompile(`^[+-]?0[0-9]`)
	whole  = regexp.MustCompile(`^-?[0-9]+$`)
)

func plain(v any) bool {
	switch v := v.(type) {
	case string, bool, json.Number:
		return true
	case float64:
		return !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return false
}

func text(v any) json.RawMessage {
	out, _ := json.Marshal(v) // of strings, numbers and bools
	return out
}

// files are the names that a pattern matches, behind a prefix: where tasks find them.
func (e *expansion) files(at, name string, w map[string]any) []value {
	pattern, ok := w["files"].(string)
	prefix, isText := w["prefix"].(string)
	if _, given := w["prefix"]; given && !isText {
		e.wrong(at+".prefix", "", "a string is wanted here")
	}
	if !ok || pattern == "" {
		e.wrong(at+".files", `write "data/*.csv", for example`, "a pattern of file names is wanted here")
		return nil
	}
	if e.glob == nil {
		e.wrong(at+".files", "submit it with `shoal job submit -f FILE`", "files can be listed only where they are")
		return nil
	}
	found, err := e.glob(pattern)
	switch {
	case err != nil:
		e.wrong(at+".files", "", "cannot list the files: %s", err)
		return nil
	case len(found) == 0:
		e.wrong(at+".files", "", "no file matches %q", clip(pattern))
		return nil
	case len(found) > MaxItems:
		e.wrong(at+".files", "", "more than %d files match %q", MaxItems, clip(pattern))
		return nil
	}
	values := make([]value, len(found))
	for i, f := range found {
		values[i] = value{{name, text(prefix + f)}}
	}
	return values
}

// numbers reads a range.
func (e *expansion) numbers(at string, p *parameter, w map[string]any) {
	number := func(key string) (float64, bool) {
		v, given := w[key]
		f, ok := v.(float64)
		if n, long := v.(json.Number); long {
			f, _ = n.Float64() // of what was written as a number
			ok = true
		}
		if given && (!ok || math.IsNaN(f) || math.IsInf(f, 0) || math.Abs(f) > 1e300) {
			e.wrong(at+"."+key, "", "a number is wanted here")
			return 0, false
		}
		return f, given
	}
	s := span{}
	before := len(e.mistakes)
	var ok1, ok2 bool
	s.from, ok1 = number("from")
	s.to, ok2 = number("to")
	step, stepped := number("step")
	count, counted := number("count")
	switch scale, _ := w["scale"].(string); {
	case scale == "log":
		s.log = true
	case w["scale"] != nil && scale != "linear":
		e.wrong(at+".scale", "it is linear or log", "this is no scale")
	}
	if v, given := w["integer"]; given {
		var isBool bool
		if s.integer, isBool = v.(bool); !isBool {
			e.wrong(at+".integer", "", "true or false is wanted here")
		}
	}
	switch {
	case len(e.mistakes) > before:
	case !ok1 || !ok2:
		e.wrong(at, "give both from and to", "a range has two ends")
	case s.from >= s.to:
		e.wrong(at+".to", "", "the range ends before it begins")
	case s.log && s.from <= 0:
		e.wrong(at+".from", "", "a logarithmic scale begins above 0")
	case stepped && (s.log || counted):
		e.wrong(at+".step", "use count", "a step does not go with a logarithmic scale or a count")
	case stepped && (step <= 0 || (s.to-s.from)/step >= MaxItems):
		e.wrong(at+".step", "", "there would be no values, or more than %d", MaxItems)
	case counted && (count != math.Trunc(count) || count < 1 || count > MaxItems):
		e.wrong(at+".count", "", "a whole number between 1 and %d is wanted here", MaxItems)
	}
	if len(e.mistakes) > before {
		return
	}
	p.span = &s
	p.values = s.values(p.name, step, int(count))
}

// values are the numbers of a range at a step, or so many of them; of whole numbers each once.
func (s span) values(name string, step float64, count int) []value {
	var all []value
	var last string
	add := func(f float64) {
		if v := number(f, s.integer); string(v) != last {
			last = string(v)
			all = append(all, value{{name, v}})
		}
	}
	const nearly = 1e-9 // the last step may miss the end by what fractions lose
	for i := 0; step > 0 && s.from+float64(i)*step <= s.to+step*nearly; i++ {
		add(s.from + float64(i)*step)
	}
	for i := range count {
		add(s.at(float64(i) / float64(max(count-1, 1))))
	}
	return all
}

// clip shortens foreign text for a message.
func clip(s string) string {
	const limit = 60
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
