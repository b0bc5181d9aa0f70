package slurm

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
)

// maxScript bounds a batch script: it travels as the job's command.
const maxScript = 60 << 10

// directives returns the options that a script's #SBATCH lines hold: those before its first line that is neither
// a comment nor empty, as Slurm reads them.
func directives(script string) ([]string, error) {
	var all []string
	lines := bufio.NewScanner(strings.NewReader(script))
	lines.Buffer(nil, maxScript+1)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		text, found := strings.CutPrefix(line, "#SBATCH")
		if !found {
			if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
				break
			}
			continue
		}
		if text != "" && text[0] != ' ' && text[0] != '\t' {
			continue // another word
		}
		options, err := split(text)
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "line %d of the script: %w", n, err)
		}
		all = append(all, options...)
	}
	return all, lines.Err()
}

// split divides a line into words as a shell would, without expanding anything; a # begins a comment.
func split(line string) ([]string, error) {
	var all []string
	var word strings.Builder
	begun := false
	var quote rune
	escaped := false
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

// asCommand is a shell command that runs a script with arguments, from a file of its own, as Slurm does. The file goes
// with the job's scratch directory.
func asCommand(script string, args []string, quote func([]string) string) (string, error) {
	if len(script) > maxScript {
		return "", shoal.Errorf(shoal.KindInvalid, "the script has more than %d KiB", maxScript>>10).WithHint("keep the data in files of the share")
	}
	if strings.ContainsRune(script, 0) {
		return "", shoal.Errorf(shoal.KindInvalid, "the script is not text")
	}
	if !strings.HasPrefix(script, "#!") {
		return "", shoal.Errorf(shoal.KindInvalid, "This does not look like a batch script").
			WithHint("the first line must start with #! followed by the path to an interpreter, for instance: #!/bin/sh")
	}
	end := "END_OF_SCRIPT"
	for strings.Contains(script, end) {
		end += "_"
	}
	if !strings.HasSuffix(script, "\n") {
		script += "\n"
	}
	run := `exec "$f"`
	if len(args) > 0 {
		run += " " + quote(args)
	}
	return fmt.Sprintf("f=$(mktemp \"${SHOAL_SCRATCH:-${TMPDIR:-/tmp}}/slurm_script.XXXXXX\") && cat >\"$f\" <<'%s' && chmod 700 \"$f\" || exit 1\n%s%s\n%s\n", end, script, end, run), nil
}
