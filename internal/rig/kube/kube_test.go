package kube

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestMain(m *testing.M) { Main(m, filepath.Join("..", "..", "..")) }

// A pod runs on each of two nodes, one can reach the other, and a node that dies is missed.
func TestCluster(t *testing.T) {
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("a cluster needs root, and is left out with -short")
	}
	dir, err := os.MkdirTemp("", "shoal-kube-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c, err := Start(t.Context(), Config{Root: filepath.Join("..", "..", ".."), Dir: dir, Nodes: 2, Say: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range 2 {
		pod, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "p-" + nodeName(i)},
			"spec": map[string]any{"nodeName": nodeName(i), "terminationGracePeriodSeconds": 1,
				"containers": []any{map[string]any{"name": "pause", "image": "localhost/pause:1", "imagePullPolicy": "Never"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Do(t.Context(), "POST", "/api/v1/namespaces/default/pods", "application/json", pod); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		if err := c.Until(t.Context(), "the pods run", func() (bool, error) {
			b, err := c.Get(t.Context(), "/api/v1/namespaces/default/pods/p-"+nodeName(i))
			var p struct{ Status struct{ Phase, PodIP string } }
			if err == nil {
				err = json.Unmarshal(b, &p)
			}
			return p.Status.Phase == "Running", err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.KillNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := c.Until(t.Context(), "the dead node is missed", func() (bool, error) {
		b, err := c.Get(t.Context(), "/api/v1/nodes/n2")
		var n struct{ Spec struct{ Taints []any } }
		if err == nil {
			err = json.Unmarshal(b, &n)
		}
		return len(n.Spec.Taints) > 0, err
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.StartNode(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
}
