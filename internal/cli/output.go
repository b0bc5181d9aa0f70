package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

// formatFlag adds -o to a command.
func formatFlag(cmd *cobra.Command) *string {
	f := flags.Word{Value: show.Table, Of: []string{show.Table, show.JSON, show.YAML}}
	cmd.Flags().VarP(&f, "output", "o", "`FORMAT`: table, json or yaml")
	complete(cmd, "output", f.Of...)
	return &f.Value
}

// say writes a line that tells what was done.
func (p *program) say(format string, args ...any) {
	fmt.Fprintln(p.Stdout, term.Clean(fmt.Sprintf(format, args...)))
}

// note writes a line that is not a result.
func (p *program) note(format string, args ...any) {
	fmt.Fprintln(p.Stderr, "shoal: "+term.Clean(fmt.Sprintf(format, args...)))
}

func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = term.Clean(l)
	}
	return strings.Join(lines, "\n")
}
