package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal/internal/rig"
)

// policies has each of those who are about come to each of the others, by the network policies that were applied and that the nodes obey: what they
// allow has to work, and what they forbid must not.
func (c *cluster) policies(t *testing.T) {
	stranger := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "stranger", Namespace: "shoal", Labels: map[string]string{"app": "other"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "pause", Image: "localhost/pause:1", ImagePullPolicy: corev1.PullNever}}, TerminationGracePeriodSeconds: new(int64)}}
	if _, err := c.admin.CoreV1().Pods("shoal").Create(t.Context(), stranger, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	running := func(selector string, least int) []corev1.Pod {
		t.Helper()
		var found []corev1.Pod
		if err := rig.Until(t.Context(), patience, "pods run with "+selector, func() (bool, error) {
			list, err := c.admin.CoreV1().Pods("shoal").List(t.Context(), metav1.ListOptions{LabelSelector: selector, FieldSelector: "status.phase=Running"})
			if err != nil {
				return false, err
			}
			found = slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { // "lab" is what tests beside this one call their pools, too
				return p.DeletionTimestamp != nil || p.Labels[labelPool] != "" && p.Spec.Containers[0].Image != image
			})
			return len(found) >= least, nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	machines := running(labelPool+"=lab", 2)
	server, gateway, machine, another := &running("app.kubernetes.io/name=shoal", 1)[0], &running("app.kubernetes.io/name=shoal-gateway", 1)[0], &machines[0], &machines[1]
	stranger = &running("app=other", 1)[0]
	served := map[string]int32{}
	for _, p := range server.Spec.Containers[0].Ports {
		served[p.Name] = p.ContainerPort
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, x := range []struct {
		what     string
		from, to *corev1.Pod // nil: outside
		port     int32
		may      bool
	}{
		{"people to the server's ssh, which gateways have taken over", nil, server, served["ssh"], false},
		{"people to the pages", nil, server, served["https"], true},
		{"people to the agents' door", nil, server, served["agents"], false},
		{"people to the API without TLS", nil, server, served["api"], false},
		{"another pod to the API without TLS", stranger, server, served["api"], false},
		{"a machine to the API without TLS", machine, server, served["api"], false},
		{"a machine to the agents' door", machine, server, served["agents"], true},
		{"another pod to the agents' door", stranger, server, served["agents"], false},
		{"the server to a machine's sshd", server, machine, sshPort, true},
		{"a machine to another", machine, another, 29500, true},
		{"people to a gateway", nil, gateway, served["ssh"], true},
		{"a gateway to the agents' door", gateway, server, served["agents"], true},
		{"a gateway to the API without TLS", gateway, server, served["api"], false},
		{"a gateway to a machine's sshd", gateway, machine, sshPort, true},
		{"a gateway to a machine's other ports", gateway, machine, 8888, false},
		{"people to a machine's sshd", nil, machine, sshPort, false},
		{"another pod to a machine's sshd", stranger, machine, sshPort, false},
	} {
		if x.port == 0 {
			t.Errorf("%s: the server's pod has no such port", x.what)
			continue
		}
		all.Go(func() {
			if err := rig.Until(t.Context(), patience, fmt.Sprintf("it is %v that there come %s", x.may, x.what), func() (bool, error) { // the nodes take a moment to hear of a pod
				comes, err := c.comes(t.Context(), x.from, x.to, x.port)
				return comes == x.may, err
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// comes tries a connection between pods; from nil: from outside. One that is refused has come there, too: nobody listens. One that is forbidden gets no
// answer.
func (c *cluster) comes(ctx context.Context, from, to *corev1.Pod, port int32) (bool, error) {
	args := []string{"timeout", "4", "bash", "-c", fmt.Sprintf("</dev/tcp/%s/%d", to.Status.PodIP, port)}
	if from != nil {
		pids, err := c.processes(ctx, from.Name)
		if err != nil {
			return false, err
		}
		args = append([]string{"nsenter", "--target", strconv.Itoa(pids[0]), "--net"}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil, strings.Contains(string(out), "Connection refused"):
		return true, nil
	case cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 124:
		return false, nil
	}
	return false, fmt.Errorf("%w: %s", err, out)
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
