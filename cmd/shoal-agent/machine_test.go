package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

func TestLogins(t *testing.T) {
	w := newWorld(t)
	addr := w.machine("m-login", team(7))
	w.until("the accounts are in effect", func() bool { return w.control.rev("m-login") == 7 })

	if got, want := w.must(addr, "alice", "id -u; id -g; id -Gn; pwd; stat -c '%a %U %G' ."), "20001\n20001\nalice research\n/shared/home/alice\n700 alice alice"; got != want {
		t.Errorf("alice is %q, want %q", got, want)
	}
	if got := w.must(addr, "bob", "id -u; pwd; ls -A"); !strings.HasPrefix(got, "20002\n/shared/home/bob\n") || !strings.Contains(got, ".profile") {
		t.Errorf("bob is %q", got)
	}
	if got := w.must(addr, "alice", "-tt", "who | grep -c ^alice"); got != "1" {
		t.Errorf("who shows %q", got)
	}
	if got := w.must(addr, "alice", "ulimit -Sn"); got != "8192" {
		t.Errorf("she may have %s files open", got)
	}
	if got := w.in("m-login", "last alice | head -1"); !strings.HasPrefix(got, "alice") {
		t.Errorf("last shows %q", got)
	}
	t.Run("group", func(t *testing.T) { groupDirs(t, w, addr) })
	t.Run("refused", func(t *testing.T) { refusedLogins(t, w, addr) })
	t.Run("files", func(t *testing.T) { transfers(t, w, addr) })
	t.Run("people", func(t *testing.T) { peopleChange(t, w, addr) })
}

// groupDirs: a fellow edits what lies in a group's directory, nobody else does, and not in a home.
func groupDirs(t *testing.T, w *world, addr string) {
	w.must(addr, "alice", "umask 022; mkdir -p /shared/projects/research/d && echo one > /shared/projects/research/d/f && echo secret > ~/f")
	if got := w.must(addr, "bob", "echo two >> /shared/projects/research/d/f && stat -c '%a %U %G' /shared/projects/research/d/f && cat /shared/projects/research/d/f"); got != "660 alice research\none\ntwo" {
		t.Errorf("what a fellow sees: %q", got)
	}
	for who, cmd := range map[string]string{"carol": "cat /shared/projects/research/d/f", "bob": "cat /shared/home/alice/f", "alice": "touch /shared/x"} {
		if out, err := w.ssh(addr, who, cmd); err == nil {
			t.Errorf("%s may %s: %s", who, cmd, out)
		}
	}
}

func refusedLogins(t *testing.T, w *world, addr string) {
	host, port, _ := strings.Cut(addr, ":")
	for _, c := range []struct{ principal, user string }{{"bob@lab", "alice"}, {"alice@other", "alice"}, {"root@lab", "root"}, {"shoal-probe", "shoal-probe"}, {"alice@lab", "sshd"}} {
		out, err := exec.Command("ssh", append(w.person(c.principal), "-p", port, c.user+"@"+host, "echo in")...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Permission denied") {
			t.Errorf("%s as %s: %v: %s", c.principal, c.user, err, out)
		}
	}
}

// transfers: sftp and scp carry files both ways, byte for byte.
func transfers(t *testing.T, w *world, addr string) {
	host, port, _ := strings.Cut(addr, ":")
	file := filepath.Join(w.dir, "blob")
	data := bytes.Repeat([]byte("0123456789abcdef\n"), 100_000)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, append(w.person("alice@lab"), args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("", "scp", "-P", port, file, "alice@"+host+":by-scp")
	run("", "scp", "-O", "-P", port, "alice@"+host+":by-scp", file+".back")
	run(fmt.Sprintf("put %s by-sftp\nget by-scp %s.sftp\n", file, file), "sftp", "-P", port, "-b", "-", "alice@"+host)
	for _, f := range []string{file + ".back", file + ".sftp"} {
		if got, err := os.ReadFile(f); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s came back wrong: %v", f, err)
		}
	}
	if got := w.must(addr, "alice", "cmp by-scp by-sftp && stat -c %U by-sftp"); got != "alice" {
		t.Errorf("the files are %q", got)
	}
}

// peopleChange: new people come, disabled ones and their processes go, others notice nothing.
func peopleChange(t *testing.T, w *world, addr string) {
	bob := w.hold(addr, "bob")
	alice := w.hold(addr, "alice")
	w.must(addr, "bob", "setsid -f sh -c 'trap \"\" TERM HUP; exec sleep 1000' </dev/null >/dev/null 2>&1")
	next := people(8)
	next.Users[1].Disabled = true
	next.Users = append(next.Users, api.Account{Name: "dave", UID: 20004, GID: 20004, Home: "/shared/home/dave", Shell: "/bin/no-such-shell", Principal: "dave@lab"})
	next.Groups[0].Members = append(next.Groups[0].Members, "dave")
	w.control.send("m-login", api.Record{Accounts: &next})
	w.until("the new accounts are in effect", func() bool { return w.control.rev("m-login") == 8 })
	if got := w.must(addr, "dave", "id -Gn; pwd; echo $SHELL"); got != "dave research\n/shared/home/dave\n/bin/bash" {
		t.Errorf("dave is %q", got)
	}
	w.until("bob's processes have ended", func() bool { return w.in("m-login", "ps -o pid= -u bob || true") == "" })
	bob.ended()
	if out, err := w.ssh(addr, "bob", "true"); err == nil || !strings.Contains(out, "Permission denied") {
		t.Errorf("bob may log in: %v: %s", err, out)
	}
	if got := w.in("m-login", "id -u bob"); got != "20002" {
		t.Errorf("bob has lost the uid: %s", got)
	}
	alice.says("still", "still")

	again := people(9)
	again.Users = again.Users[:2]
	w.control.send("m-login", api.Record{Accounts: &again})
	w.until("the third accounts are in effect", func() bool { return w.control.rev("m-login") == 9 })
	w.must(addr, "bob", "true")
	if out := w.in("m-login", "getent passwd carol dave; ls /shared/home | tr '\\n' ' '"); out != "alice bob carol dave" {
		t.Errorf("after they left: %s", out)
	}
	alice.end()
}

// A session and a task of init's go on when run is killed, or replaced by another binary, or when
// the control plane is away.
func TestRunMayDie(t *testing.T) {
	w := newWorld(t)
	snap := team(3)
	snap.Heartbeat = shoal.Duration(200 * time.Millisecond)
	addr := w.machine("m-die", snap)
	alice := w.hold(addr, "alice")
	pid := func() string { return w.in("m-die", "pgrep -f 'shoal-agent run' | head -1") }
	sshd := w.in("m-die", "pgrep -o -x sshd")

	first := pid()
	w.in("m-die", "kill -9 "+first)
	w.until("run was started again", func() bool { now := pid(); return now != "" && now != first })
	alice.says("alive", "alive")
	w.until("it has opened the stream", func() bool { w.control.mu.Lock(); defer w.control.mu.Unlock(); return w.control.opened >= 2 })
	w.until("accounts are told again", func() bool {
		w.control.mu.Lock()
		defer w.control.mu.Unlock()
		last := w.control.reports[len(w.control.reports)-1]
		return last.Accounts == 3 || last.Load != nil
	})

	// Another binary.
	build(t, filepath.Join(w.dir, "local", "bin", "shoal-agent"), "two")
	second := pid()
	w.until("the new binary runs", func() bool { now := pid(); return now != "" && now != second })
	if got := w.in("m-die", "/opt/shoal/bin/shoal-agent version"); got != "two" {
		t.Errorf("the binary is %q", got)
	}
	alice.says("alive still", "alive still")

	// The control plane goes away and comes back.
	w.control.srv.Close()
	next := people(4)
	next.Users = append(next.Users, api.Account{Name: "erin", UID: 20005, GID: 20005, Home: "/home/erin", Principal: "erin@lab"})
	w.control.mu.Lock()
	s := w.control.snaps["m-die"]
	w.control.mu.Unlock()
	s.Accounts = next
	w.control.want(s)
	alice.says("without control", "without control")
	w.must(addr, "bob", "true")
	w.control.listen(t, filepath.Join(w.dir, "control", "agent.sock"))
	w.until("it is connected again", func() bool { return w.control.rev("m-die") == 4 })
	if got := w.must(addr, "erin", "pwd; stat -c '%a %U' ."); got != "/home/erin\n700 erin" {
		t.Errorf("erin is %q", got)
	}

	// sshd itself.
	w.in("m-die", "kill -9 "+sshd)
	w.until("sshd was started again", func() bool { out, err := w.ssh(addr, "bob", "echo in"); return err == nil && out == "in" })
	alice.says("to the end", "to the end")
	w.control.mu.Lock()
	joins := len(w.control.joins["m-die"])
	w.control.mu.Unlock()
	if joins != 1 {
		t.Errorf("it joined %d times", joins)
	}
	alice.end()
}

// A machine that is stopped ends what runs, and comes back with its host key and without its setup being run again.
func TestStopAndStart(t *testing.T) {
	w := newWorld(t)
	snap := team(5)
	snap.Setup = &shoal.Setup{Command: "echo once >> /var/lib/setup-ran"}
	addr := w.machine("m-stop", snap)
	alice := w.hold(addr, "alice")
	w.must(addr, "alice", "setsid -f sh -c 'trap \"echo asked > ~/asked; exit\" TERM; while :; do sleep 0.1; done' </dev/null >/dev/null 2>&1")
	began := time.Now()
	if err := w.local.Stop(t.Context(), "m-stop"); err != nil {
		t.Fatal(err)
	}
	phase := func() provider.Phase {
		o, err := w.local.Observe(t.Context())
		if err != nil || len(o.Machines) != 1 {
			t.Fatal(o, err)
		}
		return o.Machines[0].Phase
	}
	w.until("it is stopped", func() bool { return phase() == provider.PhaseStopped })
	t.Logf("stopped after %s", time.Since(began))
	alice.ended()
	if b, err := os.ReadFile(filepath.Join(w.share, "home", "alice", "asked")); err != nil || string(b) != "asked\n" {
		t.Errorf("her process was not asked to end: %q, %v", b, err)
	}
	w.control.mu.Lock()
	delete(w.control.boots, "m-stop")
	w.control.mu.Unlock()
	spec := provider.MachineSpec{ID: "m-stop", Pool: "lab", Token: "token-m-stop", Image: "host", Resources: shoal.Resources{CPUs: 2000, Memory: 1 << 30},
		Mounts: []provider.Mount{{Share: shoal.Share{Name: "team", Source: w.share}, Path: "/shared"}},
		Join:   provider.Join{Machine: "m-stop", Pool: "lab", Token: "secret-m-stop", Control: "unix:///run/shoal/control/agent.sock", Epoch: 2}}
	if err := w.local.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	w.until("it is ready again", func() bool { return w.control.boot("m-stop").Ready })
	w.must(addr, "alice", "true")
	if got := w.in("m-stop", "cat /var/lib/setup-ran"); got != "once" {
		t.Errorf("setup ran %q", got)
	}
	w.control.mu.Lock()
	defer w.control.mu.Unlock()
	if j := w.control.joins["m-stop"]; len(j) != 2 || j[0].HostKey != j[1].HostKey || j[1].Epoch != 2 {
		t.Errorf("the joins were %+v", j)
	}
}

// A machine whose setup fails says so, with the end of its log.
func TestSetupFails(t *testing.T) {
	w := newWorld(t)
	snap := team(5)
	snap.Machine = "m-setup"
	snap.Setup = &shoal.Setup{Command: "echo the disk is on fire; exit 3"}
	w.control.want(snap)
	spec := provider.MachineSpec{ID: "m-setup", Pool: "lab", Token: "t", Image: "host", Resources: shoal.Resources{CPUs: 1000, Memory: 256 << 20},
		Join: provider.Join{Machine: "m-setup", Pool: "lab", Token: "secret-m-setup", Control: "unix:///run/shoal/control/agent.sock", Epoch: 1}}
	if err := w.local.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	w.until("it has failed", func() bool { return w.control.boot("m-setup").Error != "" })
	if b := w.control.boot("m-setup"); !strings.Contains(b.Error, "exit status 3") || !strings.Contains(b.Log, "on fire") || b.Ready {
		t.Errorf("it says %+v", b)
	}
}

// Users ask through the socket in the machine, each in her own name; who is none is told so.
func TestRelay(t *testing.T) {
	w := newWorld(t)
	addr := w.machine("m-relay", team(2))
	const ask = "curl -sS --unix-socket /run/shoal.sock -H 'Shoal-User: root' -H 'Authorization: Bearer mine' "
	if got := w.must(addr, "alice", ask+"'http://shoal/api/v1/jobs?state=running'"); got != "GET /agent/v1/user/api/v1/jobs?state=running as alice from m-relay" {
		t.Errorf("alice is answered %q", got)
	}
	if got := w.must(addr, "bob", ask+"-X POST -d '{}' http://shoal/api/v1/jobs"); got != "POST /agent/v1/user/api/v1/jobs as bob from m-relay" {
		t.Errorf("bob is answered %q", got)
	}
	if got := w.must(addr, "bob", ask+"--path-as-is http://shoal/../../report"); strings.Contains(got, "report") {
		t.Errorf("a way up leads to %q", got)
	}
	if got := w.must(addr, "alice", ask+"-N http://shoal/api/v1/events 2>/dev/null | head -4 | tail -1"); got != "data: 1" {
		t.Errorf("events come as %q", got)
	}
	if got := w.in("m-relay", ask+"-w '%{http_code} %{content_type}' http://shoal/api/v1/jobs"); !strings.Contains(got, `"kind":"denied"`) || !strings.HasSuffix(got, "403 application/problem+json") {
		t.Errorf("root is answered %q", got)
	}
}

// Whatever way someone comes in, what she runs is in her slice.
func TestSlices(t *testing.T) {
	w := newWorld(t)
	addr := w.machine("m-slice", team(2))
	host, port, _ := strings.Cut(addr, ":")
	const mine = "cat /proc/self/cgroup"
	in := func(what, groups string) {
		t.Helper()
		if !strings.Contains(groups, ":memory:/u20001/login") && !strings.Contains(groups, "0::/u20001/login") {
			t.Errorf("%s is in\n%s", what, groups)
		}
	}
	in("a command", w.must(addr, "alice", mine))
	in("a terminal", w.must(addr, "alice", "-tt", mine))
	in("a login shell", w.must(addr, "alice", "bash -l -c '"+mine+"'"))
	in("what was left behind", w.must(addr, "alice", "setsid -f sh -c 'sleep 0.3; "+mine+" > ~/g' </dev/null >/dev/null 2>&1; until test -s ~/g; do sleep 0.05; done; cat ~/g"))

	// sftp and forwarding run no program of hers: sshd's own process for her must be in the slice.
	sftp := exec.Command("sftp", append(w.person("alice@lab"), "-P", port, "alice@"+host)...)
	stdin, err := sftp.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sftp.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); _ = sftp.Wait() }()
	forward := exec.Command("ssh", append(w.person("bob@lab"), "-N", "-L", filepath.Join(w.dir, "fwd")+":127.0.0.1:22", "-p", port, "bob@"+host)...)
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = forward.Process.Kill(); _ = forward.Wait() }()
	for user, slice := range map[string]string{"alice": "/u20001/login", "bob": "/u20002/login"} {
		of := ""
		w.until(user+" is in", func() bool {
			of = w.in("m-slice", "for p in $(pgrep -u "+user+" -x sshd); do cat /proc/$p/cgroup; done")
			return of != ""
		})
		if strings.Count(of, slice) == 0 || strings.Count(of, ":memory:"+slice)+strings.Count(of, "0::"+slice) == 0 {
			t.Errorf("what serves %s is in %s", user, of)
		}
	}
	if got := w.in("m-slice", "cat /proc/$(pgrep -o -x sshd)/cgroup /proc/1/cgroup"); strings.Contains(got, "/u2") {
		t.Errorf("what is the machine's own is in a slice: %s", got)
	}
}

// A task runs as its user, in her slice and her home, goes on without run, and its end and output are told once there is one.
func TestTask(t *testing.T) {
	w := newWorld(t)
	w.machine("m-task", team(2))
	ref := shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "17"}, Attempt: 1}
	w.control.send("m-task", api.Record{Run: &api.TaskOrder{Ref: ref, User: "alice", Resources: shoal.Resources{CPUs: 500, Memory: 64 << 20},
		Command: "id -un; id -Gn; pwd; cat /proc/self/cgroup; touch begun; while [ ! -e go ]; do sleep 0.05; done; echo $SHOAL_JOB_ID; exit 3", Env: map[string]string{"SHOAL_JOB_ID": "17"}}})
	w.until("it runs", func() bool { _, err := os.Stat(filepath.Join(w.share, "home/alice/begun")); return err == nil })
	w.in("m-task", "kill -9 $(pgrep -f 'shoal-agent run' | head -1)")
	if err := os.WriteFile(filepath.Join(w.share, "home/alice/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var end api.TaskReport
	out := ""
	w.until("its end is told", func() bool {
		w.control.mu.Lock()
		defer w.control.mu.Unlock()
		pieces := map[int64]string{}
		for _, r := range w.control.reports {
			for _, o := range r.Output {
				pieces[o.Offset] = string(o.Data)
			}
			for _, x := range r.Tasks {
				if x.State.Ended() {
					end = x
				}
			}
		}
		for out = ""; pieces[int64(len(out))] != ""; {
			out += pieces[int64(len(out))]
		}
		return end.Ref == ref
	})
	if end.State != shoal.JobFailed || end.ExitCode != 3 || end.StdoutBytes != int64(len(out)) {
		t.Errorf("it ended as %+v with %d bytes", end, len(out))
	}
	if !strings.HasPrefix(out, "alice\nalice research\n/shared/home/alice\n") || !strings.HasSuffix(out, "\n17\n") || !strings.Contains(out, "/u20001/t") {
		t.Errorf("it said %q", out)
	}
}
