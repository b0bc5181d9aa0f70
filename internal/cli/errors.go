package cli

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/spec"
)

// ownFailure is the exit code for Shoal's own failures where other codes are the job's.
const ownFailure = 125

// exitCode ends the program with a code and no words: they were said before, or the code is another's.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// usage is a mistake in the command line.
func usage(cmd *cobra.Command, format string, args ...any) *shoal.Error {
	return shoal.Errorf(shoal.KindInvalid, format, args...).WithHint("see `%s --help`", cmd.CommandPath())
}

// exit says what went wrong and returns the exit code.
func (p *program) exit(cmd *cobra.Command, args []string, err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if by, ok := errors.AsType[interrupted](err); ok {
		if s, ok := by.signal.(syscall.Signal); ok {
			return 128 + int(s) // as a shell counts it; who pressed Ctrl-C needs no words
		}
	}
	kind := shoal.KindOf(err)
	if !p.started && kind == shoal.KindInternal { // one of cobra's own about the arguments
		err, kind = usage(cmd, "%w", err), shoal.KindInvalid
	}
	p.complain(err)
	if p.waits(cmd, args) {
		return ownFailure
	}
	return kind.Meaning().Exit
}

func (p *program) complain(err error) {
	if m := shoal.MistakesOf(err); len(m) > 0 {
		fmt.Fprint(p.Stderr, spec.Format(cleanMistakes(m)))
	}
	fmt.Fprintf(p.Stderr, "shoal: %s\n", cleanLines(err.Error()))
	if h := shoal.HintOf(err); h != "" {
		fmt.Fprintf(p.Stderr, "hint: %s\n", cleanLines(h))
	}
}

func cleanMistakes(list []shoal.Mistake) []shoal.Mistake {
	list = slices.Clone(list)
	for i := range list {
		list[i].Msg, list[i].Hint = term.Clean(list[i].Msg), term.Clean(list[i].Hint)
		list[i].Path = term.Clean(list[i].Path)
	}
	return list
}

// waits reports whether a command line's exit code is to be a job's.
func (p *program) waits(cmd *cobra.Command, args []string) bool {
	if cmd.CommandPath() == "shoal job wait" {
		return true
	}
	f := cmd.Flags().Lookup("wait")
	if f == nil || cmd.CommandPath() != "shoal run" && cmd.CommandPath() != "shoal job submit" {
		return false
	}
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	// Flags behind a wrong one were not read.
	return f.Value.String() == "true" || !p.started && slices.Contains(args, "--wait")
}
