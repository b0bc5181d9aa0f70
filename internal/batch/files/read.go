package files

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// The bounds of a list.
const (
	maxNames = 100_000 // in one directory
	maxDepth = 64
)

// Reader reads files of shares. It may be used from any goroutine.
type Reader struct{ threads *threads }

// NewReader makes a Reader.
func NewReader() *Reader { return &Reader{newThreads()} }

// Output is a place with the name that a job gives it.
type Output struct {
	Name string
	Place
}

// split takes a path apart into an output's name and what is below it.
func split(name string) (output, below string, err error) {
	output, below, _ = strings.Cut(strings.Trim(name, "/"), "/")
	if below == "" {
		below = "."
	}
	if !fs.ValidPath(below) || strings.ContainsRune(name, 0) {
		return "", "", shoal.Errorf(shoal.KindInvalid, "cannot read %q as a path", name).WithHint("write OUTPUT/PATH, without . and ..")
	}
	return output, below, nil
}

// Open opens a file for reading: output/path. Who asked closes it.
func (r *Reader) Open(ctx context.Context, u User, outputs []Output, name string) (*os.File, error) {
	output, below, err := split(name)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(outputs, func(o Output) bool { return o.Name == output })
	if i < 0 {
		return nil, missing(outputs, output)
	}
	at := outputs[i]
	return do(ctx, r.threads, u, outputs[i:i+1], func(roots map[string]*os.Root) (*os.File, error) {
		f, err := openPlain(roots[at.Share], path.Join(at.Path, below))
		return f, said(err, u, name)
	}, func(f *os.File) { f.Close() })
}

func missing(outputs []Output, name string) error {
	var names []string
	for _, o := range outputs {
		names = append(names, o.Name)
	}
	err := shoal.Errorf(shoal.KindNotFound, "the job has no output %q", name)
	if len(names) == 0 {
		return err.WithHint("it has none: give outputs with the job, as in `outputs: {model: /shared/models}`")
	}
	return err.WithHint("it has %s", strings.Join(names, ", "))
}

// openPlain opens a plain file, and waits for nobody: neither for a pipe's writer nor for a device.
func openPlain(root *os.Root, name string) (*os.File, error) {
	info, err := root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		return nil, notPlain(info)
	}
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() { // it was changed meanwhile
		err = notPlain(info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func notPlain(info fs.FileInfo) error {
	if info.IsDir() {
		return shoal.Errorf(shoal.KindInvalid, "it is a directory").WithHint("`shoal job files ID OUTPUT/PATH -O DIR` downloads what is in it")
	}
	return shoal.Errorf(shoal.KindInvalid, "it is no plain file")
}

// said makes an error of the file system one that tells whose rights were asked.
func said(err error, u User, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return shoal.Errorf(shoal.KindNotFound, "there is no file %s", name).WithHint("`shoal job files ID` lists what there is")
	case errors.Is(err, fs.ErrPermission):
		return shoal.Errorf(shoal.KindDenied, "user %s may not read %s", u.Name, name).WithHint("its owner can allow it: chmod on a machine")
	case strings.Contains(err.Error(), "escapes"):
		return shoal.Errorf(shoal.KindDenied, "%s leads out of the share", name)
	case shoal.KindOf(err) != shoal.KindInternal:
		return shoal.Errorf(shoal.KindOf(err), "cannot read %s: %w", name, err)
	}
	return shoal.Errorf(shoal.KindUnavailable, "cannot read %s: %w", name, err)
}

// List lists what is below a path, output/path or all outputs, in order and from behind a file on; at
// most limit, and more reports whether there are others. Of a file it lists the file. What the user may
// not read is left out; an output that is not there yet is empty.
func (r *Reader) List(ctx context.Context, u User, outputs []Output, under, after string, limit int) (all []api.JobFile, more bool, err error) {
	output, below := "", "."
	if strings.Trim(under, "/") != "" {
		if output, below, err = split(under); err != nil {
			return nil, false, err
		}
		named := slices.DeleteFunc(slices.Clone(outputs), func(o Output) bool { return o.Name != output })
		if len(named) == 0 {
			return nil, false, missing(outputs, output)
		}
		outputs = named
	}
	type page struct {
		all  []api.JobFile
		more bool
	}
	p, err := do(ctx, r.threads, u, outputs, func(roots map[string]*os.Root) (page, error) {
		l := &lister{ctx: ctx, after: strings.Split(strings.Trim(after, "/"), "/"), limit: limit}
		for _, o := range slices.SortedFunc(slices.Values(outputs), func(a, b Output) int { return strings.Compare(a.Name, b.Name) }) {
			l.root, l.output = roots[o.Share], o
			if o.Name < l.after[0] {
				continue
			}
			err := l.from(below)
			if err == errFull {
				return page{l.all, true}, nil
			}
			if errors.Is(err, fs.ErrNotExist) && below == "." {
				continue // no task has begun
			}
			if err != nil {
				return page{}, said(err, u, path.Join(o.Name, below))
			}
		}
		return page{l.all, false}, nil
	}, func(page) {})
	return p.all, p.more, err
}

var errFull = errors.New("the page is full")

// lister walks through outputs.
type lister struct {
	ctx    context.Context
	root   *os.Root
	output Output
	after  []string // where to begin: behind it
	limit  int
	all    []api.JobFile
}

func (l *lister) from(below string) error {
	info, err := l.root.Stat(path.Join(l.output.Path, below))
	if err != nil {
		return err
	}
	if info.IsDir() {
		return l.dir(below, 0)
	}
	return l.add(below, info)
}

// add lists one file.
func (l *lister) add(below string, info fs.FileInfo) error {
	f := api.JobFile{Output: l.output.Name, Path: below, Dir: info.IsDir(), Modified: info.ModTime().UTC()}
	if !f.Dir {
		f.Size = info.Size()
	}
	if slices.Compare(append([]string{f.Output}, strings.Split(below, "/")...), l.after) <= 0 {
		return nil
	}
	if len(l.all) == l.limit {
		return errFull
	}
	l.all = append(l.all, f)
	return nil
}

// dir lists a directory and all below it. A link to a directory is listed, and not followed: it may
// lead in a circle.
func (l *lister) dir(below string, depth int) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	names, err := l.names(path.Join(l.output.Path, below))
	if err != nil {
		if depth > 0 && (errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)) {
			return nil
		}
		return err
	}
	for _, name := range names {
		at := path.Join(below, name)
		full := path.Join(l.output.Path, at)
		info, err := l.root.Lstat(full)
		linked := err == nil && info.Mode()&fs.ModeSymlink != 0
		if linked {
			info, err = l.root.Stat(full)
		}
		if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
			continue // gone meanwhile, leads out, or nothing that could be read
		}
		if err := l.add(at, info); err != nil {
			return err
		}
		if info.IsDir() && !linked && depth < maxDepth && !l.passed(at) {
			if err := l.dir(at, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// passed reports whether all below a directory comes before where the list begins.
func (l *lister) passed(at string) bool {
	way := append([]string{l.output.Name}, strings.Split(at, "/")...)
	return len(l.after) >= len(way) && slices.Compare(way, l.after[:len(way)]) < 0
}

// names are those in a directory, in order.
func (l *lister) names(dir string) ([]string, error) {
	d, err := l.root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxNames + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(names) > maxNames {
		return nil, shoal.Errorf(shoal.KindInvalid, "there are more than %d files in %s", maxNames, dir).WithHint("name one of them, or read it on a machine")
	}
	slices.Sort(names)
	return names, nil
}
