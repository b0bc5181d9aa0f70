package show

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/spec"
)

// The formats.
const (
	Table = "table"
	JSON  = "json"
	YAML  = "yaml"
	CSV   = "csv" // of the bill only
)

// list writes objects: as a table, or as data.
func list[T any](w io.Writer, format string, items []T, header []string, row func(T) []string) error {
	if items == nil {
		items = []T{}
	}
	if format != Table {
		return Data(w, format, items)
	}
	rows := make([][]string, 0, len(items))
	for _, i := range items {
		rows = append(rows, row(i))
	}
	return term.Table(w, header, rows)
}

// one writes one object.
func one[T any](w io.Writer, format string, item T, fields func(T) []term.Field) error {
	if format != Table {
		return Data(w, format, item)
	}
	return term.Fields(w, fields(item))
}

// Data writes any value as JSON or YAML.
func Data(w io.Writer, format string, v any) error {
	if format == YAML {
		out, err := document(v)
		if err != nil {
			return err
		}
		_, err = w.Write(out)
		return err
	}
	return encode(w, v, "  ")
}

// AsData is Data for who has words of her own for a table: it is false then, and writes nothing.
func AsData(w io.Writer, format string, v any) (bool, error) {
	if format == Table {
		return false, nil
	}
	return true, Data(w, format, v)
}

func encode(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

func document(v any) ([]byte, error) {
	switch v := v.(type) {
	case shoal.Pool, shoal.User, shoal.Group, shoal.Share:
		return spec.Document(v)
	case []shoal.Pool:
		return spec.Documents(spec.Set{Pools: v})
	case []shoal.User:
		return spec.Documents(spec.Set{Users: v})
	case []shoal.Group:
		return spec.Documents(spec.Set{Groups: v})
	case []shoal.JobSpec:
		return spec.Documents(spec.Set{Jobs: v})
	case spec.Set:
		return spec.Documents(v)
	}
	return spec.YAML(v)
}

// Ago says how long ago a time is.
func Ago(t time.Time) string { return term.Ago(t, time.Now()) }

// when is a time in full: "2026-01-02 15:04:05 (3m ago)".
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05") + " (" + Ago(t) + ")"
}

// took is how long something lasted, or has lasted.
func took(from, to time.Time) string {
	switch {
	case from.IsZero():
		return ""
	case to.IsZero():
		to = time.Now()
	}
	return term.Span(to.Sub(from))
}

// Many counts things: "1 task", "2 tasks".
func Many(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// Words joins names with commas.
func Words[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}

// Only is the text if the condition holds.
func Only(condition bool, text string) string {
	if condition {
		return text
	}
	return ""
}

// Or is the text, or another where that is empty.
func Or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
