package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/kube"
	"github.com/shoal-pool/shoal/provider"
)

// badWay is a proxy before the real API server that answers some requests itself.
type badWay struct {
	client     kubernetes.Interface
	kubeconfig string

	mu    sync.Mutex
	fault func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	seen  []string
}

// newBadWay makes one, with a client of Shoal's account.
func (c *cluster) newBadWay(t *testing.T) *badWay {
	t.Helper()
	to, err := url.Parse(kube.Server)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	proxy.FlushInterval = -1
	b := &badWay{}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		fault := b.fault
		b.seen = append(b.seen, r.Method+" "+r.URL.RequestURI())
		b.mu.Unlock()
		if fault == nil || !fault(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	text, err := os.ReadFile(c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), kube.Server, s.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.client, b.kubeconfig = clientOf(t, file), file
	return b
}

// with sets the fault and forgets what was asked.
func (b *badWay) with(fault func(w http.ResponseWriter, r *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault, b.seen = fault, nil
}

// asked counts requests whose line contains all words.
func (b *badWay) asked(words ...string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.seen {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

// refuse answers with a status of Kubernetes'.
func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, message, reason, code)
}

// faults are those of the API server and of the way to it.
func (c *cluster) faults(t *testing.T) {
	b := c.newBadWay(t)
	p := New(Config{Client: b.client, Namespaces: []string{"shoal"}, Installation: "faults"})
	t.Run("throttled for a moment", func(t *testing.T) {
		var left atomic.Int32
		left.Store(3)
		b.with(func(w http.ResponseWriter, _ *http.Request) bool {
			if left.Add(-1) < 0 {
				return false
			}
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many requests")
			return true
		})
		if err := p.Create(t.Context(), spec("m-slow")); err != nil {
			t.Error(err)
		}
		c.delete(t, p, "m-slow")
	})
	t.Run("throttled for long", func(t *testing.T) {
		b.with(func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many requests")
			return true
		})
		o, err := p.Observe(t.Context())
		if code(err) != provider.Transient || o.Complete && err == nil {
			t.Errorf("an observation: %+v, %v", o, err)
		}
		if err := p.Create(t.Context(), spec("m-never")); code(err) != provider.Transient || !strings.Contains(err.Error(), "too many requests") {
			t.Errorf("a creation: %v", err)
		}
		if n := b.asked(""); n > 6 {
			t.Errorf("%d requests were made of a server that says it has too many", n)
		}
	})
	t.Run("the API server is away", func(t *testing.T) {
		b.with(func(w http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := p.Observe(ctx); code(err) != provider.Transient {
			t.Errorf("an observation: %v", err)
		}
	})
	t.Run("edits in conflict", func(t *testing.T) {
		var left atomic.Int32
		left.Store(2)
		b.with(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut || left.Add(-1) < 0 {
				return false
			}
			refuse(w, http.StatusConflict, metav1.StatusReasonConflict, "the object has been modified")
			return true
		})
		if err := p.Create(t.Context(), spec("m-conflict")); err != nil {
			t.Error(err)
		}
		secret, err := c.admin.CoreV1().Secrets("shoal").Get(t.Context(), "shoal-m-conflict", metav1.GetOptions{})
		if err != nil || len(secret.OwnerReferences) != 1 {
			t.Errorf("the secret of a machine: owners %v, %v", secret.OwnerReferences, err)
		}
		c.delete(t, p, "m-conflict")
	})
	t.Run("gaps in what is watched", func(t *testing.T) { c.gaps(t, b, p) })
	b.with(nil)
}

// serving is a server whose way to the cluster is bad now and then.
func (c *cluster) serving(t *testing.T) {
	c.loadImage()
	b := c.newBadWay(t)
	t.Setenv("KUBECONFIG", b.kubeconfig)
	t.Setenv(envNamespaces, "shoal")
	w, err := rig.New(t.Context(), binaries(t), filepath.Join(c.dir, "serving"), "--provider", "kubernetes", "--agent-listen", kube.Host+":7421")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := w.Apply(t.Context(), 1, fmt.Sprintf("---\nkind: Pool\nname: lab\nprovider: kubernetes\nimage: %s\nmachine: {cpus: 0.1, memory: 128MiB}\nsize: {min: 1, max: 3}\nproviderConfig: {imagePullPolicy: Never}\n", image)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Ready(t.Context(), "lab", 1, patience); err != nil {
		t.Fatal(err)
	}
	t.Run("throttled", func(t *testing.T) { throttled(t, b, w) })
	t.Run("a node is drained", func(t *testing.T) { c.drains(t, w) })
	t.Run("notebooks", func(t *testing.T) { c.notebooks(t, w) })
}

// throttled: the cluster says for long that it has too much to do. Who waits is told why, what runs goes on, the cluster is not asked
// more for it, and all is made up for afterwards.
func throttled(t *testing.T, b *badWay, w *rig.World) {
	b.with(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many requests")
		return true
	})
	defer b.with(nil)
	began := time.Now()
	if _, err := w.Shoal(t.Context(), "pool", "scale", "lab", "--size", "2"); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(t.Context(), patience, "shoal why says that the cluster has too much to do", func() (bool, error) {
		why, err := w.Shoal(t.Context(), "why", "pool", "lab")
		return strings.Contains(why, "too many requests"), err
	}); err != nil {
		t.Error(err)
	}
	if out, err := rig.Output(w.SSH(t.Context(), "u1+lab", "echo still here")); err != nil || out != "still here\n" {
		t.Errorf("u1 on the machine that runs: %q, %v", out, err)
	}
	time.Sleep(5 * time.Second)
	if n, most := b.asked(""), 2*int(time.Since(began).Seconds())+30; n > most {
		t.Errorf("a cluster that has too much to do was asked %d times in %s", n, time.Since(began))
	}
	b.with(nil)
	if _, err := w.Ready(t.Context(), "lab", 2, patience); err != nil {
		t.Error(err)
	}
	if _, err := w.Shoal(t.Context(), "pool", "scale", "lab", "--auto"); err != nil {
		t.Fatal(err)
	}
}

// drains takes a node out of use on which somebody is. She is waited for, though no longer than she is there, and the pool is as large as before.
func (c *cluster) drains(t *testing.T, w *rig.World) {
	stays := w.SSH(t.Context(), "u1+lab", "hostname; cat")
	in, err := stays.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := stays.StdoutPipe()
	if err == nil {
		err = stays.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pod := name(shoal.MachineID(strings.TrimSpace(line)))
	there, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := there.Spec.NodeName
	defer c.kubectl("uncordon", node)
	c.kubectl("cordon", node)
	c.kubectl("-n", "shoal", "label", "pod", pod, "leaves=soon") // what becomes of pods is seen at once, and of nodes within a minute
	if err := rig.Until(t.Context(), patience, "another machine is there", func() (bool, error) {
		pods, err := c.admin.CoreV1().Pods("shoal").List(t.Context(), metav1.ListOptions{LabelSelector: labelPool + "=lab"})
		elsewhere := err == nil && slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool { return p.Spec.NodeName != node && p.Status.Phase == corev1.PodRunning })
		return elsewhere, err
	}); err != nil {
		t.Error(err)
	}
	in.Close()
	if err := stays.Wait(); err != nil {
		t.Errorf("u1 was disturbed: %v", err)
	}
	c.kubectl("drain", node, "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector="+labelPool+"=lab", "--timeout=2m")
	if _, err := w.Ready(t.Context(), "lab", 1, patience); err != nil {
		t.Error(err)
	}
}

func (c *cluster) delete(t *testing.T, p *Provider, id shoal.MachineID) {
	t.Helper()
	if err := p.Delete(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// gaps are watches that the API server ends since it has forgotten what came in between, and ones that are cut.
func (c *cluster) gaps(t *testing.T, b *badWay, p *Provider) {
	var gone atomic.Int32
	gone.Store(3)
	cut, stop := context.WithCancel(t.Context())
	b.with(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("watch") == "" || gone.Load() < 0 {
			return false
		}
		switch gone.Add(-1) {
		case 2: // the answer to the request itself
			refuse(w, http.StatusGone, metav1.StatusReasonExpired, "too old resource version")
		case 1: // within an answer
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintln(w, `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version","reason":"Expired","code":410}}`)
		case 0: // silence, until the connection breaks
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-cut.Done()
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	})
	ctx, end := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { p.watch(ctx) })
	defer done.Wait()
	defer end()
	changed := func(what string) {
		t.Helper()
		select {
		case <-p.Changed():
		case <-time.After(patience):
			t.Fatalf("nothing is told of %s", what)
		}
	}
	changed("the beginning")
	if err := rig.Until(t.Context(), patience, "a watch hangs", func() (bool, error) { return gone.Load() == 0, nil }); err != nil {
		t.Fatal(err)
	}
	if err := c.provider("faults").Create(t.Context(), spec("m-missed")); err != nil {
		t.Fatal(err)
	}
	for len(p.changed) > 0 {
		<-p.changed
	}
	stop()
	changed("what came while nothing was heard")
	c.until(t, p, "m-missed", func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
	if err := rig.Until(t.Context(), patience, "the watch is there again", func() (bool, error) { return gone.Load() < 0, nil }); err != nil {
		t.Fatal(err)
	}
	if n := b.asked("watch="); n > 8 {
		t.Errorf("%d watches were begun", n)
	}
	c.delete(t, p, "m-missed")
	changed("a machine that goes")
}

// edits are what people do with kubectl to what is Shoal's: respected, or healed.
func (c *cluster) edits(t *testing.T) {
	p := c.provider("edits")
	s := spec("m-edited")
	if err := p.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	running := func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning }
	c.until(t, p, s.ID, running)
	ctx, end := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { p.watch(ctx) })
	defer done.Wait()
	defer end()
	// From the version on at which the watch begins no edit is missed; one before it would be seen ten minutes later.
	if err := rig.Until(t.Context(), patience, "the watch begins", func() (bool, error) { return p.strays.Load(), nil }); err != nil {
		t.Fatal(err)
	}
	for _, edit := range []string{labelInstallation + "-", labelManagedBy + "=somebody", labelPool + "=other"} {
		c.kubectl("-n", "shoal", "label", "--overwrite", "pod", name(s.ID), edit)
		c.until(t, p, s.ID, func(o provider.Observed) bool { return running(o) && o.Pool == s.Pool })
	}
	c.kubectl("-n", "shoal", "label", "pod", name(s.ID), "team=blue") // is theirs
	budget := p.budgetName(s.Pool)
	c.kubectl("-n", "shoal", "delete", "pdb", budget)
	c.until(t, p, s.ID, running)
	c.kubectl("-n", "shoal", "get", "pdb", budget)
	c.kubectl("-n", "shoal", "patch", "pdb", budget, "--type=merge", "-p", `{"spec":{"maxUnavailable":1}}`)
	c.until(t, p, s.ID, running)
	if out := c.kubectl("-n", "shoal", "get", "pdb", budget, "-o", "jsonpath={.spec.maxUnavailable}"); out != "1" {
		t.Errorf("the budget that somebody has changed has maxUnavailable %s", out)
	}
	pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), name(s.ID), metav1.GetOptions{})
	if err != nil || pod.Labels["team"] != "blue" {
		t.Errorf("somebody's own label: %v, %v", pod.Labels, err)
	}
	c.kubectl("-n", "shoal", "delete", "pod", name(s.ID), "--wait=true")
	o, err := p.Observe(t.Context())
	if err != nil || len(o.Machines) != 0 {
		t.Errorf("after its pod was deleted there is %+v, %v", o.Machines, err)
	}
	if left, err := c.leftovers(t.Context(), "edits"); err != nil {
		t.Errorf("%v: %v", err, left)
	}
}

// placing is where pods come, and who goes first: an extended resource stands for GPUs.
func (c *cluster) placing(t *testing.T) {
	p := c.provider("placing")
	const gpu = "example.org/gpu"
	c.kubectl("patch", "node", "n1", "--subresource=status", "--type=merge", "-p", `{"status":{"capacity":{"`+gpu+`":"1"},"allocatable":{"`+gpu+`":"1"}}}`)
	c.kubectl("label", "node", "n2", "disk=fast")
	c.kubectl("taint", "node", "n2", "for=them:NoSchedule")
	c.kubectl("create", "priorityclass", "urgent", "--value=1000")
	c.kubectl("create", "priorityclass", "patient", "--value=-10")
	defer func() {
		c.kubectl("taint", "node", "n2", "for-")
		c.kubectl("label", "node", "n2", "disk-")
	}()
	with := func(id string, change func(*provider.MachineSpec)) provider.MachineSpec {
		s := spec(id)
		change(&s)
		return s
	}
	onTheirs := with("m-tolerant", func(s *provider.MachineSpec) {
		s.Config["nodeSelector"] = map[string]any{"disk": "fast"}
		s.Config["tolerations"] = []any{map[string]any{"key": "for", "operator": "Equal", "value": "them", "effect": "NoSchedule"}}
		s.Config["requests"] = map[string]any{"cpu": "10m", "memory": "16Mi"}
		s.Config["ephemeralStorage"] = "64Mi"
	})
	refused := with("m-refused", func(s *provider.MachineSpec) { s.Config["nodeSelector"] = map[string]any{"disk": "fast"} })
	patient := with("m-patient", func(s *provider.MachineSpec) {
		s.Resources.GPUs, s.Config["gpuResource"], s.Config["priorityClassName"] = 1, gpu, "patient"
	})
	second := with("m-second", func(s *provider.MachineSpec) {
		s.Resources.GPUs, s.Config["gpuResource"], s.Config["priorityClassName"] = 1, gpu, "patient"
	})
	for _, s := range []provider.MachineSpec{onTheirs, refused, patient} {
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	c.until(t, p, onTheirs.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
	c.until(t, p, refused.ID, func(o provider.Observed) bool { return strings.Contains(o.Reason, "untolerated taint") })
	c.until(t, p, patient.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
	if err := p.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	c.until(t, p, second.ID, func(o provider.Observed) bool { return strings.Contains(o.Reason, "Insufficient "+gpu) })
	pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), name(onTheirs.ID), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := pod.Spec.Containers[0].Resources
	if got := fmt.Sprint(pod.Spec.NodeName, " ", r.Requests.Cpu(), " ", r.Limits.Cpu(), " ", r.Requests.Memory(), " ", r.Limits.Memory(), " ", r.Limits.StorageEphemeral()); got != "n2 10m 50m 16Mi 32Mi 64Mi" {
		t.Errorf("a pod has %s", got)
	}
	c.delete(t, p, second.ID)
	c.delete(t, p, refused.ID)
	hold := func(how string) {
		c.kubectl("-n", "shoal", "patch", "pod", name(patient.ID), "--type=merge", "-p", `{"metadata":{"finalizers":`+how+`}}`)
	}
	hold(`["example.org/seen"]`) // it is to be seen before it has gone

	// Somebody's pod is more urgent than a machine, which has to go, and says so.
	c.kubectl("-n", "default", "run", "urgent", "--image=localhost/pause:1", "--image-pull-policy=Never",
		"--overrides", `{"spec":{"priorityClassName":"urgent","containers":[{"name":"urgent","image":"localhost/pause:1","imagePullPolicy":"Never","resources":{"limits":{"`+gpu+`":"1"}}}]}}`)
	c.until(t, p, patient.ID, func(o provider.Observed) bool { return strings.Contains(o.Reason, "Preempt") })
	hold("null")
	c.kubectl("-n", "default", "delete", "pod", "urgent", "--grace-period=1")
	c.delete(t, p, patient.ID)
	c.delete(t, p, onTheirs.ID)
	c.spread(t)
}

// spread puts machines over nodes.
func (c *cluster) spread(t *testing.T) {
	c.kubectl("taint", "node", "n2", "for-")
	p := c.provider("spread")
	on := map[string]int{}
	for i := range 4 {
		s := spec(fmt.Sprintf("m-spread-%d", i))
		s.Config["spreadOver"] = corev1.LabelHostname
		if err := p.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		c.until(t, p, s.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
		pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), name(s.ID), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		on[pod.Spec.NodeName]++
	}
	if on["n1"] != 2 || on["n2"] != 2 {
		t.Errorf("four machines are on %v", on)
	}
	for i := range 4 {
		c.delete(t, p, shoal.MachineID(fmt.Sprintf("m-spread-%d", i)))
	}
	c.kubectl("taint", "node", "n2", "for=them:NoSchedule")
}
