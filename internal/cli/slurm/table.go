package slurm

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
)

// column is one column of a table. Width is how wide it is at most, and with Fill also at least; 0 is as
// wide as it needs.
type column struct {
	title  string
	width  int
	right  bool
	suffix string // what stands between it and the next
	value  func(row) string
}

// fit makes a cell as wide as its column. Without cut only room is added.
func (k column) fit(s string, cut bool) string {
	if k.width == 0 {
		return s
	}
	n := utf8.RuneCountInString(s)
	if n > k.width && cut {
		return string([]rune(s)[:k.width])
	}
	if n >= k.width {
		return s
	}
	pad := strings.Repeat(" ", k.width-n)
	if k.right {
		return pad + s
	}
	return s + pad
}

// table writes rows in columns, each as it was asked for.
func (c *command) table(columns []column, rows []row, header bool) {
	line := func(cell func(column) string) {
		var b strings.Builder
		for _, k := range columns {
			b.WriteString(k.fit(cell(k), true))
			b.WriteString(k.suffix)
		}
		fmt.Fprintln(c.Stdout, strings.TrimRight(b.String(), " "))
	}
	if header {
		line(func(k column) string { return k.title })
	}
	for _, r := range rows {
		line(func(k column) string { return k.value(r) })
	}
}

// parseFormat reads a format such as "%.18i %9P|%T": % with a width, right-aligned after a point, and a letter. What
// stands between is kept.
func parseFormat(format string, known map[byte]column) ([]column, string, error) {
	var all []column
	lead := ""
	for i := 0; i < len(format); {
		if format[i] != '%' {
			end := strings.IndexByte(format[i:], '%')
			if end < 0 {
				end = len(format) - i
			}
			if len(all) == 0 {
				lead += format[i : i+end]
			} else {
				all[len(all)-1].suffix += format[i : i+end]
			}
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
			return nil, "", shoal.Errorf(shoal.KindInvalid, "Invalid format %q", format)
		}
		k, ok := known[format[i]]
		if !ok {
			k = column{title: "?", value: func(row) string { return "N/A" }}
		}
		k.width, k.right = width, right
		all = append(all, k)
		i++
	}
	return all, lead, nil
}
