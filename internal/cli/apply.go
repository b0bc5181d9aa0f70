package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/show"
	"github.com/shoal-pool/shoal/internal/cli/show/term"
	"github.com/shoal-pool/shoal/internal/spec"
)

// maxDocument bounds a file of documents.
const maxDocument = 16 << 20

func (p *program) applyCommand() *cobra.Command {
	var paths []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE…",
		Short: "Create or change pools, shares, users and groups as files say",
		Long: `Read YAML or JSON documents and make the objects as they say: all of them or, if anything is wrong, none. What is
as it should be already stays untouched, so applying twice is applying once.

--dry-run says what would change. With --dry-run -o yaml the documents are checked and written with all defaults
filled in, without a server.`,
		Example: "  shoal apply -f team.yaml\n  shoal apply -f pools/ -f users.yaml --dry-run\n  cat pool.yaml | shoal apply -f -",
	}
	f := cmd.Flags()
	f.StringArrayVarP(&paths, "file", "f", nil, "a `FILE`, a directory of files, or - for stdin; may be repeated")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would change")
	format := formatFlag(cmd)
	files(cmd, "file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		paths = append(paths, args...) // apply -f pools/*.yaml, as the shell expands it
		if len(paths) == 0 {
			return usage(cmd, "say which files: -f FILE")
		}
		read, err := p.readFiles(paths)
		if err != nil {
			return err
		}
		set, err := spec.Parse(read...)
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

// readDocuments reads and checks files. All mistakes in all files are reported together.
func (p *program) readDocuments(paths []string) (spec.Set, error) {
	list, err := p.readFiles(paths)
	if err != nil {
		return spec.Set{}, err
	}
	return spec.Parse(list...)
}

func (p *program) readFiles(paths []string) (list []spec.File, err error) {
	for _, path := range paths {
		found, err := p.documents(path)
		if err != nil {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot read documents: %w", err)
		}
		list = append(list, found...)
	}
	return list, nil
}

func (p *program) documents(path string) ([]spec.File, error) {
	if path == "-" {
		data, err := io.ReadAll(io.LimitReader(p.Stdin, maxDocument+1))
		if err == nil && len(data) > maxDocument {
			err = fmt.Errorf("stdin holds more than %s", shoal.Bytes(maxDocument))
		}
		return []spec.File{{Name: "stdin", Data: data}}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if info.Size() > maxDocument {
			return nil, fmt.Errorf("%s has more than %s", path, shoal.Bytes(maxDocument))
		}
		data, err := os.ReadFile(path)
		return []spec.File{{Name: path, Data: data}}, err
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	var list []spec.File
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		found, err := p.documents(filepath.Join(path, e.Name()))
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no .yaml, .yml or .json file", path)
	}
	return list, nil
}
