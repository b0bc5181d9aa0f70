// Package script reads batch scripts: programs whose first lines hold, as comments, the options of the job
// that they are.
package script

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
)

// Marker begins the lines that hold our options.
const Marker = "#SHOAL"

// maxSize bounds a script: it travels as the job's command.
const maxSize = 60 << 10

// Is reports whether a file is a batch script: a program for an interpreter, or one with our options.
func Is(data []byte) bool {
	return bytes.HasPrefix(data, []byte("#!")) || bytes.HasPrefix(data, []byte(Marker+" ")) || bytes.Contains(data, []byte("\n"+Marker+" "))
}

// Word is an option with the line that it is in.
type Word struct {
	Text string
	Line int
}

// Options returns the words of the lines that begin with a marker, of those before the first line that is
// neither a comment nor empty.
func Options(text, marker string) ([]Word, error) {
	var all []Word
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		rest, found := strings.CutPrefix(line, marker)
		if !found {
			if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
				break
			}
			continue
		}
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			continue // another word
		}
		words, err := Split(rest)
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "line %d of the script: %w", n, err)
		}
		for _, w := range words {
			all = append(all, Word{w, n})
		}
	}
	return all, nil
}

// Foreign finds the first line that holds options for another system than ours, among those before the first
// command: the word that it begins with. It is line 0 where there is none.
func Foreign(text string) (marker string, line int) {
	n := 0
	for l := range strings.SplitSeq(text, "\n") {
		n++
		if trimmed := strings.TrimSpace(l); trimmed != "" && trimmed[0] != '#' {
			break
		}
		word, rest, _ := strings.Cut(strings.ReplaceAll(l, "\t", " "), " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "#SBATCH", "#PBS", "#BSUB", "#$": // of Slurm, PBS, LSF and Grid Engine
			if strings.HasPrefix(rest, "-") || word == "#SBATCH" {
				return word, n
			}
		}
	}
	return "", 0
}

// Split divides a line into words as a shell would, without expanding anything; a # begins a comment.
func Split(line string) ([]string, error) {
	var all []string
	var word strings.Builder
	var quote rune
	begun, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quote != 0 && r == quote:
			quote = 0
		case quote == '\'':
			word.WriteRune(r)
		case r == '\\':
			escaped, begun = true, true
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			quote, begun = r, true
		case r == '#' && !begun:
			return all, nil
		case r == ' ' || r == '\t' || r == '\r':
			if begun {
				all = append(all, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is not closed", quote)
	}
	if begun {
		all = append(all, word.String())
	}
	return all, nil
}

// Text refuses what would not arrive on a machine as it was written: a job's command is text in UTF-8.
func Text(s string) error {
	switch {
	case strings.ContainsRune(s, 0):
		return shoal.Errorf(shoal.KindInvalid, "the script is not text")
	case !utf8.ValidString(s):
		return shoal.Errorf(shoal.KindInvalid, "the script is not text in UTF-8").WithHint("iconv -f latin1 -t utf8 makes it such, if it is in Latin 1")
	}
	return nil
}

// Command is a shell command that runs a script from a file of its own, by the interpreter that its first
// line names, else by sh.
func Command(text string) (string, error) {
	switch {
	case len(text) > maxSize:
		return "", shoal.Errorf(shoal.KindInvalid, "the script has more than %s", shoal.Bytes(maxSize)).WithHint("keep the data in files of a share")
	}
	if err := Text(text); err != nil {
		return "", err
	}
	text = strings.ReplaceAll(text, "\r\n", "\n")
	run := "/bin/sh"
	if first, _, _ := strings.Cut(text, "\n"); strings.HasPrefix(first, "#!") {
		run = strings.TrimSpace(first[2:])
	}
	if run == "" {
		return "", shoal.Errorf(shoal.KindInvalid, "the script's first line names no interpreter").WithHint("begin it with #!/bin/sh, for example")
	}
	end := "END_OF_SCRIPT"
	for strings.Contains(text, end) {
		end += "_"
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return fmt.Sprintf("f=$(mktemp \"$SHOAL_SCRATCH/script.XXXXXX\") && cat >\"$f\" <<'%[1]s' || exit 1\n%[2]s%[1]s\nexec %[3]s \"$f\"", end, text, interpreter(run)), nil
}

// interpreter is the program of a first line and its one argument, as the kernel divides it.
func interpreter(line string) string {
	program, argument, _ := strings.Cut(line, " ")
	if argument = strings.TrimSpace(argument); argument != "" {
		return quote(program) + " " + quote(argument)
	}
	return quote(program)
}

func quote(s string) string {
	if !strings.ContainsAny(s, " \t\n\"'\\`$&|;<>()*?[]#~!{}") && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
