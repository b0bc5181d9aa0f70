// Package apps is `shoal app`: users' web apps.
package apps

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
)

// Env is the command line that the commands are part of.
type Env struct {
	Connect  call.Connect
	List     func(format string, all []shoal.App) error // writes them
	Show     func(format string, a shoal.App) error
	Say      func(format string, args ...any) // to people, who look at stderr
	Complain func(error)
	Format   func(*cobra.Command) *string // adds the flag
	IDs      cobra.CompletionFunc
	Pools    func(cmd *cobra.Command, flag string) // completes a flag
}

// Commands makes the commands below `shoal app`.
func Commands(env Env) []*cobra.Command {
	return []*cobra.Command{env.list(), env.start(), env.one(), env.stop()}
}

func (env Env) list() *cobra.Command {
	var q client.AppQuery
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the web apps", Args: cobra.NoArgs}
	format := env.Format(cmd)
	f := cmd.Flags()
	f.StringVarP((*string)(&q.Pool), "pool", "p", "", "on `POOL` only")
	f.StringVarP((*string)(&q.User), "user", "u", "", "of `USER` only")
	f.BoolVarP(&q.Ended, "all", "a", false, "those that have ended, too")
	env.Pools(cmd, "pool")
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		all, err := c.Apps(cmd.Context(), q)
		if err != nil {
			return err
		}
		return env.List(*format, all)
	})
	return cmd
}

func (env Env) start() *cobra.Command {
	var req api.OpenApp
	var detach bool
	cmd := &cobra.Command{
		Use: "start ENDPOINT", Short: "Start a web app of yours, or find the one that runs", Args: cobra.ExactArgs(1),
		Long: `Start your own instance of an http endpoint of a pool, and wait until it answers. A machine is started if there is none; the
app comes to lie on the machine where your other sessions are. If it runs already, that one is told.`,
		Example: "  shoal app start board -p lab",
	}
	f := cmd.Flags()
	f.StringVarP((*string)(&req.Pool), "pool", "p", "", "on `POOL` (the one that has the endpoint)")
	f.BoolVarP(&detach, "detach", "d", false, "do not wait until it runs")
	env.Pools(cmd, "pool")
	format := env.Format(cmd)
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
		req.Endpoint = args[0]
		a, err := c.OpenApp(cmd.Context(), req)
		if err == nil && !detach {
			a, err = env.follow(cmd.Context(), c, a)
		}
		if err != nil {
			return err
		}
		return env.Show(*format, a)
	})
	return cmd
}

// follow waits until an app runs, telling how far it is.
func (env Env) follow(ctx context.Context, c *client.Client, a shoal.App) (shoal.App, error) {
	told := ""
	for a.Live() && a.State != shoal.AppRunning {
		if a.Progress != told {
			told = a.Progress
			env.Say("%s", told)
		}
		var err error
		if a, err = c.WaitApp(ctx, a.ID, a.Rev); err != nil {
			return a, err
		}
	}
	if !a.Live() {
		why := fmt.Sprintf("%s did not start: %s", a.Endpoint, a.Reason)
		if last := strings.TrimSpace(a.Log); last != "" {
			why += "\nthe last it said:\n" + last
		}
		return a, shoal.Errorf(shoal.KindInternal, "%s", why)
	}
	return a, nil
}

func (env Env) one() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID|ENDPOINT", Short: "Show a web app, with the last it said if it failed", Args: cobra.ExactArgs(1), ValidArgsFunction: env.IDs}
	format := env.Format(cmd)
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
		a, err := find(cmd.Context(), c, args[0], true)
		if err != nil {
			return err
		}
		return env.Show(*format, a)
	})
	return cmd
}

func (env Env) stop() *cobra.Command {
	return &cobra.Command{
		Use: "stop ID|ENDPOINT…", Short: "Stop web apps", Args: cobra.MinimumNArgs(1), ValidArgsFunction: env.IDs,
		RunE: env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return call.Each(args, env.Complain, func(name string) error {
				a, err := find(cmd.Context(), c, name, false)
				if err == nil {
					err = c.StopApp(cmd.Context(), a.ID)
				}
				for err == nil && a.Live() {
					a, err = c.WaitApp(cmd.Context(), a.ID, a.Rev)
				}
				if err == nil {
					env.Say("%s (%s) has ended", a.ID, a.Endpoint)
				}
				return err
			})
		}),
	}
}

// find finds an app by its identifier, or the caller's own by its endpoint: the newest one.
func find(ctx context.Context, c *client.Client, name string, ended bool) (shoal.App, error) {
	if strings.HasPrefix(name, "a-") {
		return c.App(ctx, shoal.AppID(name))
	}
	me, err := c.Whoami(ctx)
	if err != nil {
		return shoal.App{}, err
	}
	const lately = 200
	all, err := c.Apps(ctx, client.AppQuery{User: me.User, Ended: ended, Limit: lately})
	if err != nil {
		return shoal.App{}, err
	}
	for _, a := range all {
		if a.Endpoint == name && (me.User == "" || a.User == me.User) {
			return a, nil
		}
	}
	return shoal.App{}, shoal.Errorf(shoal.KindNotFound, "no app of endpoint %q", name).WithHint("`shoal app list --all` lists them")
}
