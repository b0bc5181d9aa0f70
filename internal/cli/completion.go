package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal/internal/cli/names"
)

func (p *program) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:       "completion SHELL",
		Short:     "Write a script that completes commands and names: bash, zsh, fish or powershell",
		Example:   "  source <(shoal completion bash)",
		ValidArgs: shells,
		Args:      takes("SHELL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(p.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(p.Stdout)
			case "fish":
				return root.GenFishCompletion(p.Stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(p.Stdout)
			}
			return usage(cmd, "unknown shell %q: there are bash, zsh, fish and powershell", args[0])
		},
	}
}

// tabPatience is how long a shell's Tab waits for the server.
const tabPatience = 2 * time.Second

// completer completes the first argument of a command with names that the server knows. A server that
// cannot be reached offers nothing, silently.
func (p *program) completer(list names.List) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return p.offer(cmd, list), cobra.ShellCompDirectiveNoFileComp
	}
}

func (p *program) offer(cmd *cobra.Command, list names.List) []string {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, tabPatience)
	defer cancel()
	c, err := p.connect()
	if err != nil {
		return nil
	}
	found, err := list(ctx, c)
	if err != nil {
		return nil
	}
	return found
}

// completeFlag completes a flag with names that the server knows.
func (p *program) completeFlag(cmd *cobra.Command, flag string, list names.List) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return p.offer(cmd, list), cobra.ShellCompDirectiveNoFileComp
	})
}

// complete completes a flag with fixed words.
func complete(cmd *cobra.Command, flag string, list ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
}

// files completes a flag with files. It is what shells do for lack of better anyway.
func files(cmd *cobra.Command, flag string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	})
}
