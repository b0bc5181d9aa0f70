package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/cli/admin"
	"github.com/shoal-pool/shoal/internal/cli/bill"
	"github.com/shoal-pool/shoal/internal/cli/flags"
	"github.com/shoal-pool/shoal/internal/cli/providers"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/web"
)

// Config is the world that a command line runs in.
type Config struct {
	Version string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	// Notify has the process's signals sent to c until stop is called. Nil: there are none.
	Notify func(c chan<- os.Signal, sig ...os.Signal) (stop func())
	// Exec replaces the process with another program.
	Exec func(path string, argv, env []string) error
	// Serve is the server. It blocks until ctx ends.
	Serve func(ctx context.Context, s Serve) error
	// MachineSocket is where the agent of a machine listens, DataDir where a server of this host
	// keeps its data unless told otherwise.
	MachineSocket string
	DataDir       string
}

// Serve is what `shoal serve` was told. Empty fields mean the defaults.
type Serve struct {
	Data      string
	Listen    string
	SSHListen string
	// AgentListen and AgentURL are where machines come in that are not on this host.
	AgentListen, AgentURL string
	// EndpointHost is on which address rdp and tcp endpoints listen.
	EndpointHost string
	Database     string
	Programs     []string // that make machines
	GPURoot      string
	Keep         shoal.Duration
	Linger       shoal.Duration
	TaskLease    shoal.Duration
	OutputCap    shoal.Bytes
	Role         string
	OfflineFor   shoal.Duration
	Servers      []string // of a gateway's control plane
	TokenFile    string
	Web          flags.Web
	Log          *slog.Logger
}

// OS is the world of this process.
func OS(version string) Config {
	return Config{
		Version: version, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Exec: syscall.Exec,
		Notify: func(c chan<- os.Signal, sig ...os.Signal) func() {
			signal.Notify(c, sig...)
			return func() { signal.Stop(c) }
		},
		MachineSocket: "/run/shoal.sock", DataDir: "/var/lib/shoal",
	}
}

// program is one command line while it runs.
type program struct {
	Config
	server    string // --server
	tokenFile string // --token-file
	as        string // --as
	started   bool   // arguments were understood
}

// Main runs a command line and returns its exit code.
func Main(ctx context.Context, args []string, cfg Config) int {
	p := &program{Config: cfg}
	root := p.root()
	root.SetArgs(args)
	root.SetIn(cfg.Stdin)
	root.SetOut(cfg.Stdout)
	root.SetErr(cfg.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return p.exit(cmd, args, err)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "shoal",
		Short: "Pools of machines for a team: log in, run jobs, pay only while they run",
		Long: `Shoal keeps pools of machines that start when somebody needs them: by plain ssh, or by a job.

Where it connects: --server and --token-file, or SHOAL_SERVER and SHOAL_TOKEN; SHOAL_DATA=DIR for the
server of this host; inside a machine, the machine's own socket; else what "shoal login" stored.

Exit codes: 0 done, 1 failed, 2 wrong usage or invalid input, 3 not found, 4 denied or not logged in,
5 conflict, 6 no capacity or quota, 7 server unreachable. "run --wait" and "job wait" exit as the job
did, and with 125 where Shoal itself failed.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE:              needsVerb,
		PersistentPreRun:  func(*cobra.Command, []string) { p.started = true },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 { // a flag of a command that was mistyped
			return needsVerb(cmd, words)
		}
		return usage(cmd, "%w", plain(err))
	})
	f := root.PersistentFlags()
	f.StringVar(&p.server, "server", "", "the server's `URL` (SHOAL_SERVER)")
	f.StringVar(&p.tokenFile, "token-file", "", "read the token from `FILE` (SHOAL_TOKEN holds one itself)")
	f.StringVar(&p.as, "as", "", "act as `USER`; for admins")
	root.AddGroup(&cobra.Group{ID: work, Title: "Work:"}, &cobra.Group{ID: look, Title: "Look:"}, &cobra.Group{ID: keep, Title: "Keep:"})
	for _, g := range []struct {
		id       string
		commands []*cobra.Command
	}{
		{work, []*cobra.Command{p.loginCommand(), web.Command(web.Env{Connect: p.connectAt, In: p.Stdin, Say: p.say, Note: p.note}), p.sshCommand(), p.desktopCommand(), p.runCommand(), p.jobCommand(), p.appCommand(), p.secretCommand(), p.sessionCommand()}},
		{look, []*cobra.Command{p.whyCommand(), p.eventsCommand(), p.topCommand(), bill.Command(bill.Env{Connect: p.connect, Out: p.Stdout, Err: p.Stderr, NoArgs: noArgs, Complete: complete, Write: show.Usage, Plot: show.UsagePlot})}},
		{keep, []*cobra.Command{p.serveCommand(), p.doctorCommand(), p.applyCommand(), p.deployCommand(), p.poolCommand(), p.machineCommand(),
			p.imageCommand(), p.userCommand(), p.groupCommand(), p.gatewayCommand(), admin.Command(admin.Env{Data: p.DataDir, Getenv: p.Getenv, Say: p.say, Out: p.Stdout, Interruptible: p.interruptible}, parent, takes), providers.Command(providers.Env{Say: p.say, Interruptible: p.interruptible}, parent, takes)}},
	} {
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.AddCommand(p.compatCommand(), p.versionCommand(), p.completionCommand())
	return root
}

// The groups of commands in the help.
const (
	work = "work"
	look = "look"
	keep = "keep"
)

// parent makes a command that only holds others.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: needsVerb}
	c.AddCommand(children...)
	return c
}

// needsVerb answers a parent without, or with an unknown, child.
func needsVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		cmd.SetOut(cmd.ErrOrStderr())
		_ = cmd.Help()
		return exitCode(shoal.KindInvalid.Meaning().Exit)
	}
	err := usage(cmd, "unknown command %q for %q", args[0], cmd.CommandPath())
	for distance := 1; distance <= 2; distance++ {
		cmd.SuggestionsMinimumDistance = distance
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return err.WithHint("did you mean %s?", near[0])
		}
	}
	return err
}

// interruptible gives a context that also ends when the user or the system wants the program to.
func (p *program) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if p.Notify == nil {
		return ctx, func() { cancel(nil) }
	}
	signals := make(chan os.Signal, 1)
	stop := p.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			stop() // the next one ends it at once
			cancel(interrupted{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { stop(); cancel(nil) }
}

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal os.Signal }

func (i interrupted) Error() string { return "interrupted by " + i.signal.String() }
