// Package images is `shoal image`.
package images

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
)

// Env is the command line that the commands are part of.
type Env struct {
	Connect       call.Connect
	Interruptible func(context.Context) (context.Context, context.CancelFunc)
	Say           func(format string, args ...any)
	Takes         func(...string) cobra.PositionalArgs
	Complete      cobra.CompletionFunc             // names of images
	Format        func(cmd *cobra.Command) *string // adds the flag
	List          func(format string, all []api.Image) error
}

// Commands makes the commands below `shoal image`.
func Commands(env Env) []*cobra.Command {
	return []*cobra.Command{env.snapshot(), env.list(), env.remove()}
}

func (env Env) snapshot() *cobra.Command {
	return &cobra.Command{
		Use: "snapshot NAME", Short: "Keep a copy of the server host's software as it is now",
		Long: `Freeze the image "host" under a name. A pool whose image is that name keeps the software of today whatever is
installed on the host later. All of it is copied, which takes minutes and as much disk as it has.`,
		Args: env.Takes("NAME"),
		RunE: env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
			ctx, stop := env.Interruptible(cmd.Context())
			defer stop()
			if _, err := c.Snapshot(ctx, args[0]); err != nil {
				return err
			}
			env.Say("image %s made", args[0])
			return nil
		}),
	}
}

func (env Env) list() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the images that are kept", Args: env.Takes()}
	format := env.Format(cmd)
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		all, err := c.Images(cmd.Context())
		if err != nil {
			return err
		}
		return env.List(*format, all)
	})
	return cmd
}

func (env Env) remove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove an image that no pool uses", Args: env.Takes("NAME"), ValidArgsFunction: env.Complete,
		RunE: env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if err := c.RemoveImage(cmd.Context(), args[0]); err != nil {
				return err
			}
			env.Say("image %s removed", args[0])
			return nil
		}),
	}
}
