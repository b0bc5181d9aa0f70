// Package rollout is `shoal pool rollout`: how old machines of a pool are replaced.
package rollout

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
)

// Env is the command line that the commands are part of.
type Env struct {
	Connect call.Connect
	Out     io.Writer
	Name    cobra.PositionalArgs
	Pools   cobra.CompletionFunc
	Format  func(*cobra.Command) *string // adds the flag
	Note    func(format string, args ...any)
	// Show, Counts and Revisions put into words what a server answers.
	Show      func(format string, r api.RolloutStatus) error
	Counts    func(api.RolloutStatus) string
	Revisions func(format string, all []api.Revision) error
}

// Commands makes the children of `shoal pool rollout`.
func Commands(env Env) []*cobra.Command {
	return []*cobra.Command{env.status(), env.history(),
		env.steer("pause", "Replace no old machine until `resume`", "paused"),
		env.steer("resume", "Replace old machines again, also where failures had stopped that", "goes on"),
		env.undo()}
}

func (env Env) command(use, short string) *cobra.Command {
	return &cobra.Command{Use: use + " NAME", Short: short, Args: env.Name, ValidArgsFunction: env.Pools}
}

// every is how often a rollout that is waited for is asked about.
const every = time.Second

func (env Env) status() *cobra.Command {
	cmd := env.command("status", "Say how far the machines of a pool have come to be as it says")
	format := env.Format(cmd)
	wait := cmd.Flags().Bool("wait", false, "wait until all are, or the rollout stops")
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
		r, err := c.Rollout(cmd.Context(), shoal.PoolName(args[0]))
		if err == nil && *wait {
			r, err = env.await(cmd.Context(), c, r)
		}
		if err != nil {
			return err
		}
		if err := env.Show(*format, r); err != nil || !*wait || r.State == api.RolloutDone {
			return err
		}
		return fmt.Errorf("the rollout of pool %s is %s", r.Pool, r.State)
	})
	return cmd
}

// await asks until a rollout is done, or does not go on by itself.
func (env Env) await(ctx context.Context, c *client.Client, r api.RolloutStatus) (api.RolloutStatus, error) {
	said := ""
	for r.State == api.RolloutRunning {
		if s := env.Counts(r); s != said {
			said = s
			env.Note("%s", s)
		}
		select {
		case <-ctx.Done():
			return r, context.Cause(ctx)
		case <-time.After(every):
		}
		var err error
		if r, err = c.Rollout(ctx, r.Pool); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (env Env) history() *cobra.Command {
	cmd := env.command("history", "List what the machines of a pool were made like")
	format := env.Format(cmd)
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
		r, err := c.Rollout(cmd.Context(), shoal.PoolName(args[0]))
		if err != nil {
			return err
		}
		return env.Revisions(*format, r.Revisions)
	})
	return cmd
}

func (env Env) steer(action, short, did string) *cobra.Command {
	cmd := env.command(action, short)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return env.do(cmd, args[0], api.RolloutRequest{Action: action}, did)
	}
	return cmd
}

func (env Env) undo() *cobra.Command {
	cmd := env.command("undo", "Give a pool the image, machine, mounts and setup that it had before")
	to := cmd.Flags().Int("to-revision", 0, "the revision `N` to go back to; default: the one before")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return env.do(cmd, args[0], api.RolloutRequest{Action: "undo", Revision: *to}, "undone")
	}
	return cmd
}

func (env Env) do(cmd *cobra.Command, pool string, req api.RolloutRequest, did string) error {
	c, err := env.Connect()
	if err != nil {
		return err
	}
	if _, err = c.SteerRollout(cmd.Context(), shoal.PoolName(pool), req); err == nil {
		_, err = fmt.Fprintf(env.Out, "the rollout of pool %s: %s\n", pool, did)
	}
	return err
}
