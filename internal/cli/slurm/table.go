package slurm

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
)

// column is one column of a table about jobs, pools or the like. It is as wide as width says, or with 0 as each cell
// needs.
type column[T any] struct {
	title  string
	width  int
	right  bool
	suffix string // what stands between it and the next
	value  func(T) string
}

// fit makes a cell as wide as its column.
func (k column[T]) fit(s string) string {
	if k.width == 0 {
		return s
	}
	n := utf8.RuneCountInString(s)
	if n > k.width {
		return string([]rune(s)[:k.width])
	}
	pad := strings.Repeat(" ", k.width-n)
	if k.right {
		return pad + s
	}
	return s + pad
}

// table writes rows in columns.
func table[T any](w io.Writer, columns []column[T], rows []T, header bool) {
	line := func(cell func(column[T]) string) {
		var b strings.Builder
		for _, k := range columns {
			b.WriteString(k.fit(cell(k)))
			b.WriteString(k.suffix)
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	if header {
		line(func(k column[T]) string { return k.title })
	}
	for _, r := range rows {
		line(func(k column[T]) string { return k.value(r) })
	}
}

// text is a column of nothing, before what a format begins with.
func text[T any](s string) column[T] {
	return column[T]{suffix: s, value: func(T) string { return "" }}
}

// parseFormat reads a format such as "%.18i %9P|%T": % with a width, right-aligned after a point, and a letter. What
// stands between is kept; a letter that is not known is the other column.
func parseFormat[T any](format string, known map[byte]column[T], other column[T]) ([]column[T], error) {
	var all []column[T]
	for i := 0; i < len(format); {
		if format[i] != '%' {
			end := strings.IndexByte(format[i:], '%')
			if end < 0 {
				end = len(format) - i
			}
			if len(all) == 0 {
				all = append(all, text[T](""))
			}
			all[len(all)-1].suffix += format[i : i+end]
			i += end
			continue
		}
		i++
		right := i < len(format) && format[i] == '.'
		if right {
			i++
		}
		from := i
		for i < len(format) && format[i] >= '0' && format[i] <= '9' {
			i++
		}
		width, _ := strconv.Atoi(format[from:i])
		if i == len(format) || width > 1000 {
			return nil, shoal.Errorf(shoal.KindInvalid, "Invalid format %q", format)
		}
		k, ok := known[format[i]]
		if !ok {
			k = other
		}
		k.width, k.right = width, right
		all = append(all, k)
		i++
	}
	return all, nil
}
