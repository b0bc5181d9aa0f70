// Package naming makes names that objects of Shoal can have of what others call things.
package naming

import (
	"regexp"
	"strings"
)

// limit leaves room for what is added to a name to make it another.
const limit = 32

var not = regexp.MustCompile(`[^a-z0-9]+`)

// Of makes a name, or takes the other one where nothing is left.
func Of(s, otherwise string) string {
	s = strings.Trim(not.ReplaceAllString(strings.ToLower(s), "-"), "-")
	s = strings.TrimLeft(s, "0123456789-")
	if s = strings.TrimRight(s[:min(len(s), limit)], "-"); s == "" {
		return otherwise
	}
	return s
}

// Last is the last part of an id or a path that has parts between slashes.
func Last(id string) string {
	id = strings.TrimRight(id, "/")
	return id[strings.LastIndexByte(id, '/')+1:]
}
