package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-pool/shoal/internal/rig"
	pgcluster "github.com/shoal-pool/shoal/internal/rig/cluster"
	"github.com/shoal-pool/shoal/internal/rig/kube"
	"github.com/shoal-pool/shoal/provider"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// desk is where somebody works who has kubectl, ssh and the repository.
type desk struct {
	t   *testing.T
	dir string
	env []string
}

// newDesk makes one, outside the cluster.
func (c *cluster) newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, dir: t.TempDir()}
	at, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := c.Admin()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deploy", "images"} {
		if err := os.Symlink(filepath.Join(at, name), filepath.Join(d.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	d.env = append(os.Environ(), "KUBECONFIG="+admin, "HOME="+d.dir, "SHOAL_BIN="+binaries(t), "SHOAL_IMAGE_CACHE="+rig.Cache,
		"PATH="+filepath.Join(d.dir, "bin")+":"+c.Bin()+":"+binaries(t)+":"+os.Getenv("PATH"))
	// OpenSSH's client does not look at HOME.
	ssh := fmt.Sprintf("#!/bin/sh\nexec /usr/bin/ssh -F none -i %[1]s/.ssh/id_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=%[1]s/known_hosts \"$@\"\n", d.dir)
	if err := os.Mkdir(filepath.Join(d.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "bin", "ssh"), []byte(ssh), 0o755); err != nil {
		t.Fatal(err)
	}
	d.sh("mkdir .ssh && ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
	return d
}

// in is the desk for a part of the test.
func (d desk) in(t *testing.T) *desk {
	d.t = t
	return &d
}

// sh runs a script and returns what it printed.
func (d *desk) sh(script string) string {
	d.t.Helper()
	out, err := d.try(script)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// command is a script's. A variable of one script is there in the next.
func (d *desk) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-euc", `[ ! -e "$HOME/vars" ] || . "$HOME/vars"; trap 'set | grep ^address= >"$HOME/vars.$$" && mv "$HOME/vars.$$" "$HOME/vars" || true' EXIT`+"\n"+script)
	cmd.Dir, cmd.Env = d.dir, d.env
	return cmd
}

func (d *desk) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*patience)
	defer cancel()
	out, err := rig.Output(d.command(ctx, script))
	if err != nil {
		err = fmt.Errorf("%w; it printed %q", err, out)
	}
	return out, err
}

// guide runs the commands of docs/guides/kubernetes.md: Shoal is deployed in the cluster, somebody logs in from outside and runs a job, and
// the server's pod goes and comes.
func (c *cluster) guide(t *testing.T) {
	d := c.newDesk(t)
	c.storage(t)
	around, stop := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	parts.Go(func() { c.Balance(around) })
	parts.Go(func() { c.Enforce(around) })
	database := c.database(t, d)
	text, err := os.ReadFile(filepath.Join(root, "docs/guides/kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // what the servers say where it did not go well
		if t.Failed() {
			out, err := d.try(`kubectl -n shoal get pods,pvc -o wide; kubectl -n shoal get events | tail -n 30; for p in shoal-0 shoal-1; do kubectl -n shoal logs --tail=20 $p; done`)
			t.Log(out, err)
		}
	}()
	for _, b := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(b[1], "restore") { // one server is left behind here
			t.Run("the server is killed", func(t *testing.T) { c.survive(t, d.in(t)) })
			t.Run("a gateway is replaced", func(t *testing.T) { replaced(d.in(t)) })
			t.Run("why", func(t *testing.T) { c.explain(t, d.in(t)) })
			t.Run("policies", c.policies)
			t.Run("confined", c.confined)
		}
		t.Log(d.sh("set -x\n" + strings.ReplaceAll(b[1], "db.example.org", database)))
		c.push(t, d)
	}
	t.Run("desktops", func(t *testing.T) { c.desktops(t, d.in(t)) })
}

// database is a PostgreSQL of the cluster's, whose address comes back. The password lies where the guide has it.
func (c *cluster) database(t *testing.T, d *desk) string {
	t.Helper()
	hba := filepath.Join(c.dir, "pg_hba.conf")
	if err := errors.Join(os.WriteFile(hba, []byte("local all all trust\nhost shoal shoal 10.97.0.0/16 scram-sha-256\n"), 0o644), os.Chmod(c.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	pg, err := pgcluster.New(t.Context(), "fsync=off", "listen_addresses="+kube.Host, "hba_file="+hba)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Close(); err != nil {
			t.Error(err)
		}
	})
	address, err := pg.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.sh(`psql -q '` + address + `' -c "ALTER ROLE shoal PASSWORD 'a secret'" -c "CREATE DATABASE shoal"
umask 077; echo "` + kube.Host + `:5432:shoal:shoal:a secret" >pgpass`)
	return kube.Host
}

// survive kills the server's process while a job runs and somebody is there, and finds everything again.
func (c *cluster) survive(t *testing.T, d *desk) {
	talks, _ := d.talk("ssh alice@$address cat")
	job := strings.TrimSpace(d.sh(`ssh alice@$address sh <<'EOF'
echo kept >notes
shoal run -q --array 1-4 -- sh -c 'until [ -e go ]; do sleep 0.2; done; echo once >>task-$SHOAL_ARRAY_INDEX; echo said by $SHOAL_ARRAY_INDEX'
EOF`))
	d.retry(`ssh alice@$address shoal job show ` + job + ` | grep running`)
	talks("before")
	if err := c.killPod(t.Context(), "shoal-0"); err != nil {
		t.Fatal(err)
	}
	talks("while there is no server")
	d.sh(`ssh alice@$address true`) // by what her gateway knows, or once the server answers
	if err := rig.Until(t.Context(), patience, "its container is started again", func() (bool, error) {
		pod, err := c.admin.CoreV1().Pods("shoal").Get(t.Context(), "shoal-0", metav1.GetOptions{})
		return err == nil && len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].RestartCount > 0 && pod.Status.ContainerStatuses[0].Ready, err
	}); err != nil {
		t.Fatal(err)
	}
	talks("after")
	out := d.sh(`ssh alice@$address sh <<'EOF'
cat notes
touch go
shoal job wait ` + job + `
shoal job logs ` + job + ` --task 3
cat task-*
EOF`)
	t.Log(out)
	if strings.Count(out, "once") != 4 || !strings.Contains(out, "kept") || !strings.Contains(out, "said by 3") {
		t.Errorf("after the server was killed: %s", out)
	}
}

// replaced has the gateways' pods made anew, as for a new version. They are who they were, without their tokens, which were good once. Who is
// connected through one stays until she goes, and others come in meanwhile at any time: none of those who log in, one after the other, is refused.
func replaced(d *desk) {
	const gateways = `kubectl -n shoal exec shoal-0 -- shoal gateway list -o json`
	d.retry(`[ "$(` + gateways + ` | jq 'map(.connections // 0) | add')" = 0 ]`) // those of before
	talks, leave := d.talk("ssh alice@$address cat")
	talks("before")
	d.retry(gateways + ` | jq -e 'map(.connections // 0) | add == 1'`)
	hers := strings.TrimSpace(d.sh(gateways + ` | jq -r '.[] | select(.connections == 1) | .name'`))
	came, end := d.talk(`while ! [ -e updated ]; do ssh -n alice@$address true; done; cat`)
	d.sh(`kubectl -n shoal delete secret shoal-gateways
kubectl -n shoal rollout restart statefulset shoal-gateway`)
	d.retry(`kubectl -n shoal logs ` + hers + ` | grep 'ssh connections go on here'`)
	d.retry(`ssh -o ConnectTimeout=10 alice@$address true`)
	talks("while her gateway is to end")
	d.sh(`kubectl -n shoal get pod ` + hers + ` -o jsonpath='{.metadata.deletionTimestamp}' | grep .`)
	leave()
	d.sh(`kubectl -n shoal rollout status statefulset shoal-gateway --timeout=5m
touch updated`)
	came("all have come in")
	end()
	d.retry(`[ "$(kubectl -n shoal exec shoal-0 -- shoal gateway list | grep -c connected)" = 2 ]`)
	d.sh(`ssh alice@$address true`) // by the same host key
}

// talk starts a script that says again what it is told, as long as the test lasts. It returns what tells it, and what ends it sooner.
func (d *desk) talk(script string) (tell func(text string), leave func()) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), 4*patience)
	d.t.Cleanup(cancel)
	cmd := d.command(ctx, script)
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	leave = sync.OnceFunc(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			d.t.Errorf("%s: %v", script, err)
		}
	})
	d.t.Cleanup(leave)
	lines := bufio.NewReader(out)
	return func(text string) {
		d.t.Helper()
		_, err := fmt.Fprintln(in, text)
		if line, e := lines.ReadString('\n'); err != nil || e != nil || line != text+"\n" {
			d.t.Errorf("%s: %q came back for %q: %v, %v", script, line, text, err, e)
		}
	}, leave
}

// retry runs a script until it succeeds: a load balancer takes a moment to see what is ready.
func (d *desk) retry(script string) {
	d.t.Helper()
	var last error
	if err := rig.Until(d.t.Context(), patience, script, func() (bool, error) {
		_, last = d.try(script)
		return last == nil, nil
	}); err != nil {
		d.t.Fatalf("%v: %v", err, last)
	}
}

// desktops have the same certificate, whichever of two servers leads.
func (c *cluster) desktops(t *testing.T, d *desk) {
	const leads = `until leader=$(kubectl -n shoal get pods -l app.kubernetes.io/name=shoal -o json | jq -er '.items[] | select(.status.conditions[] | .type == "Ready" and .status == "True") | .metadata.name'); do sleep 0.2; done
`
	const ask = leads + `kubectl -n shoal exec $leader -- shoal --as alice desktop studio --from 192.0.2.7 -o json | jq -er .fingerprint`
	d.sh(leads + `kubectl -n shoal exec -i $leader -- shoal apply -f - <<'EOF'
kind: Pool
name: studio
provider: kubernetes
image: registry.example.org/shoal-small:1
machine: {cpus: 0.1, memory: 128MiB}
size: {min: 0, max: 1}
endpoints: [{name: desktop, protocol: rdp, listen: 3389}]
EOF`)
	first := d.sh(ask)
	d.sh(leads + `kubectl -n shoal delete pod $leader --grace-period=0 --force`)
	d.retry(ask)
	if second := d.sh(ask); second != first {
		t.Errorf("the certificate was %s, and is %s with the other server", first, second)
	}
	d.sh(leads + `kubectl -n shoal exec $leader -- shoal pool delete studio`)
}

// explain lets pools fail in the ways of clusters, and asks why.
func (c *cluster) explain(t *testing.T, d *desk) {
	d.sh(`kubectl apply -f - <<'EOF'
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: waiting, namespace: shoal}
spec: {accessModes: [ReadWriteMany], resources: {requests: {storage: 1Pi}}}
EOF
kubectl -n shoal exec -i shoal-0 -- shoal apply -f - <<'EOF'
kind: Share
name: waiting
source: pvc://waiting
EOF`)
	const small = "registry.example.org/shoal-small:1"
	for _, p := range []struct {
		name, image, machine, more, says string
		mend                             func() // what an administrator of the cluster does then
	}{
		{"no-image", "127.0.0.1:1/absent:1", "{cpus: 0.05, memory: 64MiB}", "", "connection refused", nil},
		{"too-large", small, "{cpus: 900, memory: 64MiB}", "", "Insufficient cpu", nil},
		{"no-volume", small, "{cpus: 0.05, memory: 64MiB}", "mounts: [{share: waiting, path: /data}]\n", "unbound", func() { c.volume(t, "waiting", "1Pi", corev1.ReadWriteMany, 0) }},
		{"no-gpu", small, "{cpus: 0.05, memory: 64MiB, gpus: 1}", "", "Insufficient nvidia.com/gpu", nil},
	} {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			d := d.in(t)
			d.sh("kubectl -n shoal exec -i shoal-0 -- shoal apply -f - <<'EOF'\nkind: Pool\nname: " + p.name + "\nprovider: kubernetes\nimage: " + p.image +
				"\nuses: [batch]\nmachine: " + p.machine + "\nsize: {min: 1, max: 1}\n" + p.more + "EOF")
			c.why(t, d, p.name, p.says)
			if p.mend != nil {
				p.mend()
				d.retry("kubectl -n shoal exec shoal-0 -- shoal machine list -p " + p.name + " | grep ready")
			}
			d.sh("kubectl -n shoal exec shoal-0 -- shoal pool delete " + p.name)
		})
	}
	t.Run("quota", func(t *testing.T) {
		t.Parallel()
		c.scarce(t, d.in(t))
	})
	c.why(t, d, "lab", "no control group for each user")
}

// scarce has a quota for the pods of a priority, so that other pods are made meanwhile.
func (c *cluster) scarce(t *testing.T, d *desk) {
	d.sh(`kubectl create priorityclass scarce --value=1
kubectl -n shoal exec -i shoal-0 -- shoal apply -f - <<'EOF'
kind: Pool
name: scarce
provider: kubernetes
image: registry.example.org/shoal-small:1
uses: [batch]
machine: {cpus: 0.05, memory: 64MiB}
size: {min: 0, max: 2}
providerConfig: {priorityClassName: scarce}
EOF
kubectl apply -f - <<'EOF'
apiVersion: v1
kind: ResourceQuota
metadata: {name: small, namespace: shoal}
spec:
  hard: {pods: "0"}
  scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [scarce]}]}
EOF`)
	p, one := c.provider("scarce"), spec("m-scarce")
	one.Config["priorityClassName"] = "scarce"
	if err := rig.Until(t.Context(), patience, "the quota counts", func() (bool, error) {
		return code(p.Check(t.Context(), one)) == provider.Quota, nil
	}); err != nil {
		t.Fatal(err)
	}
	d.sh("kubectl -n shoal exec shoal-0 -- shoal pool scale scarce --size 2")
	c.why(t, d, "scarce", "exceeded quota")
	d.sh("kubectl -n shoal delete quota small")
	d.retry(`[ "$(kubectl -n shoal exec shoal-0 -- shoal machine list -p scarce | grep -c ready)" = 2 ]`)
	d.sh("kubectl -n shoal exec shoal-0 -- shoal pool delete scarce")
}

// why asks about a pool and its machines until the answer has a word.
func (c *cluster) why(t *testing.T, d *desk, pool, word string) {
	t.Helper()
	var out string
	if err := rig.Until(t.Context(), patience, "shoal why says "+word, func() (bool, error) {
		var err error
		out, err = d.try(`ask() { kubectl -n shoal exec shoal-0 -- shoal "$@"; }
ask why pool ` + pool + `; for m in $(ask machine list -p ` + pool + ` -o json | jq -r '.[].id'); do ask why machine $m; done`)
		return strings.Contains(out, word), err
	}); err != nil {
		t.Errorf("%v: %s", err, out)
		return
	}
	t.Log(out)
}

// push gives the nodes the images that were made, as a registry would.
func (c *cluster) push(t *testing.T, d *desk) {
	t.Helper()
	archives, err := filepath.Glob(filepath.Join(d.dir, "shoal-*.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range archives {
		if err := c.Load(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(a); err != nil {
			t.Fatal(err)
		}
		c.loaded = c.loaded || strings.Contains(a, "small")
	}
}

// storage is what a cluster's administrator provides: disks for claims, one of which many nodes can mount.
func (c *cluster) storage(t *testing.T) {
	t.Helper()
	c.volume(t, "data", "10Gi", corev1.ReadWriteOnce, serverAccount)
	c.volume(t, "team", "100Gi", corev1.ReadWriteMany, 0)
	c.volume(t, "output", "50Gi", corev1.ReadWriteMany, serverAccount, "output", "desktops")
	for i := range 2 {
		c.volume(t, fmt.Sprintf("gateway-%d", i), "1Gi", corev1.ReadWriteOnce, serverAccount)
	}
}

// serverAccount is the server's in its pod: directories of nodes know no fsGroup.
const serverAccount = 65532

func (c *cluster) volume(t *testing.T, name, size string, mode corev1.PersistentVolumeAccessMode, owner int, below ...string) {
	t.Helper()
	dir := filepath.Join(c.dir, "volume-"+name)
	for _, sub := range append([]string{"."}, below...) {
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, sub), 0o755), os.Chown(filepath.Join(dir, sub), owner, owner)); err != nil {
			t.Fatal(err)
		}
	}
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}, AccessModes: []corev1.PersistentVolumeAccessMode{mode},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	if _, err := c.admin.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
