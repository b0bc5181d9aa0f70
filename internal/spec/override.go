package spec

import (
	"reflect"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec/sweep"
)

// Override changes fields of a job, each written KEY=VALUE: resources.cpus=2, env.LR=0.1, after=[17]. No
// value takes the field away. The result is checked.
func Override(j shoal.JobSpec, sets []string) (shoal.JobSpec, error) {
	if len(sets) == 0 {
		return j, nil
	}
	items := j.Items
	if !slices.ContainsFunc(sets, func(s string) bool { return strings.HasPrefix(s, "items=") }) {
		j.Items = nil // they may be many, and stay as they are
	}
	text, err := Document(j)
	if err != nil {
		return j, err
	}
	r := reader{anchors: map[string]*node{}}
	docs := r.read(text)
	if len(r.mistakes) > 0 || len(docs) != 1 {
		return j, Invalid(append(r.mistakes, shoal.Mistake{Msg: "the job is too large to be changed so"}))
	}
	for _, s := range sets {
		if err := docs[0].override(s); err != nil {
			return j, err
		}
	}
	budget := maxNodes
	d := decoder{budget: &budget, places: map[string]position{}}
	out := newJob()
	d.decode(docs[0], reflect.ValueOf(&out).Elem(), "")
	if out.Items == nil {
		out.Items = items
	}
	if len(d.mistakes) == 0 {
		d.mistakes = CheckJob(out)
	}
	if len(d.mistakes) > 0 {
		for i := range d.mistakes {
			d.mistakes[i].Line, d.mistakes[i].Column = 0, 0 // of a document that nobody wrote
		}
		return j, Invalid(d.mistakes)
	}
	return out, nil
}

// override puts a value into a document.
func (n *node) override(set string) error {
	path, value, ok := strings.Cut(set, "=")
	if !ok || path == "" {
		return shoal.Errorf(shoal.KindInvalid, "cannot read %q: it is not KEY=VALUE", clip(set)).WithHint("write resources.cpus=2, for example")
	}
	keys := strings.Split(path, ".")
	if len(keys) > 2 && slices.Contains([]string{"env", "labels", "inputs", "secrets"}, keys[0]) {
		keys = []string{keys[0], strings.Join(keys[1:], ".")} // names of the user's own may have dots
	}
	to := &node{kind: scalarNode, text: value}
	if strings.HasPrefix(value, "[") || strings.HasPrefix(value, "{") || strings.HasPrefix(value, `"`) {
		r := reader{file: "--set " + path, anchors: map[string]*node{}}
		docs := r.read([]byte(value))
		if len(r.mistakes) > 0 || len(docs) != 1 {
			return Invalid(append(r.mistakes, shoal.Mistake{Path: path, Msg: "the value cannot be read"}))
		}
		to = docs[0]
	}
	at := n
	for i, key := range keys {
		k := slices.IndexFunc(at.keys, func(o *node) bool { return o.text == key })
		last := i == len(keys)-1
		switch {
		case last && value == "" && k >= 0:
			at.keys, at.values = slices.Delete(at.keys, k, k+1), slices.Delete(at.values, k, k+1)
			return nil
		case last && value == "":
			return nil
		case k < 0:
			at.keys, at.values = append(at.keys, &node{kind: scalarNode, text: key}), append(at.values, &node{kind: mapNode})
			k = len(at.keys) - 1
		}
		if last {
			at.values[k] = to
			return nil
		}
		if at = at.values[k]; at.kind != mapNode {
			at.kind, at.keys, at.values = mapNode, nil, nil
		}
	}
	return nil
}

// sweepFile is a file of parameters, ours or one of Batch AI's job factory.
type sweepFile struct {
	sweep.Sweep
	sweep.Factory
}

// SweepItems reads a file of parameters, as a job's sweep block has them, and makes the items. Files of
// Batch AI's job factory are read too. Search and Count of over win over the file's.
func SweepItems(f File, over sweep.Sweep) ([]shoal.Item, error) {
	r := reader{file: f.Name}
	docs := r.read(f.Data)
	if len(r.mistakes) == 0 && len(docs) != 1 {
		r.wrong(1, 1, "", "a file of parameters is one document, not %d", len(docs))
	}
	if len(r.mistakes) > 0 {
		return nil, Invalid(r.mistakes)
	}
	budget := maxNodes
	d := decoder{file: f.Name, budget: &budget, places: map[string]position{}}
	var file sweepFile
	d.decode(docs[0], reflect.ValueOf(&file).Elem(), "")
	if len(d.mistakes) > 0 {
		return nil, Invalid(d.mistakes)
	}
	var mistakes []shoal.Mistake
	s := file.Sweep
	if over.Search != "" {
		s.Search = over.Search
	}
	if over.Count != 0 {
		s.Count = over.Count
	}
	if over.Seed != 0 {
		s.Seed = over.Seed
	}
	if len(file.Params) > 0 {
		var made sweep.Sweep
		made, mistakes = file.Factory.Sweep(s.Search == sweep.Random)
		s.Parameters = made.Parameters
	}
	var items []shoal.Item
	if len(mistakes) == 0 {
		items, mistakes = s.Items(f.Glob)
	}
	for i := range mistakes {
		at := d.place(mistakes[i].Path)
		mistakes[i].File, mistakes[i].Line, mistakes[i].Column = f.Name, at.line, at.column
	}
	if len(mistakes) > 0 {
		return nil, Invalid(mistakes)
	}
	return items, nil
}
