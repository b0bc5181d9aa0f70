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

	"github.com/shoal-pool/shoal"
)

// healEvery is how often all pods of the namespaces are looked at, and not only those with our labels.
const healEvery = 10 * time.Minute

// heal gives pods their labels back that somebody has taken away or changed, without which they would belong to nobody: a machine that
// is missed while people are on it, and that nobody ever deletes. A pod without our annotation, too, is let go.
func (p *Provider) heal(ctx context.Context) error {
	p.healing.Lock()
	defer p.healing.Unlock()
	if !p.strays.Swap(false) && time.Since(p.healed) < healEvery {
		return nil
	}
	for _, ns := range p.cfg.Namespaces {
		err := p.healIn(ctx, ns)
		if apierrors.IsForbidden(err) { // the rights are those of an older version
			log.Printf("labels that somebody changes are not put back: %v", err)
			continue
		}
		if err != nil {
			p.strays.Store(true)
			return typed(err, "look at the pods in namespace "+ns)
		}
	}
	p.healed = time.Now()
	return nil
}

func (p *Provider) healIn(ctx context.Context, ns string) error {
	for page := (metav1.ListOptions{Limit: 500}); ; {
		list, err := p.cfg.Eyes.CoreV1().Pods(ns).List(ctx, page)
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

// healPod mends one pod, there and in the value.
func (p *Provider) healPod(ctx context.Context, pod *corev1.Pod) error {
	var want map[string]string
	if json.Unmarshal([]byte(pod.Annotations[noteLabels]), &want) != nil || want[labelInstallation] != p.cfg.Installation || pod.Name != name(shoal.MachineID(want[labelMachine])) {
		return nil
	}
	mended := maps.Clone(pod.Labels)
	if mended == nil {
		mended = map[string]string{}
	}
	maps.Copy(mended, want)
	if maps.Equal(mended, pod.Labels) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID, "labels": want}})
	if err != nil {
		return err
	}
	_, err = p.cfg.Eyes.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil // it has gone, or is another one
	case err != nil:
		return fmt.Errorf("cannot put back the labels of pod %s: %w", pod.Name, err)
	}
	pod.Labels = mended
	log.Printf("labels of pod %s were changed by somebody, and are as they were; delete the pod, or drain the machine, if it is to go", pod.Name)
	return nil
}
