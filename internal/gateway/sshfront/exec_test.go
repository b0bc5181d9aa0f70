package sshfront

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommands(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	long := strings.Repeat("x", 100<<10)
	for name, c := range map[string]struct {
		args  []string
		stdin string
	}{
		"exit code":        {[]string{"id -un; echo oops >&2; exit 7"}, ""},
		"signal":           {[]string{"kill -TERM $$"}, ""},
		"stdin to its end": {[]string{"cat; echo done; exit 3"}, long},
		"output after stdin closed": {
			[]string{"cat >/dev/null; sleep 0.3; head -c 3000000 /dev/zero | tr '\\0' y; exit 4"}, long},
		"stdin not read":      {[]string{"exec <&-; echo early; exit 5"}, long},
		"output closed first": {[]string{"exec >&- 2>&-; cat >/dev/null; exit 6"}, long},
		"streams apart":       {[]string{"for i in 1 2 3; do echo o$i; echo e$i >&2; done"}, ""},
		"environment":         {[]string{"-o", "SetEnv=TEST_A=b", "alice@127.0.0.1", "echo $TEST_A"}, ""},
		"no such command":     {[]string{"/nonexistent"}, ""},
		"shell":               {[]string{"-T", "alice@127.0.0.1"}, "echo from shell; exit 9\n"},
		"failing subsystem":   {[]string{"-s", "alice@127.0.0.1", "nothing"}, ""},
		"rekeying up":         {[]string{"-o", "RekeyLimit=256K", "alice@127.0.0.1", "cksum"}, strings.Repeat(long, 40)},
		"rekeying down":       {[]string{"-o", "RekeyLimit=256K", "alice@127.0.0.1", "head -c 4000000 /dev/zero"}, ""},
		"chacha only":         {[]string{"-c", "chacha20-poly1305@openssh.com", "alice@127.0.0.1", "cksum"}, long},
		"ctr with sha2":       {[]string{"-c", "aes256-ctr", "-m", "hmac-sha2-256", "alice@127.0.0.1", "cksum"}, long},
		"many variables":      {[]string{"-o", "SendEnv=TEST_*", "alice@127.0.0.1", "echo"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if len(args) == 1 {
				args = append([]string{"alice@127.0.0.1"}, args...)
			}
			reference := w.sshTo(m.addr, args...)
			if strings.HasPrefix(name, "rekeying") { // OpenSSH's own ends have been seen to wait for each other at that
				reference = exec.Command("/bin/sh", "-c", args[len(args)-1])
			}
			want := w.run(reference, strings.NewReader(c.stdin))
			got := w.run(w.ssh(args...), strings.NewReader(c.stdin))
			if got.out != want.out || got.code != want.code {
				t.Errorf("got %d bytes and code %d, want %d and %d\n%.300s", len(got.out), got.code, len(want.out), want.code, got.err)
			}
			if err := unhurried(got.err); !strings.Contains(name, "subsystem") && err != want.err {
				t.Errorf("stderr: got %q, want %q", err, want.err)
			}
		})
	}
}

// A reader that goes away ends an endless writer, both ways.
func TestReaderGoesAway(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	base := strings.Join(w.options(w.addr), " ")
	for _, script := range []string{
		"ssh " + base + " alice@127.0.0.1 yes | head -n 1",
		"yes | ssh " + base + " alice@127.0.0.1 head -n 1",
	} {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if got := w.run(cmd, nil); !strings.HasPrefix(got.out, "y\n") {
			t.Errorf("%s: %+v", script, got)
		}
	}
	w.background("alice@127.0.0.1", "sleep 600 & echo ready").Cancel() // holds its output open
	w.until("all writers ended", func() bool {
		for _, pid := range m.children() {
			if cmd, _ := os.ReadFile("/proc/" + itoa(pid) + "/cmdline"); string(cmd) == "yes\x00" {
				return false
			}
		}
		return true
	})
}

// A client that reads only the exit status need not wait for what the program left behind.
func TestStatusBeforeLeftovers(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	client := w.dial(t, "alice")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan error, 1)
	var out bytes.Buffer
	s.Stdout = &out
	if err := s.Start("sleep 300 & echo $!; exit 3"); err != nil {
		t.Fatal(err)
	}
	go func() { ch <- s.Wait() }()
	// Session.Wait waits for the output too; the status shows on the raw channel.
	raw, reqs, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	raw.SendRequest("exec", true, marshalString("sleep 300 & exit 3"))
	select {
	case req := <-reqs:
		if req == nil || req.Type != "exit-status" {
			t.Fatalf("got %+v, want the exit status", req)
		}
	case <-time.After(patience):
		t.Fatal("no exit status")
	}
	client.Close()
	<-ch
}

func TestPty(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	got := w.run(w.ssh("-tt", "alice@127.0.0.1", "tty >/dev/null && echo terminal; exit 4"), nil)
	if !strings.Contains(got.out, "terminal\r\n") || got.code != 4 {
		t.Errorf("%+v", got)
	}
	client := w.dial(t, "alice")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	s.Stdout = &out
	in, _ := s.StdinPipe()
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("stty size; trap 'stty size' WINCH; echo ready; while :; do read x && echo got $x; done"); err != nil {
		t.Fatal(err)
	}
	w.until("the terminal has its size", func() bool { return strings.Contains(out.String(), "24 80") && strings.Contains(out.String(), "ready") })
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("hello\n"))
	w.until("the terminal was resized", func() bool {
		in.Write([]byte("\n"))
		return strings.Contains(out.String(), "50 132") && strings.Contains(out.String(), "got hello")
	})
	client.Close()
	w.until("the shell has gone with its terminal", func() bool { return !m.runs("stty size; trap") })
}

func TestSignalRequest(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	client := w.dial(t, "alice")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out lockedBuffer
	s.Stdout = &out
	if err := s.Start("trap 'echo caught; exit 8' USR1; echo ready; while :; do sleep 0.05; done"); err != nil {
		t.Fatal(err)
	}
	w.until("the program runs", func() bool { return strings.Contains(out.String(), "ready") })
	if err := s.Signal("USR1"); err != nil {
		t.Fatal(err)
	}
	err = s.Wait()
	if status, ok := err.(interface{ ExitStatus() int }); !ok || status.ExitStatus() != 8 || !strings.Contains(out.String(), "caught") {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestExitSignal(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	s, err := w.dial(t, "alice").NewSession()
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run("kill -KILL $$")
	if status, ok := err.(interface{ Signal() string }); !ok || status.Signal() != "KILL" {
		t.Errorf("got %v, want signal KILL", err)
	}
}

func TestTools(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	home := filepath.Join(m.dir, "home", "alice")
	src := filepath.Join(w.dir, "src")
	os.Mkdir(src, 0o755)
	data := bytes.Repeat([]byte("0123456789abcdef"), 70000)
	write(t, filepath.Join(src, "a"), string(data), 0o644)
	rsh := "ssh " + strings.Join(w.options(w.addr), " ")
	env := append(os.Environ(), "HOME="+w.dir, "GIT_SSH_COMMAND="+rsh, "RSYNC_RSH="+rsh, "GIT_CONFIG_NOSYSTEM=1")
	do := func(script string) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-ec", script)
		cmd.Env, cmd.Dir = env, w.dir
		if got := w.run(cmd, nil); got.code != 0 {
			t.Errorf("%s: %+v", script, got)
		}
	}
	same := func(path string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v; want %d", path, len(got), err, len(data))
		}
	}
	options := strings.Join(w.options(w.addr), " ")
	do("scp -q " + options + " src/a alice@127.0.0.1:scp-sftp && scp -q -O " + options + " src/a alice@127.0.0.1:scp-old")
	same(home + "/scp-sftp")
	same(home + "/scp-old")
	do("scp -q " + options + " alice@127.0.0.1:scp-old back1 && scp -q -O " + options + " alice@127.0.0.1:scp-old back2")
	same(w.dir + "/back1")
	same(w.dir + "/back2")
	do("printf 'put src/a viasftp\\nget viasftp back3\\n' | sftp -q -b - " + options + " alice@127.0.0.1")
	same(home + "/viasftp")
	same(w.dir + "/back3")
	do("rsync -a src/ alice@127.0.0.1:rsynced/ && rsync -a alice@127.0.0.1:rsynced/ back4/")
	same(home + "/rsynced/a")
	same(w.dir + "/back4/a")
	do("tar -C src -cf - . | " + rsh + " alice@127.0.0.1 'mkdir t && tar -C t -xf -' && " + rsh + " alice@127.0.0.1 'tar -C t -cf - .' | (mkdir back5 && tar -C back5 -xf -)")
	same(w.dir + "/back5/a")
	do(rsh + ` alice@127.0.0.1 'git init -q r && cd r && git config user.email a@b && git config user.name a && cp ../scp-old a && git add a && git commit -qm 1'`)
	do("git clone -q alice@127.0.0.1:r clone && cd clone && git config user.email a@b && git config user.name a && echo 2 >b && git add b && git commit -qm 2 && git push -q origin HEAD:refs/heads/two")
	same(w.dir + "/clone/a")
}
