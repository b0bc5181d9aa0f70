// Package web is the command that signs a browser in.
package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

// Env is the command line that the command is part of.
type Env struct {
	// Connect returns a client, and the URL by which it reaches the server; empty: by a socket.
	Connect func() (*client.Client, string, error)
	In      io.Reader
	Say     func(format string, args ...any) // a result
	Note    func(format string, args ...any) // anything else
}

// Command makes `shoal web`.
func Command(env Env) *cobra.Command {
	var code string
	var yes bool
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Sign in in a browser, without a password",
		Long: `Print an address that signs you in in the browser that opens it, once, within five minutes. It works where you are logged
in with "shoal login", and inside a machine. Give the address to nobody: whoever opens it is you.

What an operator or administrator does in a browser is confirmed each time. With a password the browser asks for
it; without one it shows a code, and "shoal web --confirm CODE" shows what the code stands for and asks you.`,
		Example: "  shoal web\n  shoal web --confirm 7f3k-q2xm",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&code, "confirm", "", "confirm what your browser asks for by a `CODE`")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "confirm without asking")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, server, err := env.Connect()
		if err != nil {
			return err
		}
		if code != "" {
			return env.confirm(cmd.Context(), c, code, yes)
		}
		return env.link(cmd.Context(), c, server)
	}
	return cmd
}

// link prints an address.
func (env Env) link(ctx context.Context, c *client.Client, server string) error {
	l, err := c.WebLink(ctx)
	if err != nil {
		return err
	}
	u, err := url.Parse(l.URL)
	if err != nil || u.Host == "" {
		return shoal.Errorf(shoal.KindNotFound, "cannot sign in in a browser: this server has no pages for one").
			WithHint("its administrator sets where with `shoal serve --https-listen`")
	}
	if here, err := url.Parse(server); err == nil && server != "" && loopback(u.Hostname()) && !loopback(here.Hostname()) {
		env.Note("the pages are at %s, which is the server's own host only; its administrator opens them with --https-listen", u.Host)
	}
	env.Say("%s", l.URL)
	env.Note("it is good once, for %s", shoal.Duration(time.Until(l.Expires).Round(time.Minute)))
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// confirm shows what a code stands for, asks, and confirms it.
func (env Env) confirm(ctx context.Context, c *client.Client, code string, yes bool) error {
	asked, err := c.ConfirmWeb(ctx, code, false)
	if err != nil {
		return err
	}
	what := asked.Method + " " + asked.Path
	if !yes {
		env.Note("your browser asks for: %s", what)
		env.Note("confirm it? It has all the rights of your role. [y/N]")
		line, err := bufio.NewReader(io.LimitReader(env.In, 1<<10)).ReadString('\n')
		if answer := strings.ToLower(strings.TrimSpace(line)); err != nil && line == "" || answer != "y" && answer != "yes" {
			return shoal.Errorf(shoal.KindCancelled, "not confirmed: %s", what)
		}
	}
	if _, err := c.ConfirmWeb(ctx, code, true); err != nil {
		return fmt.Errorf("not confirmed: %w", err)
	}
	env.Say("confirmed: %s", what)
	return nil
}
