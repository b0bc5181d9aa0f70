// Package admin is `shoal admin`: what is done to a server's own data, on its host, without asking the server.
package admin

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/backup"
)

// Env is the command line that the commands are part of.
type Env struct {
	Data   string // the data directory of this host's own installation
	Getenv func(string) string
	Say    func(format string, args ...any)
	Out    io.Writer
	// Interruptible makes a context that also ends when whoever runs this wants it to: nothing half is left then.
	Interruptible func(context.Context) (context.Context, context.CancelFunc)
}

// Command makes `shoal admin`. parent makes a command that only holds others; takes says what it is given.
func Command(env Env, parent func(use, short string, children ...*cobra.Command) *cobra.Command, takes func(...string) cobra.PositionalArgs) *cobra.Command {
	return parent("admin", "Back up, restore and move what a server knows; on its host, as root",
		env.place("backup FILE", "Save the store and the keys into a file", `Save what a server knows into FILE, a tar archive: the store and the server's keys, so that only root may read it. The server
may be running; what is saved is one moment of it. FILE may be - for standard output. What tasks have written (DIR/output), machines' disks and shares are not in it.`,
			takes("FILE"), func(ctx context.Context, p backup.Place, file string) error {
				if file == "-" {
					return unless(ctx, backup.SaveTo(ctx, p, env.Out), "the backup is not whole")
				}
				if err := backup.Save(ctx, p, file); err != nil {
					return unless(ctx, err, "there is no backup")
				}
				env.Say("saved %s; it holds the server's keys: keep it where only root can read it", file)
				return nil
			}),
		env.place("restore FILE", "Make a data directory from a backup", `Make a data directory that does not exist yet, or is empty, from a backup. With --database the store goes into that PostgreSQL,
which must be empty. What has happened since the backup was made is not known to the server that is started on it: machines that it does
not know are removed, and jobs that it knows as running, and whose machines are gone, are queued again.`,
			takes("FILE"), func(ctx context.Context, p backup.Place, file string) error {
				if err := backup.Restore(ctx, p, file); err != nil {
					return unless(ctx, err, "nothing was restored")
				}
				env.Say("restored %s: start the server on it", p.Data)
				return nil
			}),
		env.migrate(takes()))
}

func (env Env) place(use, short, long string, args cobra.PositionalArgs, do func(ctx context.Context, p backup.Place, file string) error) *cobra.Command {
	var p backup.Place
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		for _, d := range []string{env.Getenv("SHOAL_DATA"), env.Data} {
			if p.Data == "" {
				p.Data = d
			}
		}
		ctx, stop := env.Interruptible(cmd.Context())
		defer stop()
		return do(ctx, p, args[0])
	}}
	cmd.Flags().StringVar(&p.Data, "data", "", "the data `DIR` (SHOAL_DATA; default "+env.Data+")")
	cmd.Flags().StringVar(&p.Database, "database", "", "the server's PostgreSQL, a `URL` (a file in the data directory)")
	return cmd
}

func (env Env) migrate(args cobra.PositionalArgs) *cobra.Command {
	var from, to string
	cmd := &cobra.Command{Use: "migrate --from sqlite:PATH --to URL", Short: "Copy the store from one database into another",
		Long: `Copy the store into a database that is empty. No server may be using either; the data directory with its keys stays where it is.
Then start the server with --database URL.`,
		Example: "  shoal admin migrate --from sqlite:/var/lib/shoal/shoal.db --to postgres://shoal@db.example.org/shoal",
		Args:    args,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := env.Interruptible(cmd.Context())
			defer stop()
			if err := backup.Migrate(ctx, from, to); err != nil {
				return unless(ctx, err, "nothing was copied")
			}
			if strings.HasPrefix(to, "sqlite:") {
				env.Say("copied; start the server without --database on a data directory that has it as shoal.db beside its keys, and put the former store aside")
				return nil
			}
			env.Say("copied; start the server with --database, and put the former store aside")
			return nil
		}}
	cmd.Flags().StringVar(&from, "from", "", "sqlite:PATH or postgres://USER@HOST/NAME, a `STORE` that no server uses")
	cmd.Flags().StringVar(&to, "to", "", "the same, a `STORE` that is empty")
	return cmd
}

// unless is an error, or what became of it all when whoever runs this did not wait for the end.
func unless(ctx context.Context, err error, interrupted string) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	return shoal.Errorf(shoal.KindCancelled, "%v: %s", context.Cause(ctx), interrupted)
}
