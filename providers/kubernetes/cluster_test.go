package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/rig"
	"github.com/shoal-pool/shoal/internal/rig/kube"
	"github.com/shoal-pool/shoal/provider"
	"github.com/shoal-pool/shoal/provider/providertest"
)

const (
	root     = "../.."
	image    = "registry.example.org/shoal-small:1"
	patience = 5 * time.Minute // how long a test waits for what takes moments on a quiet host
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil { // they wait more than they compute
		panic(err)
	}
	images := []string{"small"}
	if os.Getenv("SHOAL_PROVE") != "" {
		images = append(images, "science")
	}
	kube.Main(m, root, images...)
}

// cluster is a real one with the namespace and the account that deploy/kubernetes describes.
type cluster struct {
	*kube.Cluster
	t          *testing.T
	dir        string
	kubeconfig string // of Shoal's account
	client     kubernetes.Interface
	admin      kubernetes.Interface
	loaded     bool // the nodes have the image
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("a cluster needs root, and is left out with -short")
	}
	dir, err := os.MkdirTemp("", "shoal-kube-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if c.Cluster, err = kube.Start(t.Context(), kube.Config{Root: root, Dir: filepath.Join(dir, "cluster"), Nodes: 2, Say: func(s string) { t.Log(s) }}); err != nil {
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
	admin, err := c.Admin()
	if err != nil {
		t.Fatal(err)
	}
	c.admin = clientOf(t, admin)
	c.kubectl("apply", "-f", filepath.Join(root, "deploy/kubernetes/base/machines.yaml"))
	c.account()
	return c
}

func clientOf(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// kubectl runs it as the cluster's administrator.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	admin, err := c.Admin()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.Bin(), "kubectl"), append([]string{"--kubeconfig", admin}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir) // where it keeps what it has read
	out, err := rig.Output(cmd)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// account makes a kubeconfig for Shoal's account.
func (c *cluster) account() {
	c.t.Helper()
	b, err := c.Do(c.t.Context(), http.MethodPost, "/api/v1/namespaces/shoal/serviceaccounts/shoal/token", "application/json",
		[]byte(`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":86400}}`))
	var answer struct{ Status struct{ Token string } }
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err == nil {
		c.kubeconfig, err = c.Kubeconfig("shoal", answer.Status.Token)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.client = clientOf(c.t, c.kubeconfig)
}

// loadImage builds the small image with the binaries under test and gives it to the nodes.
func (c *cluster) loadImage() {
	c.t.Helper()
	if c.loaded {
		return
	}
	c.loaded = true
	c.give("small", image)
}

// give builds one of images/ and gives it to the nodes under a name.
func (c *cluster) give(which, image string) {
	c.t.Helper()
	archive := filepath.Join(c.dir, "image.tar")
	if err := kube.Image(c.t.Context(), root, which, archive, image); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Load(c.t.Context(), archive); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Remove(archive); err != nil {
		c.t.Fatal(err)
	}
}

// TestCluster is what pods do, a server in the cluster, and one whose way to the cluster is bad. scripts/test has TestLost run at the same time.
func TestCluster(t *testing.T) {
	c := newCluster(t)
	// Nobody gets a pod for a moment, and then none on one node.
	t.Run("refusals", c.refusals)
	t.Run("cordoned", c.cordoned)
	t.Run("all", func(t *testing.T) {
		t.Run("guide", func(t *testing.T) {
			t.Parallel()
			c.guide(t)
		})
		t.Run("pods", func(t *testing.T) {
			t.Parallel()
			t.Run("conformance", c.conformance)
			t.Run("waiting", c.waiting)
			t.Run("faults", c.faults)
			t.Run("edits", c.edits)
			t.Run("placing", c.placing)
		})
	})
	t.Run("serving", c.serving)
}

// TestLost is what becomes of people and tasks when nodes, and the API server, are lost; and of a cluster that has nothing to do.
func TestLost(t *testing.T) {
	c := newCluster(t)
	t.Run("losses", c.losses)
	t.Run("demo", c.demo) // the last with two nodes: one dies
	t.Run("rest", c.rest)
}

func (c *cluster) provider(installation string) *Provider {
	return New(Config{Client: c.client, Namespaces: []string{"shoal"}, Installation: installation})
}

func spec(id string) provider.MachineSpec {
	return provider.MachineSpec{ID: shoal.MachineID(id), Pool: "lab", Token: "token of " + id, Image: "localhost/pause:1",
		Resources: shoal.Resources{CPUs: 50, Memory: 32 << 20}, Config: map[string]any{"imagePullPolicy": "Never"}, Grace: time.Millisecond,
		Join: provider.Join{Machine: shoal.MachineID(id), Pool: "lab", Token: "secret", Control: "https://" + kube.Host + ":7421", Epoch: 1}}
}

// conformance checks the provider's promises on real pods.
func (c *cluster) conformance(t *testing.T) {
	for i, check := range providertest.Checks() {
		t.Run(check.Name, func(t *testing.T) {
			t.Parallel() // each has an installation of its own
			tag := fmt.Sprintf("check-%d", i)
			cancelled, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := check.Run(cancelled, providertest.Subject{Provider: c.provider(tag), Patience: patience, Poll: 200 * time.Millisecond,
				Spec: func(n int) provider.MachineSpec { return spec(fmt.Sprintf("m-%d-%d", i, n)) },
				Invalid: map[string]provider.MachineSpec{"no token": {ID: "m-1", Image: "x"}, "no image": {ID: "m-1", Token: "x"},
					"the host as an image": {ID: "m-1", Token: "x", Image: "host"}, "windows": {ID: "m-1", Token: "x", Image: "x", OS: "windows"},
					"an unknown setting": {ID: "m-1", Token: "x", Image: "x", Config: map[string]any{"nodeselector2": 1}}},
				Reopen:    func() (provider.Provider, error) { return c.provider(tag), nil },
				Kill:      func(id shoal.MachineID) error { return c.killPod(t.Context(), name(id)) },
				Leftovers: func() ([]string, error) { return c.leftovers(t.Context(), tag) }})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// killPod ends all processes of a pod, of which the host's first process sees every one.
func (c *cluster) killPod(ctx context.Context, name string) error {
	pids, err := c.processes(ctx, name)
	for _, pid := range pids {
		if e := syscall.Kill(pid, syscall.SIGKILL); e != nil && e != syscall.ESRCH {
			err = errors.Join(err, e)
		}
	}
	return err
}

// processes are those of a pod.
func (c *cluster) processes(ctx context.Context, name string) ([]int, error) {
	pod, err := c.admin.CoreV1().Pods("shoal").Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range groups {
		b, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(b), "pod"+string(pod.UID)) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(file, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("pod %s has no processes", pod.Name)
	}
	slices.Sort(pids)
	return pids, nil
}

// leftovers are secrets; those of deleted pods take the cluster's collector a moment.
func (c *cluster) leftovers(ctx context.Context, tag string) (left []string, err error) {
	err = rig.Until(ctx, patience, "secrets go", func() (bool, error) {
		list, err := c.admin.CoreV1().Secrets("shoal").List(ctx, metav1.ListOptions{LabelSelector: labelInstallation + "=" + tag})
		if err != nil {
			return false, err
		}
		left = nil
		for _, s := range list.Items {
			left = append(left, "secret "+s.Name)
		}
		return len(left) == 0, nil
	})
	return left, err
}

// refusals are what the cluster or the provider does not let be made, by kind.
func (c *cluster) refusals(t *testing.T) {
	p := c.provider("refusals")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "small", Namespace: "shoal"}, Spec: corev1.ResourceQuotaSpec{
		Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}}}
	if _, err := c.admin.CoreV1().ResourceQuotas("shoal").Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(t.Context(), patience, "the quota counts", func() (bool, error) {
		return code(p.Check(t.Context(), spec("m-quota"))) == provider.Quota, nil
	}); err != nil {
		t.Error(err)
	}
	if err := p.Create(t.Context(), spec("m-quota")); code(err) != provider.Quota || !strings.Contains(err.Error(), "pods=0") {
		t.Errorf("over a quota: %v", err)
	}
	if err := errors.Join(p.Delete(t.Context(), "m-quota"), c.admin.CoreV1().ResourceQuotas("shoal").Delete(t.Context(), "small", metav1.DeleteOptions{})); err != nil {
		t.Fatal(err)
	}
	if err := rig.Until(t.Context(), patience, "the quota counts no more", func() (bool, error) {
		return p.Check(t.Context(), spec("m-quota")) == nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]struct {
		change func(*provider.MachineSpec)
		code   provider.Code
		says   string
	}{
		"another namespace":  {func(s *provider.MachineSpec) { s.Config["namespace"] = "kube-system" }, provider.Denied, envNamespaces},
		"a claim not there":  {func(s *provider.MachineSpec) { s.Mounts = shareOf("pvc://nothing") }, provider.Invalid, `no claim "nothing"`},
		"smb":                {func(s *provider.MachineSpec) { s.Mounts = shareOf("smb://host/x") }, provider.Invalid, "pvc://NAME"},
		"no priority class":  {func(s *provider.MachineSpec) { s.Config["priorityClassName"] = "none" }, provider.Denied, "none"},
		"requests above":     {func(s *provider.MachineSpec) { s.Config["requests"] = map[string]any{"cpu": "2"} }, provider.Invalid, "cpu"},
		"requests of what":   {func(s *provider.MachineSpec) { s.Config["requests"] = map[string]any{"cpus": "2"} }, provider.Invalid, "cpus"},
		"a wrong toleration": {func(s *provider.MachineSpec) { s.Config["tolerations"] = []any{map[string]any{"operator": "Near"}} }, provider.Invalid, "Near"},
	} {
		sp := spec("m-refused")
		s.change(&sp)
		if err := p.Check(t.Context(), sp); code(err) != s.code || !strings.Contains(err.Error(), s.says) {
			t.Errorf("%s: %v (%s), want %s with %q", what, err, code(err), s.code, s.says)
		}
	}
	withNFS := spec("m-nfs")
	withNFS.Mounts = shareOf("nfs://files.example.org/team")
	if err := p.Check(t.Context(), withNFS); err != nil {
		t.Errorf("a share of NFS: %v", err)
	}
	c.baseline(t)
	// What the account may not do is tried: the rights of deploy/kubernetes are the least that do.
	if _, err := c.client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the account lists the secrets of kube-system: %v", err)
	}
	if _, err := c.client.CoreV1().Secrets("shoal").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("the account lists secrets: %v", err)
	}
}

// baseline has a namespace let in only what Kubernetes calls baseline: machines keep to it, unless they mount directories of nodes.
func (c *cluster) baseline(t *testing.T) {
	c.kubectl("create", "namespace", "careful")
	c.kubectl("label", "namespace", "careful", "pod-security.kubernetes.io/enforce=baseline")
	p := New(Config{Client: c.admin, Namespaces: []string{"careful"}, Installation: "careful"})
	if err := rig.Until(t.Context(), patience, "the namespace has an account", func() (bool, error) {
		_, err := c.admin.CoreV1().ServiceAccounts("careful").Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(t.Context(), spec("m-careful")); err != nil {
		t.Errorf("where only the baseline is let in: %v", err)
	}
	s := spec("m-careful")
	s.Mounts = shareOf("/srv")
	if err := p.Check(t.Context(), s); code(err) != provider.Denied || !strings.Contains(err.Error(), "hostPath") {
		t.Errorf("a directory of nodes where only the baseline is let in: %v", err)
	}
}

func shareOf(source string) []provider.Mount {
	return []provider.Mount{{Share: shoal.Share{Name: "team", Source: source}, Path: "/shared"}}
}

func code(err error) provider.Code {
	if e, ok := errors.AsType[*provider.Error](err); ok {
		return e.Code
	}
	return ""
}

// waiting is what pods say that do not start, or that end by themselves.
func (c *cluster) waiting(t *testing.T) {
	p := c.provider("waiting")
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "unbound", Namespace: "shoal"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Pi")}}}}
	if _, err := c.admin.CoreV1().PersistentVolumeClaims("shoal").Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kubectl("-n", "shoal", "delete", "pvc", "unbound") })
	if err := errors.Join(c.LoadProgram(t.Context(), "localhost/fails:1", filepath.Join(binaries(t), "shoal-agent"), ""),
		c.LoadProgram(t.Context(), "localhost/hers:1", c.Pause(), "1000:1000")); err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]struct {
		id     string
		change func(*provider.MachineSpec)
		phase  provider.Phase
		says   string
	}{
		"its program fails":      {"m-fails", func(s *provider.MachineSpec) { s.Image = "localhost/fails:1" }, provider.PhaseFailed, "exit status 2: Error: usage: shoal-agent"},
		"no node is so large":    {"m-large", func(s *provider.MachineSpec) { s.Resources.CPUs = 900_000 }, provider.PhaseCreating, "Insufficient cpu"},
		"no node has the label":  {"m-label", func(s *provider.MachineSpec) { s.Config["nodeSelector"] = map[string]any{"disk": "none"} }, provider.PhaseCreating, "didn't match"},
		"the image is not there": {"m-image", func(s *provider.MachineSpec) { s.Image = "localhost/absent:1" }, provider.PhaseFailed, "ErrImageNeverPull"},
		"GPUs that nobody has":   {"m-gpu", func(s *provider.MachineSpec) { s.Resources.GPUs = 1 }, provider.PhaseCreating, "nvidia.com/gpu"},
		"it cannot be pulled":    {"m-pull", func(s *provider.MachineSpec) { s.Image, s.Config = "127.0.0.1:1/absent:1", nil }, provider.PhaseCreating, "connection refused"},
		"a claim never bound":    {"m-claim", func(s *provider.MachineSpec) { s.Mounts = shareOf("pvc://unbound") }, provider.PhaseCreating, "unbound"},
		"a directory not on it":  {"m-dir", func(s *provider.MachineSpec) { s.Mounts = shareOf("/nowhere/at/all") }, provider.PhaseCreating, "FailedMount"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			sp := spec(s.id)
			s.change(&sp)
			if err := p.Create(t.Context(), sp); err != nil {
				t.Fatal(err)
			}
			c.until(t, p, sp.ID, func(o provider.Observed) bool { return o.Phase == s.phase && strings.Contains(o.Reason, s.says) })
			if err := p.Delete(t.Context(), sp.ID); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("NFS without its server", func(t *testing.T) {
		t.Parallel()
		sp := spec("m-nfs")
		sp.Mounts = shareOf("nfs://127.0.0.1/team")
		if err := p.Create(t.Context(), sp); err != nil {
			t.Fatal(err)
		}
		// A kernel that knows NFS tries for two minutes, another says at once that it does not.
		c.within(t, p, sp.ID, 5*time.Minute, func(o provider.Observed) bool { return strings.Contains(o.Reason, "-t nfs 127.0.0.1:/team") })
		if err := p.Delete(t.Context(), sp.ID); err != nil {
			t.Error(err)
		}
	})
	t.Run("an image of somebody's", func(t *testing.T) {
		t.Parallel()
		c.rooted(t, p)
	})
	t.Run("the cluster grows", func(t *testing.T) {
		t.Parallel()
		c.grows(t, p)
	})
	t.Run("its node has no room on its disk", func(t *testing.T) {
		t.Parallel()
		c.evicted(t, p)
	})
	t.Run("its node forgot to say why it ended", func(t *testing.T) {
		t.Parallel()
		c.forgotten(t, p)
	})
}

// cordoned is what a cordoned node means for a machine there.
func (c *cluster) cordoned(t *testing.T) {
	p := c.provider("cordoned")
	sp := spec("m-cordon")
	if err := p.Create(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning && o.Trouble == "" })
	pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), name(sp.ID), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cordon := func(on bool) {
		patch := fmt.Sprintf(`{"spec":{"unschedulable":%v}}`, on)
		if _, err := c.Do(t.Context(), http.MethodPatch, "/api/v1/nodes/"+pod.Spec.NodeName, "application/merge-patch+json", []byte(patch)); err != nil {
			t.Fatal(err)
		}
	}
	cordon(true)
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return strings.Contains(o.Trouble, "cordoned") })
	// Whoever drains the node has to wait for the people on it.
	evict := []byte(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"` + pod.Name + `","namespace":"shoal"}}`)
	if _, err := c.Do(t.Context(), http.MethodPost, "/api/v1/namespaces/shoal/pods/"+pod.Name+"/eviction", "application/json", evict); err == nil || !strings.Contains(err.Error(), "disruption budget") {
		t.Errorf("an eviction: %v", err)
	}
	cordon(false)
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return o.Trouble == "" })
	if err := p.Delete(t.Context(), sp.ID); err != nil {
		t.Error(err)
	}
}

// process makes a machine, and returns a process of it once it runs.
func (c *cluster) process(t *testing.T, p *Provider, sp provider.MachineSpec) (pid int) {
	t.Helper()
	if err := p.Create(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
	pids, err := c.processes(t.Context(), name(sp.ID))
	if err != nil {
		t.Fatal(err)
	}
	return pids[len(pids)-1]
}

// rooted: images may say that they run as somebody, and the first process of a machine has to be root's.
func (c *cluster) rooted(t *testing.T, p *Provider) {
	sp := spec("m-rooted")
	sp.Image = "localhost/hers:1"
	pid := c.process(t, p, sp)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(b), "\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n") {
		t.Errorf("its first process is %s, %v", b, err)
	}
	if err := p.Delete(t.Context(), sp.ID); err != nil {
		t.Error(err)
	}
}

// grows: a machine that no node takes is what makes an autoscaler of clusters add one, and the new node gets it. While it is there the node is
// not taken away.
func (c *cluster) grows(t *testing.T, p *Provider) {
	sp := spec("m-grows")
	sp.Config["nodeSelector"] = map[string]any{"made": "lately"}
	if err := p.Create(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return strings.Contains(o.Reason, "no node takes it") })
	if got := c.kubectl("-n", "shoal", "get", "pod", name(sp.ID), "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason} {.metadata.annotations.cluster-autoscaler\.kubernetes\.io/safe-to-evict}`); got != "Unschedulable false" {
		t.Errorf("an autoscaler sees %q", got)
	}
	c.kubectl("label", "node", "n1", "made=lately")
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
	c.kubectl("label", "node", "n1", "made-")
	if err := p.Delete(t.Context(), sp.ID); err != nil {
		t.Error(err)
	}
}

// evicted: a machine that writes more to its own disk than it may is ended by its node, which says why.
func (c *cluster) evicted(t *testing.T, p *Provider) {
	sp := spec("m-evicted")
	sp.Config["ephemeralStorage"] = "1Mi"
	pid := c.process(t, p, sp)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/much", pid), make([]byte, 8<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	c.until(t, p, sp.ID, func(o provider.Observed) bool {
		return o.Phase == provider.PhaseFailed && strings.Contains(o.Reason, "ephemeral")
	})
	if err := p.Delete(t.Context(), sp.ID); err != nil {
		t.Error(err)
	}
}

// forgotten: a pod's record may say no more of an eviction than that its first process ended well.
func (c *cluster) forgotten(t *testing.T, p *Provider) {
	sp := spec("m-forgotten")
	if err := p.Create(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	c.until(t, p, sp.ID, func(o provider.Observed) bool { return o.Phase == provider.PhaseRunning })
	pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), name(sp.ID), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.admin.CoreV1().Events("shoal").Create(t.Context(), &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "forgotten"}, Type: corev1.EventTypeWarning, Reason: "Evicted", Message: "its node wanted its memory",
		InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "shoal", Name: pod.Name, UID: pod.UID},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pids, err := c.processes(t.Context(), pod.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids[len(pids)-1], syscall.SIGTERM); err != nil { // which ends it with status 0
		t.Fatal(err)
	}
	c.until(t, p, sp.ID, func(o provider.Observed) bool {
		return o.Phase == provider.PhaseFailed && o.Reason == "Evicted: its node wanted its memory"
	})
	if err := p.Delete(t.Context(), sp.ID); err != nil {
		t.Error(err)
	}
}

// until waits until a machine is seen as it should be.
func (c *cluster) until(t *testing.T, p *Provider, id shoal.MachineID, is func(provider.Observed) bool) {
	t.Helper()
	c.within(t, p, id, patience, is)
}

func (c *cluster) within(t *testing.T, p *Provider, id shoal.MachineID, limit time.Duration, is func(provider.Observed) bool) {
	t.Helper()
	var last provider.Observed
	if err := rig.Until(t.Context(), limit, "machine "+string(id)+" is as it should be", func() (bool, error) {
		o, err := p.Observe(t.Context())
		for _, m := range o.Machines {
			if m.ID == id {
				last = m
				return is(m), err
			}
		}
		return false, err
	}); err != nil {
		t.Fatalf("%v; last seen as %+v", err, last)
	}
}
