package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// What an editor's remote half does: a script on standard input with a dynamic forward beside it, a server left
// running in the machine, connections to it by port and by socket, an end without a goodbye, and the way back.
func TestEditor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(2, rig.Pool("lab", "interactive", "{cpus: 1, memory: 512MiB}", "{min: 2, max: 2}", 8, ""))
	w.ready("lab", 2)
	const script = `set -e
if ! [ -e ~/server.port ] || ! kill -0 $(cat ~/server.pid) 2>/dev/null; then
  rm -f ~/server.port ~/server.sock
  nohup /usr/bin/python3 -c '
import socket, os, threading
def serve(s):
    while True:
        c, _ = s.accept(); c.sendall(b"editor on " + os.uname().nodename.encode() + b"\n"); c.close()
t = socket.socket(); t.bind(("127.0.0.1", 0)); t.listen()
u = socket.socket(socket.AF_UNIX); u.bind(os.path.expanduser("~/server.sock")); u.listen()
threading.Thread(target=serve, args=(u,)).start()
open(os.path.expanduser("~/server.new"), "w").write(str(t.getsockname()[1])); os.rename(os.path.expanduser("~/server.new"), os.path.expanduser("~/server.port"))
serve(t)' >~/server.log 2>&1 </dev/null &
  echo $! >~/server.pid
  while ! [ -e ~/server.port ]; do sleep 0.1; done
fi
echo "port=$(cat ~/server.port) host=$(hostname) pid=$(cat ~/server.pid)"
sleep 1000
`
	var first string
	for range 3 {
		socks, err := rig.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		local := filepath.Join(w.Dir, "editor.sock")
		cmd := exec.CommandContext(t.Context(), "ssh", append(w.SSHOptions(), "-T", "-D", socks, "-L", local+":/shared/home/u1/server.sock",
			"-p", w.Port, "u1@127.0.0.1", "bash")...)
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var port, host, pid string
		if _, err := fmt.Fscanf(out, "port=%s host=%s pid=%s\n", &port, &host, &pid); err != nil {
			t.Fatalf("the script: %v", err)
		}
		want := "editor on " + host + "\n"
		if got, err := throughSocks(t.Context(), socks, port); got != want {
			t.Errorf("by the dynamic forward: %q, %v", got, err)
		}
		c, err := net.Dial("unix", local)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if string(got) != want {
			t.Errorf("by the socket: %q, %v", got, err)
		}
		c.Close()
		_ = cmd.Process.Kill() // it is gone without a word
		_ = cmd.Wait()
		_ = os.Remove(local)
		if now := host + " " + pid; first == "" {
			first = now
		} else if now != first {
			t.Errorf("it was on %s, and is on %s", first, now)
		}
	}
}

// throughSocks asks a port of the far side, by way of a SOCKS proxy, and returns all it says.
func throughSocks(ctx context.Context, proxy, port string) (string, error) {
	c, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", "127.0.0.1:"+proxy)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	n, err := strconv.Atoi(port)
	if err != nil {
		return "", err
	}
	if _, err := c.Write([]byte{4, 1, byte(n >> 8), byte(n), 127, 0, 0, 1, 0}); err != nil { // version 4: connect
		return "", err
	}
	answer := make([]byte, 8)
	if _, err := io.ReadFull(c, answer); err != nil || answer[1] != 90 {
		return "", fmt.Errorf("the proxy says %v, %w", answer, err)
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// A forwarded agent is seen by the login that brought it and by no other, though they share a connection to the machine.
func TestForwardedAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(1, rig.Pool("lab", "interactive", "{cpus: 1, memory: 256MiB}", "{min: 1, max: 1}", 8, ""))
	socket := filepath.Join(w.Dir, "agent")
	agent := exec.CommandContext(t.Context(), "ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	w.until("the agent is there", func() (bool, error) { _, err := os.Stat(socket); return err == nil, nil })
	if _, err := rig.Output(exec.CommandContext(t.Context(), "env", "SSH_AUTH_SOCK="+socket, "ssh-add", "-q", w.Key())); err != nil {
		t.Fatal(err)
	}

	const look = `echo "sock=$SSH_AUTH_SOCK"; ssh-add -l 2>&1 | grep -c ED25519`
	with := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "ssh", append(w.SSHOptions(), "-A", "-p", w.Port, "u1@127.0.0.1", look+"; echo ready; sleep 1000")...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		return cmd
	}
	first := with()
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.Process.Kill(); _ = first.Wait() }()
	var sock, keys, ready string
	if _, err := fmt.Fscanf(out, "sock=%s\n%s\n%s\n", &sock, &keys, &ready); err != nil || keys != "1" || ready != "ready" {
		t.Errorf("with -A she sees socket %q with %q keys, %v", sock, keys, err)
	}
	for range 3 {
		cmd := exec.CommandContext(t.Context(), "ssh", append(w.SSHOptions(), "-p", w.Port, "u1@127.0.0.1", look)...)
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		got, _ := cmd.Output() // grep finds none, and says so by its code
		if string(got) != "sock=\n0\n" {
			t.Errorf("without -A she sees %q", got)
		}
	}
}
