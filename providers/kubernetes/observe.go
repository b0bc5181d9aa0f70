package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// Times.
const (
	stuckAfter = 20 * time.Second // a pod that does not start is asked about
	unusedAge  = 2 * time.Minute  // of a budget without pods
	askAbout   = 5                // so many pods that do not start, or ended without a word, each time
	maxReason  = 400
)

func (p *Provider) ours() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{labelInstallation: p.cfg.Installation, labelManagedBy: manager}).String()}
}

// Observe lists the pods. It reads what the cluster has stored, so that a pod that was made is in it.
func (p *Provider) Observe(ctx context.Context) (provider.Observation, error) {
	o := provider.Observation{At: time.Now(), Complete: true}
	if err := p.heal(ctx); err != nil {
		return o, err
	}
	var pods []corev1.Pod
	for _, ns := range p.cfg.Namespaces {
		list, err := p.cfg.Eyes.CoreV1().Pods(ns).List(ctx, p.ours())
		if err != nil {
			return o, typed(err, "list the pods in namespace "+ns)
		}
		pods = append(pods, list.Items...)
	}
	nodes := p.nodesOf(ctx, pods)
	asked := 0
	for i := range pods {
		pod := &pods[i]
		if err := p.healPod(ctx, pod); err != nil {
			log.Print(err)
		}
		m := provider.Observed{ID: shoal.MachineID(pod.Labels[labelMachine]), Pool: shoal.PoolName(pod.Labels[labelPool]), ProviderID: string(pod.UID)}
		m.Phase, m.Reason = phase(pod)
		switch {
		case m.Phase == provider.PhaseRunning && nodes.gone(pod.Spec.NodeName) != "":
			m.Phase, m.Reason = provider.PhaseFailed, nodes.gone(pod.Spec.NodeName)
		case m.Phase == provider.PhaseRunning && !nodes.unheard(pod.Spec.NodeName).IsZero():
			// It may have been cut off, and its pods may run on.
			m.Phase, m.Reason = provider.PhaseUnknown, fmt.Sprintf("its node %s does not answer", pod.Spec.NodeName)
			m.Trouble = m.Reason
		case m.Phase == provider.PhaseCreating && m.Reason == "" && time.Since(pod.CreationTimestamp.Time) > stuckAfter && asked < askAbout:
			asked++
			m.Reason = p.lastWarning(ctx, pod, "")
		case m.Phase == provider.PhaseFailed && pod.Status.Reason == "" && disruption(pod) == "" && asked < askAbout:
			// Where the first process ends well when its node evicts it, the node may put only that on record.
			asked++
			if why := p.lastWarning(ctx, pod, "Evicted"); why != "" {
				m.Reason = why
			}
		case m.Phase == provider.PhaseRunning:
			m.Address = net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(sshPort))
			if nodes[pod.Spec.NodeName].Spec.Unschedulable {
				m.Trouble = fmt.Sprintf("its node %s takes no pods: somebody has cordoned it", pod.Spec.NodeName)
				m.Outdated = m.Trouble // another takes its place, and it goes once nobody is on it: then the node is free
			}
		}
		m.Reason = clip(m.Reason)
		o.Machines = append(o.Machines, m)
	}
	p.keepBudgets(ctx, pods)
	return o, nil
}

// phase says where a pod stands, and why if that is not obvious.
func phase(pod *corev1.Pod) (provider.Phase, string) {
	if pod.DeletionTimestamp != nil {
		return provider.PhaseStopping, disruption(pod)
	}
	switch pod.Status.Phase {
	case corev1.PodRunning:
		if pod.Status.PodIP == "" {
			return provider.PhaseCreating, ""
		}
		return provider.PhaseRunning, ""
	case corev1.PodFailed, corev1.PodSucceeded:
		return provider.PhaseFailed, ended(pod)
	}
	for _, c := range pod.Status.ContainerStatuses {
		w := c.State.Waiting
		if w == nil || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" {
			continue
		}
		text := join(w.Reason, w.Message)
		switch w.Reason {
		case "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return provider.PhaseFailed, text
		}
		return provider.PhaseCreating, text
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return provider.PhaseCreating, join("no node takes it", c.Message)
		}
	}
	return provider.PhaseCreating, ""
}

// disruption is what Kubernetes says of a pod that it ends by itself.
func disruption(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return join("Kubernetes ends it: "+c.Reason, c.Message)
		}
	}
	return ""
}

// ended says why a pod has ended.
func ended(pod *corev1.Pod) string {
	if why := disruption(pod); why != "" {
		return why
	}
	if pod.Status.Reason != "" {
		return join(pod.Status.Reason, pod.Status.Message)
	}
	for _, c := range pod.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil {
			why := fmt.Sprintf("its first process has ended with exit status %d: %s", t.ExitCode, t.Reason)
			if t.ExitCode > 128 { // by a signal, of which it could not say anything
				return why
			}
			return join(why, lastWords(t.Message))
		}
	}
	return "its pod has ended"
}

// lastWords are the end of what a process has said, as far as people read it.
func lastWords(text string) string {
	const most = 250
	text = strings.TrimSpace(text)
	if len(text) > most {
		text = "…" + text[len(text)-most:]
	}
	return text
}

func join(what, more string) string {
	if more == "" {
		return what
	}
	return what + ": " + more
}

// clip bounds what others have written.
func clip(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > maxReason {
		return strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}

// lastWarning is what the cluster's events say of a pod that does not start, or has ended: a volume that cannot be mounted, say. With a
// reason only such events count.
func (p *Provider) lastWarning(ctx context.Context, pod *corev1.Pod, reason string) string {
	which := fields.Set{"involvedObject.uid": string(pod.UID), "type": corev1.EventTypeWarning}
	if reason != "" {
		which["reason"] = reason
	}
	list, err := p.cfg.Eyes.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{Limit: 50, FieldSelector: which.String()})
	if err != nil {
		return ""
	}
	var last corev1.Event
	for _, e := range list.Items {
		if !e.LastTimestamp.Before(&last.LastTimestamp) {
			last = e
		}
	}
	if last.Message == "" {
		return ""
	}
	return join(last.Reason, last.Message)
}

// keepBudgets makes the budgets anew that somebody has deleted, and removes those of pools that have no pods. What people change in one
// stays.
func (p *Provider) keepBudgets(ctx context.Context, pods []corev1.Pod) {
	for _, ns := range p.cfg.Namespaces {
		list, err := p.cfg.Eyes.PolicyV1().PodDisruptionBudgets(ns).List(ctx, p.ours())
		if err != nil {
			continue
		}
		there := map[string]bool{}
		for _, b := range list.Items {
			pool := b.Labels[labelPool]
			there[pool] = true
			used := slices.ContainsFunc(pods, func(pod corev1.Pod) bool { return pod.Namespace == ns && pod.Labels[labelPool] == pool })
			if !used && time.Since(b.CreationTimestamp.Time) > unusedAge {
				_ = p.cfg.Eyes.PolicyV1().PodDisruptionBudgets(ns).Delete(ctx, b.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &b.UID}})
			}
		}
		for _, pod := range pods {
			pool := pod.Labels[labelPool]
			if pod.Namespace != ns || there[pool] || pod.Annotations[noteBudget] == "" || pod.DeletionTimestamp != nil {
				continue
			}
			there[pool] = true
			if err := p.makeBudget(ctx, shoal.PoolName(pool), ns); err != nil {
				log.Print(err)
				continue
			}
			log.Printf("the disruption budget of pool %s was deleted by somebody, and is there again; disruptionBudget: false in its providerConfig leaves it out", pool)
		}
	}
}
