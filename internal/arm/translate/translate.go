package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// Options say what a template cannot know.
type Options struct {
	// Images are images by the template's name for one: PUBLISHER:OFFER:SKU:VERSION or the front of that,
	// an offer, an image's id, or * for all others.
	Images map[string]string
	// Sizes are what machines of a size have, before the table of sizes is asked.
	Sizes map[string]shoal.Resources
	// Shares are sources of shares, by ACCOUNT/SHARE or SHARE: "team" → /srv/team. Without one an Azure file share
	// stays what it is.
	Shares map[string]string
	// Provider makes the machines; empty: the local one.
	Provider string
	// Most is the most that a machine may have; zero: no limit.
	Most shoal.Resources
	// AllowScripts runs the template's own scripts when a machine is made, as root.
	AllowScripts bool
}

// Secret is a value for the store of secrets.
type Secret struct {
	Name  string
	Value *tree.Value // its Text is the secret
	At    tree.Place
}

// Password is one that a template gives its user. Where she has no key there is no document of her.
type Password struct {
	User  shoal.UserName
	Value *tree.Value
	At    tree.Place
}

// Change is a scale set that says only how large it is to be, or an autoscale setting for a scale set that is
// not in the template: the pool of that name is to change.
type Change struct {
	Pool    shoal.PoolName
	Size    *shoal.Size
	Machine *shoal.Resources
	At      tree.Place
}

// Result is a template in our words.
type Result struct {
	Set       spec.Set
	Changes   []Change
	Secrets   []Secret
	Passwords []Password
	Outputs   []arm.Output
	Notes     []arm.Note

	places map[string]func(path string) tree.Place // by "pool lab"
}

// Place is where in the template a part of an object was written: "pool lab: size.max".
func (r *Result) Place(path string) (tree.Place, bool) {
	object, path, _ := strings.Cut(path, ": ")
	place, ok := r.places[object]
	if !ok {
		return tree.Place{}, false
	}
	at := place(path)
	return at, at.Line > 0
}

// Translate makes objects of a template's resources. The error is of KindInvalid and lists all mistakes.
func Translate(in *arm.Result, o Options) (*Result, error) {
	t := &translation{in: in, options: o, out: Result{Outputs: in.Outputs, Notes: slices.Clone(in.Notes), places: map[string]func(string) tree.Place{}}, told: map[string]bool{}, userAt: map[shoal.UserName]tree.Place{}, ruled: map[*tree.Value]bool{}}
	t.scaleSets()
	t.machines()
	t.extensions()
	t.autoscales()
	t.unruled()
	t.rest()
	t.finish()
	if len(t.pools) == 0 && len(t.out.Changes) == 0 && len(t.mistakes) == 0 {
		t.nothing()
	}
	if len(t.mistakes) > 0 {
		slices.SortStableFunc(t.mistakes, func(a, b shoal.Mistake) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		return nil, spec.Invalid(t.mistakes)
	}
	slices.SortStableFunc(t.out.Notes, func(a, b arm.Note) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &t.out, nil
}

// translation is a template while it is translated.
type translation struct {
	in       *arm.Result
	options  Options
	out      Result
	pools    []*pool
	told     map[string]bool      // ids of resources that were dealt with
	ruled    map[*tree.Value]bool // rules of load balancers that lead to a pool
	userAt   map[shoal.UserName]tree.Place
	mistakes []shoal.Mistake
}

// pool is one of ours while it is put together.
type pool struct {
	shoal.Pool
	of       *arm.Resource
	ids      []string              // of the scale set or the machines, in small letters
	places   map[string]tree.Place // where parts of the pool were written
	windows  bool
	backends []string // ids of load balancers' pools that lead here, in small letters
	count    int      // machines that the template asks for
}

// most bounds what is said.
const most = 200

func (t *translation) note(at tree.Place, format string, args ...any) {
	n := arm.Note{File: at.File, Line: at.Line, Column: at.Column, Text: t.in.Redact(fmt.Sprintf(format, args...))}
	if len(t.out.Notes) < most && !slices.Contains(t.out.Notes, n) {
		t.out.Notes = append(t.out.Notes, n)
	}
}

func (t *translation) wrong(at tree.Place, path, hint, format string, args ...any) {
	m := shoal.Mistake{File: at.File, Line: at.Line, Column: at.Column, Path: path, Msg: t.in.Redact(fmt.Sprintf(format, args...)), Hint: hint}
	if len(t.mistakes) < most && !slices.Contains(t.mistakes, m) {
		t.mistakes = append(t.mistakes, m)
	}
}

// kind is a resource's type in small letters.
func kind(r *arm.Resource) string { return tree.Fold(r.Type) }

// of are the resources of a type.
func (t *translation) of(what string) []*arm.Resource {
	var all []*arm.Resource
	for i := range t.in.Resources {
		if r := &t.in.Resources[i]; kind(r) == what {
			all = append(all, r)
		}
	}
	return all
}

// nothing tells of each type of the template's resources that no pool can be made of it.
func (t *translation) nothing() {
	const msg = "the template has neither a scale set nor a virtual machine, so there is no pool to make of it"
	if len(t.in.Resources) == 0 {
		t.wrong(tree.Place{}, "", "", msg+": it has no resources at all")
		return
	}
	seen := map[string]bool{}
	for i := range t.in.Resources {
		r := &t.in.Resources[i]
		if seen[kind(r)] {
			continue
		}
		seen[kind(r)] = true
		hint := ""
		if strings.HasPrefix(kind(r), "microsoft.batchai/") {
			hint = "the properties of a cluster of Batch AI, in a file cluster.json, are taken by `shoal apply -f cluster.json`"
		}
		t.wrong(r.At, r.Type+" "+tree.Clip(r.Name, 60), hint, msg)
	}
}

// names the resource for people.
func what(r *arm.Resource) string {
	return r.Type[strings.LastIndexByte(r.Type, '/')+1:] + " " + tree.Clip(r.Name, 60)
}

func (t *translation) deal(r *arm.Resource) { t.told[tree.Fold(r.ID)] = true }

// finish completes and checks the objects.
func (t *translation) finish() {
	for _, p := range t.pools {
		if p.windows {
			p.Uses = []shoal.Use{shoal.UseInteractive}
		}
		spec.DefaultPool(&p.Pool)
		for _, m := range spec.CheckPool(p.Pool) {
			t.wrong(p.place(m.Path), "pool "+string(p.Name)+": "+m.Path, m.Hint, "%s", m.Msg)
		}
		if slices.ContainsFunc(t.out.Set.Pools, func(o shoal.Pool) bool { return o.Name == p.Name }) {
			t.wrong(p.of.At, "", "name them apart", "two pools would be called %q", p.Name)
		}
		t.out.Set.Pools = append(t.out.Set.Pools, p.Pool)
		t.out.places["pool "+string(p.Name)] = p.place
	}
	for i := range t.out.Set.Shares {
		s := &t.out.Set.Shares[i]
		spec.DefaultShare(s)
		t.out.places["share "+string(s.Name)] = func(string) tree.Place { return t.sharePlace(s.Name) }
		for _, m := range spec.CheckShare(*s) {
			t.wrong(t.sharePlace(s.Name), "share "+string(s.Name)+": "+m.Path, m.Hint, "%s", m.Msg)
		}
	}
	for i := range t.out.Set.Users {
		u := &t.out.Set.Users[i]
		spec.DefaultUser(u)
		t.out.places["user "+string(u.Name)] = func(string) tree.Place { return t.userAt[u.Name] }
		for _, m := range spec.CheckUser(*u) {
			t.wrong(t.userAt[u.Name], "user "+string(u.Name)+": "+m.Path, m.Hint, "%s", m.Msg)
		}
	}
}

// place is where a part of the pool was written.
func (p *pool) place(path string) tree.Place {
	for path != "" {
		if at, ok := p.places[path]; ok {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return p.of.At
}

func (t *translation) sharePlace(name shoal.ShareName) tree.Place {
	for _, p := range t.pools {
		for i, m := range p.Mounts {
			if m.Share == name {
				return p.place(fmt.Sprintf("mounts[%d]", i))
			}
		}
	}
	return tree.Place{}
}
