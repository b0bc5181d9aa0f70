package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
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
// pods is ready.
func (c *Cluster) Balance(ctx context.Context) {
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

// lead leads a service's address to a node with a ready pod: the same as before while there is one, since connections go through it.
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
			if err := run(ctx, "", nil, "ip", "route", "replace", b.address, "via", nodeAddress(i)); err != nil {
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
