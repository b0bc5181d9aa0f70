package arm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/expr"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
)

// The bounds of a deployment. Those of a template are the old services' own.
const (
	maxResources  = 800   // of a template, copies included
	maxAll        = 2_000 // of a deployment, with all templates it links
	maxParameters = 256
	maxVariables  = 512
	maxOutputs    = 64
	maxLoop       = 800
	maxNested     = 8 // templates in each other
	maxLoads      = 50
	maxBodies     = 32 << 20 // bytes of all resources, written out
	maxTold       = 100      // mistakes, and notes
)

// File is a file that was read. URI says where it came from, so that what it links is found beside it.
type File struct {
	Name string
	URI  string
	Data []byte
}

// Loader fetches linked templates and parameter files. uri is absolute, or a path relative to the file that
// linked it where that has no URI.
type Loader interface {
	Load(uri string) (File, error)
}

// Context is where a template is deployed to: what its functions tell about that.
type Context struct {
	Deployment   string
	Group        string
	Location     string
	Subscription string // a UUID; zeros if it is empty
	Tenant       string
	Now          time.Time // for utcNow
	Seed         string    // newGuid's answers depend on it
}

// Input is a deployment that is asked for.
type Input struct {
	Context
	Values  []Values // of parameters: later ones win
	Loader  Loader   // nil: nothing can be linked
	Answers Answers
}

// Note is something that whoever deploys should know.
type Note struct {
	File   string
	Line   int
	Column int
	Text   string
}

// String is a line for people.
func (n Note) String() string {
	if n.Line == 0 {
		return n.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", n.File, n.Line, n.Column, n.Text)
}

// Resource is one that the template describes.
type Resource struct {
	ID   string
	Type string // as written: Microsoft.Compute/virtualMachineScaleSets
	Name string
	// Deployment is the name of the nested or linked deployment that it belongs to; empty: the template's own.
	Deployment string
	At         tree.Place
	Location   string
	// Body has the rest: properties, sku, tags and so on.
	Body *tree.Value
	// After are the ids of those that it depends on.
	After []string
}

// Output is a result that the template gives.
type Output struct {
	Name  string
	Type  string
	Value *tree.Value
}

// Result is an evaluated deployment. Resources come after those that they depend on.
type Result struct {
	Context
	Resources []Resource
	Outputs   []Output
	// Used are the parameters' values; secret ones are marked so.
	Used    []Output
	Notes   []Note
	secrets []string
}

// Redact takes the template's secrets out of a text, wherever they come from: a second guard beside the marks that
// secret values have.
func (r *Result) Redact(s string) string { return redact(s, r.secrets) }

func redact(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, tree.HiddenText)
	}
	return s
}

// Find finds a resource by its id in any letters' case, or nil.
func (r *Result) Find(id string) *Resource {
	for i := range r.Resources {
		if tree.Fold(r.Resources[i].ID) == tree.Fold(id) {
			return &r.Resources[i]
		}
	}
	return nil
}

// Evaluate evaluates a template. The error is of KindInvalid and lists all mistakes.
func Evaluate(t *Template, in Input) (*Result, error) {
	if in.Subscription == "" {
		in.Subscription = "00000000-0000-0000-0000-000000000000"
	}
	if in.Tenant == "" {
		in.Tenant = "00000000-0000-0000-0000-000000000000"
	}
	r := &run{in: in, budget: expr.NewBudget(), parsed: map[string]*expr.Node{}, static: map[*tree.Value]bool{}, byID: map[string]*node{}}
	r.functions = r.scopeFunctions()
	if word := t.scopeWord(); word != "group" {
		in.Group = ""
		r.note(t.root.At, "the template is for a %s: only resources of its nested deployments belong to a group", word)
	}
	for _, list := range in.Answers {
		for _, v := range list {
			r.hide(v)
		}
	}
	f := r.newFrame(t, in.Context, nil)
	f.bind(in.Values)
	f.check()
	f.evaluate()
	outputs := f.outputs()
	if r.budget.Spent() && len(r.mistakes) == 0 {
		r.wrong(t.root.At, "", "", "evaluating the template takes too much: it was stopped")
	}
	if len(r.mistakes) > 0 {
		return nil, r.invalid()
	}
	out := &Result{Context: in.Context, Outputs: outputs, Used: f.used(), Notes: r.notes, secrets: r.secrets}
	f.collect(out, "")
	slices.SortStableFunc(out.Notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return out, nil
}

// run is the evaluation of a deployment with all its templates.
type run struct {
	in        Input
	budget    *expr.Budget
	functions map[string]*expr.Function
	parsed    map[string]*expr.Node
	static    map[*tree.Value]bool
	byID      map[string]*node
	stack     []*node // whose bodies are being evaluated
	cells     []*cell // that are being computed
	calls     int     // of the functions that templates declare, in each other
	resources int
	loads     int
	guids     int
	bodies    int64
	mistakes  []shoal.Mistake
	more      bool
	notes     []Note
	secrets   []string // that no message may have
}

// hide keeps the secret texts in a value out of all messages. Very short ones are left: they would be everywhere.
func (r *run) hide(v *tree.Value) {
	const shortest = 4
	if v.Secret && len(v.Text()) >= shortest && v.Kind == tree.String && len(r.secrets) < maxParameters {
		r.secrets = append(r.secrets, v.Text())
	}
	for _, item := range v.Items() {
		r.hide(item)
	}
	for _, m := range v.Members() {
		r.hide(m.Value)
	}
}

// errReported stands for a mistake that was told already.
var errReported = errors.New("told already")

// full reports whether nothing more is looked for.
func (r *run) full() bool { return len(r.mistakes) >= maxTold }

func (r *run) wrong(at tree.Place, path, hint, format string, args ...any) {
	m := shoal.Mistake{File: at.File, Line: at.Line, Column: at.Column, Path: redact(path, r.secrets), Msg: redact(fmt.Sprintf(format, args...), r.secrets), Hint: redact(hint, r.secrets)}
	// Copies of a resource say the same at the same place, each with its own name.
	told := slices.ContainsFunc(r.mistakes, func(o shoal.Mistake) bool {
		return o == m || m.Line > 0 && o.File == m.File && o.Line == m.Line && o.Column == m.Column && o.Path == m.Path
	})
	switch {
	case told:
	case r.full():
		r.more = true
	default:
		r.mistakes = append(r.mistakes, m)
	}
}

func (r *run) note(at tree.Place, format string, args ...any) {
	n := Note{at.File, at.Line, at.Column, redact(fmt.Sprintf(format, args...), r.secrets)}
	if len(r.notes) < maxTold && !slices.Contains(r.notes, n) {
		r.notes = append(r.notes, n)
	}
}

func (r *run) invalid() error {
	slices.SortStableFunc(r.mistakes, func(a, b shoal.Mistake) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if r.more {
		r.mistakes = append(r.mistakes, shoal.Mistake{Msg: "there is more to say: mend these first"})
	}
	return spec.Invalid(r.mistakes)
}
