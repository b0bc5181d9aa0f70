package cli

import (
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/desktop"
	"github.com/shoal-pool/shoal/internal/cli/gate"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
)

func (p *program) sshCommand() *cobra.Command {
	var user, gateway string
	cmd := &cobra.Command{
		Use:   "ssh [POOL] [-- CMD…]",
		Short: "Log in to a machine of a pool; plain ssh does as well",
		Long: `Run ssh with the right name, host and port: ssh -p PORT USER+POOL@HOST. Without POOL it is your default pool. CMD is
handed to ssh as it is, so the shell there reads it.`,
		Example: "  shoal ssh lab\n  shoal ssh lab -- nvidia-smi",
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); dash > 1 || dash < 0 && len(args) > 1 {
				return usage(cmd, "%s takes one POOL; write -- before a command", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: p.completer(names.Pools),
	}
	cmd.Flags().StringVarP(&user, "user", "l", "", "the `NAME` to log in with (your own)")
	cmd.Flags().StringVar(&gateway, "gateway", "", "the gateway's `HOST:PORT` (SHOAL_GATEWAY; default: where the server says)")
	p.completeFlag(cmd, "user", names.Users)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pool, command := "", args
		if dash := cmd.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
			pool, command = args[0], args[1:]
		}
		t, err := p.target()
		if err != nil {
			return err
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		if user, err = p.sshUser(cmd.Context(), c, user); err != nil {
			return err
		}
		if gateway == "" {
			gateway = p.Getenv("SHOAL_GATEWAY")
		}
		host, port, err := gate.Of(cmd.Context(), c, t.server, gateway)
		if err != nil {
			return err
		}
		path, err := exec.LookPath("ssh")
		if err != nil {
			return shoal.Errorf(shoal.KindInvalid, "cannot start ssh: %w", err).WithHint("install openssh-client")
		}
		if pool != "" {
			user += "+" + pool
		}
		argv := []string{"ssh", "-p", port, "-l", user, host}
		if len(command) > 0 {
			argv = append(append(argv, "--"), command...)
		}
		return p.Exec(path, argv, os.Environ())
	}
	return cmd
}

// connectAt is connect with the URL by which the server is reached, empty for a socket.
func (p *program) connectAt() (*client.Client, string, error) {
	t, err := p.target()
	if err != nil {
		return nil, "", err
	}
	c, err := p.connect()
	return c, t.server, err
}

// desktopCommand is in its own package.
func (p *program) desktopCommand() *cobra.Command {
	data := func(format string, v any) (bool, error) { return show.AsData(p.Stdout, format, v) }
	cmd := desktop.Command(desktop.Env{Out: p.Stdout, Format: formatFlag, Data: data, Connect: p.connectAt})
	cmd.ValidArgsFunction = p.completer(names.Pools)
	return cmd
}

// sshUser is who logs in: as told, or else who the caller is.
func (p *program) sshUser(ctx context.Context, c *client.Client, told string) (string, error) {
	if told == "" {
		me, err := c.Whoami(ctx)
		if err != nil {
			return "", err
		}
		told = string(me.User)
	}
	if told == "" || strings.HasPrefix(told, "-") || strings.ContainsAny(told, "@+/ ") {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot log in as %q", told).WithHint("say who with --user NAME")
	}
	return told, nil
}
