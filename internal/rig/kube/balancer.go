package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// outside is where services with a load balancer have their addresses.
const outside = "192.0.2."

// balancer is that of a service.
type balancer struct {
	address string
	node    string // to which it leads
}

// Balance plays a cloud's load balancers until ctx ends: services of that type get addresses, which lead to a node on which one of their
// pods is ready. Connections that are there stay with their node, as with balancers that let a node's connections end before they leave it.
func (c *Cluster) Balance(ctx context.Context) {
	if err := c.keepConnections(ctx); err != nil && ctx.Err() == nil {
		c.cfg.Say("load balancers: " + err.Error())
		return
	}
	known := map[string]*balancer{}
	for ctx.Err() == nil {
		if err := c.balance(ctx, known); err != nil && ctx.Err() == nil {
			c.cfg.Say("load balancers: " + err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// keepConnections has each connection remember its node, by a mark that says by which table it is routed.
func (c *Cluster) keepConnections(ctx context.Context) error {
	err := run(ctx, "", nil, "nft", `add table ip balancer; add map ip balancer nodes { type ipv4_addr : mark; }; add chain ip balancer out { type route hook output priority mangle; };
add rule ip balancer out ct state new ct mark set ip daddr map @nodes; add rule ip balancer out ip daddr `+outside+`0/24 meta mark set ct mark`)
	for i := range c.cfg.Nodes {
		mark := strconv.Itoa(i + 1)
		err = errors.Join(err, run(ctx, "", nil, "ip", "rule", "add", "fwmark", mark, "lookup", mark),
			run(ctx, "", nil, "ip", "route", "add", outside+"0/24", "via", nodeAddress(i), "table", mark))
	}
	return err
}

func (c *Cluster) balance(ctx context.Context, known map[string]*balancer) error {
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Spec     struct{ Type string }
		}
	}
	if err := c.read(ctx, "/api/v1/services", &list); err != nil {
		return err
	}
	for _, s := range list.Items {
		if s.Spec.Type != "LoadBalancer" {
			continue
		}
		path := "/api/v1/namespaces/" + s.Metadata.Namespace + "/services/" + s.Metadata.Name
		if known[path] == nil {
			known[path] = &balancer{address: fmt.Sprintf("%s%d", outside, len(known)+1)}
			status := fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":%q}]}}}`, known[path].address)
			if _, err := c.Do(ctx, http.MethodPatch, path+"/status", "application/merge-patch+json", []byte(status)); err != nil {
				return err
			}
		}
		if err := c.lead(ctx, s.Metadata.Namespace, s.Metadata.Name, known[path]); err != nil {
			return err
		}
	}
	return nil
}

// lead leads new connections to a service's address to a node with a ready pod: the same as before while there is one.
func (c *Cluster) lead(ctx context.Context, namespace, service string, b *balancer) error {
	var slices struct {
		Items []struct {
			Endpoints []struct {
				NodeName   string
				Conditions struct{ Ready bool }
			}
		}
	}
	if err := c.read(ctx, "/apis/discovery.k8s.io/v1/namespaces/"+namespace+"/endpointslices?labelSelector=kubernetes.io/service-name="+service, &slices); err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			ready[e.NodeName] = ready[e.NodeName] || e.Conditions.Ready
		}
	}
	for i := range c.cfg.Nodes {
		if name := nodeName(i); ready[name] && !ready[b.node] {
			change := fmt.Sprintf("add element ip balancer nodes { %s : %d }", b.address, i+1)
			if b.node != "" {
				change = "delete element ip balancer nodes { " + b.address + " }; " + change
			}
			if err := errors.Join(run(ctx, "", nil, "nft", change), run(ctx, "", nil, "ip", "route", "replace", b.address, "via", nodeAddress(i))); err != nil {
				return err
			}
			b.node = name
		}
	}
	return nil
}

// read reads an object of the API.
func (c *Cluster) read(ctx context.Context, path string, to any) error {
	b, err := c.Get(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}
