package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/apps"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/secrets"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

func (p *program) sessionCommand() *cobra.Command {
	return parent("session", "Sessions: who is where, and keeping one's machine awake", p.sessionList(), p.sessionEnd(), p.sessionKeepAwake())
}

func (p *program) appCommand() *cobra.Command {
	return parent("app", "Web apps: one's own instances of the pools' http endpoints", apps.Commands(apps.Env{Connect: p.connect, Say: p.note, Complain: p.complain, IDs: p.completer(names.Apps),
		List: func(format string, all []shoal.App) error { return show.Apps(p.Stdout, format, all) },
		Show: func(format string, a shoal.App) error { return show.App(p.Stdout, format, a) }, Format: formatFlag, Pools: func(cmd *cobra.Command, flag string) { p.completeFlag(cmd, flag, names.Pools) }})...)
}

func (p *program) secretCommand() *cobra.Command {
	return parent("secret", "Secrets: values for jobs and sessions that nobody is to see", secrets.Commands(secrets.Env{Connect: p.connect, In: p.Stdin, Out: p.Stdout, Ask: p.ask,
		Terminal: term.Is(p.Stdin), Say: p.note, Complain: p.complain, Format: formatFlag, List: func(format string, all []shoal.Secret) error { return show.Secrets(p.Stdout, format, all) }})...)
}

func (p *program) sessionList() *cobra.Command {
	var q client.SessionQuery
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the sessions; inside a machine, one's own",
		Args: noArgs,
	}
	format := formatFlag(cmd)
	f := cmd.Flags()
	f.StringVarP((*string)(&q.Pool), "pool", "p", "", "on `POOL` only")
	f.StringVarP((*string)(&q.User), "user", "u", "", "of `USER` only")
	f.BoolVarP(&q.Ended, "all", "a", false, "those that have ended, too")
	p.completeFlag(cmd, "pool", names.Pools)
	p.completeFlag(cmd, "user", names.Users)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if q.User == "" {
			me, err := c.Whoami(cmd.Context())
			if err != nil {
				return err
			}
			if me.Machine != "" {
				q.User = me.User
			}
		}
		sessions, err := c.Sessions(cmd.Context(), q)
		if err != nil {
			return err
		}
		if len(sessions) == 0 {
			if err := poolExists(cmd.Context(), c, q.Pool); err != nil {
				return err
			}
		}
		return show.Sessions(p.Stdout, *format, sessions)
	})
	return cmd
}

func (p *program) sessionEnd() *cobra.Command {
	return &cobra.Command{
		Use: "end ID", Short: "End a session: its connections close and its processes end", Args: takes("ID"), ValidArgsFunction: p.completer(names.Sessions),
		RunE: p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if err := c.EndSession(cmd.Context(), shoal.SessionID(args[0])); err != nil {
				return err
			}
			p.say("session %s ended", args[0])
			return nil
		}),
	}
}

func (p *program) sessionKeepAwake() *cobra.Command {
	return &cobra.Command{
		Use:   "keep-awake DURATION [ID]",
		Short: "Keep a session's machine running for a while, though nothing seems to happen there",
		Long: "A session's machine stays for so long, and nothing of the session ends for want of use. A second one replaces the first;\n" +
			"0 takes it back.",
		Example: "  shoal session keep-awake 10h\n  shoal session keep-awake 0",
		Args:    takes("DURATION", "[ID]"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return []string{"30m", "2h", "10h"}, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return p.offer(cmd, names.Sessions), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := shoal.ParseDuration(args[0])
			if err != nil {
				return usage(cmd, "%w (%s)", err, shoal.HintOf(err))
			}
			c, err := p.connect()
			if err != nil {
				return err
			}
			var id shoal.SessionID
			if len(args) > 1 {
				id = shoal.SessionID(args[1])
			} else if id, err = ownSession(cmd.Context(), c); err != nil {
				return err
			}
			s, err := c.KeepAwake(cmd.Context(), id, time.Duration(d))
			if err != nil {
				return err
			}
			if d == 0 {
				p.say("session %s is no longer kept awake", id)
				return nil
			}
			until := s.KeepUntil
			if until.IsZero() {
				until = time.Now().Add(time.Duration(d))
			}
			p.say("session %s stays awake until %s", id, until.Local().Format("2006-01-02 15:04"))
			return nil
		},
	}
}

// ownSession is the caller's session on the machine she is on, or else her only one.
func ownSession(ctx context.Context, c *client.Client) (shoal.SessionID, error) {
	me, err := c.Whoami(ctx)
	if err != nil {
		return "", err
	}
	if me.User == "" {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot tell which session is meant").WithHint("name one of `shoal session list`")
	}
	sessions, err := c.Sessions(ctx, client.SessionQuery{User: me.User})
	if err != nil {
		return "", err
	}
	mine := slices.DeleteFunc(sessions, func(s shoal.Session) bool {
		return !s.Live() || s.User != me.User || me.Machine != "" && s.Machine != me.Machine
	})
	switch len(mine) {
	case 1:
		return mine[0].ID, nil
	case 0:
		return "", shoal.Errorf(shoal.KindNotFound, "cannot keep awake what is not there: %s has no session%s", me.User, on(me))
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot tell which of the %d sessions of %s is meant", len(mine), me.User).
		WithHint("name one of `shoal session list`")
}

func on(me api.Whoami) string {
	if me.Machine == "" {
		return ""
	}
	return " on machine " + string(me.Machine)
}
