package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) usageCommand() *cobra.Command {
	by := flags.Word{Value: "user", Of: []string{"user", "group", "pool", "job", "machine"}}
	format := flags.Word{Value: show.Table, Of: []string{show.Table, show.JSON, show.CSV}}
	var since time.Time
	var plot string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Who used how much, and what it cost",
		Long: `The bill: machine time split over those who used it. MACHINE is a user's (group's, job's …) share of the time that
machines ran, SESSION and TASK the time of her sessions and tasks, IDLE what nobody used.`,
		Example: "  shoal usage --by pool --since 7d\n  shoal usage --by job --since 2026-01-01 --format csv",
		Args:    noArgs,
	}
	f := cmd.Flags()
	f.Var(&by, "by", "`WHAT` rows are: user, group, pool, job or machine")
	f.Var(flags.Since{Time: &since}, "since", "from this long ago, or from a day (30d)")
	f.Var(&format, "format", "`FORMAT`: table, json or csv")
	f.VarP(&format, "output", "o", "the same as --format")
	f.StringVar(&plot, "plot", "", "not supported yet")
	complete(cmd, "by", by.Of...)
	complete(cmd, "format", format.Of...)
	complete(cmd, "output", format.Of...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if plot != "" {
			return shoal.Errorf(shoal.KindInvalid, "cannot plot: this version of Shoal does not support it yet").
				WithHint("take the numbers with --format csv")
		}
		if since.IsZero() {
			since = time.Now().AddDate(0, 0, -30)
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		u, err := c.Usage(cmd.Context(), by.Value, since)
		if err != nil {
			return err
		}
		if err := show.Usage(p.Stdout, format.Value, u); err != nil || format.Value != show.Table {
			return err
		}
		fmt.Fprintf(p.Stderr, "from %s to %s\n", u.Since.Local().Format("2006-01-02 15:04"), u.Until.Local().Format("2006-01-02 15:04"))
		return nil
	}
	return cmd
}
