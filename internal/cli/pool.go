package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/rehearse"
	"github.com/shoal-pool/shoal/internal/cli/rollout"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) poolCommand() *cobra.Command {
	return parent("pool", "Pools: sets of identical machines", p.poolList(), p.poolShow(), p.poolScale(), p.poolDelete(),
		parent("rollout", "How machines are replaced that are not as their pool is now", rollout.Commands(rollout.Env{Connect: p.connect, Out: p.Stdout,
			Name: takes("NAME"), Pools: p.completer(names.Pools), Format: formatFlag, Note: p.note, Counts: show.RolloutCounts,
			Show:      func(format string, r api.RolloutStatus) error { return show.Rollout(p.Stdout, format, r) },
			Revisions: func(format string, all []api.Revision) error { return show.Revisions(p.Stdout, format, all) }})...))
}

func (p *program) poolList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the pools", Args: noArgs}
	format := formatFlag(cmd)
	label := cmd.Flags().StringP("label", "l", "", "with this label, `KEY=VALUE`, only")
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		pools, err := c.Pools(cmd.Context())
		if err != nil {
			return err
		}
		pools = show.Labelled(pools, *label)
		var machines []shoal.Machine
		if *format == show.Table {
			if machines, err = c.Machines(cmd.Context(), client.MachineQuery{}); err != nil {
				return err
			}
		}
		return show.Pools(p.Stdout, *format, pools, machines)
	})
	return cmd
}

func (p *program) poolShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a pool and its machines", Args: takes("NAME"), ValidArgsFunction: p.completer(names.Pools)}
	format := formatFlag(cmd)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		pool, err := c.Pool(cmd.Context(), shoal.PoolName(args[0]))
		if err != nil {
			return err
		}
		if err := show.Pool(p.Stdout, *format, pool); err != nil || *format != show.Table {
			return err
		}
		machines, err := c.Machines(cmd.Context(), client.MachineQuery{Pool: pool.Name})
		if err != nil || len(machines) == 0 {
			return err
		}
		fmt.Fprintln(p.Stdout)
		return show.Machines(p.Stdout, show.Table, machines)
	})
	return cmd
}

func (p *program) poolScale() *cobra.Command {
	var req api.ScaleRequest
	var wait bool
	var try rehearse.Request
	cmd := &cobra.Command{
		Use:               "scale NAME {--size N [--for D] | --auto | --dry-run [-f FILE] [--since D]}",
		Short:             "Set the number of machines by hand, or let the pool scale by itself again",
		Example:           "  shoal pool scale lab --size 3 --for 2h\n  shoal pool scale lab --auto\n  shoal pool scale lab --dry-run -f pool.yaml --since 7d",
		Args:              takes("NAME"),
		ValidArgsFunction: p.completer(names.Pools),
	}
	cmd.Flags().IntVar(&req.Size, "size", 0, "the number of machines `N`")
	cmd.Flags().Var(flags.Duration{Value: &req.For}, "for", "for how long; without it until --auto")
	cmd.Flags().BoolVar(&req.Auto, "auto", false, "scale by demand again")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the machines are ready")
	try.Flags(cmd)
	format := formatFlag(cmd)
	files(cmd, "file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sized := cmd.Flags().Changed("size")
		switch {
		case try.Dry && (sized || req.Auto):
			return usage(cmd, "--dry-run tells what the autoscaler would do; --size and --auto set it aside")
		case try.Dry:
			a, err := try.Ask(cmd.Context(), p.connect, p.files().Files, shoal.PoolName(args[0]))
			return show.Rehearsal(p.Stdout, *format, a, err)
		case try.File != "" || try.Since != 0 || cmd.Flags().Changed("output"):
			return usage(cmd, "-f, --since and -o go with --dry-run")
		case sized == req.Auto:
			return usage(cmd, "say either --size N or --auto")
		case req.Auto && req.For > 0:
			return usage(cmd, "--for goes with --size")
		case req.Size < 0:
			return usage(cmd, "cannot have %d machines", req.Size)
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		pool, err := c.ScalePool(cmd.Context(), shoal.PoolName(args[0]), req)
		if err != nil {
			return err
		}
		if req.Auto {
			p.say("pool %s scales by itself between %d and %d machines", pool.Name, pool.Size.Min, pool.Size.Max)
		} else {
			p.say("pool %s is to have %s%s", pool.Name, show.Many(req.Size, "machine"), show.Only(req.For > 0, " for "+req.For.String()))
		}
		if !wait || req.Auto {
			return nil
		}
		return p.waitUntil(cmd.Context(), "pool "+string(pool.Name), func(ctx context.Context) (string, bool, error) {
			machines, err := c.Machines(ctx, client.MachineQuery{Pool: pool.Name})
			how, done := show.Progress(pool, machines, req.Size)
			return how, done, err
		})
	}
	return cmd
}

func (p *program) poolDelete() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a pool: its machines go as soon as nobody is on them",
		Args: takes("NAME"), ValidArgsFunction: p.completer(names.Pools),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is gone")
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		name := shoal.PoolName(args[0])
		if err := c.DeletePool(cmd.Context(), name); err != nil {
			return err
		}
		if !wait {
			p.say("pool %s is being deleted", name)
			return nil
		}
		err := p.waitUntil(cmd.Context(), "pool "+args[0], func(ctx context.Context) (string, bool, error) {
			pool, err := c.Pool(ctx, name)
			if shoal.KindOf(err) == shoal.KindNotFound {
				return "", true, nil
			}
			if err != nil {
				return "", false, err
			}
			machines, err := c.Machines(ctx, client.MachineQuery{Pool: name})
			machines = slices.DeleteFunc(machines, func(m shoal.Machine) bool { return m.State == shoal.MachineGone })
			return "its machines go: " + show.Population(pool, machines), false, err
		})
		if err == nil {
			p.say("pool %s deleted", name)
		}
		return err
	})
	return cmd
}
