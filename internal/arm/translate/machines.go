package translate

import (
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

const machineType = "microsoft.compute/virtualmachines"

// machines makes a pool of fixed size of each declaration of virtual machines, with all its copies.
func (t *translation) machines() {
	var order []tree.Place
	groups := map[tree.Place][]*arm.Resource{}
	for _, r := range t.of(machineType) {
		t.deal(r)
		if groups[r.At] == nil {
			order = append(order, r.At)
		}
		groups[r.At] = append(groups[r.At], r)
	}
	for _, at := range order {
		for _, same := range alike(groups[at]) {
			t.machineGroup(same)
		}
	}
}

// alike puts copies together that have the same size and image.
func alike(all []*arm.Resource) [][]*arm.Resource {
	var order []string
	groups := map[string][]*arm.Resource{}
	for _, r := range all {
		properties := r.Body.Get("properties")
		key := tree.Fold(properties.Get("hardwareProfile", "vmSize").Tell())
		if image := properties.Get("storageProfile", "imageReference"); image != nil {
			key += image.Reveal()
		}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], r)
	}
	out := make([][]*arm.Resource, len(order))
	for i, key := range order {
		out[i] = groups[key]
	}
	return out
}

func (t *translation) machineGroup(all []*arm.Resource) {
	r := all[0]
	name := commonName(all)
	p := t.pool(r, naming.Of(name, "pool"))
	for _, m := range all {
		p.ids = append(p.ids, tree.Fold(m.ID))
		p.backends = append(p.backends, t.interfaces(m)...)
	}
	p.count = len(all)
	p.Size = shoal.Size{Min: len(all), Max: len(all)}
	if len(all) > 1 {
		t.note(r.At, "%d copies of %s become one pool of %d machines", len(all), what(r), len(all))
	}
	properties := r.Body.Get("properties")
	t.tags(p, r.Body.Get("tags"))
	t.size(p, properties.Get("hardwareProfile", "vmSize"))
	t.profile(p, properties)
	t.priority(p, properties)
	t.network(p)
	t.unused(r.Body, what(r), bodyKeys)
	t.unused(properties, what(r), machineKeys)
}

// interfaces are the parts of load balancers that lead to a machine, by its network interfaces.
func (t *translation) interfaces(m *arm.Resource) []string {
	var all []string
	for _, n := range m.Body.Get("properties", "networkProfile", "networkInterfaces").Items() {
		nic := t.in.Find(strings.TrimRight(n.Get("id").Tell(), "/"))
		if nic == nil {
			continue
		}
		t.deal(nic)
		all = append(all, backends(tree.ArrayValue([]*tree.Value{nic.Body}))...)
	}
	return all
}

// commonName is what the names of copies have in common.
func commonName(all []*arm.Resource) string {
	name := all[0].Name
	for _, r := range all[1:] {
		for !strings.HasPrefix(strings.ToLower(r.Name), strings.ToLower(name)) {
			name = name[:len(name)-1]
		}
	}
	if len(all) > 1 {
		name = strings.TrimRight(name, "0123456789-_")
	}
	if name == "" {
		return all[0].Name
	}
	return name
}
