package main_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// attemptKey is a key pair as the control plane makes one for each attempt with several nodes.
func attemptKey(t *testing.T) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(line))
}

// output is what an attempt has said on a machine so far, and its newest report.
func (c *fakeControl) output(id shoal.MachineID, ref shoal.AttemptRef) (string, api.TaskReport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []byte
	var last api.TaskReport
	for i, rep := range c.reports {
		if c.from[i] != id {
			continue
		}
		for _, o := range rep.Output {
			if o.Ref == ref && o.Stream == "stdout" && o.Offset <= int64(len(out)) {
				out = append(out[:o.Offset], o.Data...)
			}
		}
		for _, r := range rep.Tasks {
			if r.Ref == ref {
				last = r
			}
		}
	}
	return string(out), last
}

// The nodes of an attempt, and nobody else, log in to each other by plain ssh while it lives; what comes so is the
// attempt's and ends with it.
func TestNodesLogInToEachOther(t *testing.T) {
	w := newWorld(t)
	nodes := []shoal.MachineID{"m-gang-a", "m-gang-b"}
	var addrs []string
	private, public := attemptKey(t)
	access := &api.TaskSSH{Key: private, Authorized: public}
	for _, id := range nodes {
		addr := w.machine(string(id), team(7))
		addrs = append(addrs, addr)
		w.control.mu.Lock()
		key := w.control.joins[id][0].HostKey
		w.control.mu.Unlock()
		access.Nodes = append(access.Nodes, api.NodeReach{Name: id, Address: addr, HostKey: key})
	}
	ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "41"}, Attempt: 1}
	order := api.TaskOrder{Ref: ref, User: "alice", SSH: access, Resources: shoal.Resources{CPUs: 500, Memory: 128 << 20}}
	idle := order
	idle.Idle = true
	w.control.send(nodes[1], api.Record{Run: &idle})
	state := func(i int) shoal.JobState { _, r := w.control.output(nodes[i], ref); return r.State }
	w.until("the second node keeps its place", func() bool { return state(1) == shoal.JobRunning })
	order.Command = `cp ` + api.TaskDir(ref) + `/ssh_key ~/stolen
		ssh m-gang-b 'hostname; id -un; echo $SHOAL_SCRATCH; cat /proc/self/cgroup | grep -c /u20001/41.0.1'
		ssh m-gang-a hostname
		ssh -n m-gang-b 'setsid -f sh -c "trap \"\" TERM HUP; exec sleep 4321" >/dev/null 2>&1 </dev/null'
		ssh m-gang-b 'touch ~/came; exec sleep 4321' &
		until [ -e ~/came ]; do sleep 0.05; done; echo ready; exec sleep 4321`
	w.control.send(nodes[0], api.Record{Run: &order})
	w.until("the first node has been there and back", func() bool {
		out, r := w.control.output(nodes[0], ref)
		if r.State.Ended() && r.State != "" {
			t.Fatalf("it ended: %+v: %s", r, out)
		}
		return strings.HasSuffix(out, "ready\n")
	})
	out, _ := w.control.output(nodes[0], ref)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 6 || lines[0] != "m-gang-b" || lines[1] != "alice" || lines[2] != api.ScratchDir(ref) || lines[3] == "0" || lines[4] != "m-gang-a" {
		t.Errorf("the first node says %q", lines)
	}
	if act := w.in("m-gang-b", "ls "+api.TaskDir(ref)); !strings.Contains(act, "ssh_key") {
		t.Errorf("the second has %q", act)
	}

	host := strings.TrimSuffix(addrs[1], ":22")
	const plain = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=10"
	refused := func(when, who, command string) {
		t.Helper()
		if out, err := w.ssh(addrs[0], who, command); err == nil {
			t.Errorf("%s: %s did %s: %s", when, who, command, out)
		}
	}
	refused("meanwhile", "alice", "ssh "+plain+" m-gang-b true")
	refused("meanwhile", "alice", "ssh "+plain+" "+host+" true")
	refused("meanwhile", "bob", "ssh "+plain+" m-gang-b true")
	refused("meanwhile", "bob", "cat "+api.TaskDir(ref)+"/ssh_key")
	refused("meanwhile", "bob", "cat /run/shoal/passes/live/alice/*")
	w.must(addrs[0], "alice", "cp ~/stolen /tmp/stolen && chmod 644 /tmp/stolen")
	refused("meanwhile", "bob", "umask 077; cat /tmp/stolen > ~/stolen; ssh "+plain+" -i ~/stolen "+host+" true")
	// From elsewhere than the nodes the key is of no use.
	file := filepath.Join(w.dir, "stolen")
	if err := os.WriteFile(file, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	fromOutside := func() ([]byte, error) {
		return exec.Command("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "IdentitiesOnly=yes", "-i", file, "alice@"+host, "true").CombinedOutput()
	}
	if out, err := fromOutside(); err == nil {
		t.Errorf("from outside: %s", out)
	}
	// Another job's tasks, hers too, do not find the way.
	other := api.TaskOrder{Ref: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "42"}, Attempt: 1}, User: "alice",
		Command: "ssh " + plain + " m-gang-b true 2>/dev/null || echo refused"}
	w.control.send(nodes[0], api.Record{Run: &other})
	w.until("the other job has ended", func() bool { _, r := w.control.output(nodes[0], other.Ref); return r.State == shoal.JobSucceeded })
	if out, _ := w.control.output(nodes[0], other.Ref); out != "refused\n" {
		t.Errorf("another job's task says %q", out)
	}

	for i := range nodes {
		w.control.send(nodes[i], api.Record{Stop: &api.StopOrder{Ref: ref, State: shoal.JobCancelled}})
	}
	for i := range nodes {
		w.until("the attempt has ended", func() bool { return state(i) == shoal.JobCancelled })
		if left := w.in(string(nodes[i]), "pgrep -a -u alice || true; ls -A /run/shoal/tasks /run/shoal/passes/client /run/shoal/passes/keys | grep -v : || true"); strings.Contains(left, "4321") || strings.Contains(left, "41.0.1") || strings.Contains(left, "alice") {
			t.Errorf("on %s is left %q", nodes[i], left)
		}
	}
	refused("afterwards", "alice", "ssh "+plain+" -i ~/stolen "+host+" true")
}
