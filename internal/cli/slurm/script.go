package slurm

import (
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/script"
)

// maxScript bounds a batch script: it travels as the job's command.
const maxScript = 60 << 10

// directives returns the options that a script's #SBATCH lines hold.
func directives(text string) ([]string, error) {
	words, err := script.Options(text, "#SBATCH")
	options := make([]string, len(words))
	for i, w := range words {
		options[i] = w.Text
	}
	return options, err
}

// asCommand is a shell command that runs a script with arguments, from a file of its own, as Slurm does. The file goes
// with the job's scratch directory.
func asCommand(text string, args []string, quote func([]string) string) (string, error) {
	if len(text) > maxScript {
		return "", shoal.Errorf(shoal.KindInvalid, "the script has more than %d KiB", maxScript>>10).WithHint("keep the data in files of the share")
	}
	if strings.ContainsRune(text, 0) {
		return "", shoal.Errorf(shoal.KindInvalid, "the script is not text")
	}
	if !strings.HasPrefix(text, "#!") {
		return "", shoal.Errorf(shoal.KindInvalid, "This does not look like a batch script").
			WithHint("the first line must start with #! followed by the path to an interpreter, for instance: #!/bin/sh")
	}
	end := "END_OF_SCRIPT"
	for strings.Contains(text, end) {
		end += "_"
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	run := `exec "$f"`
	if len(args) > 0 {
		run += " " + quote(args)
	}
	return fmt.Sprintf("f=$(mktemp \"${SHOAL_SCRATCH:-${TMPDIR:-/tmp}}/slurm_script.XXXXXX\") && cat >\"$f\" <<'%s' && chmod 700 \"$f\" || exit 1\n%s%s\n%s\n", end, text, end, run), nil
}
