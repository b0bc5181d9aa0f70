package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) whyCommand() *cobra.Command {
	return parent("why", "Say why something is as it is: why a job waits, a machine runs, a login fails",
		p.why("pool", "NAME", "Why a pool has the machines it has", names.Pools),
		p.why("machine", "ID", "Why a machine is as it is, and what keeps it", names.Machines),
		p.why("session", "ID", "Why a session waits, or is where it is", names.Sessions),
		p.why("app", "ID", "Why a web app is as it is, or ended", names.Apps),
		p.why("job", "ID", "Why a job waits, or ended as it did", names.Jobs),
		p.why("login", "USER", "Where a login of a user would go now, and why", names.Users))
}

func (p *program) why(kind, arg, short string, list names.List) *cobra.Command {
	cmd := &cobra.Command{Use: kind + " " + arg, Short: short, Args: takes(arg), ValidArgsFunction: p.completer(list)}
	if kind == "login" {
		cmd.Use += " [POOL]"
		cmd.Args = takes("USER", "[POOL]")
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return p.offer(cmd, names.Users), cobra.ShellCompDirectiveNoFileComp
			case 1:
				return p.offer(cmd, names.Pools), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var pool string
		if len(args) > 1 {
			pool = args[1]
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		answer, err := c.Why(cmd.Context(), kind, args[0], pool)
		if err != nil {
			return err
		}
		return show.Why(p.Stdout, *format, answer)
	}
	return cmd
}
