// Package term writes for people: aligned tables, times as "3m ago", and a line of
// progress that is rewritten in place. It writes the same text to a file, a pipe and
// a terminal, but for the progress, which only a terminal can take back.
//
// What comes from the server may hold what others typed. Clean makes it harmless
// before it reaches a terminal.
package term

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/shoal-pool/shoal"
)

// Is reports whether a stream is a terminal.
func Is(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}

// Clean replaces what would move the cursor, colour or otherwise command a terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return '?'
		}
		return r
	}, s)
}

// Short cuts a text to at most n characters, with an ellipsis where something is missing.
func Short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// gap is what stands between columns.
const gap = 2

// Table writes rows under a header, columns aligned. An empty cell is shown as "-", except in the last column.
func Table(w io.Writer, header []string, rows [][]string) error {
	var lines [][]string
	widths := make([]int, len(header))
	for _, r := range append([][]string{header}, rows...) {
		cells := make([]string, len(header))
		for i := range cells {
			if i < len(r) {
				cells[i] = Clean(r[i])
			}
			if cells[i] == "" && i < len(cells)-1 {
				cells[i] = "-"
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cells[i]))
		}
		lines = append(lines, cells)
	}
	var b strings.Builder
	for _, cells := range lines {
		var line strings.Builder
		for i, c := range cells {
			line.WriteString(c + strings.Repeat(" ", widths[i]+gap-utf8.RuneCountInString(c)))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Field is a name and a value.
type Field = [2]string

// Fields writes names and values in two columns. Fields without a value are left out; the lines of
// a value with several stand below each other.
func Fields(w io.Writer, fields []Field) error {
	width := 0
	for _, f := range fields {
		if f[1] != "" {
			width = max(width, utf8.RuneCountInString(f[0])+1)
		}
	}
	var b strings.Builder
	for _, f := range fields {
		if f[1] == "" {
			continue
		}
		name := f[0] + ":"
		for line := range strings.SplitSeq(strings.TrimRight(f[1], "\n"), "\n") {
			b.WriteString(name + strings.Repeat(" ", width+gap-utf8.RuneCountInString(name)) + Clean(line) + "\n")
			name = ""
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Ago says how long ago a time is: "3m ago". The zero time is "".
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	switch {
	case d < -time.Second:
		if -d > 2*time.Minute {
			d -= 10 * time.Second // what was set for 2h is not in 1h59m a moment later
		}
		return "in " + Span(-d)
	case d < time.Second:
		return "now"
	}
	return Span(d) + " ago"
}

// Span says how long something lasts, in one or two units: "42s", "3m", "1h20m", "5d".
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return shoal.Duration(d.Truncate(time.Minute)).String()
	case d < 7*24*time.Hour:
		return shoal.Duration(d.Truncate(time.Hour)).String()
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Until says how much time is left: "for 2h". The zero time, and one past, is "".
func Until(t, now time.Time) string {
	if t.IsZero() || !t.After(now) {
		return ""
	}
	return "for " + Span(t.Sub(now))
}
