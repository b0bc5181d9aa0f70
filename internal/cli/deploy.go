package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/deploy"
	"github.com/shoal-pool/shoal/internal/cli/gate"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

func (p *program) deployCommand() *cobra.Command {
	return deploy.Command(deploy.Env{
		In: p.Stdin, Out: p.Stdout, Err: p.Stderr, Getenv: p.Getenv, Note: p.note, Clean: term.Clean, Format: formatFlag,
		Terminal: func() bool { return term.Is(p.Stdin) }, Secret: p.ask, Connect: p.connectAt, Gate: gate.Of,
		Data: func(format string, v any) error { return show.Data(p.Stdout, format, v) },
	})
}
