// Package secrets is `shoal secret`.
package secrets

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/cli/call"
)

// Env is the command line that the commands are part of.
type Env struct {
	Connect call.Connect
	In      io.Reader
	Out     io.Writer
	Ask     func(prompt string) (string, error) // from a terminal, unseen
	// Terminal says that In is one.
	Terminal bool
	List     func(format string, all []shoal.Secret) error
	Say      func(format string, args ...any) // to people, who look at stderr
	Complain func(error)
	Format   func(*cobra.Command) *string // adds the flag
}

// maxValue is more than a server takes.
const maxValue = 1 << 20

// Commands makes the commands below `shoal secret`.
func Commands(env Env) []*cobra.Command {
	return []*cobra.Command{env.set(), env.list(), env.get(), env.remove()}
}

func (env Env) set() *cobra.Command {
	var file string
	var groups []string
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Keep a secret: its value comes from standard input or a file, never from the command line", Args: cobra.ExactArgs(1),
		Long: `Keep a value that nobody is to see, encrypted, under a name of yours; one that is there gets the new value. Jobs name it:
"shoal run --secret API_KEY=NAME" gives the task the value as variable API_KEY, and as a file whose path is in API_KEY_FILE. One
line break at the end of what is typed or piped is left out; a file is kept as it is.`,
		Example: "  shoal secret set api-key < key.txt\n  shoal secret set team-share --from-file share.key --group research",
	}
	f := cmd.Flags()
	f.StringVar(&file, "from-file", "", "take the value from `FILE`")
	f.StringArrayVarP(&groups, "group", "g", nil, "members of `GROUP` may use it, too; may be repeated")
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
		value, err := env.value(args[0], file)
		if err != nil {
			return err
		}
		req := api.SetSecret{Value: value}
		for _, g := range groups {
			req.Groups = append(req.Groups, shoal.GroupName(g))
		}
		s, err := c.SetSecret(cmd.Context(), shoal.SecretName(args[0]), req)
		if err == nil {
			env.Say("secret %s is kept, %s", s.Name, shoal.Bytes(s.Size))
		}
		return err
	})
	return cmd
}

// value reads the value of a secret.
func (env Env) value(name, file string) ([]byte, error) {
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the value of secret %s: %w", name, err)
		}
		defer f.Close()
		return limited(name, f)
	case env.Terminal:
		text, err := env.Ask("value of " + name + ": ")
		return []byte(text), err
	}
	value, err := limited(name, env.In)
	return bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r")), err
}

func limited(name string, r io.Reader) ([]byte, error) {
	value, err := io.ReadAll(io.LimitReader(r, maxValue+1))
	if err == nil && len(value) > maxValue {
		err = shoal.Errorf(shoal.KindInvalid, "it is longer than %d bytes", maxValue)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the value of secret %s: %w", name, err)
	}
	return value, nil
}

func (env Env) list() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List the secrets that you may use, without their values", Args: cobra.NoArgs}
	format := env.Format(cmd)
	cmd.RunE = env.Connect.Run(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		all, err := c.Secrets(cmd.Context())
		if err != nil {
			return err
		}
		return env.List(*format, all)
	})
	return cmd
}

func (env Env) get() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Write a secret's value to standard output; each time is put on record", Args: cobra.ExactArgs(1),
		RunE: env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
			value, err := c.SecretValue(cmd.Context(), shoal.SecretName(args[0]))
			if err != nil {
				return err
			}
			_, err = env.Out.Write(value)
			return err
		}),
	}
}

func (env Env) remove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME…", Aliases: []string{"rm"}, Short: "Remove secrets of yours", Args: cobra.MinimumNArgs(1),
		RunE: env.Connect.Run(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return call.Each(args, env.Complain, func(name string) error {
				err := c.RemoveSecret(cmd.Context(), shoal.SecretName(name))
				if err == nil {
					env.Say("secret %s is removed", name)
				}
				return err
			})
		}),
	}
}
