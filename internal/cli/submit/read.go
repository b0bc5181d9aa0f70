package submit

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batchai"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/script"
)

// Foreign says how files of other formats are read.
type Foreign struct {
	Lenient bool
	Shares  []string // A=SHARE:/PATH, or @FILE of lines of that
	Name    string
}

// Bind adds the flags.
func (o *Foreign) Bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.Lenient, "lenient", false, "read old and misspelt files of Batch AI, and scripts without their options for other systems, and say what was let pass")
	f.StringArrayVar(&o.Shares, "share", nil, "a mount of a Batch AI file is this directory of a share, `A=SHARE:/PATH`; *=SHARE:/PATH is for all others; @FILE has one in each line; may be repeated")
}

// Config is the world that files are read in.
type Config struct {
	Read   Reader
	Getenv func(string) string
	Note   func(format string, args ...any) // says what is not a result
}

// Options say how jobs are read.
type Options struct {
	Foreign
	Sets  []string // KEY=VALUE
	Pool  shoal.PoolName
	Items []shoal.Item // for jobs that have none themselves
}

// Jobs reads files of jobs: documents, files of Batch AI, batch scripts. Shares of the set are those that
// such a file needs and nobody mapped.
func Jobs(c Config, paths []string, o Options) (spec.Set, error) {
	table, err := c.table(o.Shares)
	if err != nil {
		return spec.Set{}, err
	}
	var set spec.Set
	var documents []spec.File
	foreign := false
	for _, path := range paths {
		files, err := c.Read(path)
		if err != nil {
			return set, err
		}
		for _, f := range files {
			f.Glob, f.Data = Glob(filepath.Dir(f.Name)), bytes.TrimPrefix(f.Data, []byte("\uFEFF"))
			switch kind := batchai.Detect(f.Data); {
			case kind == batchai.KindJob:
				foreign = true
				options := c.options(o, table)
				options.Name = jobName(f.Name)
				j, err := batchai.ReadJob(f, options)
				if err != nil {
					return set, mayPass(err, o.Lenient, func(b batchai.Options) (err error) { _, err = batchai.ReadJob(f, b); return err }, options)
				}
				c.notes(j.Notes)
				set.Jobs, set.Shares = append(set.Jobs, j.Spec), append(set.Shares, j.Shares...)
			case kind == batchai.KindCluster, kind == batchai.KindServer:
				return set, notAJob(f.Name, kind)
			case script.Is(f.Data):
				j, err := c.script(f, o.Lenient)
				if err != nil {
					return set, err
				}
				set.Jobs = append(set.Jobs, j)
			case isTemplate(f.Data):
				return set, template(f.Name)
			default:
				documents = append(documents, f)
			}
		}
	}
	if len(o.Shares) > 0 && !foreign {
		return set, shoal.Errorf(shoal.KindInvalid, "--share says where mounts of Batch AI's files are, and there is no such file")
	}
	written, err := spec.Parse(documents...)
	if err != nil {
		return set, err
	}
	written.Jobs = append(set.Jobs, written.Jobs...)
	written.Shares = append(set.Shares, written.Shares...)
	if n := written.Len() - len(written.Jobs) - len(set.Shares); n > 0 || len(written.Jobs) == 0 {
		return set, shoal.Errorf(shoal.KindInvalid, "cannot submit what is no job: the files hold %d jobs and %d other documents", len(written.Jobs), n).
			WithHint("documents of other kinds are for `shoal apply -f FILE`")
	}
	return written, change(written.Jobs, o)
}

// Objects reads files of objects: documents, and clusters of Batch AI.
func Objects(c Config, files []spec.File, o Foreign) (spec.Set, error) {
	table, err := c.table(o.Shares)
	if err != nil {
		return spec.Set{}, err
	}
	var clusters []batchai.Cluster
	var documents []spec.File
	for _, f := range files {
		switch kind := batchai.Detect(f.Data); kind {
		case batchai.KindCluster:
			options := c.options(Options{Foreign: o}, table)
			if options.Name == "" {
				options.Name = jobName(f.Name)
			}
			made, err := batchai.ReadCluster(f, options)
			if err != nil {
				return spec.Set{}, mayPass(err, o.Lenient, func(b batchai.Options) (err error) { _, err = batchai.ReadCluster(f, b); return err }, options)
			}
			c.notes(made.Notes)
			clusters = append(clusters, made)
		case batchai.KindJob:
			return spec.Set{}, shoal.Errorf(shoal.KindInvalid, "%s describes a job of Batch AI's: a job is submitted, and each time is a new one", f.Name).WithHint("use `shoal job submit -f %s`", f.Name)
		case batchai.KindServer:
			return spec.Set{}, notAJob(f.Name, kind)
		default:
			if isTemplate(f.Data) {
				return spec.Set{}, template(f.Name)
			}
			documents = append(documents, f)
		}
	}
	if len(clusters) == 0 && (len(o.Shares) > 0 || o.Name != "") || len(clusters) > 1 && o.Name != "" {
		return spec.Set{}, shoal.Errorf(shoal.KindInvalid, "--name and --share are for a cluster.json of Batch AI's, and there are %d", len(clusters))
	}
	set, err := spec.Parse(documents...)
	if err != nil {
		return set, err
	}
	for _, made := range clusters {
		set.Pools = append(set.Pools, made.Pool)
		for _, s := range made.Shares {
			if !slices.ContainsFunc(set.Shares, func(have shoal.Share) bool { return have.Name == s.Name }) {
				set.Shares = append(set.Shares, s)
			}
		}
	}
	return set, nil
}

// change makes the changes of the command line.
func change(jobs []shoal.JobSpec, o Options) (err error) {
	for i := range jobs {
		j := &jobs[i]
		if len(o.Items) > 0 && len(j.Items) > 0 && j.Dialect != "batchai" {
			return shoal.Errorf(shoal.KindInvalid, "the job has items of its own").WithHint("leave the flags for items and sweeps out")
		}
		if len(o.Items) > 0 {
			j.Items = o.Items
		}
		if *j, err = spec.Override(*j, o.Sets); err != nil {
			return err
		}
		if o.Pool != "" {
			j.Pool = o.Pool
		}
	}
	return nil
}

// mayPass adds to an error about a file that lenient reading would take it.
func mayPass(err error, lenient bool, read func(batchai.Options) error, o batchai.Options) error {
	o.Lenient = true
	e, ok := errors.AsType[*shoal.Error](err)
	if lenient || !ok || read(o) != nil {
		return err
	}
	return e.WithHint("--lenient takes the file as it is, and says what it lets pass")
}

func notAJob(name string, kind batchai.Kind) error {
	if kind == batchai.KindServer {
		return shoal.Errorf(shoal.KindInvalid, "%s describes a file server of Batch AI's, of which nothing can be made", name).
			WithHint("export its directory by NFS, and apply a share with `source: nfs://HOST/PATH`")
	}
	return shoal.Errorf(shoal.KindInvalid, "%s describes a cluster of Batch AI's, not a job", name).WithHint("`shoal apply -f %s` makes a pool of it", name)
}

// isTemplate reports whether a file is a deployment template of Azure's, by its schema.
func isTemplate(data []byte) bool {
	data = bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\uFEFF")))
	return bytes.HasPrefix(data, []byte("{")) && bytes.Contains(data, []byte("eploymentTemplate.json"))
}

func template(name string) error {
	return shoal.Errorf(shoal.KindInvalid, "%s is a deployment template of Azure's", name).WithHint("`shoal deploy --template-file %s` makes pools and shares of it", name)
}

func (c Config) options(o Options, table map[string]batchai.Place) batchai.Options {
	return batchai.Options{Lenient: o.Lenient, Shares: table, Account: c.Getenv("AZURE_BATCHAI_STORAGE_ACCOUNT"), Name: o.Name, Items: o.Items,
		OnMachine: slices.Contains(o.Sets, "container="), Pool: o.Pool}
}

func (c Config) notes(list []batchai.Note) {
	for _, n := range list {
		c.Note("%s", n)
	}
}

// table reads where mounts are.
func (c Config) table(list []string) (map[string]batchai.Place, error) {
	table := map[string]batchai.Place{}
	for _, s := range list {
		lines := []string{s}
		if name, ok := strings.CutPrefix(s, "@"); ok {
			f, err := c.Read.One(name)
			if err != nil {
				return nil, err
			}
			lines = strings.Split(string(f.Data), "\n")
		}
		for _, l := range lines {
			l = strings.TrimSpace(l)
			if l == "" || l[0] == '#' {
				continue
			}
			name, place, ok := strings.Cut(l, "=")
			p, err := batchai.ParsePlace(strings.TrimSpace(place))
			name = strings.Trim(strings.TrimSpace(name), "/")
			if !ok || name == "" {
				return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --share %q", l).WithHint("write A=SHARE:/PATH, as in logs=team:/logs")
			}
			if err != nil {
				return nil, err
			}
			if other, twice := table[name]; twice && other != p {
				return nil, shoal.Errorf(shoal.KindInvalid, "--share says twice where %q is", name)
			}
			table[name] = p
		}
	}
	return table, nil
}

// script makes a job of a batch script, whose options are in its head.
func (c Config) script(f spec.File, lenient bool) (j shoal.JobSpec, err error) {
	text := string(f.Data)
	words, err := script.Options(text, script.Marker)
	if err != nil {
		return j, shoal.Errorf(shoal.KindInvalid, "%s: %w", f.Name, err)
	}
	if marker, line := script.Foreign(text); line > 0 && len(words) == 0 {
		if !lenient {
			return j, foreign(f.Name, marker, line)
		}
		c.Note("%s:%d: lines with %s hold options for another system: they are left out (--lenient)", f.Name, line, marker)
	}
	var o Flags
	cmd := &cobra.Command{}
	o.Bind(cmd)
	args := make([]string, len(words))
	for i, w := range words {
		args[i] = w.Text
	}
	if err := cmd.ParseFlags(args); err != nil {
		return j, shoal.Errorf(shoal.KindInvalid, "%s:%d: the options of the script: %w", f.Name, lineOf(words, err), err).WithHint("they are those of `shoal run`")
	}
	if rest := cmd.Flags().Args(); len(rest) > 0 {
		return j, shoal.Errorf(shoal.KindInvalid, "%s: %q is no option", f.Name, rest[0]).WithHint("lines with %s hold options of `shoal run`", script.Marker)
	}
	if j, err = o.Spec(c.Getenv); err != nil {
		return j, err
	}
	if j.Items, err = o.Items.Read(c.beside(f.Name), f.Glob); err != nil {
		return j, err
	}
	if j.Command, err = script.Command(text); err != nil {
		return j, err
	}
	if j.Name == "" {
		j.Name = jobName(f.Name)
	}
	spec.DefaultJob(&j)
	if m := spec.CheckJob(j); len(m) > 0 {
		for i := range m {
			m[i].File = f.Name
		}
		return j, spec.Invalid(m)
	}
	return j, nil
}

// foreign refuses a script whose options would be lost.
func foreign(name, marker string, line int) error {
	e := shoal.Errorf(shoal.KindInvalid, "%s:%d: lines with %s hold options for another system, and without them this would be another job", name, line, marker)
	const hint = "write the options of `shoal run` in lines with " + script.Marker + "; --lenient takes the script without any"
	if marker == "#SBATCH" {
		return e.WithHint("the sbatch that `shoal compat slurm DIR` makes reads them. Or " + hint)
	}
	return e.WithHint(hint)
}

// lineOf guesses the line of a wrong option: that of the first word which the error speaks of.
func lineOf(words []script.Word, err error) int {
	for _, w := range words {
		name, _, _ := strings.Cut(w.Text, "=")
		if strings.HasPrefix(name, "-") && (strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "'"+strings.TrimLeft(name, "-")+"'")) {
			return w.Line
		}
	}
	return words[0].Line
}

// beside reads the files that a script names relative to itself.
func (c Config) beside(name string) Reader {
	return func(path string) ([]spec.File, error) {
		if path != "-" && !filepath.IsAbs(path) && name != "stdin" {
			path = filepath.Join(filepath.Dir(name), path)
		}
		return c.Read(path)
	}
}

// jobName is the name of a job that a file is, from that of the file.
func jobName(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	base = strings.Map(func(r rune) rune {
		if r == '.' || r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, base)
	return strings.TrimLeft(base[:min(len(base), 63)], ".-_")
}

// Glob lists files by a pattern relative to a directory. The names are as the pattern has them.
func Glob(dir string) func(pattern string) ([]string, error) {
	return func(pattern string) ([]string, error) {
		if filepath.IsAbs(pattern) {
			return filepath.Glob(pattern)
		}
		if _, err := filepath.Match(pattern, ""); err != nil {
			return nil, err
		}
		return listed(os.DirFS(dir), pattern)
	}
}

// listed are the files of a tree that a pattern matches.
func listed(tree fs.FS, pattern string) ([]string, error) {
	return fs.Glob(tree, path.Clean(filepath.ToSlash(pattern)))
}
