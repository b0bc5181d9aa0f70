package gate

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
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/whole"
)

// Env is the command line that the commands are part of.
type Env struct {
	Connect call.Connect
	Out     io.Writer
	Say     func(format string, args ...any) // to people, who look at stderr
	Format  func(*cobra.Command) *string     // adds the flag
	List    func(format string, all []api.Gateway) error
	Takes   func(...string) cobra.PositionalArgs
}

// Commands makes the commands below `shoal gateway`.
func Commands(env Env) []*cobra.Command {
	return []*cobra.Command{env.add(), env.list(), env.remove()}
}

func (env Env) add() *cobra.Command {
	var file string
	life := shoal.Duration(time.Hour)
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a token with which a gateway enrols, once, under a name", Args: env.Takes("NAME"),
		Long: `Make a token for a gateway that is to run as a process of its own, and write it to standard output, or into a file that only you
may read. The gateway is started with it:

  shoal serve --role gateway --data DIR --server https://HOST:PORT --token-file FILE

The first process that shows the token is the gateway of that name from then on, with the signing key that it has made; the token is
good for no other. Behind the token's line is the certificate of the authority by which the gateway knows the server.`,
		Example: "  shoal gateway add edge-1 --out edge-1.token",
	}
	cmd.Flags().StringVar(&file, "out", "", "write it into `FILE`, which only you may read")
	cmd.Flags().Var(flags.Duration{Value: &life}, "for", "for how long the gateway may enrol (1h), 7d at most")
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
		t, err := c.AddGateway(cmd.Context(), api.AddGateway{Name: api.GatewayName(args[0]), For: life})
		if err != nil {
			return err
		}
		if file == "" {
			_, err = io.WriteString(env.Out, t.Token)
		} else if err = whole.Write(file, []byte(t.Token), 0o600); err != nil {
			err = fmt.Errorf("cannot write the token: %w", err)
		}
		if err == nil {
			env.Say("gateway %s may enrol until %s", args[0], t.Until.Local().Format("2006-01-02 15:04 MST"))
		}
		return err
	})
	return cmd
}

func (env Env) list() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the gateways that are processes of their own", Args: env.Takes()}
	format := env.Format(cmd)
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		all, err := c.Gateways(cmd.Context())
		if err != nil {
			return err
		}
		return env.List(*format, all)
	})
	return cmd
}

func (env Env) remove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Forget a gateway: machines do not trust its key any more", Args: env.Takes("NAME"),
		Long: `Forget a gateway. Machines do not trust its key any more, and the server does not talk to it. It takes nobody new; connections that
go through it go on until their users or you end them.`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (all []string, _ cobra.ShellCompDirective) {
			if c, err := env.Connect(); err == nil && len(args) == 0 {
				ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
				defer cancel()
				gateways, _ := c.Gateways(ctx)
				for _, g := range gateways {
					all = append(all, string(g.Name))
				}
			}
			return all, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if err := c.RemoveGateway(cmd.Context(), api.GatewayName(args[0])); err != nil {
				return err
			}
			env.Say("gateway %s removed", args[0])
			return nil
		}),
	}
}
