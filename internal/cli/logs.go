package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/follow"
	"github.com/shoal-pool/shoal/internal/cli/names"
)

func (p *program) jobLogs() *cobra.Command {
	var q client.OutputQuery
	var stderr bool
	task := -1
	cmd := &cobra.Command{
		Use:   "logs ID[/INDEX|/NAME]",
		Short: "Print a task's output, byte for byte",
		Long: `Print what a task wrote to its standard output, or with --stderr to its standard error. With -f it goes on until the
task has ended, over lost connections and restarts of the server. A task of an array is named by its index. Of a task on
several nodes it is what the first wrote; --node names another by its rank. Of a very long output the server keeps the
beginning and the end, and a line says how much is missing between.`,
		Example: "  shoal job logs 17 -f\n  shoal job logs 18/3 --stderr\n  shoal job logs 20/split\n  shoal job logs 19 --node 1",
		Args:    takes("ID"), ValidArgsFunction: p.completer(names.Jobs),
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on until the task has ended")
	f.IntVar(&q.Node, "node", 0, "what the node of this `RANK` wrote, of a task on several")
	f.IntVar(&task, "task", -1, "of the task with this `INDEX`")
	f.BoolVar(&stderr, "stderr", false, "its standard error instead of its standard output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := names.Task(cmd.Context(), p.connect, args[0])
		if err != nil {
			return err
		}
		if q.Node < 0 {
			return usage(cmd, "--node counts from 0")
		}
		if cmd.Flags().Changed("task") {
			if ref.Index >= 0 && ref.Index != task || task < 0 {
				return usage(cmd, "--task %d does not go with %s", task, args[0])
			}
			ref.Index = task
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		if ref.Index < 0 {
			if ref, err = follow.OnlyTask(cmd.Context(), c, ref.Job); err != nil {
				return err
			}
		}
		if stderr {
			q.Stream = "stderr"
		}
		ctx, stop := p.interruptible(cmd.Context())
		defer stop()
		err = follow.Output(ctx, c, ref, q, p.Stdout)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	return cmd
}
