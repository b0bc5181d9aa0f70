package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/kube"
)

// say tells what a demonstration is about to do.
func say(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("SHOAL_DEMO") != "" {
		fmt.Printf("\n== "+format+"\n", args...)
		return
	}
	t.Logf(format, args...)
}

func show(t *testing.T, out string, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("SHOAL_DEMO") != "" {
		fmt.Println(strings.TrimSpace(out))
	}
}

// binaries are those under test, all static.
func binaries(t *testing.T) string {
	t.Helper()
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if v := os.Getenv("SHOAL_BIN"); v != "" {
		bin, err = v, nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shoal", "shoal-agent", "shoal-provider-kubernetes"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			t.Fatalf("%v: run make build", err)
		}
	}
	return bin
}

const sweepTasks = 24

// demo is the main job on two nodes: a login from zero, a sweep, and a node that dies in the middle of it.
func (c *cluster) demo(t *testing.T) {
	bin := binaries(t)
	say(t, "an image with an agent is built and given to both nodes")
	c.loadImage()
	t.Setenv("KUBECONFIG", c.kubeconfig)
	t.Setenv(envNamespaces, "shoal")
	w, err := rig.New(t.Context(), bin, filepath.Join(c.dir, "shoal"), "--provider", "kubernetes", "--agent-listen", kube.Host+":7421", "--task-lease", "15s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.Dir, "serve.log"))
			t.Logf("%s", log)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	pool := fmt.Sprintf(`---
kind: Pool
name: lab
provider: kubernetes
image: %s
uses: [interactive, batch]
machine: {cpus: 0.25, memory: 256MiB}
size: {min: 0, max: 4}
seats: 2
mounts: [{share: team, path: /shared}]
home: {share: team, path: "home/{user}"}
providerConfig: {imagePullPolicy: Never, spreadOver: kubernetes.io/hostname}
`, image)
	if err := w.Apply(t.Context(), 2, pool); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	say(t, "u1 logs in; there is no machine, so a pod is made")
	began := time.Now()
	out, err := rig.Output(w.SSH(ctx, "u1+lab", "hostname; pwd; echo hers > notes; stat -c %U notes"))
	show(t, out, err)
	t.Logf("the first word came after %s", time.Since(began).Round(10*time.Millisecond))
	if lines := strings.Fields(out); len(lines) != 3 || !strings.HasPrefix(lines[0], "m-") || lines[1] != "/shared/home/u1" || lines[2] != "u1" {
		t.Errorf("the login says %q", out)
	}
	if b, err := os.ReadFile(filepath.Join(w.Share, "home/u1/notes")); err != nil || string(b) != "hers\n" {
		t.Errorf("her file on the share: %q, %v", b, err)
	}
	if out, err := rig.Output(w.SSH(ctx, "u2+lab", "cat /shared/home/u1/notes; cat /run/shoal/join.json; cat /proc/1/environ")); err == nil || strings.Contains(out, "hers") || strings.Contains(out, "token") {
		t.Errorf("u2 reads what is not hers: %q", out)
	}

	say(t, "u2 sends %d tasks away, and a node dies in the middle of them", sweepTasks)
	job, err := w.ClientAs(ctx, "u2")
	if err != nil {
		t.Fatal(err)
	}
	j, err := job.Submit(ctx, shoal.JobSpec{Pool: "lab", Array: fmt.Sprintf("1-%d", sweepTasks), Resources: shoal.Resources{CPUs: 100, Memory: 32 << 20},
		Command: `sleep 2; hostname > /shared/home/u2/result-$SHOAL_ARRAY_INDEX`}, "")
	if err != nil {
		t.Fatal(err)
	}
	victim := c.busyNode(t, j.ID, w)
	say(t, "the power of node n%d fails", victim+1)
	if err := c.KillNode(t.Context(), victim); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(t.Context(), 4*time.Minute, "the job ends", func() (bool, error) {
		got, err := w.Client.Job(t.Context(), j.ID)
		return got.State.Ended(), err
	}); err != nil {
		why, _ := w.Shoal(t.Context(), "why", "job", string(j.ID))
		t.Fatalf("%v: %s", err, why)
	}
	got, err := w.Client.Job(t.Context(), j.ID)
	if err != nil || got.State != shoal.JobSucceeded {
		t.Errorf("the job ended as %s: %s, %v", got.State, got.Reason, err)
	}
	results, err := filepath.Glob(filepath.Join(w.Share, "home/u2/result-*"))
	if err != nil || len(results) != sweepTasks {
		t.Errorf("there are %d results, %v", len(results), err)
	}
	out, err = w.Shoal(t.Context(), "job", "show", string(j.ID))
	show(t, out, err)
	out, err = w.Shoal(t.Context(), "events")
	show(t, out, err)

	say(t, "u1 logs in again, on what is left")
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err = rig.Output(w.SSH(ctx, "u1+lab", "cat notes"))
	show(t, out, err)
	if strings.TrimSpace(out) != "hers" {
		t.Errorf("her notes are %q", out)
	}

	say(t, "somebody takes the dead node out of the cluster; the pool is deleted, and nothing stays")
	c.kubectl("delete", "node", fmt.Sprintf("n%d", victim+1))
	if _, err := w.Shoal(t.Context(), "pool", "delete", "lab", "--wait"); err != nil {
		t.Fatal(err)
	}
	c.empty(t)
}

// busyNode waits until tasks run on a node, and returns which.
func (c *cluster) busyNode(t *testing.T, id shoal.JobID, w *rig.World) int {
	t.Helper()
	node := -1
	if err := rig.Until(t.Context(), patience, "tasks run in a pod", func() (bool, error) {
		tasks, err := w.Client.Tasks(t.Context(), id, 0, sweepTasks+1)
		if err != nil {
			return false, err
		}
		for _, a := range tasks {
			if a.State != shoal.JobRunning {
				continue
			}
			pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), name(a.Machine), metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			node = int(pod.Spec.NodeName[1] - '1')
			return true, nil
		}
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	return node
}

// empty waits until nothing of Shoal's is in the cluster.
func (c *cluster) empty(t *testing.T) {
	t.Helper()
	var left []string
	err := rig.Until(t.Context(), 3*time.Minute, "the namespace is empty", func() (bool, error) {
		left = nil
		ours := metav1.ListOptions{LabelSelector: labelManagedBy + "=" + manager}
		pods, err := c.admin.CoreV1().Pods("shoal").List(t.Context(), ours)
		secrets, err2 := c.admin.CoreV1().Secrets("shoal").List(t.Context(), ours)
		if err := errors.Join(err, err2); err != nil {
			return false, err
		}
		for _, p := range pods.Items {
			left = append(left, "pod "+p.Name)
		}
		for _, s := range secrets.Items {
			left = append(left, "secret "+s.Name)
		}
		return len(left) == 0, nil
	})
	if err != nil {
		t.Errorf("%v: %v", err, left)
	}
}
