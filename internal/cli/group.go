package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) groupCommand() *cobra.Command {
	return parent("group", "Groups of users, with the same gid on every machine", p.groupList(), p.groupShow())
}

func (p *program) groupList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the groups", Args: noArgs}
	format := formatFlag(cmd)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		groups, err := c.Groups(cmd.Context())
		if err != nil {
			return err
		}
		if *format == show.Table {
			if err := addMembers(cmd.Context(), c, groups); err != nil {
				return err
			}
		}
		return show.Groups(p.Stdout, *format, groups)
	})
	return cmd
}

func (p *program) groupShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a group", Args: takes("NAME"), ValidArgsFunction: p.completer(names.Groups)}
	format := formatFlag(cmd)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		g, err := c.Group(cmd.Context(), shoal.GroupName(args[0]))
		if err != nil {
			return err
		}
		if *format == show.Table {
			all := []shoal.Group{g}
			if err := addMembers(cmd.Context(), c, all); err != nil {
				return err
			}
			g = all[0]
		}
		return show.Group(p.Stdout, *format, g)
	})
	return cmd
}

// addMembers adds those who say themselves that they are in a group, as far as the caller may see them:
// a document of a group does not name them, a person who asks who is in it wants to know.
func addMembers(ctx context.Context, c *client.Client, groups []shoal.Group) error {
	users, err := c.Users(ctx)
	if err != nil {
		return err
	}
	for i := range groups {
		g := &groups[i]
		for _, u := range users {
			if slices.Contains(u.Groups, g.Name) && !slices.Contains(g.Members, u.Name) {
				g.Members = append(g.Members, u.Name)
			}
		}
		slices.Sort(g.Members)
	}
	return nil
}
