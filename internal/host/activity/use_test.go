package activity

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// The idle matrix: of each kind of activity one that counts, and one that does not. What counts is in use for as long as it
// is there. What does not waits for its user, and ends when she does not come back to it.
func TestIdleMatrix(t *testing.T) {
	const (
		code   = "/home/alice/.vscode-server/bin/x/node out/server-main.js "
		kernel = "/usr/bin/python3 -m ipykernel_launcher -f /home/alice/.local/share/jupyter/runtime/kernel-1.json "
		hour   = 3600 * ticks
	)
	at := func(ppid int, name, args string, used uint64) proc {
		return proc{ppid: ppid, uid: alice, name: name, args: args, tty: args != "" && shell(name), used: used}
	}
	prompt := at(11, "bash", "-bash ", 0)
	tmux, tmuxShell := at(1, "tmux: server", "", 0), at(100, "bash", "-bash ", 0)
	server := at(1, "node", code, 0)
	type row struct {
		what  string
		procs []proc // numbered from 100 on
		typed bool   // since the look an hour ago
		gpu   bool
		inUse string // empty: it waits
	}
	for _, pair := range [][2]row{
		{{what: "a connection in which somebody types", typed: true}, {what: "a connection that is only open"}},
		{{what: "a script in a shell", procs: []proc{at(12, "bash", "bash train.sh ", 0)}, inUse: "bash runs"},
			{what: "a shell that asks what to do next", procs: []proc{prompt, at(100, "bash", "bash --init-file /x/shellIntegration-bash.sh ", 0), at(100, "zsh", "-zsh ", 0)}}},
		{{what: "a program in a terminal", procs: []proc{prompt, at(100, "vim", "", 0)}, inUse: "vim runs"},
			{what: "one that only shows something", procs: []proc{prompt, at(100, "top", "", 0), at(100, "less", "", 0), at(100, "watch", "", 0)}}},
		{{what: "a tmux with a program", procs: []proc{tmux, tmuxShell, at(101, "python3", "python3 train.py ", 0)}, inUse: "python3 runs"},
			{what: "a tmux with shells", procs: []proc{tmux, tmuxShell, tmuxShell}}},
		{{what: "a program in the background that waits for a file", procs: []proc{at(1, "wget", "", 0)}, inUse: "wget runs"},
			{what: "what logins leave behind", procs: []proc{at(1, "ssh-agent", "", 0), at(1, "dbus-daemon", "", 0), at(1, "gpg-agent", "", 0)}}},
		{{what: "a program that a leftover has started", procs: []proc{at(1, "systemd", "systemd --user ", 0), at(100, "syncthing", "", 0)}, inUse: "syncthing runs"},
			{what: "the leftover alone", procs: []proc{at(1, "systemd", "systemd --user ", 0), at(100, "pipewire", "", 0)}}},
		{{what: "a program in an editor's terminal", procs: []proc{server, at(100, "bash", "/bin/bash --init-file /x/y.sh ", 0), {ppid: 101, uid: alice, name: "make", tty: true}}, inUse: "make runs"},
			{what: "an editor's server with all its helpers", procs: []proc{server, at(100, "node", code, 0), at(101, "pylsp", "", 0), at(101, "rg", "", 0), at(100, "bash", "/bin/bash -l ", 0)}}},
		{{what: "an editor's notebook", procs: []proc{server, at(100, "python3", kernel, 0)}, inUse: "python3 runs"},
			{what: "an editor's server without one", procs: []proc{server}}},
		{{what: "a notebook server with a kernel", procs: []proc{at(1, "jupyter-lab", "/usr/bin/python3 /usr/bin/jupyter-lab ", 0), at(100, "python3", kernel, 0)}, inUse: "python3 runs"},
			{what: "a notebook server without one", procs: []proc{at(1, "jupyter-lab", "/usr/bin/python3 /usr/bin/jupyter-lab ", 0)}}},
		{{what: "a kernel that computes", procs: []proc{at(1, "jupyter-lab", "/usr/bin/python3 /usr/bin/jupyter-lab ", 0), at(100, "python3", kernel, 0)}, inUse: "python3 runs"},
			{what: "a kernel that waits, as its server says", procs: []proc{at(1, "jupyter-lab", "/usr/bin/python3 /usr/bin/jupyter-lab ", 0), {ppid: 100, uid: alice, name: "python3", args: kernel, waits: true}}}},
		{{what: "a copy under way", procs: []proc{at(11, "rsync", "", 0)}, inUse: "rsync runs"},
			{what: "a file manager that is only open", procs: []proc{at(11, "sftp-server", "", 0)}}},
		{{what: "a shell that computes by itself", procs: []proc{at(11, "bash", "-bash ", hour/5)}, inUse: "what she has there uses the processor"},
			{what: "one that uses a little", procs: []proc{at(11, "bash", "-bash ", hour/50)}}},
		{{what: "work on a GPU", procs: []proc{prompt}, gpu: true, inUse: "a GPU of the machine is in use"},
			{what: "a GPU that nobody uses", procs: []proc{prompt}}},
		{{what: "a shell of which nothing more is known", procs: []proc{{ppid: 11, uid: alice, name: "bash", tty: true}}, inUse: "bash runs"},
			{what: "a shell through another door", procs: []proc{{ppid: 1, name: "su"}, at(100, "bash", "-bash ", 0)}}},
	} {
		for i, c := range pair {
			procs := []proc{{pid: 1, name: "shoal-agent", args: "shoal-agent init "}, {pid: 2, ppid: 1, name: "sshd"}, {pid: 10, ppid: 2, name: "sshd"},
				{pid: 11, ppid: 10, uid: alice, name: "sshd"}, {pid: 12, ppid: 11, uid: alice, name: "bash", args: "-bash ", tty: true}}
			for n, p := range c.procs {
				p.pid = 100 + n
				procs = append(procs, p)
			}
			w := New(Config{Name: names, GPUs: func() bool { return c.gpu }})
			find := func() *found {
				return judge(procs, func(uid int) bool { return uid == alice }, func(int, int) bool { return false })[alice]
			}
			began := time.Now()
			start := find()
			for _, p := range start.own {
				p.used = 0
			}
			w.judgeUse(alice, start, began, began)
			for n, p := range c.procs {
				procs[5+n].used = p.used
			}
			input := began
			if c.typed {
				input = began.Add(59 * time.Minute)
			}
			got, unused := w.judgeUse(alice, find(), input, began.Add(time.Hour))
			waits := i == 1
			if got != c.inUse || waits != (time.Duration(unused) >= time.Hour) {
				t.Errorf("%s: it is in use by %q, unused for %s; want %q", c.what, got, unused, c.inUse)
			}
		}
	}
}

func TestPrompt(t *testing.T) {
	for args, want := range map[string]bool{
		"-bash ": true, "bash ": true, "/bin/bash -i ": true, "bash --login -i ": true, "bash --rcfile /x -i ": true, "zsh -il ": true, "bash +O extglob ": true, "fish --interactive ": true,
		"": false, "bash -c sleep ": false, "sh -lc x ": false, "bash x.sh ": false, "bash -x x.sh ": false, "fish --command x ": false, "bash -ic x ": false, "sh - x ": false,
	} {
		if got := prompt(args); got != want {
			t.Errorf("%q: %v", args, got)
		}
	}
}

// What uses the processor keeps its user on the machine although nothing else does: an editor's server whose client has gone.
func TestBusyLeftoverIsAPin(t *testing.T) {
	w := New(Config{Name: names})
	now := time.Now()
	server := &proc{pid: 100, ppid: 1, uid: alice, name: "node"}
	look := func(after time.Duration, used uint64) (string, map[string]int) {
		server.used = used
		f := &found{pins: map[string]int{}, own: []*proc{server}}
		what, _ := w.judgeUse(alice, f, time.Time{}, now.Add(after))
		return what, f.pins
	}
	look(0, 0)
	if what, pins := look(time.Minute, 50*ticks); what == "" || pins["busy"] != 1 {
		t.Errorf("it computes: %q %v", what, pins)
	}
	if what, pins := look(2*time.Minute, 51*ticks); what == "" || pins["busy"] != 1 {
		t.Errorf("a pause: %q %v", what, pins)
	}
	if what, pins := look(5*time.Minute, 52*ticks); what != "" || len(pins) != 0 {
		t.Errorf("it does not any more: %q %v", what, pins)
	}
}

// Real processes, ended after a fresh look, and only those of a user who uses nothing.
func TestEnd(t *testing.T) {
	tasks := map[shoal.UserName]int{}
	w := New(Config{Name: names, Tasks: func() map[shoal.UserName]int { return tasks }})
	dir, err := os.MkdirTemp("/tmp", "shoal-activity-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	_ = os.Chmod(dir, 0o777)
	top := filepath.Join(dir, "top") // what only shows something
	if err := errors.Join(exec.Command("cp", "/bin/bash", top).Run(), exec.Command("mkfifo", "-m", "666", filepath.Join(dir, "fifo")).Run()); err != nil {
		t.Fatal(err)
	}
	stubborn := as(t, alice, top, "-c", "cd "+dir+"; trap ': >asked' HUP; exec 3<>fifo; while :; do read x <&3; done")
	other := as(t, bob, "/bin/sleep", "1000")
	unused := func(m map[shoal.UserName]api.UserActivity) bool {
		return m["alice"].Unused > 0 && m["alice"].InUse == "" && strings.HasPrefix(m["bob"].InUse, "sleep runs")
	}
	look(t, w, "what waits, and a program", unused)
	if err := w.End(t.Context(), "alice", time.Hour); err == nil || !strings.Contains(err.Error(), "has used it") {
		t.Errorf("she has been away for a moment only: %v", err)
	}
	if err := w.End(t.Context(), "bob", 0); err == nil || !strings.Contains(err.Error(), "sleep runs") {
		t.Errorf("he has a program: %v", err)
	}
	busy := as(t, alice, "/bin/sleep", "1000")
	if err := w.End(t.Context(), "alice", 0); err == nil {
		t.Error("a program that was started since the last look was ended")
	}
	_ = busy.Process.Kill()
	_ = busy.Wait()
	end := func(user shoal.UserName, cmd *exec.Cmd, unused time.Duration) {
		t.Helper()
		gone := make(chan struct{})
		go func() { _ = cmd.Wait(); close(gone) }()
		if err := w.End(t.Context(), user, unused); err != nil {
			t.Error(err)
		}
		<-gone
	}
	fresh := make(chan func() bool, 1)
	go func() { fresh <- loginMeanwhile(t, dir) }()
	end("alice", stubborn, 0)
	if alive := <-fresh; !alive() {
		t.Error("she has come again meanwhile, and is ended as well")
	}
	if err := w.End(t.Context(), "carol", 0); err != nil {
		t.Errorf("one who has nothing: %v", err)
	}
	look(t, w, "bob's only", func(m map[shoal.UserName]api.UserActivity) bool {
		return len(m) == 1 && slices.Equal(m["bob"].Pins, []shoal.Pin{{Kind: "process", Count: 1}})
	})
	if err := syscall.Kill(other.Process.Pid, 0); err != nil {
		t.Error("bob's program was ended")
	}
	end("bob", other, -1) // on somebody's word
	look(t, w, "nobody", func(m map[shoal.UserName]api.UserActivity) bool { return len(m) == 0 })
}

// loginMeanwhile makes what looks like a connection of alice's, once a process of hers has been asked to end. It returns whether that
// is still there, and then ends it.
func loginMeanwhile(t *testing.T, dir string) (alive func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "asked")); err == nil {
			break
		}
	}
	sshd := filepath.Join(dir, "sshd")
	if err := exec.Command("cp", "/bin/bash", sshd).Run(); err != nil {
		t.Error(err)
	}
	child := fmt.Sprintf("setpriv --reuid=%d --regid=%d --clear-groups %s -c 'echo in; read x; echo out'", alice, alice, sshd)
	cmd := exec.Command(sshd, "-c", child+"; :")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Error(err)
		return func() bool { return false }
	}
	said := bufio.NewReader(out)
	_, _ = said.ReadString('\n')
	return func() bool {
		_, _ = in.Write([]byte("x\n"))
		b, _ := io.ReadAll(said)
		_ = cmd.Wait()
		return string(b) == "out\n"
	}
}

// What a pool's own command says, and what becomes of one that cannot say it.
func TestSite(t *testing.T) {
	s := NewSite(discard(), "NAME=m-1")
	defer s.Close()
	if s.Want(""); s.Held() != "" {
		t.Errorf("nothing is asked: %q", s.Held())
	}
	for command, want := range map[string]string{
		"exit 1":                           "",
		"echo $NAME; exit 0":               "the pool's probe says that something is in use: m-1",
		"true":                             "the pool's probe says that something is in use",
		"echo no; exit 3":                  "the pool's probe fails (exit status 3): no",
		"/nowhere/probe":                   "the pool's probe fails (exit status 127): /bin/sh: 1: /nowhere/probe: not found",
		"printf '\\033[2Ja\\nb'":           "the pool's probe says that something is in use: [2Ja",
		"kill -9 $$":                       "the pool's probe fails (signal: killed)",
		"yes | head -c 1000000; exit 1":    "",
		"(sleep 60 &) ; exit 1":            "",
		"head -c 100000 /dev/zero; exit 0": "the pool's probe says that something is in use",
	} {
		if got := s.run(t.Context(), command); got != want {
			t.Errorf("%s: %q", command, got)
		}
	}
	s.Want("exit 1")
	if s.Held() == "" {
		t.Log("it has answered already")
	}
	for end := time.Now().Add(patience); s.Held() != "" && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if s.Held() != "" {
		t.Errorf("%q", s.Held())
	}
	s.Want("echo busy")
	if s.Held() == "" {
		t.Error("before it has answered nothing is known, and it counts as idle")
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
