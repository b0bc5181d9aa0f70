package kube

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// startDNS answers what services' names are, at Host: SERVICE.NAMESPACE.svc.cluster.local and nothing else.
func (c *Cluster) startDNS() error {
	conn, err := net.ListenPacket("udp", net.JoinHostPort(Host, "53"))
	if err != nil {
		return err
	}
	c.dns = conn
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if answer, err := c.resolve(b[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	return nil
}

// resolve answers a question.
func (c *Cluster) resolve(question []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil, err
	}
	q := m.Questions[0]
	m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}, Questions: m.Questions}
	ip, known := c.service(strings.TrimSuffix(strings.ToLower(q.Name.String()), "."))
	switch {
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: ip.As4()}}}
	}
	return m.Pack()
}

// service looks for the address of one.
func (c *Cluster) service(name string) (netip.Addr, bool) {
	part := strings.Split(name, ".")
	if len(part) != 5 || strings.Join(part[2:], ".") != "svc.cluster.local" {
		return netip.Addr{}, false
	}
	b, err := c.Get(context.Background(), "/api/v1/namespaces/"+part[1]+"/services/"+part[0])
	var s struct{ Spec struct{ ClusterIP string } }
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	ip, bad := netip.ParseAddr(s.Spec.ClusterIP)
	return ip, err == nil && bad == nil && ip.Is4()
}
