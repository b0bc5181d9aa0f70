package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// policy is a NetworkPolicy as far as Enforce knows them.
type policy struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		PodSelector selector
		PolicyTypes []string
		Ingress     []struct {
			Ports []struct {
				Port     any // a number or a name
				Protocol string
				EndPort  int
			}
			From []struct {
				PodSelector                *selector
				NamespaceSelector, IPBlock any
			}
		}
	}
}

type selector struct {
	MatchLabels      map[string]string
	MatchExpressions []any
}

func (s selector) chooses(labels map[string]string) bool {
	for name, value := range s.MatchLabels {
		if labels[name] != value {
			return false
		}
	}
	return true
}

type policedPod struct {
	Metadata struct {
		Name, Namespace string
		Labels          map[string]string
	}
	Spec struct {
		HostNetwork bool
		Containers  []struct {
			Ports []struct {
				Name          string
				ContainerPort int
			}
		}
	}
	Status struct{ PodIP, Phase string }
}

// Enforce has the nodes' networks obey network policies until ctx ends, as a network plugin does that knows them: bridges do not. It knows who may
// come in by TCP to pods, by labels of pods of the same namespace, and reports any other. What a node itself sends its pods is let through.
func (c *Cluster) Enforce(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		rules, err := c.rules(ctx)
		if err == nil && rules != last {
			err = c.police(ctx, rules)
			last = rules
		}
		if err != nil && ctx.Err() == nil {
			last = ""
			c.cfg.Say("network policies: " + err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	if err := c.police(context.WithoutCancel(ctx), ""); err != nil {
		c.cfg.Say("network policies: " + err.Error())
	}
}

// rules are those of the chain that a new connection to a pod passes through.
func (c *Cluster) rules(ctx context.Context) (string, error) {
	var policies struct{ Items []policy }
	var list struct{ Items []policedPod }
	if err := errors.Join(c.read(ctx, "/apis/networking.k8s.io/v1/networkpolicies", &policies), c.read(ctx, "/api/v1/pods", &list)); err != nil {
		return "", err
	}
	pods := slices.DeleteFunc(list.Items, func(p policedPod) bool {
		return p.Status.PodIP == "" || p.Spec.HostNetwork || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
	})
	slices.SortFunc(pods, func(a, b policedPod) int { return strings.Compare(a.Status.PodIP, b.Status.PodIP) })
	var text strings.Builder
	for _, pod := range pods {
		closed := false
		for _, p := range policies.Items {
			if p.Metadata.Namespace != pod.Metadata.Namespace || !p.Spec.PodSelector.chooses(pod.Metadata.Labels) {
				continue
			}
			allowed, err := p.admits(pod, pods)
			if err != nil {
				return "", fmt.Errorf("%s: %w", p.Metadata.Name, err)
			}
			closed = true
			for _, rule := range allowed {
				fmt.Fprintf(&text, "ip daddr %s %s accept\n", pod.Status.PodIP, rule)
			}
		}
		if closed {
			fmt.Fprintf(&text, "ip daddr %s drop\n", pod.Status.PodIP)
		}
	}
	return text.String(), nil
}

// admits says who may come in to a pod by a policy.
func (p policy) admits(pod policedPod, all []policedPod) (rules []string, err error) {
	if !slices.Equal(p.Spec.PolicyTypes, []string{"Ingress"}) || p.Spec.PodSelector.MatchExpressions != nil {
		return nil, errors.New("it is of a kind that is not enforced here")
	}
	for _, in := range p.Spec.Ingress {
		var ports []string
		for _, n := range in.Ports {
			if n.Protocol != "" && n.Protocol != "TCP" || n.EndPort != 0 {
				return nil, errors.New("it has a port of a kind that is not enforced here")
			}
			if number, ok := n.Port.(float64); ok {
				ports = append(ports, strconv.Itoa(int(number)))
			}
			for _, container := range pod.Spec.Containers {
				for _, named := range container.Ports {
					if named.Name == n.Port {
						ports = append(ports, strconv.Itoa(named.ContainerPort))
					}
				}
			}
		}
		var from []string
		for _, peer := range in.From {
			if peer.PodSelector == nil || peer.PodSelector.MatchExpressions != nil || peer.NamespaceSelector != nil || peer.IPBlock != nil {
				return nil, errors.New("it has a peer of a kind that is not enforced here")
			}
			for _, other := range all {
				if other.Metadata.Namespace == p.Metadata.Namespace && peer.PodSelector.chooses(other.Metadata.Labels) {
					from = append(from, other.Status.PodIP)
				}
			}
		}
		if in.Ports != nil && ports == nil || in.From != nil && from == nil {
			continue // nobody is meant, or no port
		}
		rule := ""
		if from != nil {
			rule += "ip saddr { " + strings.Join(from, ", ") + " } "
		}
		if ports != nil {
			rule += "tcp dport { " + strings.Join(ports, ", ") + " }"
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// police gives rules to all nodes. What goes between pods of one node is seen by its bridge alone; what comes from elsewhere, or by a service, is
// routed. Only the first packet of a connection is looked at.
func (c *Cluster) police(ctx context.Context, rules string) error {
	var text strings.Builder
	for _, family := range []string{"inet", "bridge"} {
		fmt.Fprintf(&text, `table %[1]s policies
delete table %[1]s policies
table %[1]s policies {
chain pods {
%[2]s}
chain forward { type filter hook forward priority 0; ip protocol tcp tcp flags & (syn | ack) == syn jump pods; }
}
`, family, rules)
	}
	c.mu.Lock()
	nodes := slices.Clone(c.nodes)
	c.mu.Unlock()
	var errs []error
	for _, n := range nodes {
		pid, err := n.pid()
		if err != nil {
			continue // it is dead
		}
		cmd := exec.CommandContext(ctx, "nsenter", "--target", pid, "--net", "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w: %s", n.Name, err, bytes.TrimSpace(out)))
		}
	}
	return errors.Join(errs...)
}
