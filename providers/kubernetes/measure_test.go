package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/kube"
	"github.com/shoal-pool/shoal/provider"
)

// Measured is what `make bench` is told, in the file that SHOAL_KUBE_MEASURE names.
type measured struct {
	Ready []float64 `json:"ready"` // seconds from a request for a machine until it is ready
	Pod   []float64 `json:"pod"`   // until a pod of the same image runs
	Pods  int       `json:"pods"`
	Rate  float64   `json:"rate"` // of requests per second, with so many pods at rest
}

// TestMeasure measures for `make bench`, and does nothing otherwise.
func TestMeasure(t *testing.T) {
	out := os.Getenv("SHOAL_KUBE_MEASURE")
	if out == "" {
		return
	}
	rounds, err := strconv.Atoi(os.Getenv("SHOAL_KUBE_ROUNDS"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	c.loadImage()
	m := measured{Pods: 1000}
	c.starts(t, rounds, &m)
	m.Rate = c.hold(t, m.Pods, 3*time.Minute)
	b, err := json.Marshal(m)
	if err == nil {
		err = os.WriteFile(out, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// starts measures machines and bare pods by turns.
func (c *cluster) starts(t *testing.T, rounds int, m *measured) {
	t.Setenv("KUBECONFIG", c.kubeconfig)
	t.Setenv(envNamespaces, "shoal")
	w, err := rig.New(t.Context(), binaries(t), filepath.Join(c.dir, "starts"), "--provider", "kubernetes", "--agent-listen", kube.Host+":7421")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := w.Apply(t.Context(), 1, fmt.Sprintf("---\nkind: Pool\nname: lab\nprovider: kubernetes\nimage: %s\nmachine: {cpus: 0.5, memory: 256MiB}\nsize: {min: 0, max: 1}\n", image)); err != nil {
		t.Fatal(err)
	}
	for i := range rounds + 1 {
		began := time.Now()
		if _, err := w.Shoal(t.Context(), "pool", "scale", "lab", "--size", "1"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Ready(t.Context(), "lab", 1, patience); err != nil {
			t.Fatal(err)
		}
		ready := time.Since(began).Seconds()
		if err := w.Empty(t.Context(), "lab"); err != nil {
			t.Fatal(err)
		}
		pod := c.podStart(t, i)
		if i > 0 { // the first reads the image from the disk
			m.Ready, m.Pod = append(m.Ready, ready), append(m.Pod, pod)
		}
	}
}

// podStart takes the time that a bare pod needs, as kubectl would make it.
func (c *cluster) podStart(t *testing.T, i int) float64 {
	t.Helper()
	p := c.provider("bare")
	s := provider.MachineSpec{ID: "m-bare", Pool: "bare", Image: image, Resources: spec("x").Resources, Token: "x"}
	in, err := p.read(nil)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := p.pod(s, in)
	if err != nil {
		t.Fatal(err)
	}
	pod.Name, pod.Labels, pod.Annotations = fmt.Sprintf("bare-%d", i), nil, nil
	none := int64(1)
	pod.Spec.TerminationGracePeriodSeconds = &none
	pod.Spec.Containers[0].Command = []string{"/bin/sleep", "600"}
	pod.Spec.Containers[0].VolumeMounts, pod.Spec.Volumes = nil, nil
	pods := c.admin.CoreV1().Pods("shoal")
	began := time.Now()
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(t.Context(), patience, "a bare pod runs", func() (bool, error) {
		there, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
		return err == nil && there.Status.Phase == corev1.PodRunning, err
	}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began).Seconds()
	if err := pods.Delete(context.WithoutCancel(t.Context()), pod.Name, metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	return took
}
