package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) machineCommand() *cobra.Command {
	return parent("machine", "Machines: who is there, and keeping people off one",
		p.machineList(), p.machineShow(), p.machineDrain(), p.machineUndrain(), p.machineDelete())
}

func (p *program) machineList() *cobra.Command {
	var q client.MachineQuery
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the machines", Args: noArgs}
	format := formatFlag(cmd)
	state := flags.Word{Of: []string{"requested", "booting", "ready", "stopping", "stopped", "failed", "gone"}}
	cmd.Flags().StringVarP((*string)(&q.Pool), "pool", "p", "", "of `POOL` only")
	cmd.Flags().Var(&state, "state", "in `STATE` only, gone too")
	cmd.Flags().BoolVarP(&q.Gone, "all", "a", false, "those that are gone, too")
	p.completeFlag(cmd, "pool", names.Pools)
	complete(cmd, "state", state.Of...)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		q.State = shoal.MachineState(state.Value)
		machines, err := c.Machines(cmd.Context(), q)
		if err != nil {
			return err
		}
		if len(machines) == 0 {
			if err := poolExists(cmd.Context(), c, q.Pool); err != nil {
				return err
			}
		}
		return show.Machines(p.Stdout, *format, machines)
	})
	return cmd
}

// poolExists refuses an empty list for a pool that there is none of: its name is a typing mistake.
func poolExists(ctx context.Context, c *client.Client, name shoal.PoolName) error {
	if name == "" {
		return nil
	}
	_, err := c.Pool(ctx, name)
	return err
}

func (p *program) machineShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show a machine", Args: takes("ID"), ValidArgsFunction: p.completer(names.Machines)}
	format := formatFlag(cmd)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		m, err := c.Machine(cmd.Context(), shoal.MachineID(args[0]))
		if err != nil {
			return err
		}
		return show.Machine(p.Stdout, *format, m)
	})
	return cmd
}

func (p *program) machineDrain() *cobra.Command {
	var req api.DrainRequest
	var wait bool
	cmd := &cobra.Command{
		Use: "drain ID", Short: "Keep new users and tasks off a machine; those there may finish",
		Example: "  shoal machine drain m-7f3kq2 --deadline 2h --reason \"a fan is broken\"",
		Args:    takes("ID"), ValidArgsFunction: p.completer(names.Machines),
	}
	cmd.Flags().Var(flags.Duration{Value: &req.Deadline}, "deadline", "end what is still there after this time")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "what to tell people")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until nobody is on it")
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		m, err := c.Drain(cmd.Context(), shoal.MachineID(args[0]), req)
		if err != nil {
			return err
		}
		if req.Deadline > 0 {
			p.say("machine %s takes nobody new; it is deleted when it is empty, and in %s at the latest", m.ID, req.Deadline)
		} else {
			p.say("machine %s takes nobody new, until `shoal machine undrain %s`", m.ID, m.ID)
		}
		if !wait {
			return nil
		}
		return p.waitUntil(cmd.Context(), "machine "+args[0], func(ctx context.Context) (string, bool, error) {
			m, err := c.Machine(ctx, m.ID)
			if shoal.KindOf(err) == shoal.KindNotFound {
				return "", true, nil
			}
			return m.Shown() + ", somebody is still there", !m.Alive() || !m.IdleAt.IsZero(), err
		})
	})
	return cmd
}

func (p *program) machineUndrain() *cobra.Command {
	return &cobra.Command{
		Use: "undrain ID", Short: "Let a machine take users and tasks again", Args: takes("ID"), ValidArgsFunction: p.completer(names.Machines),
		RunE: p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := c.Undrain(cmd.Context(), shoal.MachineID(args[0]))
			if err != nil {
				return err
			}
			if len(m.Cordons) > 0 {
				p.say("machine %s is no longer kept clear by you; still %s", m.ID, show.MachineReason(m))
			} else {
				p.say("machine %s takes users and tasks again", m.ID)
			}
			return nil
		}),
	}
}

func (p *program) machineDelete() *cobra.Command {
	var force, wait bool
	cmd := &cobra.Command{
		Use: "delete ID", Aliases: []string{"rm"}, Short: "Delete a machine; the pool makes another if it needs one",
		Args: takes("ID"), ValidArgsFunction: p.completer(names.Machines),
	}
	cmd.Flags().BoolVar(&force, "force", false, "even with users or tasks on it, whose work there ends")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is gone")
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		id := shoal.MachineID(args[0])
		if m, err := c.Machine(cmd.Context(), id); err == nil && m.State == shoal.MachineGone {
			p.say("machine %s is gone already", id)
			return nil
		}
		if err := c.DeleteMachine(cmd.Context(), id, force); err != nil {
			return err
		}
		if !wait {
			p.say("machine %s is being deleted", id)
			return nil
		}
		err := p.waitUntil(cmd.Context(), "machine "+args[0], func(ctx context.Context) (string, bool, error) {
			m, err := c.Machine(ctx, id)
			if shoal.KindOf(err) == shoal.KindNotFound {
				return "", true, nil
			}
			return string(m.State), m.State == shoal.MachineGone, err
		})
		if err == nil {
			p.say("machine %s deleted", id)
		}
		return err
	})
	return cmd
}
