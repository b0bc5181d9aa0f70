package submit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/sweep"
)

// maxItems bounds the items of a job.
const maxItems = 1_000_000

// Items are the flags that say what the tasks of an array work on.
type Items struct {
	each      string
	lines     string
	json      string
	sweep     string
	params    []string
	overrides sweep.Sweep
}

// Bind adds the flags to a command.
func (i *Items) Bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&i.each, "each", "", "a task for each line or value of a file, `lines:FILE` or json:FILE; the task sees it in SHOAL_ITEM")
	f.StringVar(&i.lines, "items", "", "the same as --each lines:`FILE`")
	f.StringVar(&i.json, "items-json", "", "the same as --each json:`FILE`: a list, or a value in each line; of an object the task sees PARAM_NAME, and {NAME} in the command is replaced")
	f.StringVar(&i.sweep, "sweep", "", "a task for each combination of the parameters in `FILE`, or of a random search in them")
	f.StringArrayVar(&i.params, "param", nil, "a parameter of a sweep, `NAME=VALUES`: LR=0.1,0.01, LR=log:0.0001:0.1:4, X=linear:0:1:5, N=step:1:9:2, F=files:data/*.csv; may be repeated")
	f.StringVar(&i.overrides.Search, "search", "", "how the sweep searches: grid (the default) or random")
	f.IntVar(&i.overrides.Count, "count", 0, "how many tasks a random search draws; of a grid, how many there may be")
	f.IntVar(&i.overrides.Seed, "seed", 0, "what a random search begins with: the same draws the same")
}

// Reader reads the files that are named: - is the standard input, and a directory may be several.
type Reader func(path string) ([]spec.File, error)

// One reads a single file.
func (read Reader) One(path string) (spec.File, error) {
	files, err := read(path)
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("%s is a directory", path)
	}
	if err != nil {
		return spec.File{}, err
	}
	return files[0], nil
}

// Read makes the items; nil if the flags speak of none.
func (i *Items) Read(read Reader, glob sweep.Glob) ([]shoal.Item, error) {
	kind, path, found := strings.Cut(i.each, ":")
	switch {
	case i.each == "":
	case !found || kind != "lines" && kind != "json":
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --each %q", i.each).WithHint("write lines:FILE or json:FILE")
	case kind == "lines" && i.lines == "":
		i.lines = path
	case kind == "json" && i.json == "":
		i.json = path
	default:
		return nil, shoal.Errorf(shoal.KindInvalid, "--each is there twice")
	}
	ways := 0
	for _, used := range []bool{i.lines != "", i.json != "", i.sweep != "" || len(i.params) > 0} {
		if used {
			ways++
		}
	}
	switch {
	case ways > 1:
		return nil, shoal.Errorf(shoal.KindInvalid, "the tasks work on lines, on JSON values or on a sweep, not on several of them")
	case i.lines != "":
		return fileItems(read, i.lines, lineItems)
	case i.json != "":
		return fileItems(read, i.json, jsonItems)
	case i.sweep != "" && len(i.params) > 0:
		return nil, shoal.Errorf(shoal.KindInvalid, "the parameters are in a file or given by --param, not both")
	case i.sweep != "":
		f, err := read.One(i.sweep)
		if err != nil {
			return nil, err
		}
		f.Glob = Glob(filepath.Dir(f.Name))
		return spec.SweepItems(f, i.overrides)
	case len(i.params) > 0:
		return i.paramItems(glob)
	case i.overrides.Search != "" || i.overrides.Count != 0 || i.overrides.Seed != 0:
		return nil, shoal.Errorf(shoal.KindInvalid, "--search, --count and --seed are for sweeps").WithHint("add --sweep FILE or --param NAME=VALUES")
	}
	return nil, nil
}

func fileItems(read Reader, path string, parse func(string, []byte) ([]shoal.Item, error)) ([]shoal.Item, error) {
	f, err := read.One(path)
	if err != nil {
		return nil, err
	}
	items, err := parse(f.Name, f.Data)
	if err == nil && len(items) == 0 {
		err = shoal.Errorf(shoal.KindInvalid, "%s holds no items", f.Name)
	}
	return items, err
}

// lineItems are the lines of a file but the empty ones.
func lineItems(name string, data []byte) ([]shoal.Item, error) {
	var items []shoal.Item
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			continue
		}
		if bytes.IndexByte(line, 0) >= 0 {
			return nil, shoal.Errorf(shoal.KindInvalid, "%s is not text", name)
		}
		text, err := json.Marshal(string(line))
		if err != nil {
			return nil, err
		}
		items = append(items, text)
		if len(items) > maxItems {
			return nil, shoal.Errorf(shoal.KindInvalid, "%s has more than %d lines", name, maxItems).WithHint("divide it among several jobs, or let each task take some lines")
		}
	}
	return items, nil
}

// jsonItems are the values of a list, or those that follow each other.
func jsonItems(name string, data []byte) ([]shoal.Item, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	listed := bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("["))
	bad := func(err error) error {
		line := 1 + bytes.Count(data[:min(d.InputOffset(), int64(len(data)))], []byte("\n"))
		return shoal.Errorf(shoal.KindInvalid, "cannot read %s:%d: %w", name, line, err).WithHint("write a list of JSON values, or a value in each line")
	}
	if listed {
		if _, err := d.Token(); err != nil {
			return nil, bad(err)
		}
	}
	var items []shoal.Item
	for !listed || d.More() {
		var v json.RawMessage
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) && !listed {
			return items, nil
		}
		if err != nil {
			return nil, bad(err)
		}
		var tight bytes.Buffer
		if err := json.Compact(&tight, v); err != nil {
			return nil, bad(err)
		}
		items = append(items, tight.Bytes())
		if len(items) > maxItems {
			return nil, shoal.Errorf(shoal.KindInvalid, "%s has more than %d values", name, maxItems).WithHint("divide it among several jobs")
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, bad(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, bad(errors.New("something follows the list"))
	}
	return items, nil
}

// paramItems makes the sweep of --param flags.
func (i *Items) paramItems(glob sweep.Glob) ([]shoal.Item, error) {
	s := i.overrides
	s.Parameters = map[string]any{}
	for _, p := range i.params {
		name, values, ok := strings.Cut(p, "=")
		if !ok {
			return nil, shoal.Errorf(shoal.KindInvalid, "cannot use --param %q", p).WithHint("write NAME=VALUES, as in LR=0.1,0.01")
		}
		if _, twice := s.Parameters[name]; twice {
			return nil, shoal.Errorf(shoal.KindInvalid, "parameter %s is there twice", name)
		}
		s.Parameters[name] = parameter(values)
	}
	items, mistakes := s.Items(glob)
	if len(mistakes) > 0 {
		for k := range mistakes {
			mistakes[k].Path = "--param " + strings.TrimPrefix(mistakes[k].Path, "parameters.")
		}
		return nil, spec.Invalid(mistakes)
	}
	return items, nil
}

// parameter reads 0.1,0.01 or log:FROM:TO:COUNT and its like.
func parameter(s string) any {
	kind, rest, _ := strings.Cut(s, ":")
	parts := strings.Split(rest, ":")
	switch {
	case kind == "files":
		return map[string]any{"files": rest}
	case (kind == "log" || kind == "linear" || kind == "step") && len(parts) >= 2 && len(parts) <= 3:
		m := map[string]any{"from": sweep.Plain(parts[0]), "to": sweep.Plain(parts[1])}
		if kind != "step" {
			m["scale"] = kind
		}
		if len(parts) == 3 {
			m[map[bool]string{true: "step", false: "count"}[kind == "step"]] = sweep.Plain(parts[2])
		}
		return m
	}
	var list []any
	for v := range strings.SplitSeq(s, ",") {
		list = append(list, sweep.Plain(v))
	}
	return list
}
