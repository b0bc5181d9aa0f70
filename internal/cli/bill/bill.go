// Package bill is `shoal usage`.
package bill

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/whole"
)

// Env is the command line that the command is part of.
type Env struct {
	Connect  func() (*client.Client, error)
	Out, Err io.Writer
	NoArgs   cobra.PositionalArgs
	Complete func(cmd *cobra.Command, flag string, words ...string)
	Write    func(w io.Writer, format string, u api.Usage) error
	Plot     func(u api.Usage) []byte
}

const table = "table"

// Command makes `shoal usage`.
func Command(env Env) *cobra.Command {
	by := flags.Word{Value: "user", Of: []string{"user", "group", "pool", "job", "machine"}}
	format := flags.Word{Value: table, Of: []string{table, "json", "csv"}}
	idle := flags.Word{Value: "apart", Of: []string{"apart", "shared"}}
	var since time.Time
	var plot string
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Who used how much, and what it cost",
		Long: `The bill: machine time split over those who used it. MACHINE is a user's (group's, job's …) share of the time that
machines ran, SESSION and TASK the time of her sessions and tasks, IDLE what nobody used: a row of its own, or with
--idle shared divided among those who used the pool, by how much they did. Members see their own, by user and by job.`,
		Example: "  shoal usage --by pool --since 7d\n  shoal usage --by job --since 2026-01-01 --format csv\n  shoal usage --by group --idle shared --plot bill.svg",
		Args:    env.NoArgs,
	}
	f := cmd.Flags()
	f.Var(&by, "by", "`WHAT` rows are: user, group, pool, job or machine")
	f.Var(flags.Since{Time: &since}, "since", "from this long ago, or from a day (30d)")
	f.Var(&format, "format", "`FORMAT`: table, json or csv")
	f.VarP(&format, "output", "o", "the same as --format")
	f.Var(&idle, "idle", "`HOW` idle time is told: a row of its own (apart), or shared among those who used the pool")
	f.StringVar(&plot, "plot", "", "draw it as well: into `FILE.svg`")
	env.Complete(cmd, "by", by.Of...)
	env.Complete(cmd, "idle", idle.Of...)
	env.Complete(cmd, "format", format.Of...)
	env.Complete(cmd, "output", format.Of...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if plot != "" && filepath.Ext(plot) != ".svg" {
			return shoal.Errorf(shoal.KindInvalid, "cannot plot to %q: pictures are SVG", plot).WithHint("name it FILE.svg")
		}
		if since.IsZero() {
			since = time.Now().AddDate(0, 0, -30)
		}
		c, err := env.Connect()
		if err != nil {
			return err
		}
		u, err := c.Usage(cmd.Context(), by.Value, idle.Value, since)
		if err != nil {
			return err
		}
		if plot != "" {
			if err := whole.Write(plot, env.Plot(u), 0o644); err != nil {
				return shoal.Errorf(shoal.KindInvalid, "cannot plot: %w", err)
			}
		}
		if err := env.Write(env.Out, format.Value, u); err != nil || format.Value != table {
			return err
		}
		for _, b := range u.Budgets {
			fmt.Fprintln(env.Err, budget(b))
		}
		fmt.Fprintf(env.Err, "from %s to %s\n", u.Since.Local().Format("2006-01-02 15:04"), u.Until.Local().Format("2006-01-02 15:04"))
		return nil
	}
	return cmd
}

// budget is how a budget stands, in a line.
func budget(b api.BudgetStanding) string {
	text := "budget: " + b.Sentence
	switch {
	case b.Over && b.Stop:
		text += "; nothing new begins until " + b.Until.Format("2 January")
	case b.Over:
		text += "; all of it is spent"
	case b.Warned:
		text += "; most of it is spent"
	}
	return text
}
