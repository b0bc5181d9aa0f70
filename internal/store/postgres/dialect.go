package postgres

import (
	"strconv"
	"strings"
)

// word is SQLite's word in PostgreSQL. Tables are as they are there: integers of 64 bits, texts in the order of their bytes.
func word(w string) string {
	switch w {
	case "INTEGER":
		return "BIGINT"
	case "TEXT":
		return `TEXT COLLATE "C"`
	case "BLOB":
		return "BYTEA"
	case "REAL":
		return "DOUBLE PRECISION"
	case "WITHOUT", "ROWID":
		return ""
	case "user":
		return `"user"` // else it is the database's own user
	}
	return w
}

// translate translates statements. Comments are dropped; strings stay as they are.
func translate(text string) string {
	var b strings.Builder
	b.Grow(len(text) + 32)
	params := 0
	for i := 0; i < len(text); {
		c := text[i]
		end := i + 1
		switch {
		case c == '\'' || c == '"':
			for end < len(text) && text[end] != c {
				end++
			}
			end = min(end+1, len(text))
			b.WriteString(text[i:end])
		case strings.HasPrefix(text[i:], "--"):
			for end < len(text) && text[end] != '\n' {
				end++
			}
		case c == '?':
			for end < len(text) && '0' <= text[end] && text[end] <= '9' {
				end++
			}
			n := text[i+1 : end]
			if n == "" {
				params++
				n = strconv.Itoa(params)
			}
			b.WriteString("$" + n)
		case isWord(c):
			for end < len(text) && isWord(text[end]) {
				end++
			}
			b.WriteString(word(text[i:end]))
		default:
			b.WriteByte(c)
		}
		i = end
	}
	return b.String()
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
