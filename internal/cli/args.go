package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "%s takes no %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// takes checks the number of arguments against their names, as in takes("ID", "[PATH]").
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for i, name := range names {
			if i >= len(args) && !strings.HasPrefix(name, "[") {
				return usage(cmd, "%s needs %s", cmd.CommandPath(), name)
			}
			if i < len(args) && args[i] == "" {
				return usage(cmd, "the %s is empty", strings.Trim(name, "[]"))
			}
		}
		if len(args) > len(names) {
			return usage(cmd, "%s does not take %q", cmd.CommandPath(), args[len(names)])
		}
		return nil
	}
}
