package activity

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/need"
)

// patience is how long a test waits for what takes a moment.
const patience = 2 * time.Minute

const (
	alice = 28601 // nobody else's on this host
	bob   = 28602
)

func names(uid int) (shoal.UserName, bool) {
	n, ok := map[int]shoal.UserName{alice: "alice", bob: "bob"}[uid]
	return n, ok
}

// machine is what every tree hangs on.
func machine(more ...proc) []proc {
	return append([]proc{
		{pid: 1, name: "shoal-agent", args: "/opt/shoal/bin/shoal-agent init "},
		{pid: 2, ppid: 1, name: "sshd"},
		{pid: 3, ppid: 1, name: "shoal-agent", args: "/opt/shoal/bin/shoal-agent run "},
		{pid: 4, ppid: 3, name: "shoal-agent", args: "/opt/shoal/bin/shoal-agent task supervise {} "},
		{pid: 10, ppid: 2, name: "sshd"}, // a connection of alice's: root's half and hers
		{pid: 11, ppid: 10, uid: alice, name: "sshd"},
		{pid: 12, ppid: 11, uid: alice, name: "bash", tty: true},
	}, more...)
}

func TestJudge(t *testing.T) {
	const code = "/home/alice/.vscode-server/bin/x/node out/server-main.js "
	for _, c := range []struct {
		name        string
		procs       []proc
		gone        bool // no client for long
		connections int
		pins        map[string]int
	}{
		{"a connection and its shell", machine(), false, 1, nil},
		{"what runs in it", machine(proc{pid: 20, ppid: 12, uid: alice, name: "vim", tty: true}, proc{pid: 21, ppid: 12, uid: alice, name: "python3"}), false, 1, nil},
		{"two", machine(proc{pid: 20, ppid: 2, name: "sshd-session"}, proc{pid: 21, ppid: 20, uid: alice, name: "sshd-session"}), false, 2, nil},
		{"one that calls itself so", machine(proc{pid: 20, ppid: 12, uid: alice, name: "sshd"}, proc{pid: 21, ppid: 1, uid: alice, name: "sshd"}), false, 1, nil},
		{"tmux with shells", machine(proc{pid: 20, ppid: 1, uid: alice, name: "tmux: server"}, proc{pid: 21, ppid: 20, uid: alice, name: "bash", tty: true},
			proc{pid: 22, ppid: 20, uid: alice, name: "bash", tty: true}, proc{pid: 23, ppid: 22, uid: alice, name: "python3"}), false, 1, map[string]int{"tmux": 1}},
		{"a background process that stayed", machine(proc{pid: 20, ppid: 1, uid: alice, name: "python3"}, proc{pid: 21, ppid: 20, uid: alice, name: "python3"},
			proc{pid: 22, ppid: 1, uid: alice, name: "bash"}), false, 1, map[string]int{"process": 2}},
		{"a shell by another door", machine(proc{pid: 20, ppid: 1, name: "su"}, proc{pid: 21, ppid: 20, uid: alice, name: "bash", tty: true}), false, 1, map[string]int{"shell": 1}},
		{"through sudo in her connection", machine(proc{pid: 20, ppid: 12, name: "sudo"}, proc{pid: 21, ppid: 20, uid: alice, name: "sleep"}), false, 1, nil},
		{"leftovers", machine(proc{pid: 20, ppid: 1, uid: alice, name: "ssh-agent"}, proc{pid: 21, ppid: 1, uid: alice, name: "dbus-daemon"}, proc{pid: 22, ppid: 1, uid: alice, name: "systemd", args: "/lib/systemd/systemd --user "},
			proc{pid: 23, ppid: 22, uid: alice, name: "(sd-pam)"}, proc{pid: 24, ppid: 22, uid: alice, name: "gpg-agent"}, proc{pid: 25, ppid: 22, uid: alice, name: "gvfsd-fuse"}), false, 1, nil},
		{"started by a leftover", machine(proc{pid: 22, ppid: 1, uid: alice, name: "systemd", args: "systemd --user "}, proc{pid: 23, ppid: 22, uid: alice, name: "syncthing"},
			proc{pid: 24, ppid: 23, uid: alice, name: "syncthing"}), false, 1, map[string]int{"process": 1}},
		{"a task and its orphans", machine(proc{pid: 20, ppid: 4, uid: alice, name: "sh"}, proc{pid: 21, ppid: 20, uid: alice, name: "python3"}, proc{pid: 22, ppid: 4, uid: alice, name: "sleep"}), false, 1, nil},
		{"the nodes of a task among themselves", machine(proc{pid: 20, ppid: 2, name: "sshd"}, proc{pid: 21, ppid: 20, uid: alice, name: "sshd", task: true},
			proc{pid: 22, ppid: 21, uid: alice, name: "orted"}), false, 1, nil},
		{"kernels", machine(proc{pid: 20, ppid: 1, uid: alice, name: "jupyterhub-sing", args: "/usr/bin/python3 /usr/bin/jupyterhub-singleuser "},
			proc{pid: 21, ppid: 20, uid: alice, name: "python3", args: "/usr/bin/python3 -m ipykernel_launcher -f /home/alice/.local/share/jupyter/runtime/kernel-1.json "},
			proc{pid: 22, ppid: 20, uid: alice, name: "R", args: ""}), false, 1, map[string]int{"process": 1, "kernel": 1}},
		{"an editor", machine(proc{pid: 20, ppid: 1, uid: alice, name: "sh", args: "sh " + code}, proc{pid: 21, ppid: 20, uid: alice, name: "node", args: code},
			proc{pid: 22, ppid: 21, uid: alice, name: "bash", tty: true}), false, 1, map[string]int{"process": 1}},
		{"an editor whose client has gone", machine(proc{pid: 20, ppid: 1, uid: alice, name: "sh", args: "sh " + code}, proc{pid: 21, ppid: 20, uid: alice, name: "node", args: code},
			proc{pid: 22, ppid: 21, uid: alice, name: "bash", tty: true}, proc{pid: 23, ppid: 21, uid: alice, name: "rg"}), true, 1, nil},
		{"and something runs in its terminal", machine(proc{pid: 21, ppid: 1, uid: alice, name: "node", args: code},
			proc{pid: 22, ppid: 21, uid: alice, name: "bash", tty: true}, proc{pid: 23, ppid: 22, uid: alice, name: "python3", tty: true}), true, 1, map[string]int{"process": 1}},
		{"a desktop", machine(proc{pid: 20, ppid: 1, name: "xrdp-sesman"}, proc{pid: 21, ppid: 20, name: "xrdp-sesman"}, proc{pid: 22, ppid: 21, uid: alice, name: "openbox"},
			proc{pid: 23, ppid: 21, uid: alice, name: "Xorg"}, proc{pid: 24, ppid: 21, uid: alice, name: "xrdp-chansrv"}, proc{pid: 25, ppid: 22, uid: alice, name: "xterm"},
			proc{pid: 26, ppid: 25, uid: alice, name: "bash", tty: true}, proc{pid: 27, ppid: 22, uid: alice, name: "ssh-agent"}, proc{pid: 28, ppid: 1, uid: 105, name: "xrdp"}), false, 1, map[string]int{"desktop": 1}},
		{"two desktops, and what was started there and stayed", machine(proc{pid: 21, ppid: 1, name: "xrdp-sesman"}, proc{pid: 23, ppid: 21, uid: alice, name: "Xorg"},
			proc{pid: 24, ppid: 21, uid: alice, name: "Xorg"}, proc{pid: 25, ppid: 1, uid: alice, name: "python3"}), false, 1, map[string]int{"desktop": 2, "process": 1}},
		{"a desktop by another X server", machine(proc{pid: 21, ppid: 1, name: "xrdp-sesman"}, proc{pid: 23, ppid: 21, uid: alice, name: "Xsomething"}), false, 1, map[string]int{"desktop": 1}},
		{"what calls itself a desktop", machine(proc{pid: 21, ppid: 1, uid: alice, name: "xrdp-sesman"}, proc{pid: 23, ppid: 21, uid: alice, name: "Xorg"}), false, 1, map[string]int{"process": 1}},
		{"a web app with kernels and a terminal", machine(proc{pid: 19, ppid: 1, name: "shoal-agent", args: "/opt/shoal/bin/shoal-agent app supervise /run/shoal/agent/apps a-1 "},
			proc{pid: 20, ppid: 19, uid: alice, name: "jupyterhub-sing", args: "/usr/bin/python3 /usr/bin/jupyterhub-singleuser "},
			proc{pid: 21, ppid: 20, uid: alice, name: "python3", args: "/usr/bin/python3 -m ipykernel_launcher -f /home/alice/.local/share/jupyter/runtime/kernel-1.json "},
			proc{pid: 22, ppid: 20, uid: alice, name: "bash", tty: true}, proc{pid: 23, ppid: 22, uid: alice, name: "bash", tty: true}, proc{pid: 24, ppid: 20, uid: alice, name: "node"}), false, 1, map[string]int{"terminal": 1, "kernel": 1}},
		{"a loop", []proc{{pid: 20, ppid: 21, uid: alice, name: "a"}, {pid: 21, ppid: 20, uid: alice, name: "b"}}, false, 0, nil},
	} {
		asked := 0
		got := judge(c.procs, func(uid int) bool { return uid == alice }, func(int, int) bool { asked++; return !c.gone })[alice]
		if c.pins == nil {
			c.pins = map[string]int{}
		}
		if diff := cmp.Diff(c.pins, got.pins); diff != "" || got.connections != c.connections || asked != 1 {
			t.Errorf("%s: %d connections, asked %d times (-want +got)\n%s", c.name, got.connections, asked, diff)
		}
	}
	// Somebody else's connection is not hers.
	got := judge(machine(proc{pid: 20, ppid: 12, name: "su"}, proc{pid: 21, ppid: 20, uid: bob, name: "bash", tty: true}), func(uid int) bool { return true }, func(int, int) bool { return true })
	if got[bob].connections != 0 || got[bob].pins["shell"] != 1 {
		t.Errorf("bob: %+v", got[bob])
	}
}

func TestInTask(t *testing.T) {
	for text, want := range map[string]bool{
		"7:cpu,cpuacct:/shoal/m-1/u20001/17.0.1\n1:name=systemd:/\n": true,
		"0::/u20001/17.-1.2\n":          true,
		"0::/u20001/login\n":            false,
		"0::/u20001\n0::/\n":            false,
		"0::/system\n0::/user/17.0.1\n": false,
		"":                              false,
	} {
		if got := inTask([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// as starts a command as a user.
func as(t *testing.T, uid uint32, path string, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("processes of others need root")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	return cmd
}

func look(t *testing.T, w *Watcher, want string, ok func(map[shoal.UserName]api.UserActivity) bool) {
	t.Helper()
	var got map[shoal.UserName]api.UserActivity
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		a, err := w.Look()
		if err != nil {
			t.Fatal(err)
		}
		got = map[shoal.UserName]api.UserActivity{}
		for _, u := range a.Users {
			got[u.User] = u
		}
		if ok(got) {
			return
		}
	}
	t.Fatalf("not seen: %s; but %+v", want, got)
}

func TestLookAtRealProcesses(t *testing.T) {
	tasks := map[shoal.UserName]int{}
	w := New(Config{Name: names, Tasks: func() map[shoal.UserName]int { return tasks }})
	look(t, w, "nobody", func(m map[shoal.UserName]api.UserActivity) bool { return len(m) == 0 })
	sleep := as(t, alice, "/bin/sleep", "1000")
	look(t, w, "a process", func(m map[shoal.UserName]api.UserActivity) bool {
		return slices.Equal(m["alice"].Pins, []shoal.Pin{{Kind: "process", Count: 1}}) && m["alice"].Connections == 0 && len(m) == 1
	})
	busy := as(t, bob, "/bin/sh", "-c", "while :; do :; done")
	look(t, w, "a busy one", func(m map[shoal.UserName]api.UserActivity) bool {
		time.Sleep(100 * time.Millisecond)
		return m["bob"].CPUPercent > 0 && m["bob"].CPUPercent < 300 && m["alice"].CPUPercent == 0
	})
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	_ = busy.Process.Kill()
	tasks["alice"] = 2
	look(t, w, "tasks", func(m map[shoal.UserName]api.UserActivity) bool {
		return len(m) == 1 && slices.Equal(m["alice"].Pins, []shoal.Pin{{Kind: "task", Count: 2}})
	})
}

// TestConnectionsOfARealTree makes processes named as sshd names its own: root's, and below it the user's.
func TestConnectionsOfARealTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/tmp", "shoal-activity-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o755)
	shell, err := os.ReadFile(need.Program(t, "/bin/dash"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "sshd")
	if err := os.WriteFile(name, shell, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := as(t, 0, name, "-c", fmt.Sprintf(`setpriv --reuid %d --regid %d --clear-groups %s -c 'sleep 1000; :' & wait`, alice, alice, name))
	w := New(Config{Name: names})
	look(t, w, "a connection and no pin", func(m map[shoal.UserName]api.UserActivity) bool {
		return m["alice"].Connections == 1 && len(m["alice"].Pins) == 0
	})
	_ = cmd.Process.Kill() // root's half has gone: what is left calls itself sshd, and its child counts
	look(t, w, "what was left behind", func(m map[shoal.UserName]api.UserActivity) bool {
		return m["alice"].Connections == 0 && slices.Equal(m["alice"].Pins, []shoal.Pin{{Kind: "process", Count: 1}})
	})
}

// TestHiddenProcess looks at one whose /proc entry is root's, as those of ssh-agent and sshd are.
func TestHiddenProcess(t *testing.T) {
	agent := need.Program(t, "ssh-agent")
	w := New(Config{Name: names})
	socket := fmt.Sprintf("/tmp/shoal-agent-%d.sock", os.Getpid())
	t.Cleanup(func() { _ = os.Remove(socket) })
	cmd := as(t, alice, agent, "-D", "-a", socket)
	deadline := time.Now().Add(patience)
	for {
		procs, err := w.scan()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(procs, func(p proc) bool { return p.pid == cmd.Process.Pid && p.name == "ssh-agent" })
		if i >= 0 && procs[i].uid == alice {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not seen as hers")
		}
		time.Sleep(5 * time.Millisecond)
	}
	look(t, w, "nothing", func(m map[shoal.UserName]api.UserActivity) bool { return len(m) == 0 })
}

// pty opens a pseudo terminal that belongs to a user.
func pty(t *testing.T, uid int) (master *os.File, slave string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("terminals of others need root")
	}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave = fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chown(slave, uid, 5); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func TestTell(t *testing.T) {
	w := New(Config{Name: names})
	hers, path := pty(t, alice)
	his, _ := pty(t, bob)
	roots, _ := pty(t, 0)
	if err := w.Tell("alice", "The machine ends\nin 5 min\x1b[2J\x07\u202e\x9b1m."); err != nil {
		t.Fatal(err)
	}
	if got := said(t, hers, "1m."); got != "\r\nThe machine ends\r\nin 5 min[2J1m.\r\n" && got != "\r\r\nThe machine ends\r\r\nin 5 min[2J1m.\r\r\n" {
		t.Errorf("she reads %q", got)
	}
	if err := w.Tell("", "all"); err != nil {
		t.Fatal(err)
	}
	said(t, hers, "all")
	said(t, his, "all")
	_ = roots.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, _ := roots.Read(make([]byte, 10)); n != 0 {
		t.Error("root reads it as well")
	}
	if err := w.Tell("carol", "nobody"); err != nil {
		t.Errorf("to nobody: %v", err)
	}
	// One who has stopped the terminal is not waited for.
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, slave.Fd(), unix.TCXONC, uintptr(unix.TCOOFF)); errno != 0 {
		t.Fatal(errno)
	}
	if err := w.Tell("alice", "stopped"); err == nil {
		t.Error("a stopped terminal took it")
	}
	for range 100 { // nor one that nobody reads from
		_ = w.Tell("bob", strings.Repeat("x", 4000))
	}
}

// said reads from a terminal until text came, and the end of its line.
func said(t *testing.T, f *os.File, text string) string {
	t.Helper()
	var got bytes.Buffer
	_ = f.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1000)
	for whole := false; !whole; {
		n, err := f.Read(b)
		got.Write(b[:n])
		if err != nil {
			t.Fatalf("read %q: %v", got.String(), err)
		}
		_, after, ok := strings.Cut(got.String(), text)
		whole = ok && strings.HasSuffix(after, "\n")
	}
	return got.String()
}

func TestLastInput(t *testing.T) {
	w := New(Config{Name: names})
	master, path := pty(t, alice)
	_ = as(t, alice, "/bin/sleep", "1000")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	look(t, w, "an hour ago", func(m map[shoal.UserName]api.UserActivity) bool {
		return m["alice"].LastInput.Sub(old).Abs() < time.Second+time.Millisecond
	})
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	if _, err := master.WriteString("x\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := slave.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	look(t, w, "just now", func(m map[shoal.UserName]api.UserActivity) bool {
		return time.Since(m["alice"].LastInput) < time.Minute
	})
}

func TestEditorsClientIsRemembered(t *testing.T) {
	w := New(Config{Name: names})
	look(t, w, "nobody of the test before", func(m map[shoal.UserName]api.UserActivity) bool { return len(m) == 0 && len(w.connected) == 0 })
	_ = as(t, alice, "/bin/sh", "-c", "sleep 1000; : /home/alice/.vscode-server/bin/x")
	look(t, w, "an editor", func(m map[shoal.UserName]api.UserActivity) bool { return len(m["alice"].Pins) == 1 })
	w.connected[alice] = time.Now().Add(-clientless)
	look(t, w, "a leftover", func(m map[shoal.UserName]api.UserActivity) bool { return len(m) == 0 })
	w.cfg.GPUs = func() bool { return true }
	w.connected[alice] = time.Now().Add(-clientless)
	look(t, w, "perhaps at work on a GPU", func(m map[shoal.UserName]api.UserActivity) bool { return len(m["alice"].Pins) == 1 })
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 12 12 34816 12 4194304 1 0 0 0 5 6 0 0 20 0 1 0 777 8192 100"))
	f.Add([]byte("\nUid:\t28601\t0\t0\t0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseStat(b)
		if ok && p.pid < 0 && !bytes.Contains(b, []byte("-")) {
			t.Error(p)
		}
		if uid, ok := parseUID(b); ok && uid < 0 {
			t.Error(uid)
		}
		inTask(b)
		for _, r := range clean(string(b)) {
			if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r >= 0x7f && r < 0xa0 {
				t.Errorf("%q stays", r)
			}
		}
	})
	p, ok := parseStat([]byte("12 (a) b) S 1 12 12 34816 12 4194304 1 0 0 0 5 6 0 0 20 0 1 0 777 8192 100"))
	if want := (proc{pid: 12, ppid: 1, name: "a) b", tty: true, born: 777, used: 11}); !ok || p != want {
		f.Errorf("%+v", p)
	}
}

func BenchmarkLook(b *testing.B) {
	w := New(Config{Name: names})
	procs, err := w.scan()
	if err != nil {
		b.Fatal(err)
	}
	used := func() int64 { // wall time says more about the neighbours
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	for b.Loop() {
		if _, err := w.Look(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(used()-before)/1e3/float64(b.N)/float64(len(procs)), "cpu-µs/process")
}
