package translate

import (
	"fmt"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/sizes"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

const scaleSetType = "microsoft.compute/virtualmachinescalesets"

// scaleSets makes a pool of each scale set.
func (t *translation) scaleSets() {
	for _, r := range t.of(scaleSetType) {
		t.deal(r)
		profile := r.Body.Get("properties", "virtualMachineProfile")
		if !profile.Present() {
			t.change(r)
			continue
		}
		p := t.pool(r, naming.Of(r.Name, "pool"))
		p.ids = []string{tree.Fold(r.ID)}
		t.tags(p, r.Body.Get("tags"))
		t.capacity(p, r)
		t.size(p, r.Body.Get("sku", "name"))
		t.profile(p, profile)
		t.priority(p, profile)
		p.backends = backends(profile.Get("networkProfile", "networkInterfaceConfigurations"))
		t.network(p)
		for _, e := range profile.Get("extensionProfile", "extensions").Items() {
			t.extension(p, e.Get("name").Tell(), e.Get("properties"), e.At)
		}
		t.unused(r.Body, what(r), bodyKeys)
		t.unused(r.Body.Get("properties"), what(r), setKeys)
		t.unused(profile, what(r), profileKeys)
	}
}

// pool begins one.
func (t *translation) pool(r *arm.Resource, name string) *pool {
	p := &pool{of: r, places: map[string]tree.Place{}}
	p.Name, p.Provider = shoal.PoolName(name), t.options.Provider
	if name != r.Name {
		t.note(r.At, "%s becomes pool %q", what(r), name)
	}
	if t.in.Group != "" {
		p.places["name"] = r.At
	}
	t.pools = append(t.pools, p)
	return p
}

// tags become labels, as far as these can be such.
func (t *translation) tags(p *pool, tags *tree.Value) {
	for _, m := range t.fewMembers(tags) {
		key, value := strings.ToLower(m.Name), m.Value
		labels := map[string]string{key: value.Tell()}
		switch {
		case value.Secret, value.Kind != tree.String, len(spec.CheckLabels(labels)) > 0:
			t.note(m.At, "%s: tag %s cannot be a label, and is left out", what(p.of), tree.Clip(m.Name, 60))
			continue
		case p.Labels == nil:
			p.Labels = map[string]string{}
		}
		p.Labels[key] = value.Tell()
	}
}

// fewMembers are members that a person may have written.
func (t *translation) fewMembers(v *tree.Value) []tree.Member {
	const limit = 50 // as many tags as a resource may have
	all := v.Members()
	return all[:min(len(all), limit)]
}

// change is for a scale set that describes no machines: it resizes one that is there.
func (t *translation) change(r *arm.Resource) {
	c := Change{Pool: shoal.PoolName(naming.Of(r.Name, "pool")), At: r.At}
	sku := r.Body.Get("sku")
	if n, at, ok := t.count(sku.Get("capacity"), what(r)); ok {
		c.Size = &shoal.Size{Min: n, Max: n}
		t.note(at, "%s describes no machines: pool %q of before gets %d of them", what(r), c.Pool, n)
	}
	if name := sku.Get("name"); name.Present() {
		if m, ok := t.resources(name, what(r)); ok {
			c.Machine = &m
		}
	}
	if c.Size == nil && c.Machine == nil && len(t.mistakes) == 0 {
		t.wrong(r.At, what(r), "", "the scale set has neither a virtualMachineProfile nor a capacity, so it changes nothing")
	}
	t.out.Changes = append(t.out.Changes, c)
}

// count reads a number of machines.
func (t *translation) count(v *tree.Value, path string) (int, tree.Place, bool) {
	const limit = 10_000
	if !v.Present() {
		return 0, tree.Place{}, false
	}
	n, ok := v.AsInt()
	switch {
	case !ok:
		t.wrong(v.At, path, "", "a number of machines is wanted here, not %s", v.Show())
		return 0, v.At, false
	case n < 0 || n > limit:
		t.wrong(v.At, path, "", "%d machines are not between 0 and %d", n, limit)
		return 0, v.At, false
	}
	return int(n), v.At, true
}

func (t *translation) capacity(p *pool, r *arm.Resource) {
	v := r.Body.Get("sku", "capacity")
	n, at, ok := t.count(v, what(r)+" sku.capacity")
	if !ok {
		if !v.Present() {
			t.note(r.At, "%s: it has no capacity, so the pool has one machine at most", what(r))
		}
		n, at = 1, r.At
	}
	p.count = n
	p.Size = shoal.Size{Min: n, Max: n}
	p.places["size"] = at
}

// size finds what machines of the size have.
func (t *translation) size(p *pool, v *tree.Value) {
	if !v.Present() || v.Tell() == "" {
		t.wrong(p.of.At, what(p.of), "write Standard_D2s_v3, for example", "the machines have no size")
		return
	}
	p.places["machine"] = v.At
	if m, ok := t.resources(v, what(p.of)); ok {
		p.Machine = m
	}
}

func (t *translation) resources(v *tree.Value, path string) (shoal.Resources, bool) {
	var m shoal.Resources
	found := false
	for name, r := range t.options.Sizes {
		if strings.EqualFold(name, v.Tell()) {
			m, found = r, true
		}
	}
	if !found {
		m, found = sizes.Of(v.Tell())
	}
	if !found {
		hint := "say what it has: --size-map " + tree.Clip(v.Tell(), 60) + "=CPUS,MEMORY[,GPUS]"
		if s := spec.Suggest(v.Tell(), sizes.Like(v.Tell())); strings.HasPrefix(s, "did you mean") {
			hint = s
		}
		t.wrong(v.At, path, hint, "the size %s is not known", v.Show())
		return m, false
	}
	given := m
	most := t.options.Most
	if most.CPUs > 0 {
		m.CPUs = min(m.CPUs, most.CPUs)
	}
	if most.Memory > 0 {
		m.Memory = min(m.Memory, most.Memory)
	}
	if most != (shoal.Resources{}) {
		m.GPUs = min(m.GPUs, most.GPUs)
	}
	if m != given {
		t.note(v.At, "machines of size %s have %s, and get %s here", v.Tell(), Amount(given), Amount(m))
	}
	return m, true
}

// Amount is what a machine has, in words.
func Amount(r shoal.Resources) string {
	s := r.CPUs.String() + " processors"
	if s == "1 processors" {
		s = "1 processor"
	}
	switch r.GPUs {
	case 0:
		return fmt.Sprintf("%s and %s", s, r.Memory)
	case 1:
		return fmt.Sprintf("%s, %s and 1 GPU", s, r.Memory)
	}
	return fmt.Sprintf("%s, %s and %d GPUs", s, r.Memory, r.GPUs)
}

// priority is for machines that the old services could take away.
func (t *translation) priority(p *pool, profile *tree.Value) {
	v := profile.Get("priority")
	policy := profile.Get("evictionPolicy")
	if !v.Present() || strings.EqualFold(v.Tell(), "regular") {
		return
	}
	if p.Provider == "" || p.Provider == "local" || p.Provider == "fake" {
		t.note(v.At, "priority %s: machines of a pool here are its own, and nobody takes them away", v.Tell())
		return
	}
	p.config("priority", strings.ToLower(v.Tell()))
	if policy.Present() {
		p.config("evictionPolicy", strings.ToLower(policy.Tell()))
	}
	t.note(v.At, "priority %s: what runs on a machine that is taken away is started again on another", v.Tell())
}

func (p *pool) config(key string, value any) {
	if p.ProviderConfig == nil {
		p.ProviderConfig = map[string]any{}
	}
	p.ProviderConfig[key] = value
}
