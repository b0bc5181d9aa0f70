package cli

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/top"
)

func (p *program) eventsCommand() *cobra.Command {
	var follow bool
	var since time.Time
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List what happened, or with -f watch it happen",
		Long: `List what happened in the last day, oldest first; with -f what happens from now on, until Ctrl-C.
With -o json each event is one line.`,
		Example: "  shoal events --since 1h\n  shoal events -f",
		Args:    noArgs,
	}
	format := formatFlag(cmd)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().Var(flags.Since{Time: &since}, "since", "from this long ago, or from a time (24h; with -f from now)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if since.IsZero() {
			since = time.Now()
			if !follow {
				since = since.Add(-24 * time.Hour)
			}
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		ctx, stop := p.interruptible(cmd.Context())
		defer stop()
		for e, err := range c.Events(ctx, since, follow) {
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			if err := show.Event(p.Stdout, *format, e); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func (p *program) topCommand() *cobra.Command {
	return top.Command(top.Env{Connect: p.connect, In: p.Stdin, Out: p.Stdout, Interruptible: p.interruptible, NoArgs: noArgs,
		Pools: func(cmd *cobra.Command, flag string) { p.completeFlag(cmd, flag, names.Pools) }})
}
