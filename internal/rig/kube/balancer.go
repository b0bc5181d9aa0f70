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

// Balance plays a cloud's load balancers until ctx ends: services of that type get addresses, which lead to a node on which one of their
// pods is ready.
func (c *Cluster) Balance(ctx context.Context) {
	known := map[string]string{}
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

func (c *Cluster) balance(ctx context.Context, known map[string]string) error {
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
		if known[path] == "" {
			known[path] = fmt.Sprintf("%s%d", outside, len(known)+1)
			status := fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":%q}]}}}`, known[path])
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

// lead leads an address to a node with a ready pod of a service.
func (c *Cluster) lead(ctx context.Context, namespace, service, address string) error {
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
	for _, s := range slices.Items {
		for _, e := range s.Endpoints {
			for i := range c.cfg.Nodes {
				if e.Conditions.Ready && e.NodeName == nodeName(i) {
					return run(ctx, "", nil, "ip", "route", "replace", address, "via", nodeAddress(i))
				}
			}
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
