package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
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
	served := map[string]int32{}
	for _, p := range pods.Items[0].Spec.Containers[0].Ports {
		served[p.Name] = p.ContainerPort
	}
	pod, err := c.provider("policies").pod(spec("m-policy"), settings{})
	if err != nil {
		t.Fatal(err)
	}
	ways, err := c.admin.CoreV1().Pods("shoal").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=shoal-gateway"})
	if err != nil || len(ways.Items) == 0 {
		t.Fatalf("the gateways' pods: %d, %v", len(ways.Items), err)
	}
	outside, stranger, server, machine, gateway := labels.Set(nil), labels.Set{"app": "other"}, labels.Set(pods.Items[0].Labels), labels.Set(pod.Labels), labels.Set(ways.Items[0].Labels)
	sshd := map[string]int32{pod.Spec.Containers[0].Ports[0].Name: sshPort}
	for _, x := range []struct {
		what     string
		from, to labels.Set
		ports    map[string]int32 // of who is reached
		port     int32
		may      bool
	}{
		{"people to the server's ssh, which gateways have taken over", outside, server, served, served["ssh"], false},
		{"people to the pages", outside, server, served, served["https"], true},
		{"people to the agents' door", outside, server, served, served["agents"], false},
		{"people to the API without TLS", outside, server, served, served["api"], false},
		{"another pod to the API without TLS", stranger, server, served, served["api"], false},
		{"a machine to the API without TLS", machine, server, served, served["api"], false},
		{"a machine to the agents' door", machine, server, served, served["agents"], true},
		{"another pod to the agents' door", stranger, server, served, served["agents"], false},
		{"the server to a machine's sshd", server, machine, sshd, sshPort, true},
		{"a machine to another", machine, machine, sshd, 29500, true},
		{"people to a gateway", outside, gateway, served, served["ssh"], true},
		{"a gateway to the agents' door", gateway, server, served, served["agents"], true},
		{"a gateway to the API without TLS", gateway, server, served, served["api"], false},
		{"a gateway to a machine's sshd", gateway, machine, sshd, sshPort, true},
		{"a gateway to a machine's other ports", gateway, machine, sshd, 8888, false},
		{"people to a machine's sshd", outside, machine, sshd, sshPort, false},
		{"another pod to a machine's sshd", stranger, machine, sshd, sshPort, false},
	} {
		if x.port == 0 {
			t.Errorf("%s: the server's pod has no such port", x.what)
		}
		if may := admits(t, list.Items, x.ports, x.from, x.to, x.port); may != x.may {
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

// confined looks at the processes of servers and gateways, and at what a gateway may ask of the cluster: nothing.
func (c *cluster) confined(t *testing.T) {
	pods, err := c.admin.CoreV1().Pods("shoal").List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name in (shoal,shoal-gateway)"})
	if err != nil || len(pods.Items) < 3 {
		t.Fatalf("pods of servers and gateways: %d, %v", len(pods.Items), err)
	}
	for _, pod := range pods.Items {
		pids, err := c.processes(t.Context(), pod.Name)
		if err != nil {
			t.Fatal(err)
		}
		seen := false
		for _, pid := range pids {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || filepath.Base(exe) != "shoal" {
				continue // it holds the pod's namespaces
			}
			seen = true
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n"} {
				if !strings.Contains(string(status), line) {
					t.Errorf("%s is not confined by %q: %s", pod.Name, line, status)
				}
			}
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))
			if err != nil || !strings.Contains(string(mounts), " / overlay ro,") {
				t.Errorf("%s may write in its image: %s, %v", pod.Name, mounts, err)
			}
			if has, server := strings.Contains(string(mounts), "/serviceaccount "), pod.Spec.ServiceAccountName == "shoal"; has != server {
				t.Errorf("%s has a token for the cluster: %v", pod.Name, has)
			}
		}
		if !seen {
			t.Errorf("%s has no process of Shoal's", pod.Name)
		}
	}
	for _, what := range []authorizationv1.ResourceAttributes{{Verb: "list", Resource: "pods"}, {Verb: "create", Resource: "pods"}, {Verb: "get", Resource: "secrets"}} {
		what.Namespace = "shoal"
		for account, may := range map[string]bool{"shoal": true, "shoal-gateway": false} {
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:shoal:" + account, ResourceAttributes: &what}}
			review, err := c.admin.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil || review.Status.Allowed != may {
				t.Errorf("account %s may %s %s: %v, %v", account, what.Verb, what.Resource, review.Status.Allowed, err)
			}
		}
	}
}
