package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Node is a machine of the cluster: namespaces with a containerd and a kubelet. What it writes is in a directory of its own.
type Node struct {
	Name    string
	Address string
	index   int
	dir     string
	cluster *Cluster
}

func nodeName(i int) string { return "n" + strconv.Itoa(i+1) }

func nodeAddress(i int) string { return network + strconv.Itoa(i+11) }

// pods is the network of a node's pods.
func pods(i int) string { return fmt.Sprintf("10.97.%d.", i+1) }

// script is what a node's first process does. Its mounts are its own: what is written to the host's directories goes to the node's,
// and what the kubelet would write into the kernel's settings to files that lie over them, since the kernel is everybody's.
const script = `set -eu
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$DIR/log" /var/log
for d in /var/lib /usr/libexec /opt /etc; do
	[ -d $d ] || continue
	mkdir -p "$DIR/over$d" "$DIR/work$d"
	mount -t overlay -o "lowerdir=$d,upperdir=$DIR/over$d,workdir=$DIR/work$d" overlay $d
done
for f in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	over="$DIR/over/$(echo "$f" | tr / _)"
	cat "/proc/sys/$f" >"$over"
	mount --bind "$over" "/proc/sys/$f"
done
"$PROGRAMS/node/usr/bin/containerd" --config "$DIR/containerd.toml" >>"$DIR/containerd.log" 2>&1 &
containerd=$!
for i in $(seq 300); do [ -S /run/containerd/containerd.sock ] && break; sleep 0.1; done
# It gives up if containerd listens, and is not ready yet.
until "$PROGRAMS/hyperkube" kubelet --config="$DIR/kubelet.yaml" --kubeconfig="$CONFIG" --hostname-override="$NAME" --node-ip="$ADDRESS" \
	--root-dir="$DIR/kubelet" --cert-dir="$DIR/pki" >>"$DIR/kubelet.log" 2>&1; do
	tail -n 3 "$DIR/kubelet.log" | grep -q 'server is not initialized yet' || exit 1
	sleep 0.1
done &
kubelet=$!
"$PROGRAMS/hyperkube" kube-proxy --config="$DIR/proxy.yaml" --hostname-override="$NAME" >>"$DIR/proxy.log" 2>&1 &
proxy=$!
trap 'kill $containerd $kubelet $proxy; exit 1' TERM
while kill -0 $containerd 2>/dev/null && kill -0 $kubelet 2>/dev/null && kill -0 $proxy 2>/dev/null; do sleep 1; done
tail -n 5 "$DIR/containerd.log" "$DIR/kubelet.log" "$DIR/proxy.log"
exit 1
`

const containerdConfig = `version = 2
root = "%[1]s/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[2]s/node/usr/lib/cni"
    conf_dir = "%[1]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %[1]q
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%[2]s
failCgroupV1: false
podLogsDir: %[3]s/pods
resolvConf: %[3]s/resolv.conf
makeIPTablesUtilChains: false
failSwapOn: false
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
enforceNodeAllocatable: [pods]
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
syncFrequency: 5s
clusterDNS: [%[4]q]
clusterDomain: cluster.local
`

// proxyConfig is of what leads to services. The kernel's settings are everybody's, so it is to change none of them. What comes from pods is
// known by where it comes in: Host, which is outside for balancers, has an address beside theirs, and were it taken for a pod it would be led
// to other nodes, whose answers it does not expect.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cni0}
clientConnection: {kubeconfig: %[1]q}
bindAddress: %[2]s
healthzBindAddress: ""
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

// proxyUser is who it is.
const proxyUser = "system:kube-proxy"

// prepare writes what a node reads, and connects it.
func (n *Node) prepare(ctx context.Context) (env []string, err error) {
	c := n.cluster
	group := c.group + "/" + n.Name
	net := map[string]any{"cniVersion": "1.0.0", "name": "pods", "plugins": []any{map[string]any{"type": "bridge", "bridge": "cni0", "isGateway": true,
		"ipMasq": false, "ipam": map[string]any{"type": "host-local", "ranges": []any{[]any{map[string]any{"subnet": pods(n.index) + "0/24"}}},
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}}}}}}
	conf, err := json.Marshal(net)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"log", "over", "pki", "cni", "pods", "kubelet"} {
		if err := os.MkdirAll(filepath.Join(n.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	proxy, err := c.Kubeconfig(proxyUser, c.tokens[proxyUser])
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"proxy.yaml":           fmt.Sprintf(proxyConfig, proxy, n.Address),
		"cni/10-pods.conflist": string(conf), "resolv.conf": "",
		"containerd.toml": fmt.Sprintf(containerdConfig, n.dir, c.programs.dir), "kubelet.yaml": fmt.Sprintf(kubeletConfig, n.Address, group, n.dir, Host),
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	user := "system:node:" + n.Name
	config, err := c.Kubeconfig(user, c.tokens[user])
	if err != nil {
		return nil, err
	}
	return append(os.Environ(), "DIR="+n.dir, "PROGRAMS="+c.programs.dir, "CONFIG="+config, "NAME="+n.Name, "ADDRESS="+n.Address), makeGroup(group)
}

// startNode starts one and does not wait for it.
func (c *Cluster) startNode(ctx context.Context, i int) (*Node, error) {
	n := &Node{Name: nodeName(i), Address: nodeAddress(i), index: i, dir: c.path(nodeName(i)), cluster: c}
	env, err := n.prepare(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("unshare", "--net", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child", "sh", "-c",
		`while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done; ip link set lo up; ip address add "$ADDRESS/24" dev eth0; ip link set eth0 up
ip route add default via `+Host+`; echo 1 >/proc/sys/net/ipv4/ip_forward; `+script)
	cmd.Env = env
	if err := c.launch(n.Name, cmd); err != nil {
		return nil, err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := c.Until(ctx, "node "+n.Name+" has a network", func() (bool, error) {
		own, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			return false, err
		}
		its, err := os.Readlink("/proc/" + pid + "/ns/net")
		return err == nil && its != own, nil
	}); err != nil {
		return nil, err
	}
	outer := "to-" + n.Name
	_ = exec.Command("ip", "link", "delete", outer).Run() // of a former life
	if err := errors.Join(
		run(ctx, "", nil, "ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", pid),
		run(ctx, "", nil, "ip", "link", "set", outer, "master", "cluster", "up"),
		run(ctx, "", nil, "ip", "route", "replace", pods(i)+"0/24", "via", n.Address)); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.nodes = append(slices.DeleteFunc(c.nodes, func(former *Node) bool { return former.Name == n.Name }), n)
	c.mu.Unlock()
	return n, n.load(ctx, "localhost/pause:1", c.Pause(), "")
}

// WaitNode waits until pods can be placed on a node.
func (c *Cluster) WaitNode(ctx context.Context, i int) error {
	return c.Until(ctx, "node "+nodeName(i)+" is ready", func() (bool, error) {
		b, err := c.Get(ctx, "/api/v1/nodes/"+nodeName(i))
		var node struct {
			Spec   struct{ Taints []any }
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
		if err != nil || json.Unmarshal(b, &node) != nil {
			return false, nil // not there yet
		}
		for _, cond := range node.Status.Conditions {
			if cond.Type == "Ready" && cond.Status == "True" {
				return len(node.Spec.Taints) == 0, nil
			}
		}
		return false, nil
	})
}

// KillNode ends everything on a node at once, as when its power fails: nothing there says goodbye.
func (c *Cluster) KillNode(ctx context.Context, i int) error {
	return errors.Join(c.CutNode(ctx, i), c.stop(nodeName(i)))
}

// CutNode takes a node off the network. What runs there runs on.
func (c *Cluster) CutNode(ctx context.Context, i int) error {
	return run(ctx, "", nil, "ip", "link", "set", "to-"+nodeName(i), "down")
}

// JoinNode gives a node its network back, and waits until it is heard of.
func (c *Cluster) JoinNode(ctx context.Context, i int) error {
	if err := run(ctx, "", nil, "ip", "link", "set", "to-"+nodeName(i), "up"); err != nil {
		return err
	}
	return c.WaitNode(ctx, i)
}

// StartNode starts a node again that was killed.
func (c *Cluster) StartNode(ctx context.Context, i int) error {
	if err := removeGroups(c.group + "/" + nodeName(i)); err != nil {
		return err
	}
	if _, err := c.startNode(ctx, i); err != nil {
		return err
	}
	return c.WaitNode(ctx, i)
}

// load gives a node an image that is one static program, and whom it runs as; empty: root.
func (n *Node) load(ctx context.Context, name, program, user string) error {
	file := filepath.Join(n.dir, "image.tar")
	if err := writeImage(file, name, program, user); err != nil {
		return err
	}
	defer os.Remove(file)
	return n.importImage(ctx, file)
}

// LoadProgram gives every node an image that is one static program, and whom it runs as; empty: root.
func (c *Cluster) LoadProgram(ctx context.Context, name, program, user string) error {
	for _, n := range c.nodes {
		if err := n.load(ctx, name, program, user); err != nil {
			return err
		}
	}
	return nil
}

// Pause is a program that does nothing, as an image may be.
func (c *Cluster) Pause() string { return filepath.Join(c.programs.dir, "pause") }

// Load gives every node an image from an archive as docker save writes it.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	errs := make([]error, len(c.nodes))
	var loads sync.WaitGroup
	for i, n := range c.nodes {
		loads.Go(func() { errs[i] = n.importImage(ctx, archive) })
	}
	loads.Wait()
	return errors.Join(errs...)
}

func (n *Node) importImage(ctx context.Context, archive string) error {
	ctr := filepath.Join(n.cluster.programs.dir, "node/usr/bin/ctr")
	var out []byte
	return n.cluster.Until(ctx, "node "+n.Name+" takes an image", func() (bool, error) {
		pid, err := n.pid()
		if err != nil {
			return false, nil //nolint:nilerr // it is starting
		}
		cmd := exec.CommandContext(ctx, "nsenter", "--target", pid, "--mount", ctr, "--address", "/run/containerd/containerd.sock", "-n", "k8s.io", "images", "import", archive)
		out, err = cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "connection refused") && !strings.Contains(string(out), "no such file") && !strings.Contains(string(out), "failed to dial") {
			return false, fmt.Errorf("%w: %s", err, out)
		}
		return err == nil, nil
	})
}

// pid is a process inside the node.
func (n *Node) pid() (string, error) {
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		if s.name == n.Name {
			p := strconv.Itoa(s.cmd.Process.Pid)
			b, err := os.ReadFile("/proc/" + p + "/task/" + p + "/children")
			if f := strings.Fields(string(b)); err == nil && len(f) > 0 {
				return f[0], nil
			}
			return "", errors.Join(errors.New("it has no process yet"), err)
		}
	}
	return "", errors.New("it is not running")
}
