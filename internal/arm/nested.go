package arm

import (
	"net/url"
	"path"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// nest evaluates a deployment within the deployment: its template is written there, or linked.
func (n *node) nest(s *scope) bool {
	r := n.frame.run
	if n.frame.depth+1 > maxNested {
		r.wrong(n.source.At, n.path, "", "templates are nested deeper than %d levels", maxNested)
		return false
	}
	properties := n.source.Get("properties")
	if properties == nil {
		r.wrong(n.source.At, n.path+".properties", "", "the deployment has no properties")
		return false
	}
	outer := true
	if v := properties.Get("expressionEvaluationOptions", "scope"); v.Present() {
		text, ok := s.with(n.path + ".properties.expressionEvaluationOptions.scope").value(v)
		if !ok {
			return false
		}
		outer = !strings.EqualFold(text.Text(), "inner")
	}
	t, linked, ok := n.template(s, properties)
	if !ok {
		return false
	}
	c := n.frame.place(s, n.source)
	c.Deployment = n.name
	f := r.newFrame(t, c, n.frame)
	f.name = n.name
	n.inner = f
	if linked || !outer {
		values, ok := n.values(s, properties)
		if !ok {
			return false
		}
		f.bind([]Values{values})
	} else {
		f.outer = s
		f.context.Group = c.Group
		if len(t.parameters) > 0 {
			r.note(t.parameters[0].At, "deployment %q evaluates its expressions in the scope of the template around it, so its own parameters and variables are not seen", n.name)
		}
	}
	before := len(r.mistakes)
	f.check()
	f.evaluate()
	outputs := f.outputs()
	var members []tree.Member
	for _, o := range outputs {
		members = append(members, tree.Member{Name: o.Name, Value: tree.ObjectValue([]tree.Member{
			{Name: "type", Value: tree.StringValue(o.Type)}, {Name: "value", Value: o.Value}})})
	}
	n.body = tree.ObjectValue([]tree.Member{{Name: "properties", Value: tree.ObjectValue([]tree.Member{
		{Name: "provisioningState", Value: tree.StringValue("Succeeded")},
		{Name: "outputs", Value: tree.ObjectValue(members)},
	})}}).Placed(n.source.At)
	return len(r.mistakes) == before && !r.full()
}

// template is that of a nested deployment; linked: it comes from another file.
func (n *node) template(s *scope, properties *tree.Value) (t *Template, linked, ok bool) {
	r := n.frame.run
	if v := properties.Get("template"); v.Present() {
		t, mistakes := open(File{Name: n.frame.template.name, URI: n.frame.template.uri}, v)
		for _, m := range mistakes {
			r.wrong(tree.Place{File: m.File, Line: m.Line, Column: m.Column}, n.path+".properties.template", m.Hint, "%s", m.Msg)
		}
		return t, false, len(mistakes) == 0
	}
	link := properties.Get("templateLink")
	if !link.Present() {
		r.wrong(properties.At, n.path+".properties", "", "the deployment has neither a template nor a templateLink")
		return nil, false, false
	}
	f, at, ok := n.load(s, link, n.path+".properties.templateLink")
	if !ok {
		return nil, true, false
	}
	t, err := Read(f)
	if err != nil {
		for _, m := range shoal.MistakesOf(err) {
			r.wrong(tree.Place{File: m.File, Line: m.Line, Column: m.Column}, m.Path, m.Hint, "%s (linked in line %d of %s)", m.Msg, at.Line, at.File)
		}
		return nil, true, false
	}
	return t, true, true
}

// load fetches what {uri} or {relativePath} links.
func (n *node) load(s *scope, link *tree.Value, at string) (File, tree.Place, bool) {
	r := n.frame.run
	key := "uri"
	if link.Get("uri") == nil {
		key = "relativePath"
	}
	written := link.Get(key)
	if written == nil {
		r.wrong(link.At, at, "write uri or relativePath", "the link leads nowhere")
		return File{}, link.At, false
	}
	v, ok := s.with(at + "." + key).value(written)
	switch {
	case !ok:
		return File{}, written.At, false
	case v.Kind == tree.Unknown:
		s.undecided(written, at, v)
		return File{}, written.At, false
	case v.Kind != tree.String || v.Text() == "":
		r.wrong(written.At, at+"."+key, "", "an address is wanted here, not %s", v.Show())
		return File{}, written.At, false
	}
	address := resolve(n.frame.template.uri, v.Text())
	shown := withoutQuery(address)
	if v.Secret {
		shown = tree.HiddenText
	}
	switch {
	case r.in.Loader == nil:
		r.wrong(written.At, at+"."+key, "", "the template links %s, and nothing can be fetched here", shown)
		return File{}, written.At, false
	case r.loads >= maxLoads:
		r.wrong(written.At, at+"."+key, "", "the deployment links more than %d files", maxLoads)
		return File{}, written.At, false
	}
	r.loads++
	f, err := r.in.Loader.Load(address)
	if err != nil {
		r.wrong(written.At, at+"."+key, shoal.HintOf(err), "cannot fetch %s, which the template links: %s", shown, strings.ReplaceAll(err.Error(), address, shown))
		return File{}, written.At, false
	}
	if f.URI == "" {
		f.URI = address
	}
	if f.Name == "" {
		f.Name = shown
	}
	return f, written.At, true
}

// resolve is an address relative to that of the file it is in.
func resolve(base, address string) string {
	if u, err := url.Parse(address); err == nil && u.IsAbs() {
		return address
	}
	b, err := url.Parse(base)
	if err != nil || base == "" {
		return address
	}
	if b.IsAbs() {
		if r, err := b.Parse(address); err == nil {
			r.RawQuery = b.RawQuery // what lets one read the template lets one read what lies beside it
			return r.String()
		}
	}
	return path.Join(path.Dir(base), address)
}

// withoutQuery is an address without what may be a secret in it.
func withoutQuery(address string) string {
	address, _, _ = strings.Cut(address, "?")
	if u, err := url.Parse(address); err == nil && u.User != nil {
		u.User = nil
		address = u.String()
	}
	return tree.Clip(address, 200)
}

// values are a nested deployment's parameters, evaluated where the deployment is written.
func (n *node) values(s *scope, properties *tree.Value) (Values, bool) {
	r := n.frame.run
	out := Values{From: n.what()}
	if link := properties.Get("parametersLink"); link.Present() {
		f, at, ok := n.load(s, link, n.path+".properties.parametersLink")
		if !ok {
			return out, false
		}
		linked, err := ReadValues(f)
		if err != nil {
			for _, m := range shoal.MistakesOf(err) {
				r.wrong(tree.Place{File: m.File, Line: m.Line, Column: m.Column}, m.Path, m.Hint, "%s (linked in line %d of %s)", m.Msg, at.Line, at.File)
			}
			return out, false
		}
		out = linked
	}
	ok := true
	given := properties.Get("parameters")
	if evaluated(given) {
		if given, ok = s.with(n.path + ".properties.parameters").value(given); !ok {
			return out, false
		}
	}
	for _, m := range given.Members() {
		at := n.path + ".properties.parameters." + m.Name
		rd := &reading{}
		g := rd.given(m)
		for _, x := range rd.mistakes {
			r.wrong(tree.Place{File: x.File, Line: x.Line, Column: x.Column}, at, x.Hint, "%s", x.Msg)
			ok = false
		}
		if g.Value != nil {
			inner := s.with(at)
			inner.nulls = false
			v, fine := inner.value(g.Value)
			if ok = ok && fine; fine {
				g.Value = v
			}
		}
		if g.Value != nil || g.Vault != "" {
			out.Given = append(out.Given, g)
		}
	}
	return out, ok
}
