package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/arm"
	"github.com/shoal-pool/shoal/internal/arm/tree"
	"github.com/shoal-pool/shoal/internal/spec/naming"
)

const balancerType = "microsoft.network/loadbalancers"

// backends are the ids of load balancers' parts that network interfaces belong to.
func backends(interfaces *tree.Value) []string {
	var all []string
	for _, nic := range interfaces.Items() {
		properties := nic.Get("properties")
		for _, ip := range properties.Get("ipConfigurations").Items() {
			for _, key := range []string{"loadBalancerBackendAddressPools", "loadBalancerInboundNatPools", "loadBalancerInboundNatRules"} {
				for _, b := range ip.Get("properties", key).Items() {
					all = append(all, tree.Fold(strings.TrimRight(b.Get("id").Tell(), "/")))
				}
			}
		}
	}
	return all
}

// leads reports whether an id is one of those that lead to the pool.
func (p *pool) leads(id string) bool {
	return slices.Contains(p.backends, tree.Fold(strings.TrimRight(id, "/")))
}

// network makes endpoints of what load balancers lead to the pool's machines.
func (t *translation) network(p *pool) {
	for _, lb := range t.of(balancerType) {
		properties := lb.Body.Get("properties")
		found := false
		for _, rule := range t.few(properties.Get("loadBalancingRules"), what(lb)) {
			ids := []string{rule.Get("properties", "backendAddressPool", "id").Tell()}
			for _, more := range rule.Get("properties", "backendAddressPools").Items() {
				ids = append(ids, more.Get("id").Tell())
			}
			if len(ids) == 1 && ids[0] == "" { // it names none: it is for those that there are
				ids = nil
				for _, b := range properties.Get("backendAddressPools").Items() {
					ids = append(ids, lb.ID+"/backendAddressPools/"+b.Get("name").Tell())
				}
			}
			if slices.ContainsFunc(ids, p.leads) {
				found, t.ruled[rule] = true, true
				t.rule(p, lb, rule)
			}
		}
		for _, key := range []string{"inboundNatPools", "inboundNatRules"} {
			for _, nat := range t.few(properties.Get(key), what(lb)) {
				id := lb.ID + "/" + key + "/" + nat.Get("name").Tell()
				if p.leads(id) {
					found = true
					t.nat(p, lb, nat)
				}
			}
		}
		for _, b := range properties.Get("backendAddressPools").Items() {
			found = found || p.leads(lb.ID+"/backendAddressPools/"+b.Get("name").Tell())
		}
		if found {
			t.deal(lb)
			t.balancer(lb)
		}
	}
	if p.windows && !slices.ContainsFunc(p.Endpoints, func(e shoal.Endpoint) bool { return e.Protocol == shoal.ProtocolRDP }) {
		p.endpoint(shoal.Endpoint{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389}, p.of.At)
	}
}

// unruled tells rules of the load balancers that lead to no machine of the template.
func (t *translation) unruled() {
	for _, lb := range t.of(balancerType) {
		if !t.told[tree.Fold(lb.ID)] {
			continue // it is told as a whole
		}
		for _, rule := range t.few(lb.Body.Get("properties", "loadBalancingRules"), what(lb)) {
			if !t.ruled[rule] {
				t.note(rule.At, "%s rule %s: it leads to no machine of the template, and is left out", what(lb), tree.Clip(rule.Get("name").Tell(), 60))
			}
		}
	}
}

// few are the items of a list that a person may have written.
func (t *translation) few(v *tree.Value, title string) []*tree.Value {
	const limit = 1000
	if v.Len() <= limit {
		return v.Items()
	}
	t.wrong(v.At, title, "", "%d rules are more than %d", v.Len(), limit)
	return nil
}

// balancer tells what of a load balancer has no meaning here.
func (t *translation) balancer(lb *arm.Resource) {
	t.note(lb.At, "%s: the gateway is in its place; it leads each user to a machine by who she is", what(lb))
	for _, rule := range lb.Body.Get("properties", "outboundRules").Items() {
		t.note(rule.At, "outboundRules: machines reach the network through their provider")
	}
}

func (p *pool) endpoint(e shoal.Endpoint, at tree.Place) {
	p.places[fmt.Sprintf("endpoints[%d]", len(p.Endpoints))] = at
	p.Endpoints = append(p.Endpoints, e)
}

// port reads a port.
func (t *translation) port(v *tree.Value, path string, at tree.Place) (int, bool) {
	n, ok := v.AsInt()
	if v != nil {
		at = v.At
	}
	if !ok || n < 1 || n > 65535 {
		t.wrong(at, path, "", "a port between 1 and 65535 is wanted here, not %s", v.Show())
		return 0, false
	}
	return int(n), true
}

// rule makes an endpoint of a rule: ssh and JupyterHub are the gateway's own, RDP and others become ports of it.
func (t *translation) rule(p *pool, lb *arm.Resource, rule *tree.Value) {
	name := rule.Get("name").Tell()
	v := rule.Get("properties")
	path := fmt.Sprintf("%s rule %s", what(lb), tree.Clip(name, 60))
	if protocol := v.Get("protocol"); protocol.Present() && !strings.EqualFold(protocol.Tell(), "tcp") {
		t.note(protocol.At, "%s: the gateway has no front end for %s; the rule is left out", path, protocol.Show())
		return
	}
	front, ok1 := t.port(v.Get("frontendPort"), path, rule.At)
	back, ok2 := t.port(v.Get("backendPort"), path, rule.At)
	if !ok1 || !ok2 {
		return
	}
	probe := t.probe(lb, v.Get("probe", "id").Tell())
	distribution := strings.ToLower(v.Get("loadDistribution").Tell())
	switch {
	case back == 22:
		t.note(rule.At, "%s: port %d is the gateway's own ssh, at its --ssh-listen", path, front)
		t.ssh(path, probe)
	case back == 3389:
		p.endpoint(shoal.Endpoint{Name: p.free("desktop"), Protocol: shoal.ProtocolRDP, Port: back, Listen: front, Affinity: shoal.AffinityUser}, rule.At)
	case back == 8000 || strings.Contains(strings.ToLower(name), "jupyter"):
		e := shoal.Endpoint{Name: shoal.EndpointJupyter, Protocol: shoal.ProtocolHTTP, Port: back}
		if probe != nil {
			e.Ready = ready(probe)
		}
		t.note(rule.At, "%s: port %d becomes JupyterHub, at the gateway's --https-listen; each user has her own server, on her machine", path, front)
		if _, there := p.Endpoint(e.Name); !there {
			p.endpoint(e, rule.At)
		}
	default:
		e := shoal.Endpoint{Name: p.free(naming.Of(name, "tcp")), Protocol: shoal.ProtocolTCP, Port: back, Listen: front, Affinity: shoal.AffinitySource}
		p.endpoint(e, rule.At)
		t.note(rule.At, "%s: port %d of the gateway leads to port %d of a machine; whoever reaches it is not asked who she is", path, front, back)
		if probe != nil {
			t.note(probe.At, "%s: a machine is ready when it could be logged in to and its shares can be written", path)
		}
	}
	t.how(path, v, distribution)
}

// how tells what becomes of a rule's manners.
func (t *translation) how(path string, v *tree.Value, distribution string) {
	switch distribution {
	case "sourceip", "sourceipprotocol":
		t.note(v.Get("loadDistribution").At, "%s: loadDistribution %s: users come back to their machine by who they are, not by the address they come from", path, v.Get("loadDistribution").Tell())
	}
	if idle := v.Get("idleTimeoutInMinutes"); idle.Present() {
		t.note(idle.At, "%s: idleTimeoutInMinutes %s: the gateway does not cut connections that are idle; scale.idle says when a machine is", path, idle.Tell())
	}
	if floating, _ := v.Get("enableFloatingIP").AsBool(); floating {
		t.note(v.Get("enableFloatingIP").At, "%s: enableFloatingIP: machines keep their own addresses", path)
	}
}

// free is a name of an endpoint that is not taken.
func (p *pool) free(name string) string {
	for i := 1; ; i++ {
		try := name
		if i > 1 || name == "ssh" {
			try = fmt.Sprintf("%s-%d", name[:min(len(name), 28)], i)
		}
		if _, there := p.Endpoint(try); !there {
			return try
		}
	}
}

// probe finds a probe of the load balancer by its id.
func (t *translation) probe(lb *arm.Resource, id string) *tree.Value {
	if id == "" {
		return nil
	}
	for _, v := range lb.Body.Get("properties", "probes").Items() {
		if strings.EqualFold(v.Get("name").Tell(), naming.Last(id)) {
			return v
		}
	}
	t.wrong(lb.At, what(lb), "", "a rule names the probe %q, which the load balancer does not have", tree.Clip(naming.Last(id), 60))
	return nil
}

// ssh tells what becomes of the probe of port 22.
func (t *translation) ssh(path string, probe *tree.Value) {
	if probe != nil {
		t.note(probe.At, "%s: a machine is ready when a login through sshd has succeeded, not when a port answers", path)
	}
}

// ready makes a probe of an app.
func ready(v *tree.Value) *shoal.Probe {
	v = v.Get("properties")
	var p shoal.Probe
	if s := v.Get("requestPath").Tell(); strings.HasPrefix(s, "/") {
		p.Path = s
	}
	if n, ok := v.Get("intervalInSeconds").AsInt(); ok && n > 0 && n <= 3600 {
		p.Interval = shoal.Duration(n * 1e9)
	}
	if n, ok := v.Get("numberOfProbes").AsInt(); ok && n > 0 && n <= 1000 {
		p.Threshold = int(n)
	}
	return &p
}

// nat is for ports that lead to single machines.
func (t *translation) nat(p *pool, lb *arm.Resource, nat *tree.Value) {
	path := fmt.Sprintf("%s %s", what(lb), tree.Clip(nat.Get("name").Tell(), 60))
	back, ok := t.port(nat.Get("properties", "backendPort"), path, nat.At)
	switch {
	case !ok:
	case back == 22:
		t.note(nat.At, "%s: single machines are reached by name: ssh USER+%s/MACHINE@GATEWAY", path, p.Name)
	case back == 3389:
		if !slices.ContainsFunc(p.Endpoints, func(e shoal.Endpoint) bool { return e.Protocol == shoal.ProtocolRDP }) {
			p.endpoint(shoal.Endpoint{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: back}, nat.At)
		}
		t.note(nat.At, "%s: one port, 3389, leads each user to the desktop on her machine", path)
	default:
		t.note(nat.At, "%s: port %d of single machines is reached through ssh: ssh -L %d:localhost:%d USER+%s/MACHINE@GATEWAY", path, back, back, back, p.Name)
	}
}
