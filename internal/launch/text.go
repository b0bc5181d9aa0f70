package launch

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// fields are what an item says.
type fields struct {
	whole string // the item as one text
	given bool
	named map[string]string // of an object
}

// parseItem reads an item: a string is itself, and anything else is JSON.
func parseItem(item shoal.Item) fields {
	f := fields{whole: text(item), given: true}
	var object map[string]json.RawMessage
	if json.Unmarshal(item, &object) == nil && len(object) > 0 {
		f.named = make(map[string]string, len(object))
		for name, value := range object {
			f.named[name] = text(value)
		}
	}
	return f
}

// text is a string itself, and of anything else its JSON.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil && len(value) > 0 && value[0] == '"' {
		return s
	}
	return compact(value)
}

// fill puts fields where {name} stands. What is put in is not looked at again, and a name that is no field stays, as does
// ${name}: shells and awk have braces of their own.
func (f fields) fill(s string) string {
	if len(f.named) == 0 || !strings.Contains(s, "{") {
		return s
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := f.named[name]
		if closed && known && !strings.HasSuffix(before, "$") {
			b.WriteString(value)
			s = after
		} else {
			b.WriteByte('{')
			s = rest
		}
	}
}

// file is the path of a copy of a task's output: %j is the job, %a the index, %n the rank, %x the name.
func (v *view) file(s string) string {
	s = v.text(s)
	if !strings.Contains(s, "%") {
		return s
	}
	index := strconv.Itoa(v.Attempt.Index)
	return strings.NewReplacer("%%", "%", "%j", string(v.Job.ID), "%a", index, "%n", strconv.Itoa(v.rank), "%x", v.spec.Name).Replace(s)
}

// expand replaces $AZ_BATCHAI_NAME and ${AZ_BATCHAI_NAME} by values of vars, once, in jobs of that dialect: the old service
// did so in paths and variables. Others, which have no value, stay.
func expand(s, dialect string, vars map[string]string) string {
	const prefix = "AZ_BATCHAI_"
	if dialect != batchAI || !strings.Contains(s, prefix) {
		return s
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "$")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		name, after := variable(rest)
		value, known := vars[name]
		if known && strings.HasPrefix(name, prefix) {
			b.WriteString(value)
			s = after
		} else {
			b.WriteByte('$')
			s = rest
		}
	}
}

// variable cuts NAME or {NAME} off the beginning.
func variable(s string) (name, after string) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if name, after, ok := strings.Cut(inner, "}"); ok {
			return name, after
		}
		return "", s
	}
	n := 0
	for n < len(s) && wordByte(s[n]) {
		n++
	}
	return s[:n], s[n:]
}

func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// word makes a name that a shell takes for a variable's: upper case, and _ for what cannot be in one.
func word(s string) string {
	b := []byte(strings.ToUpper(s))
	for i, c := range b {
		if !wordByte(c) {
			b[i] = '_'
		}
	}
	return string(b)
}

// quote makes one word of a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// numbers joins numbers by commas.
func numbers(list []int) string {
	var b strings.Builder
	for i, n := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, n)
	}
	return b.String()
}

// names are the machines, by rank.
func (v *view) names(between string) string {
	names := make([]string, len(v.Nodes))
	for i, n := range v.Nodes {
		names[i] = string(n.Machine)
	}
	return strings.Join(names, between)
}
