package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// attackAsRoot is somebody who has become root in a machine: she has its token and its join file, and speaks to the
// control plane as its agent does.
func (w *world) attackAsRoot(t *testing.T, machine shoal.MachineID) {
	var kept struct{ Token string }
	if err := json.Unmarshal([]byte(w.inside(t, machine, "cat /run/shoal/agent/token")), &kept); err != nil {
		t.Fatal(err)
	}
	var join, others provider.Join
	if err := json.Unmarshal([]byte(w.inside(t, machine, "cat /run/shoal/join.json")), &join); err != nil {
		t.Fatal(err)
	}
	victim := w.ready("other", 1)[0]
	if err := json.Unmarshal([]byte(w.inside(t, victim.ID, "cat /run/shoal/join.json")), &others); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(w.Data, "control", "agent.sock")
	root := &caller{t, "http://control", kept.Token, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}}
	as := func(user string) (int, string) {
		return root.ask("GET", "/agent/v1/user/api/v1/whoami", "", api.UserHeader, user)
	}
	// u4 has never been here. That the machine says she is makes no difference.
	if status, answer := as("u4"); status != http.StatusForbidden {
		t.Errorf("it speaks for u4: %d %s", status, answer)
	}
	report, err := json.Marshal(api.Report{Activity: &api.Activity{Users: []api.UserActivity{{User: "u4", Connections: 1, Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := root.ask("POST", "/agent/v1/report", string(report)); status != http.StatusOK {
		t.Errorf("a report is answered %d %s", status, answer)
	}
	if status, answer := as("u4"); status != http.StatusForbidden {
		t.Errorf("it speaks for u4 since it says that she is there: %d %s", status, answer)
	}
	for _, user := range []string{"", "root", "nobody", "u1/../u4", "the host"} {
		if status, answer := as(user); status < 400 {
			t.Errorf("it speaks for %q: %s", user, answer)
		}
	}
	// Whom it may speak for has a member's rights, and acts as nobody else.
	w.ssh("u1+lab", "true")
	if _, err := w.Shoal(t.Context(), "apply", "-f", w.write("admin.yaml", "kind: User\nname: u1\nrole: admin\nkeys: ["+w.publicKey(t)+"]\n")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/api/v1/users/u2", ""}, {"POST", "/api/v1/pools/lab/scale", `{"size":9}`}, {"PUT", "/api/v1/users/u1/password", `{"password":"correct horse"}`}, {"PUT", "/api/v1/groups/whales", `{"name":"whales","members":["u1","u2"]}`}} {
		if status, answer := root.ask(c.method, "/agent/v1/user"+c.path, c.body, api.UserHeader, "u1"); status < 400 {
			t.Errorf("an admin's rights through a machine: %s %s: %d %s", c.method, c.path, status, answer)
		}
	}
	if status, answer := root.ask("GET", "/agent/v1/user/api/v1/whoami", "", api.UserHeader, "u1", api.AsHeader, "u2"); status < 400 {
		t.Errorf("it acts as somebody else: %s", answer)
	}
	// A machine's token opens nothing else, and no other machine.
	for _, path := range []string{"/api/v1/whoami", "/metrics", "/api/v1/jobs"} {
		direct := &caller{t, "http://127.0.0.1:" + w.API, kept.Token, http.DefaultClient}
		direct.refused("GET", path, "", http.StatusUnauthorized)
	}
	for _, token := range []string{join.Token, others.Token, strings.Replace(kept.Token, string(machine), string(victim.ID), 1), strings.Replace(kept.Token, ".1.", ".2.", 1), kept.Token + "0", ""} {
		(&caller{t, root.base, token, root.http}).refused("GET", "/agent/v1/stream", "", http.StatusUnauthorized)
	}
	// Joining: as another machine, with another's token, again with another host key, for another start.
	key := strings.TrimSpace(w.publicKeyLine(t))
	for what, j := range map[string]api.AgentJoin{
		"as another machine":  {Machine: victim.ID, Token: join.Token, Epoch: 1, HostKey: key},
		"with another key":    {Machine: machine, Token: join.Token, Epoch: join.Epoch, HostKey: key},
		"another's, replayed": {Machine: victim.ID, Token: others.Token, Epoch: others.Epoch, HostKey: key},
		"for the next start":  {Machine: machine, Token: join.Token, Epoch: join.Epoch + 1, HostKey: key},
		"without a key":       {Machine: machine, Token: join.Token, Epoch: join.Epoch},
	} {
		body, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := root.ask("POST", "/agent/v1/join", string(body)); status < 400 || strings.Contains(answer, "token\":\"m-") {
			t.Errorf("it joins %s: %d %s", what, status, answer)
		}
	}
	w.attackAttempts(t, root)
	// What all machines share cannot be changed from one of them.
	for _, script := range []string{"touch /run/shoal/control/x", "rm /run/shoal/control/agent.sock", "mv /run/shoal/control/agent.sock /run/shoal/control/y", "echo x > /opt/shoal/bin/shoal",
		"mount -t tmpfs x /mnt", "mknod /tmp/d b 254 0", "unshare -U true", "nsenter -t 1 -m true", "chroot /proc/1/root sh -c 'ls " + w.Data + "'"} {
		if got := w.inside(t, machine, script+" 2>/dev/null && echo done; true"); strings.Contains(got, "done") {
			t.Errorf("root of a machine does: %s", script)
		}
	}
	host := gateway(t, victim)
	for _, addr := range []string{victim.Address, "169.254.169.254:80", host + ":" + w.API, host + ":" + w.Port, host + ":22"} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.inside(t, machine, "timeout 2 bash -c '</dev/tcp/"+host+"/"+port+"' 2>/dev/null && echo open; true"); got != "" {
			t.Errorf("root of a machine reaches %s", addr)
		}
	}
}

// gateway is the host's address among the machines: the first of their /20. Every world has another one.
func gateway(t *testing.T, m shoal.Machine) string {
	t.Helper()
	addr, err := netip.ParseAddrPort(m.Address)
	if err != nil {
		t.Fatal(err)
	}
	return netip.PrefixFrom(addr.Addr(), 20).Masked().Addr().Next().String()
}

// attackAttempts reports the end and the output of a task that another machine has, or nobody.
func (w *world) attackAttempts(t *testing.T, root *caller) {
	job, err := w.as("u3").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "sleep 1; echo true", Resources: shoal.Resources{CPUs: 900}}, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []shoal.AttemptRef{{TaskRef: shoal.TaskRef{Job: job.ID}, Attempt: 99}, {TaskRef: shoal.TaskRef{Job: "99999"}, Attempt: 1}, {TaskRef: shoal.TaskRef{Job: "../../x"}, Attempt: 1}} {
		body, err := json.Marshal(api.Report{Tasks: []api.TaskReport{{Ref: ref, State: shoal.JobFailed, ExitCode: 77}}, Output: []api.Output{{Ref: ref, Stream: "../../stdout", Data: []byte("forged")}, {Ref: ref, Stream: "stdout", Data: []byte("forged")}}})
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := root.ask("POST", "/agent/v1/report", string(body)); status >= 500 {
			t.Errorf("a forged report is answered %d %s", status, answer)
		}
	}
	end, err := w.as("u3").WaitJob(t.Context(), job.ID)
	if err != nil || end.Job.State != shoal.JobSucceeded {
		t.Errorf("the job of u3 is %s, %v: %s", end.Job.State, err, end.Job.Reason)
	}
	if out, err := w.output(shoal.TaskRef{Job: job.ID}, "stdout"); err != nil || out != "true\n" {
		t.Errorf("its output is %q, %v", out, err)
	}
}

func (w *world) publicKeyLine(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(w.Key() + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// publicKey is the users' public key as YAML has it.
func (w *world) publicKey(t *testing.T) string {
	t.Helper()
	return `"` + strings.TrimSpace(w.publicKeyLine(t)) + `"`
}
