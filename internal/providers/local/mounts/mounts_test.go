package mounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/providers/local/mounts/served"
	"github.com/shoal-pool/shoal/provider"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

// patience is how long a test waits for what takes a moment on a quiet host.
const patience = 3 * time.Minute

func needHost(t testing.TB) {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("real mounts need root, and are left out with -short")
	}
}

// world is a set with machines and secrets, as a provider has.
type world struct {
	*Set
	t   testing.TB
	cfg Config
	log *bytes.Buffer

	mu       sync.Mutex
	machines []Machine
	keys     []string
	secrets  map[string]string
	reads    int
	stop     func()
}

func newWorld(t testing.TB, kernel bool) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal-mounts-")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, log: new(bytes.Buffer), secrets: map[string]string{}}
	w.cfg = Config{Dir: filepath.Join(dir, "shares"), Run: filepath.Join("/dev/shm", filepath.Base(dir)), Self: "/proc/self/exe", Timeout: 30 * time.Second, Interval: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&locked{w: w}, nil)), Changed: func() {},
		Secret: func(_ context.Context, _ shoal.ShareName, name string) ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reads++
			v, ok := w.secrets[name]
			if !ok {
				return nil, shoal.Errorf(shoal.KindNotFound, "there is no secret %q", name)
			}
			return []byte(v), nil
		},
		Machines: func() []Machine { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.machines) },
		InUse:    func() []string { w.mu.Lock(); defer w.mu.Unlock(); return w.keys }}
	if kernel {
		w.cfg.Timeout = 60 * time.Second // under software emulation
	} else {
		w.cfg.Kernel = func(context.Context, string) bool { return false }
	}
	w.open()
	t.Cleanup(func() {
		w.stop()
		if t.Failed() {
			out, _ := exec.Command("sh", "-c", "head -c 2000 "+dir+"/shares/*/log; ls -lR "+dir+"/shares; find "+dir+"/shares -path '*vfsMeta*' -type f -exec cat {} +").CombinedOutput()
			t.Logf("%s", out)
		}
		w.mu.Lock()
		w.keys = nil
		w.mu.Unlock()
		if err := w.DropUnused(context.Background()); err != nil {
			t.Error(err)
		}
		table, _ := mountTable(0)
		for at := range table {
			if strings.HasPrefix(at, dir) {
				t.Errorf("still mounted: %s", at)
				_ = unix.Unmount(at, unix.MNT_DETACH)
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if t.Failed() {
			t.Log(w.log.String())
		}
		for _, s := range w.secrets {
			if len(s) > 3 && strings.Contains(w.log.String(), s) {
				t.Error("a secret is in the log")
			}
		}
		_ = os.RemoveAll(w.cfg.Run)
		_ = os.RemoveAll(dir)
	})
	return w
}

type locked struct{ w *world }

func (l *locked) Write(b []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(b)
}

// open opens the set, as a server does that starts.
func (w *world) open() {
	w.t.Helper()
	set, err := Open(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Set = set
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); set.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
}

// restart is a server that ends and another that starts.
func (w *world) restart() {
	w.stop()
	w.open()
}

// machine makes one: a process with mounts of its own, to which a share is bound as runc would.
func (w *world) machine(share shoal.Share) *box {
	w.t.Helper()
	w.mu.Lock()
	w.keys = append(w.keys, Key(share))
	w.mu.Unlock()
	b := &box{w: w, at: filepath.Join(w.t.TempDir(), "shared")}
	top := filepath.Dir(filepath.Dir(b.at)) // whose users are not root
	if err := errors.Join(os.Chmod(top, 0o755), os.Mkdir(b.at, 0o755)); err != nil {
		w.t.Fatal(err)
	}
	m := Machine{ID: "m-1", Mounts: []provider.Mount{{Share: share, Path: b.at}}, Mask: w.t.TempDir()}
	binds, err := w.Ready(w.t.Context(), m)
	if err != nil {
		w.t.Fatal(err)
	}
	b.cmd = exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", "mount --bind "+binds[0].From+" "+b.at+" && echo up && exec sleep 1000")
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 10)); err != nil || n == 0 {
		w.t.Fatalf("the machine does not start: %v", err)
	}
	w.t.Cleanup(func() { _ = b.cmd.Process.Kill(); _ = b.cmd.Wait() })
	m.PID = b.cmd.Process.Pid
	w.mu.Lock()
	w.machines = append(w.machines, m)
	w.mu.Unlock()
	w.Kick()
	return b
}

type box struct {
	w   *world
	at  string
	cmd *exec.Cmd
}

// run runs a script in the machine, for a limited time.
func (b *box) run(script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-m", "-t", fmt.Sprint(b.cmd.Process.Pid), "sh", "-c", "cd "+b.at+" && "+script)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (b *box) must(script string) string {
	b.w.t.Helper()
	out, err := b.run(script)
	if err != nil {
		b.w.t.Fatalf("%s: %v: %s", script, err, out)
	}
	return out
}

// reads waits until a file can be read in the machine.
func (b *box) reads(file string) {
	b.w.t.Helper()
	eventually(b.w.t, func() error { out, err := b.run("cat " + file); return because(err, out) })
}

func eventually(t testing.TB, fn func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := fn()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// troubled waits until the machine is in trouble that says something, or in none.
func (w *world) troubled(share shoal.Share, say string) {
	w.t.Helper()
	eventually(w.t, func() error {
		switch got := w.Trouble([]provider.Mount{{Share: share}}, nil); {
		case say == "" && got != "", say != "" && !strings.Contains(got, say):
			return fmt.Errorf("the trouble is %q, want %q", got, say)
		}
		return nil
	})
}

func (w *world) recordOf(share shoal.Share) record {
	w.Set.mu.Lock()
	defer w.Set.mu.Unlock()
	return w.units[Key(share)].rec
}

// The whole life of a mount whose server comes and goes, and whose client and server program die.
func TestLifeSSH(t *testing.T) {
	needHost(t)
	server := served.SSH(t)
	w := newWorld(t, false)
	w.secrets["key"] = server.Key
	share := server.Share("team")
	b := w.machine(share)
	b.must("echo one > file && ln -s file link && cat link")
	if got, err := os.ReadFile(filepath.Join(server.Dir, "file")); err != nil || string(got) != "one\n" {
		t.Fatalf("on the server: %q, %v", got, err)
	}
	nowhere(t, server.Key)

	// A server that dies is trouble, and nothing hangs; when it comes back there is none.
	server.Kill()
	w.troubled(share, "cannot reach share team")
	_, _ = b.run("cat file")
	server.Start()
	w.troubled(share, "")
	b.reads("file")

	// A client that is killed is replaced, and the machine gets the new mount.
	old := w.recordOf(share)
	if err := unix.Kill(old.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.reads("file")
	w.troubled(share, "")

	// Another server program adopts it: the same client goes on.
	before := w.recordOf(share)
	reads := w.reads
	w.restart()
	if _, err := w.Reach(t.Context(), share); err != nil {
		t.Fatal(err)
	}
	if after := w.recordOf(share); after.PID != before.PID || after.Gen != before.Gen || w.reads != reads {
		t.Errorf("before %+v, after %+v, %d reads of the secret", before, after, w.reads-reads)
	}

	// A secret that is renewed: the machine gets a new mount, and an open file stays readable.
	reader := exec.Command("nsenter", "-m", "-t", fmt.Sprint(b.cmd.Process.Pid), "sh", "-c", "exec 5<"+b.at+"/file; echo open; read x; cat <&5")
	in, _ := reader.StdinPipe()
	out, _ := reader.StdoutPipe()
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 10))
	w.Renew("key", time.Now())
	eventually(t, func() error {
		if r := w.recordOf(share); r.Gen == before.Gen {
			return errors.New("not mounted anew")
		}
		return nil
	})
	eventually(t, func() error {
		w.Set.mu.Lock()
		defer w.Set.mu.Unlock()
		if w.has[spot{"m-1", b.cmd.Process.Pid, b.at}] == before.Gen {
			return errors.New("the machine has the old mount")
		}
		return nil
	})
	fmt.Fprintln(in, "go")
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "one\n" {
		t.Errorf("an open file reads %q, %v", buf[:n], err)
	}
	in.Close()
	_ = reader.Wait()
	b.must("cat file")
	eventually(t, func() error { // the old client ends with its last user
		if startTime(before.PID) == before.Start {
			return errors.New("the former client still runs")
		}
		return nil
	})

	// Who has it no more, has it no more.
	w.mu.Lock()
	w.machines, w.keys = nil, nil
	w.mu.Unlock()
	_ = b.cmd.Process.Kill()
	eventually(t, func() error {
		if err := w.DropUnused(t.Context()); err != nil {
			return err
		}
		left, _ := filepath.Glob(filepath.Join(w.cfg.Dir, "*", "*"))
		_ = w.Close()
		creds, _ := os.ReadDir(w.cfg.Run)
		if len(left)+len(creds) > 0 {
			return fmt.Errorf("left: %v %v", left, creds)
		}
		return nil
	})
}

func because(err error, out string) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// nowhere looks for a secret where everybody can look: command lines, and environments.
func nowhere(t testing.TB, secret string, where ...string) {
	t.Helper()
	secret = strings.TrimSpace(secret)
	if i := strings.IndexByte(secret, '\n'); i > 0 {
		secret = strings.Split(secret, "\n")[1] // of a key
	}
	if where == nil {
		where = []string{"cmdline", "environ"}
	}
	for _, name := range where {
		files, _ := filepath.Glob("/proc/[0-9]*/" + name)
		for _, f := range files {
			if b, _ := os.ReadFile(f); bytes.Contains(b, []byte(secret)) {
				t.Errorf("a secret is in %s", f)
			}
		}
	}
}

// What cannot be mounted says so in time, and what to do.
func TestRefusals(t *testing.T) {
	needHost(t)
	server := served.SSH(t)
	w := newWorld(t, false)
	w.cfg.Timeout = 8 * time.Second
	w.restart()
	other := served.SSH(t)
	w.secrets["wrong"] = other.Key
	w.secrets["empty"] = "\n"
	w.secrets["key"] = server.Key
	share := server.Share("team")
	with := func(source, secret string, options ...string) shoal.Share {
		s := share
		if source != "" {
			s.Source = source
		}
		if secret != "" {
			s.Credentials = &shoal.SecretRef{Secret: secret}
		}
		s.Options = map[string]string{}
		for i := 0; i+1 < len(options); i += 2 {
			s.Options[options[i]] = options[i+1]
		}
		return s
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // whose backlog takes connections, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	silent := "sftp://root@" + l.Addr().String() + "/x"
	nfs := with("nfs://127.0.0.1/x", "")
	nfs.Credentials = nil
	for name, c := range map[string]struct {
		share shoal.Share
		want  string
		waits bool
	}{
		"a wrong key":       {with("", "wrong"), `the secret "wrong" that it names is refused`, true},
		"an empty secret":   {with("", "empty"), `the secret "empty" cannot be used`, true},
		"no secret":         {with("", "absent"), `there is no secret "absent"`, true},
		"no server":         {with("sftp://root@127.0.0.1:1/x", ""), "Connection refused", true},
		"no answer":         {with(silent, ""), "does not answer within 8s", true},
		"no directory":      {with(strings.TrimSuffix(share.Source, "served")+"absent", ""), "No such file", true},
		"an option":         {with("", "", "ProxyCommand", "sh"), `no option "ProxyCommand"`, false},
		"another server":    {with("", "", "hostkey", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFake"), "cannot reach share team", true},
		"no kernel for NFS": {nfs, "no client for NFS", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // of all one takes its time
			began := time.Now()
			_, err := w.Reach(t.Context(), c.share)
			if err == nil || !strings.Contains(err.Error(), c.want) || shoal.HintOf(err) == "" || Waits(err) != c.waits {
				t.Errorf("%v (hint %q, waits %v), want %q", err, shoal.HintOf(err), Waits(err), c.want)
			}
			t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), err)
		})
	}
}

// Rounds that come more often than tries must not put off the next try, again and again.
func TestTriesAgain(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir, Run: filepath.Join(dir, "run"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Changed = func() {}
	u, err := s.unit(shoal.Share{Name: "team", Source: "sftp://root@127.0.0.1:1/x"}, "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.check(t.Context(), u)
	next := u.next
	if next.IsZero() {
		t.Fatal("what failed is not put off")
	}
	for range 5 {
		s.check(t.Context(), u)
	}
	if u.next != next || u.failures != 6 || u.trouble == "" {
		t.Errorf("the next try moved by %s; %d failures, trouble %q", u.next.Sub(next), u.failures, u.trouble)
	}
}
