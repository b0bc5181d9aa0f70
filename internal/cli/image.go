package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) imageCommand() *cobra.Command {
	return parent("image", "Images that machines are made from", p.imageSnapshot(), p.imageList(), p.imageRemove())
}

func (p *program) imageSnapshot() *cobra.Command {
	return &cobra.Command{
		Use: "snapshot NAME", Short: "Keep a copy of the server host's software as it is now",
		Long: `Freeze the image "host" under a name. A pool whose image is that name keeps the software of today whatever is
installed on the host later.`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			ctx, stop := p.interruptible(cmd.Context())
			defer stop()
			if _, err := c.Snapshot(ctx, args[0]); err != nil {
				return err
			}
			p.say("image %s made", args[0])
			return nil
		},
	}
}

func (p *program) imageList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the images that are kept", Args: noArgs}
	format := formatFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := p.connect()
		if err != nil {
			return err
		}
		images, err := c.Images(cmd.Context())
		if err != nil {
			return err
		}
		return show.Images(p.Stdout, *format, images)
	}
	return cmd
}

func (p *program) imageRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove an image that no pool uses", Args: takes("NAME"), ValidArgsFunction: p.completer(names.Images),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.connect()
			if err != nil {
				return err
			}
			if err := c.RemoveImage(cmd.Context(), args[0]); err != nil {
				return err
			}
			p.say("image %s removed", args[0])
			return nil
		},
	}
}
