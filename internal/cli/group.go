package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) groupCommand() *cobra.Command {
	return parent("group", "Groups of users, with the same gid on every machine", p.groupList(), p.groupShow())
}

func (p *program) groupList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the groups", Args: noArgs}
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.connect()
		if err != nil {
			return err
		}
		groups, err := c.Groups(cmd.Context())
		if err != nil {
			return err
		}
		return show.Groups(p.Stdout, *format, groups)
	}
	return cmd
}

func (p *program) groupShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a group", Args: takes("NAME"), ValidArgsFunction: p.completer(groupNames)}
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := p.connect()
		if err != nil {
			return err
		}
		g, err := c.Group(cmd.Context(), shoal.GroupName(args[0]))
		if err != nil {
			return err
		}
		return show.Group(p.Stdout, *format, g)
	}
	return cmd
}
