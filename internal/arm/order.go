package arm

import (
	"slices"
	"strings"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// circles finds resources that depend on each other, by dependsOn or reference, and tells the way round once.
func (f *frame) circles() {
	const (
		onPath = 1
		over   = 2
	)
	state := map[*node]int{}
	var path []*node
	var visit func(n *node) bool
	visit = func(n *node) bool {
		state[n] = onPath
		path = append(path, n)
		for _, o := range n.needs {
			if o.frame != f {
				continue
			}
			switch state[o] {
			case onPath:
				f.run.circle(path[slices.Index(path, o):])
				return false
			case 0:
				if !visit(o) {
					return false
				}
			}
		}
		path = path[:len(path)-1]
		state[n] = over
		return true
	}
	for _, n := range f.nodes {
		if state[n] == 0 && !n.skipped && !visit(n) {
			return
		}
	}
}

// circle tells that resources depend on each other.
func (r *run) circle(path []*node) {
	if len(path) == 0 {
		return
	}
	first := 0
	for i, n := range path { // the same circle is told in the same way wherever it was entered
		if n.source.At.Line < path[first].source.At.Line {
			first = i
		}
	}
	var words []string
	for i := range path {
		words = append(words, path[(first+i)%len(path)].what())
	}
	words = append(words, words[0])
	n := path[first]
	r.wrong(n.source.At, n.path, "let one of them do without the other", "resources depend on each other in a circle: %s", tree.Clip(strings.Join(words, " → "), 600))
}

// collect puts the frame's resources into the result, each behind those that it depends on.
func (f *frame) collect(out *Result, deployment string) {
	put := map[*node]bool{}
	var visit func(n *node)
	visit = func(n *node) {
		if put[n] || n.skipped {
			return
		}
		put[n] = true
		for _, o := range n.needs {
			if o.frame == f {
				visit(o)
			}
		}
		if n.inner != nil {
			name := n.name
			if deployment != "" {
				name = deployment + "/" + name
			}
			n.inner.collect(out, name)
			return
		}
		res := Resource{ID: n.id, Type: n.kind, Name: n.name, Deployment: deployment, At: n.source.At, Location: n.location, Body: n.body}
		for _, o := range n.needs {
			res.After = append(res.After, o.id)
		}
		out.Resources = append(out.Resources, res)
	}
	for _, n := range f.nodes {
		visit(n)
	}
}
