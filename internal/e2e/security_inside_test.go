package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/client"
)

func jobQuery(u shoal.UserName) client.JobQuery         { return client.JobQuery{User: u} }
func sessionQuery(u shoal.UserName) client.SessionQuery { return client.SessionQuery{User: u} }

// runs runs a command as a user through the gateway and returns what it said, whether or not it succeeded.
func (w *world) runs(login, command string, options ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := w.SSH(ctx, login, command)
	cmd.Args = append(cmd.Args[:1], append(options, cmd.Args[1:]...)...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// inside runs a script as root of a machine.
func (w *world) inside(t *testing.T, id shoal.MachineID, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "runc", "--root", filepath.Join(w.Data, "local", "runc"), "exec", string(id), "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// attackInside is a member with a shell.
func (w *world) attackInside(t *testing.T, machine shoal.MachineID) {
	hold, err := w.runs("u1+lab", "nohup sh -c 'WORD="+secretOfOthers+" exec sleep 600' >/dev/null 2>&1 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	pid := hold[strings.LastIndexByte(hold, '\n')+1:]
	job, err := w.as("u1").Submit(t.Context(), shoal.JobSpec{Pool: "lab", Command: "echo " + secretOfOthers + "; touch $SHOAL_SCRATCH/x; exec sleep 600"}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.until("the job runs", func() (bool, error) {
		j, err := w.Client.Job(t.Context(), job.ID)
		return j.State == shoal.JobRunning, err
	})
	for what, script := range map[string]string{
		"another's home":              "ls /shared/home/u1",
		"another's file":              "cat /shared/home/u1/secret-of-u1",
		"a group's directory":         "ls /shared/projects/whales",
		"writing there":               "touch /shared/projects/whales/x",
		"a place among the homes":     "mkdir /shared/home/u9",
		"another's environment":       "cat /proc/" + pid + "/environ",
		"another's working directory": "ls /proc/" + pid + "/cwd/",
		"another's descriptors":       "ls /proc/" + pid + "/fd/",
		"another's memory":            "head -c1 /proc/" + pid + "/mem",
		"another's process":           "kill " + pid,
		"the agent's descriptors":     "for p in $(pgrep -u root); do ls /proc/$p/fd && exit 0; done; false",
		"the join file":               "cat /run/shoal/join.json",
		"the agent's token":           "cat /run/shoal/agent/token || cat /run/shoal/agent/*",
		"the control":                 "curl -sf --max-time 5 --unix-socket /run/shoal/control/agent.sock http://x/healthz || ls /run/shoal/control",
		"the door":                    "python3 -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b\"x\", \"/run/shoal/agent/door\")'",
		"the tasks' supervisor":       "find /var/lib/shoal* -name '*.sock' -o -name socket 2>/dev/null | grep .",
		"tasks' output":               "ls /var/lib/shoal/ || ls /var/lib/shoal-agent/",
		"others' scratch":             "ls /var/lib/shoal-scratch/*/ || ls /var/lib/shoal-scratch/",
		"shadow":                      "cat /etc/shadow",
		"sshd's host key":             "cat /etc/ssh/ssh_host_ed25519_key",
		"changing PAM":                "echo x >> /etc/pam.d/sshd",
		"changing sshd's keys":        "echo x >> /run/shoal/sshd/ca_keys",
		"another's principal":         "echo u2@lab > /run/shoal/sshd/principals/u1",
		"leaving her slice":           "for f in $(find /sys/fs/cgroup -name cgroup.procs); do (echo $$ > $f) 2>/dev/null && exit 0; done; false",
		"raising her limits":          "for f in $(find /sys/fs/cgroup -name 'memory.limit_in_bytes' -o -name pids.max -o -name memory.max); do (echo 99999999999 > $f) 2>/dev/null && exit 0; done; false",
		"becoming root":               "su -c true </dev/null || sudo -n true || newgrp root </dev/null || pkexec true",
		"a setuid program":            "cp /usr/bin/id ~/id; chmod 4755 ~/id; chgrp whales ~/id && chmod 2755 ~/id",
		"a file of another's":         "touch ~/mine; chown u1 ~/mine",
		"the host's API":              "curl -sf --max-time 5 http://127.0.0.1:" + w.API + "/healthz",
		"the gateway":                 "timeout 3 bash -c '</dev/tcp/" + gateway(t, w.ready("lab", 1)[0]) + "/" + w.Port + "'",
		"a login of her own keys":     "ssh-keygen -qt ed25519 -N '' -f ~/k; mkdir -p ~/.ssh; cp ~/k.pub ~/.ssh/authorized_keys; chmod -R go= ~/.ssh; ssh -i ~/k -oBatchMode=yes -oStrictHostKeyChecking=no u2@127.0.0.1 true",
		"another's terminal":          "for t in /dev/pts/[0-9]*; do [ -O $t ] || { echo x > $t && exit 0; }; done; false",
		"the kernel's log":            "dmesg",
	} {
		if out, err := w.runs("u2+lab", script); err == nil || strings.Contains(out, secretOfOthers) {
			t.Errorf("a member gets at %s: %s", what, out)
		}
	}
	w.attackRelay(t)
	w.attackLogins(t, machine)
	w.attackLinks(t, machine)
	if _, err := w.as("u1").CancelJob(t.Context(), job.ID); err != nil {
		t.Error(err)
	}
}

// attackRelay forges what is said at /run/shoal.sock.
func (w *world) attackRelay(t *testing.T) {
	const curl = "curl -s --max-time 20 --unix-socket /run/shoal.sock "
	for _, c := range []struct{ args, want, never string }{
		{"-H 'Shoal-User: u1' http://x/api/v1/whoami", `"u2"`, `"u1"`},
		{"-H 'shoal-user: u1' -H 'SHOAL-USER: u1' -H 'Connection: Shoal-User' http://x/api/v1/whoami", `"u2"`, `"u1"`},
		{"-H 'Shoal-As: u1' http://x/api/v1/whoami", `"denied"`, `"u1"`},
		{"-H 'Authorization: Bearer stolen' -H 'X-Forwarded-For: 1.2.3.4' http://x/api/v1/whoami", `"u2"`, `"u1"`},
		{"--path-as-is http://x/../report -X POST -d '{}'", `"notFound"`, "resend"},
		{"--path-as-is http://x/%2e%2e/%2e%2e/agent/v1/stream", `"notFound"`, "snapshot"},
		{"-L --path-as-is http://x//agent/v1/stream", `"notFound"`, "snapshot"},
		{"http://x/api/v1/users/u1", `"notFound"`, "ssh-"},
		{"-X PUT -H 'Content-Type: application/json' -d '{\"password\":\"correct horse\"}' http://x/api/v1/users/u2/password", `"denied"`, "changed"},
		{"-X CONNECT http://x/api/v1/whoami", "", `"u1"`},
		{"-H 'Transfer-Encoding: chunked' -H 'Content-Length: 4' -d '0\r\n\r\nGET /agent/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n' http://x/api/v1/jobs", "", "snapshot"},
	} {
		out, _ := w.runs("u2+lab", curl+c.args)
		if !strings.Contains(out, c.want) || strings.Contains(out, c.never) {
			t.Errorf("curl %s: %s", c.args, out)
		}
	}
}

// attackLogins brings along what might change what runs as root at a login, or who it is for.
func (w *world) attackLogins(t *testing.T, machine shoal.MachineID) {
	plant := `cd; mkdir -p .ssh; printf 'LD_PRELOAD=/shared/home/u2/x.so\nBASH_ENV=/shared/home/u2/env\nPATH=/shared/home/u2/bin\n' > .ssh/environment
		printf 'GODEBUG=x\nPAM_USER DEFAULT=u1\nLD_PRELOAD DEFAULT=/shared/home/u2/x.so\nPATH OVERRIDE=/shared/home/u2/bin\n' > .pam_environment
		mkdir -p bin; for p in id echo sh shoal-agent xauth; do printf '#!/bin/sh\nid -u > /shared/home/u2/ran-as-$(/usr/bin/id -u)\n' > bin/$p; chmod 755 bin/$p; done
		echo 'id -u > /shared/home/u2/rc-as-$(id -u); cat /proc/self/cgroup > /shared/home/u2/rc-cgroup' > .ssh/rc
		cp bin/sh .bashrc.d 2>/dev/null; echo 'export FROM_BASHRC=1' > .bash_env; ls -a >/dev/null`
	if out, err := w.runs("u2+lab", plant); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := w.runs("u2+lab", "env; cat /proc/self/cgroup", "-o", "SetEnv=LD_PRELOAD=/tmp/x.so BASH_ENV=/tmp/x PAM_USER=root PATH=/tmp SHOAL_SERVER=http://x")
	if err != nil || strings.Contains(out, "LD_PRELOAD") || strings.Contains(out, "BASH_ENV") || strings.Contains(out, "PAM_USER") || strings.Contains(out, "PATH=/tmp") || strings.Contains(out, "PATH=/shared") {
		t.Errorf("%v: the session has %s", err, out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, ":memory:") && !strings.Contains(line, "/u2") {
			t.Errorf("the session is in %s", line)
		}
	}
	ran := w.inside(t, machine, "ls /shared/home/u2; cat /shared/home/u2/rc-cgroup")
	if strings.Contains(ran, "as-0") || !strings.Contains(ran, "rc-as-") {
		t.Errorf("what u2 planted ran as %s", ran)
	}
	if out, err := w.runs("u2+lab", "cd; rm -rf .ssh .pam_environment bin"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// attackLinks puts links where root comes along: homes and directories of groups that are still to be made, outputs and
// scratch of tasks.
func (w *world) attackLinks(t *testing.T, machine shoal.MachineID) {
	target := filepath.Join(w.Dir, "target")
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	// Somebody with access to the share beside Shoal has put links where homes will be.
	for _, name := range []string{"home/u5", "projects/late"} {
		if err := os.Symlink(target, filepath.Join(w.Share, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	file := filepath.Join(w.Dir, "late.yaml")
	if err := os.WriteFile(file, []byte("kind: Group\nname: late\nmembers: [u2]\n---\nkind: User\nname: u5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.shoal("apply", "-f", file)
	w.ssh("u2+lab", "true") // her accounts are in effect
	info, err := os.Stat(target)
	if err != nil || info.Mode().Perm() != 0o755 || info.Mode()&os.ModeSetgid != 0 {
		t.Errorf("what a link leads to became %v, %v", info, err)
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
		t.Errorf("in what a link leads to there is %v, %v", entries, err)
	}
	for _, name := range []string{"home/u5", "projects/late"} {
		if err := os.Remove(filepath.Join(w.Share, name)); err != nil {
			t.Error(err)
		}
	}
	// A task's scratch directory becomes a link to what root could remove, and its output one to what root could make.
	w.inside(t, machine, "mkdir -p /etc/precious; touch /etc/precious/x")
	out, err := w.AsUser(t.Context(), "u2", "run", "-p", "lab", "--wait", "--", "sh", "-c",
		`ln -s /etc/precious $SHOAL_SCRATCH/link; mkdir $SHOAL_SCRATCH/d; (while :; do rm -rf $SHOAL_SCRATCH/d; ln -s /etc/precious $SHOAL_SCRATCH/d; rm $SHOAL_SCRATCH/d; mkdir $SHOAL_SCRATCH/d; done) >/dev/null 2>&1 & sleep 0.3; rmdir $SHOAL_SCRATCH; mv $SHOAL_SCRATCH /tmp/x; id -u`)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := w.inside(t, machine, "ls /etc/precious"); got != "x" {
		t.Errorf("root removed what a link led to: %q", got)
	}
	w.inside(t, machine, "ln -s /etc /shared/home/u2/out; chown -h u2 /shared/home/u2/out")
	if out, err := w.AsUser(t.Context(), "u2", "job", "submit", "-f", w.write("out.yaml", "kind: Job\nname: out\npool: lab\ncommand: \"true\"\noutputs: {x: /shared/home/u2/out}\n")); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	jobs, err := w.as("u2").Jobs(t.Context(), client.JobQuery{Name: "out"})
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%v, %v", jobs, err)
	}
	if end, err := w.as("u2").WaitJob(t.Context(), jobs[0].ID); err != nil || end.Job.State != shoal.JobFailed {
		t.Errorf("a task whose output would be in /etc: %v, %v", end.Job.State, err)
	}
	if got := w.inside(t, machine, "ls -d /etc/[0-9]* 2>/dev/null; true"); got != "" {
		t.Errorf("root made %s", got)
	}
}

// write makes a file in the world's directory.
func (w *world) write(name, text string) string {
	path := filepath.Join(w.Dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// attackExhaustion is a member who takes all there is; the others must still get what is theirs.
func (w *world) attackExhaustion(t *testing.T, machine shoal.MachineID) {
	flood := `import socket, time, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
keep = []
for i in range(5000):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(1)
    try:
        s.connect("/run/shoal.sock"); s.send(b"GET / HTTP/1.1\r\nHost: x\r\n"); keep.append(s)
    except OSError: break
print("up", flush=True)
time.sleep(60)`
	if err := os.WriteFile(filepath.Join(w.Share, "flood.py"), []byte(flood), 0o644); err != nil {
		t.Fatal(err)
	}
	deep := "import os\nos.chdir(os.environ.get('DEEP', '/tmp'))\nfor i in range(15000):\n    os.mkdir('d'); os.chdir('d')\nprint('down')\n"
	if err := os.WriteFile(filepath.Join(w.Share, "deep.py"), []byte(deep), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, script := range []string{"python3 /shared/flood.py", "for i in $(seq 6000); do sleep 60 & done 2>/dev/null; wait", "while :; do :; done & while :; do :; done & wait",
		"head -c 900m /dev/zero | tail", "head -c 300m /dev/zero > /run/lock/x; sleep 60"} {
		cmd := w.SSH(ctx, "u2+lab", "timeout 60 bash -c "+shellQuote(script))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { cancel(); _ = cmd.Wait() }() // ended by us
	}
	time.Sleep(3 * time.Second) // let them have their effect
	began := time.Now()
	if out := w.ssh("u1+lab", "id -un; df --output=pcent /run | tail -1; shoal job list >/dev/null && echo asked"); !strings.HasPrefix(out, "u1") || !strings.HasSuffix(out, "asked") || strings.Contains(out, "100%") {
		t.Errorf("beside the attack u1 sees %s", out)
	}
	file := w.write("late2.yaml", "kind: Group\nname: late2\nmembers: [u3]\n")
	w.shoal("apply", "-f", file) // the agent must still be able to write accounts
	if out := w.ssh("u3+lab", "id"); !strings.Contains(out, "late2") {
		t.Errorf("beside the attack u3 is %s", out)
	}
	t.Logf("beside the attack two logins took %s", time.Since(began).Round(time.Millisecond))
	cancel()
	w.shoal("user", "disable", "u2")
	w.until("nothing of u2's runs", func() (bool, error) {
		return w.inside(t, machine, "pgrep -r R,S,D,T -u 20002 >/dev/null || echo none") == "none", nil
	})
	w.shoal("user", "enable", "u2")
	// Directories that are deeper than descriptors reach are removed, a task's and then a machine's.
	within, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	out, err := w.AsUser(within, "u3", "run", "-p", "lab", "--wait", "--", "sh", "-c", "DEEP=$SHOAL_SCRATCH python3 /shared/deep.py && python3 /shared/deep.py")
	if err != nil || strings.Count(out, "down") != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	// Empty ones wait for the next task.
	w.until("no other scratch directory stays", func() (bool, error) {
		return w.inside(t, machine, "find /var/lib/shoal-scratch -mindepth 1 ! -path '*/spare-?' ! -path '*/spare-??' -prune") == "", nil
	})
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// attackGateway is somebody outside, with or without a key.
func (w *world) attackGateway(t *testing.T) {
	stranger := filepath.Join(w.Dir, "stranger")
	if out, err := exec.Command("ssh-keygen", "-qt", "ed25519", "-N", "", "-f", stranger).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before, err := w.Machines(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, login := range []string{"u1+lab", "nobody+lab", "root", "shoal-probe", "u1+nopool", "nobody+nopool", "u1+lab/../../x", "u1 +lab", "-oProxyCommand=x", "u1+lab/m-../x", strings.Repeat("a", 500), "u1\nu2", "U1", "u1%00"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", stranger, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
			"-o", "UserKnownHostsFile="+filepath.Join(w.Dir, "known_hosts"), "-p", w.Port, "-l", login, "127.0.0.1", "id")
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil {
			t.Errorf("%q gets in: %s", login, out)
		}
		if !strings.ContainsAny(login, " \n-") && len(login) < 100 { // those ssh itself may refuse
			said[strings.ReplaceAll(string(out), login, "")] = true
		}
	}
	if len(said) != 1 {
		t.Errorf("strangers are told different things: %v", said)
	}
	for _, name := range []string{"u1+lab/../../x", "u1+lab/m-../../etc", "u1+lab/m-" + strings.Repeat("x", 300), "u1+../lab", "u1+"} {
		if out, err := w.runs(name, "id"); err == nil {
			t.Errorf("%s gets in: %s", name, out)
		}
	}
	if after, err := w.Machines(t.Context(), ""); err != nil || len(after) != len(before) {
		t.Errorf("there were %d machines, and are %d, %v", len(before), len(after), err)
	}
	w.attackGuessing(t)
	// Forwards reach what a process of hers in the machine reaches and no more.
	other := w.ready("other", 1)[0].Address
	for what, forward := range map[string]string{"the control's socket": "/run/shoal/control/agent.sock", "the host's API": "127.0.0.1:" + w.API, "another pool": other, "metadata": "169.254.169.254:80"} {
		socket := filepath.Join(w.Dir, "forward")
		_ = os.Remove(socket)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := w.SSH(ctx, "u2+lab", "sleep 1000")
		cmd.Args = append(cmd.Args[:1], append([]string{"-o", "LogLevel=ERROR", "-L", socket + ":" + forward}, cmd.Args[1:]...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.until("the forward is there", func() (bool, error) { _, err := os.Stat(socket); return err == nil, nil })
		out, err := exec.Command("curl", "-s", "--max-time", "4", "--http0.9", "--unix-socket", socket, "http://x/").CombinedOutput()
		cancel()
		_ = cmd.Wait() // ended by us
		if err == nil || len(out) > 0 {
			t.Errorf("a forward reaches %s: %s", what, out)
		}
	}
	if list, err := w.Client.Sessions(t.Context(), client.SessionQuery{User: "root", Ended: true}); err != nil || len(list) > 0 {
		t.Errorf("root has sessions: %v, %v", list, err)
	}
}

// attackGuessing has many guess passwords, while somebody with a key logs in.
func (w *world) attackGuessing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var guesses atomic.Int64
	for i := range 500 {
		all.Go(func() {
			for ctx.Err() == nil {
				conf := &ssh.ClientConfig{User: fmt.Sprintf("u%d", i%4+1), HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 20 * time.Second,
					Auth: []ssh.AuthMethod{ssh.PasswordCallback(func() (string, error) { guesses.Add(1); return "wrong password", nil })}}
				c, err := net.Dial("tcp", "127.0.0.1:"+w.Port)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				if _, _, _, err := ssh.NewClientConn(c, "", conf); err == nil {
					t.Error("a guess was right")
				}
				stop()
				c.Close()
			}
		})
	}
	time.Sleep(2 * time.Second) // let them come
	began := time.Now()
	for range 3 {
		if out := w.ssh("u1+lab", "id -un"); out != "u1" {
			t.Errorf("beside guessers u1 is %s", out)
		}
	}
	t.Logf("beside 500 guessers, who have tried %d passwords, a login took %s", guesses.Load(), (time.Since(began) / 3).Round(time.Millisecond))
	cancel()
	all.Wait()
}

// lookAtFiles looks for secrets where others could see them.
func (w *world) lookAtFiles(t *testing.T) {
	secrets := map[string]string{}
	token, err := os.ReadFile(filepath.Join(w.Data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	secrets["the admin's token"] = string(token)
	secrets["a password"] = "correct horse battery staple"
	user, err := os.ReadFile(filepath.Join(w.Dir, "u1.token"))
	if err != nil {
		t.Fatal(err)
	}
	secrets["u1's token"] = string(user)
	err = filepath.Walk(w.Data, func(path string, info os.FileInfo, err error) error {
		rel, _ := filepath.Rel(w.Data, path)
		switch {
		case err != nil && os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		case info.IsDir() && filepath.Dir(rel) == ".": // what is below is as private as it is
			if info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s is %v", rel, info.Mode())
			}
			if rel != "." {
				return filepath.SkipDir
			}
		case filepath.Dir(rel) == "." && rel != "." && info.Mode().Perm()&0o077 != 0:
			t.Errorf("%s is %v", rel, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, private := range []string{"", "keys", "control", "local", "output", "local/machines"} {
		if info, err := os.Stat(filepath.Join(w.Data, private)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%q is open: %v, %v", private, info, err)
		}
	}
	texts := map[string]string{"events": w.shoal("events", "--since", "1h", "-o", "json")}
	for _, kind := range []string{"user", "pool", "machine", "session", "job", "group"} {
		texts["shoal "+kind+" list"] = w.shoal(kind, "list", "-o", "yaml")
	}
	log, err := os.ReadFile(filepath.Join(w.Dir, "serve.log"))
	if err != nil {
		t.Fatal(err)
	}
	texts["the log"] = string(log)
	args, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, a := range args {
		if strings.HasPrefix(a, fmt.Sprintf("/proc/%d/", os.Getpid())) {
			continue
		}
		b, _ := os.ReadFile(a) // it may be gone
		texts["arguments"] += string(b) + "\n"
	}
	for where, text := range texts {
		for what, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, where)
			}
		}
		if strings.Contains(text, "argon2id") || strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s tells hashes or keys", where)
		}
	}
}

// secretOfHost is in what the host has in places that no machine should see.
const secretOfHost = "shoal-squid-5q2m"

// plantSecrets puts them there for the time of the test.
func plantSecrets(t *testing.T) {
	t.Helper()
	plant := func(path string, mode os.FileMode) {
		for d := filepath.Dir(path); d != "/"; d = filepath.Dir(d) { // what is made for it goes with it
			if _, err := os.Stat(d); err != nil {
				t.Cleanup(func() { _ = os.Remove(d) })
			}
		}
		t.Cleanup(func() { _ = os.Remove(path) })
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte("token="+secretOfHost+"\n"), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"/", "/root/", "/home/", "/home/somebody-of-ours/.ssh/", "/srv/", "/mnt/", "/media/", "/opt/", "/boot/", "/tmp/", "/var/tmp/", "/var/", "/var/lib/ours/",
		"/var/log/", "/var/mail/", "/var/backups/", "/var/spool/cron/", "/var/cache/", "/run/", "/dev/shm/", "/etc/", "/etc/ours/", "/etc/ssh/", "/etc/default/", "/etc/sudoers.d/"} {
		plant(dir+secretOfHost, 0o644)
	}
	for _, dir := range []string{"/usr/local/etc/", "/usr/share/", "/usr/lib/ours/", "/etc/ssl/", "/etc/profile.d/"} {
		plant(dir+secretOfHost, 0o600)
	}
}

// lookForSecrets looks for the host's secrets as a user and as root of a machine.
func (w *world) lookForSecrets(t *testing.T, machine shoal.MachineID) {
	const names = "find / -xdev -name '*" + secretOfHost + "*' -print; find / /usr /run /dev -maxdepth 3 -name '*" + secretOfHost + "*' -print"
	const texts = "grep -rlsaI --devices=skip " + secretOfHost + " /etc /root /home /srv /mnt /media /opt /boot /tmp /var /run /dev /usr/local 2>/dev/null"
	for _, script := range []string{names, texts, "cat /proc/*/environ /proc/*/cmdline /proc/mounts 2>/dev/null | tr '\\0' '\\n' | grep -a shoal-squid[-]5q2m"} {
		if out, _ := w.runs("u1+lab", "("+script+") 2>/dev/null; true"); strings.Contains(strings.ReplaceAll(out, script, ""), secretOfHost) {
			t.Errorf("a user finds a secret of the host's: %.500s", out)
		}
		if out := w.inside(t, machine, "("+script+") 2>/dev/null | grep -v '^/proc'; true"); strings.Contains(out, secretOfHost) {
			t.Errorf("root of a machine finds a secret of the host's: %.500s", out)
		}
	}
}
