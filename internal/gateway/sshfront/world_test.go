package sshfront

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/route"
)

// patience is how long a test waits for what must happen.
const patience = 3 * time.Minute

// world is a gateway between real OpenSSH clients and real sshds.
type world struct {
	t      testing.TB
	dir    string
	front  *Front
	addr   string
	router *router
	people *people
	userCA ssh.Signer
	hostCA ssh.Signer
	log    *syncBuffer
	cancel context.CancelFunc
	served chan error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// router seats everybody on the machine that place says.
type router struct {
	mu       sync.Mutex
	place    func(ctx context.Context, r route.Request, progress func(string)) (*machine, error)
	parts    map[string]shoal.MachineID
	suspects []shoal.MachineID
	logins   []route.Request
	done     chan struct{} // of every session; nil: they do not end
}

func (r *router) Login(ctx context.Context, req route.Request, part string, progress func(string)) (route.Target, error) {
	r.mu.Lock()
	r.logins = append(r.logins, req)
	place := r.place
	r.mu.Unlock()
	m, err := place(ctx, req, progress)
	if err != nil {
		return route.Target{}, err
	}
	pool := req.Pool
	if pool == "" {
		pool = "lab"
	}
	r.mu.Lock()
	r.parts[part] = m.id
	done := r.done
	r.mu.Unlock()
	return route.Target{
		Done: done, Session: "s-1", User: req.User, Pool: pool, Machine: m.id, Address: m.addr,
		Principal: route.Principal(req.User, pool),
	}, nil
}

func (r *router) Closed(_ shoal.SessionID, part string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.parts, part)
}

func (r *router) Suspect(id shoal.MachineID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.suspects = append(r.suspects, id)
}

func (r *router) open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.parts)
}

func (r *router) to(m *machine) {
	r.set(func(context.Context, route.Request, func(string)) (*machine, error) { return m, nil })
}

func (r *router) set(place func(context.Context, route.Request, func(string)) (*machine, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.place = place
}

// people is a directory: everybody of alice, bob and u0… has the world's key.
type people struct {
	mu       sync.Mutex
	keys     map[string]bool
	password string
	users    map[shoal.UserName]shoal.User
}

func (p *people) User(_ context.Context, name shoal.UserName) (shoal.User, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.users[name]
	return u, ok
}

func (p *people) CheckKey(_ context.Context, name shoal.UserName, key ssh.PublicKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.users[name]
	return ok && p.keys[string(key.Marshal())]
}

func (p *people) CheckPassword(_ context.Context, name shoal.UserName, password, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.users[name]; !ok || password != p.password || password == "" {
		return fmt.Errorf("no")
	}
	return nil
}

func newKey(t testing.TB, path string) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if path != "" {
		block, err := ssh.MarshalPrivateKey(private, "")
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, string(pem.EncodeToMemory(block)), 0o600)
		write(t, path+".pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())), 0o644)
	}
	return signer
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// newWorld starts a gateway. Its users are alice, bob and u0 to u199.
func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a real sshd with users of its own")
	}
	for _, tool := range []string{"/usr/sbin/sshd", "/usr/bin/ssh", "/usr/bin/unshare"} {
		need.Program(t, tool)
	}
	dir, err := os.MkdirTemp("/tmp", "shoal-ssh-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, log: &syncBuffer{}, served: make(chan error, 1)}
	w.userCA, w.hostCA = newKey(t, ""), newKey(t, "")
	key := newKey(t, filepath.Join(dir, "id"))
	newKey(t, filepath.Join(dir, "other"))
	w.people = &people{keys: map[string]bool{string(key.PublicKey().Marshal()): true}, users: map[shoal.UserName]shoal.User{}}
	for _, name := range users() {
		w.people.users[shoal.UserName(name)] = shoal.User{Name: shoal.UserName(name), Groups: []shoal.GroupName{"research"}}
	}
	w.router = &router{parts: map[string]shoal.MachineID{}}
	hostKey := newKey(t, "")
	cfg := Config{
		HostKey: hostKey, UserCA: w.userCA, HostCA: w.hostCA.PublicKey(),
		Directory: w.people, Router: w.router, Dial: func(ctx context.Context, _ shoal.MachineID, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	if w.front, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	write(t, filepath.Join(dir, "known"), "* "+string(ssh.MarshalAuthorizedKey(hostKey.PublicKey()))+
		"@cert-authority * "+string(ssh.MarshalAuthorizedKey(w.hostCA.PublicKey())), 0o644)
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() { w.served <- w.front.Serve(ctx, ln) }()
	t.Cleanup(w.stop)
	return w
}

func (w *world) stop() {
	if w.cancel == nil {
		return
	}
	w.cancel()
	w.cancel = nil
	select {
	case err := <-w.served:
		if err != nil {
			w.t.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		w.t.Error("Serve does not return")
	}
	if log := w.log.String(); strings.Contains(log, "level=ERROR") {
		w.t.Errorf("the gateway logged an error:\n%s", log)
	}
}

func users() []string {
	names := []string{"alice", "bob"}
	for i := range 200 {
		names = append(names, fmt.Sprintf("u%d", i))
	}
	return names
}

// machine is an sshd with accounts of its own.
type machine struct {
	id   shoal.MachineID
	addr string
	cmd  *exec.Cmd
	dir  string
	log  string
}

// newMachine starts an sshd in a mount namespace of its own, where the users exist.
func (w *world) newMachine(id shoal.MachineID, extra ...string) *machine {
	t := w.t
	t.Helper()
	m := &machine{id: id, dir: filepath.Join(w.dir, string(id))}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(m.dir, 0o755))
	must(os.Mkdir(filepath.Join(m.dir, "principals"), 0o755))
	passwd, err := os.ReadFile("/etc/passwd")
	must(err)
	text := strings.TrimRight(string(passwd), "\n") + "\n"
	for i, name := range users() {
		home := filepath.Join(m.dir, "home", name)
		must(os.MkdirAll(home, 0o755))
		must(os.Chown(home, 52001+i, 52001))
		text += fmt.Sprintf("%s:x:%d:52001::%s:/bin/sh\n", name, 52001+i, home)
		write(t, filepath.Join(m.dir, "principals", name), name+"@lab\n", 0o644)
	}
	write(t, filepath.Join(m.dir, "passwd"), text, 0o644)
	write(t, filepath.Join(m.dir, "user_ca"), string(ssh.MarshalAuthorizedKey(w.userCA.PublicKey())), 0o644)
	key := newKey(t, filepath.Join(m.dir, "host"))
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.HostCert, KeyId: string(id),
		ValidPrincipals: []string{string(id), "127.0.0.1"}, ValidBefore: ssh.CertTimeInfinity,
	}
	must(cert.SignCert(rand.Reader, w.hostCA))
	write(t, filepath.Join(m.dir, "host-cert.pub"), string(ssh.MarshalAuthorizedKey(cert)), 0o644)
	own, err := os.ReadFile(filepath.Join(w.dir, "id.pub"))
	must(err)
	write(t, filepath.Join(m.dir, "authorized"), string(own), 0o644)
	port := need.Port(t)
	m.addr = "127.0.0.1:" + port
	m.log = filepath.Join(m.dir, "log")
	config := []string{
		"Port " + port, "ListenAddress 127.0.0.1", "HostKey " + m.dir + "/host", "HostCertificate " + m.dir + "/host-cert.pub",
		"TrustedUserCAKeys " + m.dir + "/user_ca", "AuthorizedPrincipalsFile " + m.dir + "/principals/%u",
		"AuthorizedKeysFile " + m.dir + "/authorized", "StrictModes no", "UsePAM no", "PasswordAuthentication no",
		"PidFile none", "X11Forwarding yes", "X11UseLocalhost yes", "AllowAgentForwarding yes", "AllowStreamLocalForwarding yes",
		"MaxSessions 1000", "MaxStartups 500", "Subsystem sftp internal-sftp", "PermitUserEnvironment no", "AcceptEnv LANG TEST_*",
		"LogLevel VERBOSE", "UseDNS no", "PrintMotd no", "PrintLastLog no",
	}
	write(t, filepath.Join(m.dir, "config"), strings.Join(append(config, extra...), "\n")+"\n", 0o644)
	script := fmt.Sprintf("mount --bind %s/passwd /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd && "+
		"exec /usr/sbin/sshd -D -e -f %s/config 2>%s", m.dir, m.dir, m.log)
	m.cmd = exec.Command("/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "/bin/sh", "-c", script)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(m.cmd.Start())
	t.Cleanup(m.stop)
	deadline := time.Now().Add(patience)
	for {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(m.log)
			t.Fatalf("sshd does not start: %v\n%s", err, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return m
}

// stop ends the sshd with all its children: each has a session of its own, so they are looked for.
func (m *machine) stop() {
	for _, pid := range append(m.children(), m.cmd.Process.Pid) {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	m.cmd.Wait()
}

// children returns the processes below the machine's sshd.
func (m *machine) children() []int {
	return below(m.cmd.Process.Pid)
}

func below(root int) []int {
	parents := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var pid, parent int
		fmt.Sscan(string(text), &pid)
		after := text[bytes.LastIndexByte(text, ')')+1:]
		var state string
		fmt.Sscan(string(after), &state, &parent)
		parents[parent] = append(parents[parent], pid)
	}
	var all []int
	var walk func(int)
	walk = func(p int) {
		for _, c := range parents[p] {
			all = append(all, c)
			walk(c)
		}
	}
	walk(root)
	return all
}

// freeze stops the sshd and all its children, as a machine that hangs.
func (m *machine) freeze(on bool) {
	sig := syscall.SIGSTOP
	if !on {
		sig = syscall.SIGCONT
	}
	for _, pid := range append(m.children(), m.cmd.Process.Pid) {
		syscall.Kill(pid, sig)
	}
}

// options are what every client is called with, to the gateway or, given its address, to a machine.
func (w *world) options(addr string) []string {
	_, port, _ := net.SplitHostPort(addr)
	return []string{
		"-F", "none", "-o", "Port=" + port, "-i", filepath.Join(w.dir, "id"), "-o", "IdentitiesOnly=yes",
		"-o", "UserKnownHostsFile=" + filepath.Join(w.dir, "known"), "-o", "GlobalKnownHostsFile=none",
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "UpdateHostKeys=no", "-o", "ConnectTimeout=120",
	}
}

// ssh makes a command of the OpenSSH client through the gateway. Host options come before the user.
func (w *world) ssh(args ...string) *exec.Cmd { return w.sshTo(w.addr, args...) }

func (w *world) sshTo(addr string, args ...string) *exec.Cmd {
	cmd := exec.Command("/usr/bin/ssh", append(w.options(addr), args...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + w.dir, "LANG=C.UTF-8"}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// unhurried is what a client wrote to stderr without what it is told on a slow host, meanwhile.
func unhurried(stderr string) string {
	return strings.ReplaceAll(stderr, "shoal: a place is being looked for\n", "")
}

// outcome is what a command did.
type outcome struct {
	out, err string
	code     int
}

// run runs a command to its end.
func (w *world) run(cmd *exec.Cmd, stdin io.Reader) outcome {
	w.t.Helper()
	var out, errs bytes.Buffer
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errs
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	timer := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		w.t.Errorf("%v did not end; stderr: %s\ngateway: %s", cmd.Args, errs.String(), w.log.String())
	}
	if err != nil && cmd.ProcessState == nil {
		w.t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// until waits for something to become true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not so after %v\n%s", what, patience, w.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
