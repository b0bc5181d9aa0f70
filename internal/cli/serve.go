package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/gate"
	"github.com/shoal-pool/shoal/internal/cli/images"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/settings"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/store/postgres"
)

func (p *program) serveCommand() *cobra.Command {
	var s Serve
	var config string
	cmd := &cobra.Command{
		Use:   "serve --data DIR",
		Short: "Run the server: the control plane and the gateway for ssh and browsers",
		Long: `Run the server in the foreground until SIGINT or SIGTERM. Machines, sessions and jobs go on without it, and the
next start takes them over again. It needs root; "shoal doctor" says what a host lacks.

The first start makes the data directory with its keys and DIR/admin.token, the token of an administrator.

With --role control it is all of this but the ssh gateway, which is left to processes of their own; --ssh-listen says where people find
these. With --role gateway it is such a gateway for ssh, and needs no root:

  shoal serve --role gateway --data DIR --server URL[,URL] --token-file FILE [--ssh-listen HOST:PORT] [--offline-for 1h]

URL is where machines come in (--agent-listen of the server), FILE from "shoal gateway add"; no other flags count but --linger. Browsers,
and rdp and tcp endpoints, stay with the control plane.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if config != "" {
				if err := p.configure(cmd, config); err != nil {
					return err
				}
			}
			if err := p.roles(cmd, &s); err != nil {
				return err
			}
			if _, err := postgres.Parse(s.Database); s.Database != "" && err != nil {
				return fmt.Errorf("cannot use --database: %w", err)
			}
			if s.Data == "" {
				s.Data = p.Getenv("SHOAL_DATA")
			}
			if p.Serve == nil {
				return errors.New("this program is built without a server")
			}
			s.Log = slog.New(slog.NewTextHandler(p.Stderr, nil))
			ctx, stop := p.interruptible(cmd.Context())
			defer stop()
			err := p.Serve(ctx, s)
			if errors.Is(err, context.Canceled) && ctx.Err() != nil {
				return nil
			}
			if shoal.KindOf(err) == shoal.KindUnavailable { // a part of the host; "server unreachable" is for those who ask one
				return shoal.Errorf(shoal.KindInternal, "%w", err).WithHint("%s", shoal.HintOf(err))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Data, "data", "", "the data `DIR` (SHOAL_DATA; default "+p.DataDir+")")
	f.StringVar(&s.Listen, "listen", "", "where the API listens, `HOST:PORT` (default 127.0.0.1:7420)")
	f.StringVar(&s.SSHListen, "ssh-listen", "", "where the ssh gateway listens, `HOST:PORT` (default 127.0.0.1:2222)")
	f.StringVar(&s.AgentListen, "agent-listen", "", "where machines come in that are not on this host, `HOST:PORT` (nowhere)")
	f.StringVar(&s.AgentURL, "agent-url", "", "how those machines write it, a `URL` (https:// and --agent-listen)")
	f.StringVar(&s.EndpointHost, "endpoint-listen", "", "on which `ADDRESS` the ports of rdp and tcp endpoints are opened (that of --ssh-listen)")
	f.StringArrayVar(&s.Programs, "provider", nil, "an `EXECUTABLE` that may make machines, for pools with provider: exec:EXECUTABLE; kubernetes and azure are Shoal's own; may be repeated")
	f.StringVar(&s.GPURoot, "gpu-root", "", "where the GPUs' device nodes and driver lie, a `DIR` such as a driver container's root (/)")
	f.Var(flags.Duration{Value: &s.Keep}, "keep-history", "for how long jobs, sessions and machines that have ended are kept (90d); of jobs it is known for ever how they ended")
	f.Var(flags.Duration{Value: &s.Linger}, "linger", "for how long ssh connections go on once this server is told to end, or another leads (0s)")
	f.Var(flags.Duration{Value: &s.TaskLease}, "task-lease", "for how long tasks run on without an answer of this server, 15s to 5m (5m): a short one has those of lost machines begin again sooner")
	f.Var(flags.Bytes{Value: &s.OutputCap}, "output-cap", "how much is kept of what a task writes to each of its streams, half of it from the beginning (1GiB)")
	f.StringVar(&s.Role, "role", "", "what this process does: control, gateway or `control,gateway` (both)")
	f.Var(flags.Duration{Value: &s.OfflineFor}, "offline-for", "with --role gateway: for how long who has a session is let in while the control plane does not answer (1h)")
	s.Web.Register(f)
	f.StringVar(&config, "config", "", "read these flags from a YAML `FILE` too, as `listen: HOST:PORT`; the command line wins")
	f.StringVar(&s.Database, "database", "", "a PostgreSQL for several servers of which one leads, a `URL` as postgres://USER@HOST/NAME (a file in the data directory)")
	files(cmd, "config")
	files(cmd, "data")
	files(cmd, "gpu-root")
	files(cmd, "provider")
	files(cmd, "tls-cert")
	files(cmd, "tls-key")
	files(cmd, "acme-root")
	files(cmd, "chp-token-file")
	return cmd
}

// configure sets the flags of a file that the command line does not.
func (p *program) configure(cmd *cobra.Command, path string) error {
	file, err := p.files().One(path)
	if err == nil {
		err = settings.Apply(cmd.LocalFlags(), file, "config", "help")
	}
	if err != nil {
		return fmt.Errorf("cannot use --config: %w", invalid(err))
	}
	return nil
}

// roles reads what the process is to do, and of a gateway where its control plane is.
func (p *program) roles(cmd *cobra.Command, s *Serve) error {
	for role := range strings.SplitSeq(s.Role, ",") {
		if s.Role != "" && !slices.Contains([]string{"control", "gateway"}, role) {
			return usage(cmd, "unknown role %q: there are control and gateway", role)
		}
	}
	if s.Role != "gateway" {
		return nil
	}
	server := p.serverGiven()
	if server == "" {
		return usage(cmd, "a gateway needs to know where its control plane is: --server URL")
	}
	s.Servers, s.TokenFile = strings.Split(server, ","), p.tokenFile
	return nil
}

func (p *program) gatewayCommand() *cobra.Command {
	return parent("gateway", "Gateways for ssh that are processes of their own", gate.Commands(gate.Env{Connect: p.connect, Out: p.Stdout, Say: p.note, Format: formatFlag, Takes: takes,
		List: func(format string, all []api.Gateway) error { return show.Gateways(p.Stdout, format, all) }})...)
}

func (p *program) imageCommand() *cobra.Command {
	return parent("image", "Images that machines are made from", images.Commands(images.Env{Connect: p.connect, Interruptible: p.interruptible, Say: p.say, Takes: takes,
		Complete: p.completer(names.Images), Format: formatFlag, List: func(format string, all []api.Image) error { return show.Images(p.Stdout, format, all) }})...)
}
