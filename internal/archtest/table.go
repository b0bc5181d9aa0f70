package archtest

import (
	"fmt"
	"regexp"
	"strings"
)

// Row is a line of the table of packages.
type Row struct {
	Path  string // relative to the module, "." for its root; holds for the packages below it too
	Level int
	Pure  bool
}

// Table is the table of packages, in the order of the page.
type Table []Row

var tableRow = regexp.MustCompile(`^([a-z][a-z0-9/._-]*|\.)\s+([0-9])( pure)?(\s.*)?$`)

// ReadTable finds the table in ARCHITECTURE.md: the first block fenced by ``` below the
// heading "Packages and levels". Lines that begin with white space go on with the one before.
func ReadTable(markdown string) (Table, error) {
	_, rest, ok := strings.Cut(markdown, "\n## Packages and levels\n")
	if !ok {
		return nil, fmt.Errorf("cannot find the heading \"## Packages and levels\"")
	}
	_, rest, ok = strings.Cut(rest, "\n```\n")
	block, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		return nil, fmt.Errorf("cannot find a fenced block below \"## Packages and levels\"")
	}
	var t Table
	seen := map[string]bool{}
	for line := range strings.SplitSeq(block, "\n") {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, " ") {
			continue
		}
		m := tableRow.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("cannot read the row %q: it has no path and level", line)
		}
		if seen[m[1]] {
			return nil, fmt.Errorf("package %s is there twice", m[1])
		}
		seen[m[1]] = true
		t = append(t, Row{Path: m[1], Level: int(m[2][0] - '0'), Pure: m[3] != ""})
	}
	return t, nil
}

// Find returns the row of a package: its own, or that of the nearest directory above it.
func (t Table) Find(path string) (Row, bool) {
	var best Row
	found := false
	for _, r := range t {
		if r.Path != path && !strings.HasPrefix(path, r.Path+"/") {
			continue
		}
		if !found || len(r.Path) > len(best.Path) {
			best, found = r, true
		}
	}
	return best, found
}
