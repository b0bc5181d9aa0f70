package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// healEvery is how often all pods of the namespaces are looked at, and not only those with our labels.
const healEvery = 10 * time.Minute

// heal gives pods their labels back that somebody has taken away or changed, without which they would belong to nobody: a machine that
// is missed while people are on it, and that nobody ever deletes. A pod without our annotation, too, is let go.
func (p *Provider) heal(ctx context.Context) {
	p.healing.Lock()
	defer p.healing.Unlock()
	if !p.strays.Swap(false) && time.Since(p.healed) < healEvery {
		return
	}
	for _, ns := range p.cfg.Namespaces {
		if err := p.healIn(ctx, ns); err != nil {
			log.Printf("cannot look for pods whose labels were changed: %v", err)
			p.strays.Store(true)
			return
		}
	}
	p.healed = time.Now()
}

func (p *Provider) healIn(ctx context.Context, ns string) error {
	for page := (metav1.ListOptions{Limit: 500}); ; {
		list, err := p.cfg.Client.CoreV1().Pods(ns).List(ctx, page)
		if err != nil {
			return err
		}
		for i := range list.Items {
			if err := p.healPod(ctx, &list.Items[i]); err != nil {
				return err
			}
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return nil
		}
	}
}

func (p *Provider) healPod(ctx context.Context, pod *corev1.Pod) error {
	var want map[string]string
	if json.Unmarshal([]byte(pod.Annotations[noteLabels]), &want) != nil || want[labelInstallation] != p.cfg.Installation || pod.Name != "shoal-"+want[labelMachine] {
		return nil
	}
	if has := maps.Clone(pod.Labels); has != nil {
		maps.DeleteFunc(has, func(k, v string) bool { return want[k] != v })
		if maps.Equal(has, want) {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID, "labels": want}})
	if err != nil {
		return err
	}
	_, err = p.cfg.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil // it has gone, or is another one
	case err != nil:
		return fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	log.Printf("labels of pod %s were changed by somebody, and are as they were; delete the pod, or drain the machine, if it is to go", pod.Name)
	return nil
}
