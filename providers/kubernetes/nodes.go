package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// When a pod is removed that its node does not end.
const (
	goneAfter = 10 * time.Second // past its grace, in which a node that is there has ended it
	// fencedAfter is after how long a silence of its node nothing of a machine can be running any more: agents end what runs when nobody
	// has answered them for six minutes.
	fencedAfter = 7 * time.Minute
)

// nodes are those of a cluster, by name; nil: this account may not see them, and nothing is known of any.
type nodes map[string]corev1.Node

// nodesOf are the nodes, if any of the pods has one. One that is missing is asked for once more, since the first answer may be an old one.
func (p *Provider) nodesOf(ctx context.Context, pods []corev1.Pod) nodes {
	if !slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName != "" }) {
		return nil
	}
	all := p.listNodes(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if slices.ContainsFunc(pods, func(p corev1.Pod) bool { return all.gone(p.Spec.NodeName) != "" }) {
		return p.listNodes(ctx, metav1.ListOptions{})
	}
	return all
}

func (p *Provider) listNodes(ctx context.Context, which metav1.ListOptions) nodes {
	list, err := p.cfg.Eyes.CoreV1().Nodes().List(ctx, which)
	if err != nil {
		return nil
	}
	all := nodes{}
	for _, n := range list.Items {
		all[n.Name] = n
	}
	return all
}

// gone says why nothing runs on a node any more: whoever looks after the cluster has removed it, or has said that it is out of service, which
// both mean that its power is off. It is empty if something may run there.
func (all nodes) gone(name string) string {
	if all == nil || name == "" {
		return ""
	}
	n, there := all[name]
	switch {
	case !there:
		return fmt.Sprintf("its node %s is no part of the cluster any more", name)
	case slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService }):
		return fmt.Sprintf("its node %s is out of service", name)
	}
	return ""
}

// unheard is since when a node has not been heard of, for longer than the cluster bears that; zero: it is heard of.
func (all nodes) unheard(name string) time.Time {
	for _, c := range all[name].Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionUnknown {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// bury removes a pod that was to end and whose node is gone, or has been silent for so long that nothing of a machine runs there: nobody
// else will.
func (p *Provider) bury(ctx context.Context, pod *corev1.Pod) error {
	if time.Since(pod.DeletionTimestamp.Time) < goneAfter { // the time stamp is when the grace is over
		return nil
	}
	all := p.listNodes(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", pod.Spec.NodeName).String()})
	if since := all.unheard(pod.Spec.NodeName); all.gone(pod.Spec.NodeName) == "" && (since.IsZero() || time.Since(since) < fencedAfter) {
		return nil
	}
	none := int64(0)
	err := p.cfg.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return typed(err, "remove pod "+pod.Name+" of a node that does not answer")
}
