package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/kube"
)

// loss is something that a cluster loses while people are on its machines and tasks run there.
type loss struct {
	what string
	lose func(ctx context.Context, node int) error
	mend func(ctx context.Context, node int) error
	api  bool // it is the API server: no task is lost by that
}

func (c *cluster) kinds() []loss {
	return []loss{
		{what: "a node's power", lose: c.KillNode, mend: c.StartNode},
		{what: "a node's network", lose: c.CutNode, mend: c.JoinNode}, // its tasks run on
		{what: "the API server", lose: func(context.Context, int) error { return c.KillAPI() }, mend: func(ctx context.Context, _ int) error { return c.StartAPI(ctx) }, api: true},
	}
}

// TestLosses repeats losses in one cluster for `make prove`: SHOAL_COUNT of them, and does nothing otherwise. SHOAL_KIND is for one kind.
func TestLosses(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("SHOAL_COUNT"))
	if err != nil {
		return
	}
	c := newCluster(t)
	kinds := c.kinds()
	if k, err := strconv.Atoi(os.Getenv("SHOAL_KIND")); err == nil {
		kinds = kinds[k : k+1]
	}
	c.repeat(t, n, kinds)
}

// losses are a few, for each test of the cluster.
func (c *cluster) losses(t *testing.T) { c.repeat(t, 2, c.kinds()[1:]) }

// ground is where losses happen.
type ground struct {
	*rig.World
	c *cluster
	t *testing.T
}

const (
	lossTasks = 6
	lossLimit = 8 * time.Minute
)

func (c *cluster) repeat(t *testing.T, n int, kinds []loss) {
	c.loadImage()
	t.Setenv("KUBECONFIG", c.kubeconfig)
	t.Setenv(envNamespaces, "shoal")
	w, err := rig.New(t.Context(), binaries(t), filepath.Join(c.dir, "losses"), "--provider", "kubernetes", "--agent-listen", kube.Host+":7421", "--task-lease", "15s")
	if err != nil {
		t.Fatal(err)
	}
	g := &ground{w, c, t}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.Dir, "serve.log"))
			t.Logf("%s", log[max(0, len(log)-20_000):])
		}
	})
	if err := w.Apply(t.Context(), 2, fmt.Sprintf(`---
kind: Pool
name: lab
provider: kubernetes
image: %s
uses: [interactive, batch]
machine: {cpus: 0.25, memory: 256MiB}
size: {min: 2, max: 6}
seats: 4
mounts: [{share: team, path: /shared}]
home: {share: team, path: "home/{user}"}
providerConfig: {imagePullPolicy: Never, spreadOver: kubernetes.io/hostname}
`, image)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := g.round(i, kinds[i%len(kinds)]); err != nil {
			events, _ := w.Shoal(t.Context(), "events")
			t.Fatalf("loss %d: %v\n%s", i+1, err, events)
		}
	}
}

// command runs until it is told to end, and tells of each moment who it is: attempts that are there at the same time show.
const lossCommand = `for i in $(seq 6000); do echo "$SHOAL_ATTEMPT $(date +%%s%%N)" >>/shared/home/u2/%[1]d-$SHOAL_ARRAY_INDEX; [ ! -e /shared/home/u2/go-%[1]d ] || exit 0; sleep 0.2; done; exit 1`

// round loses something, and sees to it that nobody else does.
func (g *ground) round(i int, l loss) error {
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Minute)
	defer cancel()
	began := time.Now()
	// Kubernetes may put both machines on one node that came back just now: each round has what it finds.
	if _, err := g.Ready(ctx, "lab", 2, lossLimit); err != nil {
		return err
	}
	client, err := g.ClientAs(ctx, "u2")
	if err != nil {
		return err
	}
	where, err := rig.Output(g.SSH(ctx, "u1+lab", "hostname; echo "+strconv.Itoa(i)+" >notes"))
	if err != nil {
		return err
	}
	first := strings.TrimSpace(where)
	j, err := client.Submit(ctx, shoal.JobSpec{Pool: "lab", Array: fmt.Sprintf("1-%d", lossTasks), Resources: shoal.Resources{CPUs: 50, Memory: 16 << 20}, Command: fmt.Sprintf(lossCommand, i)}, "")
	if err != nil {
		return err
	}
	stays := g.SSH(ctx, "u1+lab", "echo there; sleep 1000")
	out, err := stays.StdoutPipe()
	if err == nil {
		err = stays.Start()
	}
	if err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return fmt.Errorf("u1 is not there: %q, %w", line, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stays.Wait() }()
	defer func() { // it may have been killed with its node
		_ = stays.Process.Kill()
		<-ended
	}()
	if err := rig.Until(ctx, lossLimit, "tasks run, and have told of themselves", func() (bool, error) {
		got, err := client.Job(ctx, j.ID)
		files, _ := filepath.Glob(filepath.Join(g.Share, "home/u2", fmt.Sprintf("%d-*", i))) // the pattern is well formed
		return got.Counts.Running == lossTasks && len(files) == lossTasks, err
	}); err != nil {
		return err
	}
	node, err := g.victim(ctx, shoal.MachineID(first), j.ID)
	if err != nil {
		return err
	}
	if err := l.lose(ctx, node); err != nil {
		return err
	}
	lost := time.Now()
	if err := g.without(ctx, i, l, j.ID, node, began); err != nil {
		return errors.Join(err, l.mend(ctx, node))
	}
	again := time.Since(lost)
	if err := l.mend(ctx, node); err != nil {
		return err
	}
	if err := g.settled(ctx, i, l, j.ID); err != nil {
		return err
	}
	fmt.Printf("%s  loss %d, %s: u1 was on %s; all went on after %s, the round took %s\n", time.Now().Format("15:04:05"), i+1, l.what, first,
		again.Round(time.Second), time.Since(began).Round(time.Second))
	return nil
}

// without is while it is lost: u1 logs in again, and all tasks that were there have begun elsewhere.
func (g *ground) without(ctx context.Context, i int, l loss, job shoal.JobID, node int, began time.Time) error {
	if err := rig.Until(ctx, lossLimit, "u1 is let in again", func() (bool, error) {
		try, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		out, err := rig.Output(g.SSH(try, "u1+lab", "-o", "ServerAliveInterval=5", "cat notes"))
		return err == nil && strings.TrimSpace(out) == strconv.Itoa(i), nil
	}); err != nil {
		return err
	}
	if l.api {
		return nil
	}
	pods, err := g.c.admin.CoreV1().Pods("shoal").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n" + strconv.Itoa(node+1)})
	if err != nil {
		return err
	}
	there := map[shoal.MachineID]bool{}
	for _, p := range pods.Items {
		there[shoal.MachineID(p.Labels[labelMachine])] = true
	}
	return rig.Until(ctx, lossLimit, "all tasks run elsewhere", func() (bool, error) {
		tasks, err := g.Client.Tasks(ctx, job, 0, lossTasks+1)
		n := 0
		for _, a := range tasks {
			if a.State == shoal.JobRunning && !there[a.Machine] {
				n++
			}
		}
		return n == lossTasks, err
	})
}

// settled lets the tasks end, and looks at what they have told.
func (g *ground) settled(ctx context.Context, i int, l loss, job shoal.JobID) error {
	home := filepath.Join(g.Share, "home/u2")
	if err := os.WriteFile(filepath.Join(home, fmt.Sprintf("go-%d", i)), nil, 0o644); err != nil {
		return err
	}
	var got shoal.Job
	if err := rig.Until(ctx, lossLimit, "the job ends", func() (bool, error) {
		var err error
		got, err = g.Client.Job(ctx, job)
		return got.State.Ended(), err
	}); err != nil {
		return err
	}
	if got.State != shoal.JobSucceeded || got.Counts.Succeeded != lossTasks {
		return fmt.Errorf("the job is %s, and of its tasks %+v", got.State, got.Counts)
	}
	attempts := 0
	for n := range lossTasks {
		seen, err := told(filepath.Join(home, fmt.Sprintf("%d-%d", i, n+1)))
		if err != nil {
			return fmt.Errorf("task %d: %w", n+1, err)
		}
		attempts += seen
	}
	if l.api { // a task may have made room for u1, who has a right to her seat
		if events, err := g.Shoal(ctx, "events"); err != nil || strings.Contains(events, fmt.Sprintf("of job %s lost", job)) {
			return fmt.Errorf("tasks were taken for lost, and no machine was: %w", errors.Join(err, errors.New(events)))
		}
	}
	if !l.api && attempts == lossTasks {
		return errors.New("no task was on the node that was lost")
	}
	return nil
}

// told counts the attempts of which a task's file tells. None tells of itself after another has.
func told(file string) (attempts int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	last := ""
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 2 {
			return 0, fmt.Errorf("it tells %q", line)
		}
		if f[0] != last && seen[f[0]] {
			return 0, fmt.Errorf("attempts %s and %s ran at the same time", last, f[0])
		}
		last, seen[f[0]] = f[0], true
	}
	return len(seen), nil
}

// victim is the node of a machine, if tasks of a job run there; else one where they do.
func (g *ground) victim(ctx context.Context, id shoal.MachineID, job shoal.JobID) (int, error) {
	first, err := g.nodeOf(ctx, id)
	if err != nil {
		return 0, err
	}
	tasks, err := g.Client.Tasks(ctx, job, 0, lossTasks+1)
	if err != nil {
		return 0, err
	}
	node := first
	for _, a := range tasks {
		if node, err = g.nodeOf(ctx, a.Machine); err != nil || node == first {
			break
		}
	}
	return node, err
}

// nodeOf is the number of a machine's node.
func (g *ground) nodeOf(ctx context.Context, id shoal.MachineID) (int, error) {
	pod, err := g.c.admin.CoreV1().Pods("shoal").Get(ctx, name(id), metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	return int(pod.Spec.NodeName[1] - '1'), nil
}
