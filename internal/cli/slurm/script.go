package slurm

import (
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/script"
)

// maxScript bounds a batch script: it travels as the job's command.
const maxScript = 60 << 10

// directives reads the options that a script's #SBATCH lines hold, and returns those that have no meaning here. A mistake is told with
// its line.
func (c *command) directives(o *options, text string) (ignored []string, err error) {
	words, err := script.Options(text, "#SBATCH")
	if err != nil {
		return nil, err
	}
	if marker, line := script.Foreign(text); len(words) == 0 && !o.ignorePBS && (marker == "#PBS" || marker == "#BSUB") {
		return nil, shoal.Errorf(shoal.KindInvalid, "line %d of the script: options in lines with %s are not read here, and leaving them out would change what the job does", line, marker).
			WithHint("write them as #SBATCH, or give --ignore-pbs")
	}
	for len(words) > 0 {
		line := words[0].Line
		var args []string
		for len(words) > 0 && words[0].Line == line {
			args, words = append(args, words[0].Text), words[1:]
		}
		rest, none, err := c.parse(o, args)
		ignored = append(ignored, none...)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d of the script: %w", line, err)
		case len(rest) > 0 && (rest[0] == "hetjob" || rest[0] == "packjob"):
			return nil, shoal.Errorf(shoal.KindInvalid, "line %d of the script: the tasks of a job all ask for the same here, so there is no %s", line, rest[0]).WithHint("submit a job for each part")
		case len(rest) > 0:
			return nil, shoal.Errorf(shoal.KindInvalid, "line %d of the script: Invalid argument: %s", line, rest[0]).WithHint("a value that has spaces stands in quotes")
		}
	}
	return ignored, nil
}

// asCommand is a shell command that runs a script with arguments, from a file of its own, as Slurm does. The file goes
// with the job's scratch directory.
func asCommand(text string, args []string, quote func([]string) string) (string, error) {
	if len(text) > maxScript {
		return "", shoal.Errorf(shoal.KindInvalid, "the script has more than %d KiB", maxScript>>10).WithHint("keep the data in files of the share")
	}
	if err := script.Text(text); err != nil {
		return "", err
	}
	if strings.Contains(text, "\r\n") {
		return "", shoal.Errorf(shoal.KindInvalid, "Batch script contains DOS line breaks (\\r\\n) instead of expected UNIX line breaks (\\n)").WithHint("sed -i 's/\\r$//' SCRIPT makes them such")
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
