package sshfront

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal/internal/need"
)

// echo serves the upper case of what comes, to the end of input, and then says how much it was.
func echo(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				fmt.Fprintf(c, "%s %d", bytes.ToUpper(all[:min(len(all), 20)]), len(all))
			}()
		}
	}()
	return ln
}

// ask sends something, ends its output and reads the answer: it works only if one direction
// can be closed while the other goes on.
func ask(network, addr, text string) (string, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	all, err := io.ReadAll(c)
	return string(all), err
}

// background starts a client and returns when it has logged in and printed ready.
func (w *world) background(args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := w.ssh(args...)
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	var once sync.Once
	stop := func() { once.Do(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }) }
	w.t.Cleanup(stop)
	cmd.Cancel = func() error { stop(); return nil }
	w.until("a client is ready: "+strings.Join(args, " "), func() bool {
		return strings.Contains(out.String(), "ready") || strings.Contains(strings.Join(args, " "), "-N")
	})
	return cmd
}

const stay = "echo ready; cat"

func TestForwards(t *testing.T) {
	w := newWorld(t)
	w.router.to(w.newMachine("m-1"))
	target := echo(t, "tcp", "127.0.0.1:0").Addr().String()
	long := strings.Repeat("shoal", 300000)
	want := fmt.Sprintf("%s %d", strings.ToUpper(long[:20]), len(long))
	check := func(what, network, addr string) {
		t.Helper()
		var got string
		var err error
		w.until(what, func() bool { got, err = ask(network, addr, long); return err == nil })
		if got != want {
			t.Errorf("%s: got %.60q, want %q", what, got, want)
		}
	}
	local, remote, dynamic := need.Port(t), need.Port(t), need.Port(t)
	sockets, err := os.MkdirTemp("/tmp", "shoal-sock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	os.Chmod(sockets, 0o777)
	there := echo(t, "unix", filepath.Join(sockets, "there")).Addr().String()
	os.Chmod(there, 0o777)
	w.background("-L", "127.0.0.1:"+local+":"+target, "-R", "127.0.0.1:"+remote+":"+target, "-D", "127.0.0.1:"+dynamic,
		"-L", sockets+"/l:"+there, "-R", sockets+"/r:"+target, "-o", "StreamLocalBindMask=0000",
		"-o", "ExitOnForwardFailure=yes", "alice@127.0.0.1", stay)
	check("-L", "tcp", "127.0.0.1:"+local)
	check("-R", "tcp", "127.0.0.1:"+remote)
	check("-L of a socket", "unix", sockets+"/l")
	check("-R of a socket", "unix", sockets+"/r")
	check("-D", "tcp", socks(t, "127.0.0.1:"+dynamic, target))

	got := w.run(w.ssh("-W", target, "alice@127.0.0.1"), strings.NewReader(long))
	if got.out != want {
		t.Errorf("-W: got %.60q, want %q", got.out, want)
	}
	got = w.run(w.ssh("-W", "127.0.0.1:"+need.Port(t), "alice@127.0.0.1"), nil)
	if got.code == 0 || !strings.Contains(got.err, "open failed: connect failed") {
		t.Errorf("-W to a closed port: %+v", got)
	}
	client := w.dial(t, "bob")
	ln, err := client.Listen("tcp", "127.0.0.1:0") // the machine picks the port
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	if got, err := ask("tcp", addr, "there and back"); err != nil || got != "there and back" {
		t.Errorf("-R with a free port: %q, %v", got, err)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("cancel: %v", err)
	}
	w.until("a cancelled forward is closed", func() bool { _, err := net.Dial("tcp", addr); return err != nil })
}

// socks returns the address of a listener whose connections go through a SOCKS proxy to target.
func socks(t *testing.T, proxy, target string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				p, err := net.Dial("tcp", proxy)
				if err != nil {
					return
				}
				defer p.Close()
				host, port, _ := net.SplitHostPort(target)
				var n int
				fmt.Sscan(port, &n)
				ip := net.ParseIP(host).To4()
				p.Write(append([]byte{4, 1, byte(n >> 8), byte(n), ip[0], ip[1], ip[2], ip[3]}, 0))
				if _, err := io.ReadFull(p, make([]byte, 8)); err != nil {
					return
				}
				go func() { io.Copy(p, c); p.(*net.TCPConn).CloseWrite() }()
				io.Copy(c, p)
			}()
		}
	}()
	return ln.Addr().String()
}

// Two logins share a connection to the machine until one wants its agent there.
func TestAgentIsNotShared(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	agent := filepath.Join(w.dir, "agent.sock")
	cmd := exec.Command("ssh-agent", "-D", "-a", agent)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	w.until("the agent listens", func() bool { _, err := os.Stat(agent); return err == nil })
	add := exec.Command("ssh-add", filepath.Join(w.dir, "id"))
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+agent)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	withAgent := func(args ...string) *exec.Cmd {
		c := w.ssh(args...)
		c.Env = append(c.Env, "SSH_AUTH_SOCK="+agent)
		return c
	}
	w.background("alice@127.0.0.1", stay) // plain, shared
	if n := m.logins(); n != 1 {
		t.Fatalf("%d connections to the machine, want 1", n)
	}
	hold := withAgent("-A", "alice@127.0.0.1", "echo $SSH_AUTH_SOCK; cat")
	out := &lockedBuffer{}
	hold.Stdout = out
	in, _ := hold.StdinPipe()
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); hold.Process.Kill(); hold.Wait() })
	w.until("the agent is there", func() bool { return strings.Contains(out.String(), "/agent.") })
	if n := m.logins(); n != 2 {
		t.Errorf("%d connections to the machine, want 2", n)
	}
	got := w.run(withAgent("-A", "alice@127.0.0.1", "ssh-add -l"), nil)
	if got.code != 0 || !strings.Contains(got.out, "ED25519") {
		t.Errorf("the agent cannot be used: %+v", got)
	}
	got = w.run(withAgent("-A", "-tt", "alice@127.0.0.1", "ssh-add -l"), nil)
	if got.code != 0 || !strings.Contains(got.out, "ED25519") {
		t.Errorf("the agent cannot be used at a terminal: %+v", got)
	}
	got = w.run(w.ssh("-a", "alice@127.0.0.1", "echo sock=$SSH_AUTH_SOCK"), nil)
	if got.out != "sock=\n" {
		t.Errorf("a login without an agent got another's: %q", got.out)
	}
	// A client that asks for the agent after other things, as it may.
	client := w.dial(t, "alice")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); !ok || err != nil {
		t.Fatalf("agent after pty: %v, %v", ok, err)
	}
	all, err := s.Output("test -t 0 && echo $SSH_AUTH_SOCK")
	if err != nil || !strings.Contains(string(all), "/agent.") {
		t.Errorf("%q, %v", all, err)
	}
	s2, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s2.Start("cat"); err != nil {
		t.Fatal(err)
	}
	other := w.dial(t, "alice")
	s3, _ := other.NewSession()
	s3.Start("cat")
	if ok, _ := s3.SendRequest("auth-agent-req@openssh.com", true, nil); ok {
		t.Error("an agent was accepted for a program that runs already")
	}
}

// logins counts the connections to the machine that have logged in.
func (m *machine) logins() int {
	n := 0
	for _, pid := range m.children() {
		line, _ := os.ReadFile("/proc/" + itoa(pid) + "/cmdline")
		if strings.HasPrefix(string(line), "sshd: ") && strings.Contains(string(line), " [priv]") {
			n++
		}
	}
	return n
}

func TestSharing(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	for range 3 {
		w.background("alice@127.0.0.1", stay)
	}
	w.background("bob@127.0.0.1", stay)
	if n := m.logins(); n != 2 {
		t.Errorf("%d connections, want one for alice and one for bob", n)
	}
	w.front.Retire("alice")
	w.background("alice@127.0.0.1", stay)
	if n := m.logins(); n != 3 {
		t.Errorf("%d connections after Retire, want 3", n)
	}
	w.people.mu.Lock()
	u := w.people.users["alice"]
	u.Groups = append(u.Groups, "more")
	w.people.users["alice"] = u
	w.people.mu.Unlock()
	w.background("alice@127.0.0.1", stay)
	if n := m.logins(); n != 4 {
		t.Errorf("%d connections after a change of groups, want 4", n)
	}
	w.background("-R", "127.0.0.1:0:127.0.0.1:1", "alice@127.0.0.1", stay)
	w.until("a connection for the remote forward", func() bool { return m.logins() == 5 })
}

// X11 goes through: the machine's display reaches the client's.
func TestX11(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	client := w.dial(t, "alice")
	opened := client.HandleChannelOpen("x11")
	s, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	ok, err := s.SendRequest("x11-req", true, ssh.Marshal(struct {
		Single        bool
		Proto, Cookie string
		Screen        uint32
	}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("ab", 16), 0}))
	if err != nil || !ok {
		log, _ := os.ReadFile(m.log)
		t.Fatalf("x11-req: %v, %v\n%s", ok, err, log)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo $DISPLAY; sleep 300"); err != nil {
		t.Fatal(err)
	}
	display, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.Contains(display, ":") {
		t.Fatalf("DISPLAY: %q, %v", display, err)
	}
	var n int
	fmt.Sscanf(display[strings.Index(display, ":")+1:], "%d", &n)
	go ask("tcp", fmt.Sprintf("127.0.0.1:%d", 6000+n), "l\x00\x0b\x00")
	select {
	case nc := <-opened:
		ch, _, err := nc.Accept()
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 4)
		if _, err := io.ReadFull(ch, first); err != nil || string(first) != "l\x00\x0b\x00" {
			t.Errorf("got %q, %v", first, err)
		}
	case <-time.After(patience):
		t.Fatal("the display did not come")
	}
}

// What VS Code does to a remote: a script on standard input, a dynamic forward to
// the server it starts, a server on a socket, a connection that drops, and another to the same place.
func TestVSCode(t *testing.T) {
	w := newWorld(t)
	m := w.newMachine("m-1")
	w.router.to(m)
	sock := filepath.Join(m.dir, "home", "alice", "code.sock")
	script := "unset x\necho start\n(setsid python3 -c '\n" + `
import http.server, socketserver, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"code")
    def address_string(self): return ""
class U(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass
U("code.sock", H).serve_forever()
' >/dev/null 2>&1 </dev/null &)
for i in $(seq 200); do test -S code.sock && break; sleep 0.05; done
echo listeningOn==ready==
`
	connect := func(port string) *exec.Cmd {
		cmd := w.ssh("-T", "-D", "127.0.0.1:"+port, "-o", "ConnectTimeout=120", "alice@127.0.0.1", "sh")
		out := &lockedBuffer{}
		cmd.Stdout = out
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		if _, err := os.Stat(sock); err == nil {
			io.WriteString(in, "echo listeningOn==ready==\n")
		} else {
			io.WriteString(in, script)
		}
		w.until("the script has run", func() bool { return strings.Contains(out.String(), "listeningOn==ready==") })
		return cmd
	}
	get := func() string {
		client := w.dial(t, "alice")
		defer client.Close()
		web := http.Client{Timeout: patience, Transport: &http.Transport{
			Dial: func(string, string) (net.Conn, error) { return client.Dial("unix", sock) }}}
		res, err := web.Get("http://code/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	target := echo(t, "tcp", "127.0.0.1:0").Addr().String()
	port := need.Port(t)
	first := connect(port)
	if got, err := ask("tcp", socks(t, "127.0.0.1:"+port, target), "x"); err != nil || got != "X 1" {
		t.Errorf("through the dynamic forward: %q, %v", got, err)
	}
	if got := get(); got != "code" {
		t.Errorf("over the socket: %q", got)
	}
	first.Process.Kill() // dropped
	first.Wait()
	w.until("the gateway has noticed", func() bool { return w.router.open() == 0 })
	port = need.Port(t)
	connect(port)
	if got := get(); got != "code" {
		t.Errorf("after the drop: %q", got)
	}
}
