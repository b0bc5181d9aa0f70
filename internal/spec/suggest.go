package spec

import "strings"

const didYouMean = "did you mean "

// Suggest says which of some words was probably meant, or which there are.
func Suggest(word string, known []string) string { return suggest(word, known) }

// suggest says which word was probably meant, or which there are.
func suggest(word string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if strings.EqualFold(word, k) {
			return didYouMean + k + "?"
		}
		if n := edits(strings.ToLower(word), strings.ToLower(k)); n < distance && n*2 <= len(k) {
			best, distance = k, n
		}
	}
	if best == "" && len(word) >= 3 {
		for _, k := range known {
			if strings.HasPrefix(k, word) || strings.HasPrefix(word, k) && len(k) >= 3 {
				best = k
				break
			}
		}
	}
	if best != "" {
		return didYouMean + best + "?"
	}
	return "there are: " + strings.Join(known, ", ")
}

// edits counts the letters to be changed, added, dropped or swapped with their neighbour to turn a
// into b; words longer than any of ours are far from everything.
func edits(a, b string) int {
	const longest = 40
	if len(a) > longest || len(b) > longest {
		return longest
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
