package desktop

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// Env is the command line that the command is part of.
type Env struct {
	// Connect returns a client, and the URL by which it reaches the server; empty: by a socket.
	Connect func() (*client.Client, string, error)
	Out     io.Writer
	Format  func(*cobra.Command) *string // adds the flag
	// Data writes a value in a format, and is false for that which people read.
	Data func(format string, v any) (bool, error)
}

// Command makes `shoal desktop`.
func Command(env Env) *cobra.Command {
	var req api.DesktopRequest
	var way Way
	cmd := &cobra.Command{
		Use:   "desktop [POOL]",
		Short: "Get the way to a remote desktop: an address and a password that is good once",
		Long: `Say how to reach a remote desktop on a machine of a pool with any client of RDP. For ten minutes a connection from
this computer may start a machine, and the password lets you in once. Without POOL it is the pool that has desktops.

Whoever has a password with Shoal can use that as well; the desktop is then reached without this command where you
have a session, or have signed in from the same address during the last hours.`,
		Example: "  shoal desktop lab\n  shoal desktop lab --rdp lab.rdp\n  shoal desktop --from 192.0.2.7     # the client runs there",
		Args:    cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&req.Endpoint, "endpoint", "", "the `NAME` of the endpoint, where the pool has several")
	f.StringVar(&req.From, "from", "", "the `ADDRESS` that the client will come from (this computer's, as the server sees it)")
	f.StringVar(&way.File, "rdp", "", "write a `FILE` that clients of RDP open")
	f.StringVar(&way.PasswordFile, "password-file", "", "write the password to a `FILE` that only you can read, instead of the terminal")
	for _, name := range []string{"rdp", "password-file"} {
		_ = cmd.MarkFlagFilename(name) // fails for unknown flags only
	}
	format := env.Format(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			req.Pool = shoal.PoolName(args[0])
		}
		c, server, err := env.Connect()
		if err != nil {
			return err
		}
		if way.DesktopTicket, err = c.Desktop(cmd.Context(), req); err != nil {
			return err
		}
		way.Reached(server)
		if err := way.Write(); err != nil {
			return err
		}
		ticket := way.DesktopTicket
		if way.PasswordFile != "" {
			ticket.Password = ""
		}
		if done, err := env.Data(*format, ticket); done || err != nil {
			return err
		}
		return way.Say(env.Out)
	}
	return cmd
}
