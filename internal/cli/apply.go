package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/cli/submit"
	"github.com/shoal-pool/shoal/internal/spec"
)

func (p *program) applyCommand() *cobra.Command {
	var paths []string
	var dryRun bool
	var foreign submit.Foreign
	cmd := &cobra.Command{
		Use:   "apply -f FILE…",
		Short: "Create or change pools, shares, users and groups as files say",
		Long: `Read YAML or JSON documents and make the objects as they say: all of them or, if anything is wrong, none. What is
as it should be already stays untouched, so applying twice is applying once.

A cluster.json of Batch AI becomes a pool and the shares that it mounts. --lenient takes older and misspelt files, and
says what it let pass.

--dry-run says what would change. With --dry-run -o yaml the documents are checked and written with all defaults
filled in, without a server.`,
		Example: "  shoal apply -f team.yaml\n  shoal apply -f pools/ -f users.yaml --dry-run\n  cat pool.yaml | shoal apply -f -\n  shoal apply -f cluster.json --name gpu --share data=team:/ --dry-run -o yaml",
	}
	f := cmd.Flags()
	f.StringArrayVarP(&paths, "file", "f", nil, "a `FILE`, a directory of files, or - for stdin; may be repeated")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would change")
	f.StringVar(&foreign.Name, "name", "", "the `NAME` of the pool that a cluster.json becomes; default: the file's")
	foreign.Bind(cmd)
	format := formatFlag(cmd)
	files(cmd, "file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		paths = append(paths, args...) // apply -f pools/*.yaml, as the shell expands it
		if len(paths) == 0 {
			return usage(cmd, "say which files: -f FILE")
		}
		read, err := p.files().Files(paths)
		if err != nil {
			return err
		}
		set, err := submit.Objects(submit.Config{Read: p.files(), Getenv: p.Getenv, Note: p.note}, read, foreign)
		if err != nil {
			return err
		}
		if len(set.Jobs) > 0 {
			return shoal.Errorf(shoal.KindInvalid, "cannot apply job %q: a job is submitted, and each time is a new one", set.Jobs[0].Name).
				WithHint("use `shoal job submit -f FILE`")
		}
		if set.Len() == 0 {
			return shoal.Errorf(shoal.KindInvalid, "cannot apply anything: the files hold no documents")
		}
		if dryRun && *format == show.YAML {
			out, err := spec.Documents(set)
			if err != nil {
				return err
			}
			_, err = p.Stdout.Write(out)
			return err
		}
		c, err := p.connect()
		if err != nil {
			return err
		}
		result, err := c.Apply(cmd.Context(), api.ApplyRequest{DryRun: dryRun, Shares: set.Shares, Groups: set.Groups, Users: set.Users, Pools: set.Pools})
		if err != nil {
			return spec.Locate(err, read...)
		}
		if *format != show.Table {
			return show.Data(p.Stdout, *format, result)
		}
		p.sayChanges(result, dryRun)
		return nil
	}
	return cmd
}

// sayChanges writes a line for each object, and its differences below.
func (p *program) sayChanges(result api.ApplyResult, dryRun bool) {
	for _, c := range result.Changes {
		p.say("%s %s %s%s", strings.ToLower(string(c.Kind)), c.Name, c.Action, show.Only(dryRun, " (dry run)"))
		for _, d := range c.Diff {
			fmt.Fprintln(p.Stdout, "  "+term.Clean(d))
		}
	}
}

// files reads what is named on the command line.
func (p *program) files() submit.Reader { return submit.Disk(p.Stdin) }
