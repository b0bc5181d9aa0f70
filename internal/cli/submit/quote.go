package submit

import (
	"slices"
	"strings"
)

// Quote writes arguments as a line for sh that has exactly them as its words.
func Quote(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = quoteWord(a)
	}
	return strings.Join(words, " ")
}

// quoteWord leaves alone what every shell reads as itself.
func quoteWord(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:,+@%", r)
	}
	reserved := strings.Fields("if then else elif fi do done case esac while until for in select function time coproc")
	if s != "" && !slices.Contains(reserved, s) && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
