package cli

import (
	"context"
	"net"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/login"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
)

func (p *program) loginCommand() *cobra.Command {
	var user, key string
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "login [URL]",
		Short: "Log in to a server, with an ssh key or a password, and store a token",
		Long: `Log in and store a token, readable by you alone, that later commands use. Keys of the ssh-agent are tried first,
then ~/.ssh/id_ed25519, id_ecdsa and id_rsa, then a terminal is asked for the password. Inside a machine no login is needed.`,
		Example: "  shoal login http://pool.example.org:7420\n  shoal login --user alice --password-stdin < secret",
		Args:    takes("[URL]"),
	}
	f := cmd.Flags()
	f.StringVarP(&user, "user", "u", "", "the `NAME` to log in with (your name here)")
	f.StringVar(&key, "key", "", "sign with the private key in `FILE`, and nothing else")
	f.BoolVar(&fromStdin, "password-stdin", false, "read the password from stdin")
	files(cmd, "key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if fromStdin && key != "" {
			return usage(cmd, "--key and --password-stdin contradict each other")
		}
		stored, err := login.Read(p.Getenv)
		if err != nil {
			return err
		}
		server, err := p.loginServer(args, stored)
		if err != nil {
			return err
		}
		for _, name := range []string{string(stored.Servers[server].User), p.Getenv("USER"), p.Getenv("LOGNAME")} {
			if user == "" {
				user = name
			}
		}
		if user == "" {
			return usage(cmd, "cannot tell who you are: say --user NAME")
		}
		c, err := client.New(client.Options{Server: server})
		if err != nil {
			return err
		}
		if !private(server) {
			p.note("the connection to %s is not encrypted; a password or token may be seen on the way", server)
		}
		answer, err := p.signIn(cmd.Context(), login.Dialogue{Client: c, Server: server, User: shoal.UserName(user)}, key, fromStdin)
		if err != nil {
			return err
		}
		path, err := login.Store(p.Getenv, server, login.Login{User: shoal.UserName(user), Token: answer.Token, Expires: answer.Expires})
		if err != nil {
			return err
		}
		until := ""
		if !answer.Expires.IsZero() {
			until = " until " + answer.Expires.Local().Format("2006-01-02 15:04")
		}
		p.say("logged in at %s as %s%s; the token is in %s", server, user, until, path)
		return nil
	}
	return cmd
}

func (p *program) signIn(ctx context.Context, d login.Dialogue, key string, fromStdin bool) (api.LoginResponse, error) {
	d.Agent, d.Home = p.Getenv("SSH_AUTH_SOCK"), p.Getenv("HOME")
	if term.Is(p.Stdin) {
		d.Ask = p.ask
	}
	switch {
	case fromStdin:
		password, err := p.passwordFromStdin()
		if err != nil {
			return api.LoginResponse{}, err
		}
		return d.Password(ctx, password)
	case key != "":
		return d.Key(ctx, key)
	}
	return d.Run(ctx)
}

func (p *program) loginServer(args []string, stored login.File) (string, error) {
	for _, s := range append(args, p.serverGiven(), stored.Current, defaultServer) {
		if s != "" {
			return serverURL(s)
		}
	}
	return defaultServer, nil
}

// private reports whether what is said to a server stays between the two.
func private(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}
