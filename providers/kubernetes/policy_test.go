package main

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// policies holds the network policies that were applied against who has to reach whom. The cluster of the tests has a network that knows no
// policies, as a node's bridge is one, so it is their meaning that is looked at here, and not what a network makes of them.
func (c *cluster) policies(t *testing.T) {
	t.Helper()
	list, err := c.admin.NetworkingV1().NetworkPolicies("shoal").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := c.admin.CoreV1().Pods("shoal").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=shoal"})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("the server's pods: %d, %v", len(pods.Items), err)
	}
	ports := map[string]int32{}
	for _, p := range pods.Items[0].Spec.Containers[0].Ports {
		ports[p.Name] = p.ContainerPort
	}
	pod, err := c.provider("policies").pod(spec("m-policy"), settings{})
	if err != nil {
		t.Fatal(err)
	}
	outside, stranger, server, machine := labels.Set(nil), labels.Set{"app": "other"}, labels.Set(pods.Items[0].Labels), labels.Set(pod.Labels)
	for _, x := range []struct {
		what     string
		from, to labels.Set
		port     int32
		may      bool
	}{
		{"people to ssh", outside, server, ports["ssh"], true},
		{"people to the pages", outside, server, ports["https"], true},
		{"people to the agents' door", outside, server, ports["agents"], false},
		{"people to the API without TLS", outside, server, ports["api"], false},
		{"another pod to the API without TLS", stranger, server, ports["api"], false},
		{"a machine to the API without TLS", machine, server, ports["api"], false},
		{"a machine to the agents' door", machine, server, ports["agents"], true},
		{"another pod to the agents' door", stranger, server, ports["agents"], false},
		{"the server to a machine's sshd", server, machine, sshPort, true},
		{"a machine to another", machine, machine, 29500, true},
		{"people to a machine's sshd", outside, machine, sshPort, false},
		{"another pod to a machine's sshd", stranger, machine, sshPort, false},
	} {
		if x.port == 0 {
			t.Errorf("%s: the server's pod has no such port", x.what)
		}
		if may := admits(t, list.Items, ports, x.from, x.to, x.port); may != x.may {
			t.Errorf("%s: %v by the policies", x.what, may)
		}
	}
}

// admits reads policies as Kubernetes defines them, as far as ours go: pods of one namespace, chosen by labels, and what comes in. From is
// nil for who is outside of the cluster.
func admits(t *testing.T, policies []networkingv1.NetworkPolicy, ports map[string]int32, from, to labels.Set, port int32) bool {
	t.Helper()
	chosen := func(s metav1.LabelSelector, pod labels.Set) bool {
		by, err := metav1.LabelSelectorAsSelector(&s)
		if err != nil {
			t.Fatal(err)
		}
		return by.Matches(pod)
	}
	closed := false
	for _, p := range policies {
		if !chosen(p.Spec.PodSelector, to) {
			continue
		}
		if !slices.Equal(p.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}) {
			t.Fatalf("policy %s is of %v", p.Name, p.Spec.PolicyTypes)
		}
		closed = true
		for _, rule := range p.Spec.Ingress {
			fits := len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(n networkingv1.NetworkPolicyPort) bool {
				if n.Protocol != nil && *n.Protocol != corev1.ProtocolTCP || n.EndPort != nil {
					t.Fatalf("policy %s has a port that is not read here", p.Name)
				}
				return n.Port.IntVal == port || n.Port.StrVal != "" && ports[n.Port.StrVal] == port
			})
			comes := len(rule.From) == 0 || from != nil && slices.ContainsFunc(rule.From, func(peer networkingv1.NetworkPolicyPeer) bool {
				if peer.PodSelector == nil || peer.NamespaceSelector != nil || peer.IPBlock != nil {
					t.Fatalf("policy %s has a peer that is not read here", p.Name)
				}
				return chosen(*peer.PodSelector, from)
			})
			if fits && comes {
				return true
			}
		}
	}
	return !closed
}
