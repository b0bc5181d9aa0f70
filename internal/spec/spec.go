package spec

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/sweep"
)

// File is a file that was read.
type File struct {
	Name string
	Data []byte
	// Glob lists files for sweeps over them; nil where there are none to list.
	Glob func(pattern string) ([]string, error)
}

// Set is the objects of some files, each kind in the order written, with defaults filled in.
type Set struct {
	Shares []shoal.Share
	Groups []shoal.Group
	Users  []shoal.User
	Pools  []shoal.Pool
	Jobs   []shoal.JobSpec
}

// Len is the number of objects.
func (s Set) Len() int {
	return len(s.Shares) + len(s.Groups) + len(s.Users) + len(s.Pools) + len(s.Jobs)
}

// Parse reads files of YAML or JSON documents. If anything is wrong in any of them the error is
// of KindInvalid and lists all mistakes, and the Set is empty.
func Parse(files ...File) (Set, error) {
	p := parsing{seen: map[string]string{}, written: map[string]*decoder{}}
	for _, f := range files {
		p.file(f)
	}
	if len(p.mistakes) > 0 {
		return Set{}, Invalid(p.mistakes)
	}
	return p.set, nil
}

// Locate returns an error about what files said, as a server found it, with the places where its
// mistakes were written. A server knows objects and their fields, not files.
func Locate(err error, files ...File) error {
	e, ok := errors.AsType[*shoal.Error](err)
	if !ok || len(e.Mistakes) == 0 {
		return err
	}
	p := parsing{seen: map[string]string{}, written: map[string]*decoder{}}
	for _, f := range files {
		p.file(f)
	}
	located := *e
	located.Mistakes = slices.Clone(e.Mistakes)
	for i := range located.Mistakes {
		m := &located.Mistakes[i]
		object, field, _ := strings.Cut(m.Path, ": ")
		if d := p.written[object]; d != nil && m.Line == 0 {
			at := d.place(field)
			m.File, m.Line, m.Column = d.file, at.line, at.column
		}
	}
	return &located
}

// Invalid is the error that lists mistakes. It has at least one.
func Invalid(mistakes []shoal.Mistake) error {
	word := "mistake"
	if len(mistakes) > 1 {
		word = "mistakes"
	}
	err := shoal.Errorf(shoal.KindInvalid, "%d %s in what was written", len(mistakes), word)
	err.Mistakes = mistakes
	return err
}

type parsing struct {
	set      Set
	seen     map[string]string   // "Pool lab" → where
	written  map[string]*decoder // "pool lab" → with its places
	mistakes []shoal.Mistake
}

func (p *parsing) file(f File) {
	r := reader{file: f.Name}
	docs := r.read(f.Data)
	found := r.mistakes
	budget := maxNodes
	for _, doc := range docs {
		d := decoder{file: f.Name, glob: f.Glob, budget: &budget, places: map[string]position{}}
		p.document(&d, doc)
		found = append(found, d.mistakes...)
	}
	slices.SortStableFunc(found, func(a, b shoal.Mistake) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	p.mistakes = append(p.mistakes, found...)
}

// kinds are the kinds of documents there are.
func kinds() []string {
	return []string{string(shoal.ObjectShare), string(shoal.ObjectPool), string(shoal.ObjectUser), string(shoal.ObjectGroup), string(shoal.ObjectJob)}
}

func (p *parsing) document(d *decoder, doc *node) {
	if doc.kind != mapNode {
		d.wrong(doc, "", "begin with `kind: Pool`, for example", "a document is a mapping, not %s", doc.kind)
		return
	}
	kind := doc.word("kind")
	switch {
	case kind == nil:
		d.wrong(doc, "kind", "begin with `kind: Pool`, for example", "the document has no kind")
		return
	case !slices.Contains(kinds(), kind.text):
		d.wrong(kind, "kind", suggest(kind.text, kinds()), "unknown kind %q", clip(kind.text))
		return
	}
	switch shoal.ObjectKind(kind.text) {
	case shoal.ObjectShare:
		p.set.Shares = add(p, d, doc, p.set.Shares, shoal.Share{}, DefaultShare, pointed(CheckShare))
	case shoal.ObjectGroup:
		p.set.Groups = add(p, d, doc, p.set.Groups, shoal.Group{}, func(*shoal.Group) {}, pointed(CheckGroup))
	case shoal.ObjectUser:
		p.set.Users = add(p, d, doc, p.set.Users, shoal.User{}, DefaultUser, pointed(CheckUser))
	case shoal.ObjectPool:
		p.set.Pools = add(p, d, doc, p.set.Pools, newPool(), completePool, pointed(CheckPool))
	case shoal.ObjectJob:
		for _, j := range add(p, d, doc, nil, jobDocument{JobSpec: newJob()}, func(*jobDocument) {}, d.checkJob) {
			p.set.Jobs = append(p.set.Jobs, j.JobSpec)
		}
	}
}

// jobDocument is a job as it is written: its items may come of a sweep.
type jobDocument struct {
	shoal.JobSpec
	Sweep *sweep.Sweep `json:"sweep"`
}

// expand makes the items of a sweep.
func (j *jobDocument) expand(glob sweep.Glob) []shoal.Mistake {
	if j.Sweep == nil {
		return nil
	}
	items, mistakes := j.Sweep.Items(glob)
	for i := range mistakes {
		mistakes[i].Path = join("sweep", mistakes[i].Path)
	}
	if len(j.Items) > 0 {
		mistakes = append(mistakes, shoal.Mistake{Path: "items", Msg: "a job has either a sweep or items", Hint: "leave it out"})
	}
	j.Items = items
	return mistakes
}

// checkJob is CheckJob for a document, in which 0 is not the same as nothing.
func (d *decoder) checkJob(j *jobDocument) []shoal.Mistake {
	all := append(j.expand(d.glob), CheckJob(j.JobSpec)...)
	_, cpus := d.places["resources.cpus"]
	_, memory := d.places["resources.memory"]
	if cpus && j.Resources.CPUs == 0 {
		all = append(all, shoal.Mistake{Path: "resources.cpus", Msg: "a task needs some processor"})
	}
	if memory && j.Resources.Memory == 0 {
		all = append(all, shoal.Mistake{Path: "resources.memory", Msg: "a task needs some memory"})
	}
	return all
}

// pointed is a check of a value for one that is pointed to.
func pointed[T any](check func(T) []shoal.Mistake) func(*T) []shoal.Mistake {
	return func(v *T) []shoal.Mistake { return check(*v) }
}

// word returns the scalar of a key, or nil.
func (n *node) word(key string) *node {
	for i, k := range n.keys {
		if k.text == key && n.values[i].kind == scalarNode {
			return n.values[i]
		}
	}
	return nil
}

// add decodes, completes and checks one object. Rules are checked also where not all of it could be
// read, so that all mistakes are told at once; but not what they say of the unread parts, which
// would break rules that the whole keeps.
func add[T any](p *parsing, d *decoder, doc *node, list []T, v T, complete func(*T), check func(*T) []shoal.Mistake) []T {
	d.decode(doc, reflect.ValueOf(&v).Elem(), "")
	d.places[""] = position{doc.line, doc.column}
	p.unique(d, doc)
	unread := slices.Clone(d.mistakes)
	if len(unread) > 0 && *d.budget < 0 {
		return list
	}
	complete(&v)
	for _, m := range check(&v) {
		if slices.ContainsFunc(unread, func(u shoal.Mistake) bool { return concerns(u, m) }) {
			continue
		}
		at := d.place(m.Path)
		m.File, m.Line, m.Column = d.file, at.line, at.column
		d.mistakes = append(d.mistakes, m)
	}
	if len(unread) > 0 {
		return list
	}
	return append(list, v)
}

// concerns reports whether a mistake about a rule may come of what could not be read: at the same
// place, around it, within it or beside it, where a home needs a mount, or where an unknown key was
// probably meant to be.
func concerns(unread, rule shoal.Mistake) bool {
	within := func(inner, outer string) bool {
		rest, ok := strings.CutPrefix(inner, outer)
		return ok && (outer == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	if within(rule.Path, unread.Path) || within(unread.Path, rule.Path) {
		return true
	}
	around := unread.Path[:max(strings.LastIndexByte(unread.Path, '.'), 0)]
	if around != "" && within(rule.Path, around) || within(unread.Path, "mounts") && within(rule.Path, "home") {
		return true
	}
	meant, ok := strings.CutPrefix(unread.Hint, didYouMean)
	return ok && within(rule.Path, join(around, strings.TrimSuffix(meant, "?")))
}

// unique refuses a second object of a kind and name. Jobs are not objects with names of their own.
func (p *parsing) unique(d *decoder, doc *node) {
	kind, name := doc.word("kind"), doc.word("name")
	if name == nil || kind.text == string(shoal.ObjectJob) {
		return
	}
	key := kind.text + " " + name.text
	if first, ok := p.seen[key]; ok {
		d.wrong(name, "name", "", "%s %q is there twice, first in %s", strings.ToLower(kind.text), clip(name.text), first)
		return
	}
	where := fmt.Sprintf("line %d", name.line)
	if d.file != "" {
		where = fmt.Sprintf("%s:%d", d.file, name.line)
	}
	p.seen[key] = where
	p.written[strings.ToLower(kind.text)+" "+name.text] = d
}

// place finds where a path was written, or what is around it.
func (d *decoder) place(path string) position {
	for path != "" {
		if at, ok := d.places[path]; ok {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return d.places[""]
}

// Format writes mistakes as compilers do, a line each and their hints below.
func Format(mistakes []shoal.Mistake) string {
	var b strings.Builder
	for _, m := range mistakes {
		if m.File != "" {
			b.WriteString(m.File + ":")
		}
		if m.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", m.Line, m.Column)
		}
		if b.Len() > 0 && strings.HasSuffix(b.String(), ":") {
			b.WriteByte(' ')
		}
		if m.Path != "" {
			b.WriteString(m.Path + ": ")
		}
		b.WriteString(m.Msg + "\n")
		if m.Hint != "" {
			b.WriteString("    hint: " + m.Hint + "\n")
		}
	}
	return b.String()
}
