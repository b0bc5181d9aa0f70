package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// list makes `shoal deploy list`.
func (env Env) list() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List what was deployed", Args: cobra.NoArgs}
	format := env.Format(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, _, err := env.Connect()
		if err != nil {
			return err
		}
		all, err := c.Deployments(cmd.Context())
		if err != nil {
			return err
		}
		if *format != "table" {
			return env.Data(*format, all)
		}
		w := tabwriter.NewWriter(env.Out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "NAME\tGROUP\tSTATE\tPOOLS\tTIMES\tLAST\tBY")
		for _, d := range all {
			state := "deployed"
			if d.Failed != "" {
				state = "failed"
			}
			pools := strings.Join(d.Pools(), ",")
			if pools == "" {
				pools = "-"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", d.Name, env.Clean(d.Group), state, env.Clean(pools), d.Runs, d.Updated.Local().Format(time.DateTime), d.By)
		}
		return w.Flush()
	}
	return cmd
}

// one makes `shoal deploy show`.
func (env Env) one() *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show what was deployed under a name, without secrets", Args: cobra.ExactArgs(1)}
	format := env.Format(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, _, err := env.Connect()
		if err != nil {
			return err
		}
		d, err := c.Deployment(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *format != "table" {
			return env.Data(*format, d)
		}
		env.say("deployment %s of %s, group %s, at %s", d.Name, d.Template, d.Group, d.Location)
		env.say("deployed %d times, last at %s by %s", d.Runs, d.Updated.Local().Format(time.DateTime), d.By)
		if d.Failed != "" {
			env.say("failed: %s", d.Failed)
		}
		for _, k := range slices.Sorted(maps.Keys(d.Parameters)) {
			env.say("parameter %s: %s", k, d.Parameters[k])
		}
		for _, k := range d.Secure {
			env.say("parameter %s: (secret)", k)
		}
		for _, c := range d.Changes {
			env.say("%s %s %s", strings.ToLower(string(c.Kind)), c.Name, c.Action)
		}
		for _, s := range d.Secrets {
			env.say("secret %s kept", s)
		}
		for _, k := range slices.Sorted(maps.Keys(d.Outputs)) {
			env.say("output %s: %s", k, d.Outputs[k])
		}
		for _, n := range d.Notes {
			env.say("note: %s", n)
		}
		for _, a := range d.Access {
			env.say("log in: %s", a)
		}
		return nil
	}
	return cmd
}
