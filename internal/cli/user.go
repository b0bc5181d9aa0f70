package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/login/sshkey"
	"github.com/shoal-pool/shoal/internal/cli/names"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/cli/submit"
)

func (p *program) userCommand() *cobra.Command {
	return parent("user", "Users, with the same uid on every machine", p.userAdd(), p.userList(), p.userShow(), p.userPasswd(),
		p.userChange("disable", "Keep a user from signing in, and end what is hers now; her files and uid stay", "disabled", (*client.Client).DisableUser),
		p.userChange("enable", "Let a disabled user sign in again", "enabled", (*client.Client).EnableUser), p.userRemove())
}

func (p *program) userAdd() *cobra.Command {
	var u shoal.User
	var keys, groups []string
	var admin, fromStdin bool
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Add a user",
		Example: "  shoal user add alice --key alice.pub --group research\n  shoal user add root2 --admin --password-stdin < secret",
		Args:    takes("NAME"),
	}
	f := cmd.Flags()
	f.StringArrayVar(&keys, "key", nil, "a `FILE` of public ssh keys; - is stdin; may be repeated")
	f.BoolVar(&fromStdin, "password-stdin", false, "read a password from stdin")
	f.BoolVar(&admin, "admin", false, "make an administrator")
	f.StringVar((*string)(&u.Role), "role", "", "member, operator or admin (member)")
	f.StringSliceVarP(&groups, "group", "g", nil, "put into `GROUP`; may be repeated")
	f.IntVar(&u.UID, "uid", 0, "the `UID` (the next free one)")
	f.StringVar(&u.Shell, "shell", "", "the login shell (/bin/bash)")
	complete(cmd, "role", "member", "operator", "admin")
	p.completeFlag(cmd, "group", names.Groups)
	files(cmd, "key")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		u.Name = shoal.UserName(args[0])
		if admin {
			if u.Role != "" && u.Role != shoal.RoleAdmin {
				return usage(cmd, "--admin and --role %s contradict each other", u.Role)
			}
			u.Role = shoal.RoleAdmin
		}
		for _, g := range groups {
			u.Groups = append(u.Groups, shoal.GroupName(g))
		}
		var err error
		if u.Keys, err = p.publicKeys(keys, fromStdin); err != nil {
			return err
		}
		var password string
		if fromStdin {
			if password, err = p.passwordFromStdin(); err != nil {
				return err
			}
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		added, err := c.AddUser(cmd.Context(), u, password)
		if err != nil {
			return err
		}
		p.say("user %s added, with uid %d", added.Name, added.UID)
		if len(u.Keys) == 0 && password == "" {
			p.note("%s has neither key nor password and cannot log in yet; `shoal user passwd %s` sets a password", u.Name, u.Name)
		}
		return nil
	}
	return cmd
}

// publicKeys reads files of public keys.
func (p *program) publicKeys(paths []string, stdinTaken bool) ([]string, error) {
	var keys []string
	for _, path := range paths {
		var data []byte
		var err error
		switch {
		case path == "-" && stdinTaken:
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot read both a key and a password from stdin")
		case path == "-":
			data, err = io.ReadAll(io.LimitReader(p.Stdin, submit.MaxFile))
		default:
			data, err = os.ReadFile(path)
		}
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot read a key: %w", err)
		}
		lines, err := sshkey.PublicLines(path, data)
		if err != nil {
			return nil, err
		}
		keys = append(keys, lines...)
	}
	return keys, nil
}

func (p *program) userList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the users", Args: noArgs}
	format := formatFlag(cmd)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		users, err := c.Users(cmd.Context())
		if err != nil {
			return err
		}
		return show.Users(p.Stdout, *format, users)
	})
	return cmd
}

func (p *program) userShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a user", Args: takes("NAME"), ValidArgsFunction: p.completer(names.Users)}
	format := formatFlag(cmd)
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		u, err := c.User(cmd.Context(), shoal.UserName(args[0]))
		if err != nil {
			return err
		}
		return show.User(p.Stdout, *format, u)
	})
	return cmd
}

func (p *program) userPasswd() *cobra.Command {
	var fromStdin bool
	cmd := &cobra.Command{
		Use: "passwd NAME", Short: "Set a user's password; a terminal is asked, or stdin with --password-stdin",
		Args: takes("NAME"), ValidArgsFunction: p.completer(names.Users),
	}
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from stdin")
	cmd.RunE = p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
		password, err := p.newPassword(fromStdin)
		if err != nil {
			return err
		}
		if err := c.SetPassword(cmd.Context(), shoal.UserName(args[0]), password); err != nil {
			return err
		}
		p.say("password of %s set", args[0])
		return nil
	})
	return cmd
}

// userChange makes a command that does one thing to a user.
func (p *program) userChange(verb, short, done string, change func(*client.Client, context.Context, shoal.UserName) (shoal.User, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: takes("NAME"), ValidArgsFunction: p.completer(names.Users),
		RunE: p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if _, err := change(c, cmd.Context(), shoal.UserName(args[0])); err != nil {
				return err
			}
			p.say("user %s %s", args[0], done)
			return nil
		}),
	}
}

func (p *program) userRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a user; her files stay, and her uid is not given to anybody else",
		Args: takes("NAME"), ValidArgsFunction: p.completer(names.Users),
		RunE: p.calls(func(cmd *cobra.Command, c *client.Client, args []string) error {
			removed, err := c.RemoveUser(cmd.Context(), shoal.UserName(args[0]))
			if err != nil {
				return err
			}
			p.say("user %s removed", args[0])
			for _, line := range removed.Diff { // where her files are
				p.say("%s", line)
			}
			return nil
		}),
	}
}

// maxSecret bounds a password read from stdin.
const maxSecret = 4096

func (p *program) passwordFromStdin() (string, error) {
	data, err := io.ReadAll(io.LimitReader(p.Stdin, maxSecret+1))
	if err != nil {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot read the password: %w", err)
	}
	password := string(bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r")))
	if password == "" || len(password) > maxSecret || strings.ContainsAny(password, "\n\x00") {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot use what stdin holds as a password: it must be one line that is not empty")
	}
	return password, nil
}

func (p *program) newPassword(fromStdin bool) (string, error) {
	if fromStdin {
		return p.passwordFromStdin()
	}
	first, err := p.ask("New password: ")
	if err != nil {
		return "", err
	}
	second, err := p.ask("Once more: ")
	if err != nil {
		return "", err
	}
	if first != second || first == "" {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot set the password: the two differ, or are empty")
	}
	return first, nil
}

// ask reads a secret from the terminal. Without a terminal it asks nobody.
func (p *program) ask(prompt string) (string, error) {
	if !term.Is(p.Stdin) {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot ask for a password: stdin is no terminal").
			WithHint("give it with --password-stdin")
	}
	stop := make(chan os.Signal, 1)
	if p.Notify != nil {
		defer p.Notify(stop, os.Interrupt, syscall.SIGTERM)()
	}
	secret, err := term.Ask(p.Stdin, p.Stderr, prompt, stop)
	if err != nil {
		return "", fmt.Errorf("cannot read the password: %w", err)
	}
	return secret, nil
}
