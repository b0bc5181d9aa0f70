package route_test

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
)

// Who comes for an endpoint is not led where that does not answer; others are, where nothing better is free; and who is
// there stays.
func TestEndpointDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := pool(func(p *shoal.Pool) {
		p.Endpoints = []shoal.Endpoint{{Name: "desktop", Protocol: shoal.ProtocolRDP}, {Name: "licence", Protocol: shoal.ProtocolTCP}}
	})
	ill := func(m *shoal.Machine) {
		m.Ill = []shoal.Ill{{Endpoint: "desktop", Reason: "nothing listens at port 3389"}}
	}
	place := func(req route.Request, sessions []shoal.Session, machines ...shoal.Machine) (route.Decision, error) {
		return route.Place(route.State{Pool: p, Machines: machines, Sessions: sessions}, req)
	}
	for _, c := range []struct {
		name     string
		req      route.Request
		sessions []shoal.Session
		machines []shoal.Machine
		on, says string
	}{
		{name: "a newcomer", req: route.Request{Kind: "rdp"}, machines: []shoal.Machine{machine("m-1", ill), machine("m-2")}, on: "m-2"},
		{name: "a newcomer, by the name", req: route.Request{Kind: "desktop"}, machines: []shoal.Machine{machine("m-1", ill), machine("m-2")}, on: "m-2"},
		{name: "nowhere", req: route.Request{Kind: "rdp"}, machines: []shoal.Machine{machine("m-1", ill)}, says: "desktop on machine m-1 does not answer: nothing listens at port 3389; waiting"},
		{name: "another starts", req: route.Request{Kind: "rdp"}, machines: []shoal.Machine{machine("m-1", ill), machine("m-2", in(shoal.MachineBooting))}, says: "booting"},
		{name: "ssh, with a choice", req: route.Request{Kind: "ssh"}, machines: []shoal.Machine{machine("m-1", ill), machine("m-2")}, on: "m-2"},
		{name: "ssh, without", req: route.Request{Kind: "ssh"}, machines: []shoal.Machine{machine("m-1", ill)}, on: "m-1"},
		{name: "another endpoint", req: route.Request{Kind: "licence"}, machines: []shoal.Machine{machine("m-1", ill)}, on: "m-1"},
		{name: "by name", req: route.Request{Kind: "rdp", Machine: "m-1"}, machines: []shoal.Machine{machine("m-1", ill)}, says: "refused"},
		{name: "who is there", req: route.Request{Kind: "rdp"}, machines: []shoal.Machine{machine("m-1", ill), machine("m-2")}, on: "m-1",
			sessions: []shoal.Session{{ID: "s-1", User: "alice", Machine: "m-1", State: shoal.SessionDisconnected, Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}}}},
		{name: "who has nothing there", req: route.Request{Kind: "rdp"}, machines: []shoal.Machine{machine("m-1", ill), machine("m-2")}, on: "m-2",
			sessions: []shoal.Session{{ID: "s-1", User: "alice", Machine: "m-1", State: shoal.SessionDisconnected}}},
	} {
		c.req.User, c.req.Pool = "alice", "lab"
		d, err := place(c.req, c.sessions, c.machines...)
		if c.says == "refused" {
			if err == nil || !strings.Contains(err.Error(), "does not answer") {
				t.Errorf("%s: %+v, %v", c.name, d, err)
			}
			continue
		}
		if err != nil || string(d.Machine) != c.on || !strings.Contains(d.Reason.Sentence, c.says) {
			t.Errorf("%s: %+v, %v", c.name, d, err)
		}
	}
}
