package cli

import (
	"context"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/fetch"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

func (p *program) jobFiles() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "files ID [OUTPUT/PATH]",
		Short: "List and download the files in a job's outputs",
		Long: `List the files in a job's outputs. With the path of a file, print it, byte for byte; with that of a directory, list what is
in it. With -O DIR download a file, a directory or all outputs into DIR.

Files are read with your rights: what you may not read on a machine you may not read here. Outputs are read where they
are on a share; what a task left on its machine's own disk is gone with the machine.`,
		Example: "  shoal job files 17\n  shoal job files 17 model/weights.pt > weights.pt\n  shoal job files 17 model/run1 -O results",
		Args:    takes("ID", "[OUTPUT/PATH]"), ValidArgsFunction: p.completer(names.Jobs),
	}
	format := formatFlag(cmd)
	cmd.Flags().StringVarP(&dir, "to", "O", "", "download into `DIR`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := shoal.ParseTaskRef(args[0])
		if err != nil {
			return err
		}
		if ref.Index >= 0 {
			return usage(cmd, "the tasks of a job share its outputs: name the whole job, %s", ref.Job)
		}
		under := ""
		if len(args) > 1 {
			under = strings.Trim(args[1], "/")
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		ctx, stop := p.interruptible(cmd.Context())
		defer stop()
		err = p.showFiles(ctx, c, ref.Job, under, dir, *format, cmd.Flags().Changed("output"))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return cmd
}

func (p *program) showFiles(ctx context.Context, c *client.Client, job shoal.JobID, under, dir, format string, list bool) error {
	files, err := c.Files(ctx, job, under)
	if err != nil {
		return err
	}
	switch {
	case dir != "":
		return p.download(ctx, c, job, under, files, dir)
	case !list && len(files) == 1 && !files[0].Dir && path.Join(files[0].Output, files[0].Path) == under:
		f, err := c.File(ctx, job, under)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(p.Stdout, f)
		return err
	}
	return show.JobFiles(p.Stdout, format, files)
}

func (p *program) download(ctx context.Context, c *client.Client, job shoal.JobID, under string, files []api.JobFile, dir string) error {
	progress := term.NewProgress(p.Stderr, false)
	defer progress.Clear()
	sum, err := fetch.Tree(ctx, c, job, under, files, dir, func(done fetch.Sum, name string) {
		progress.Show("%s of %s: %s", done, fetch.SumOf(files), name)
	})
	progress.Clear()
	if err == nil {
		p.note("%s downloaded to %s", sum, dir)
	}
	return err
}
