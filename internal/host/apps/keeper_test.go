package apps_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/apps"
	"github.com/shoal-pool/shoal/internal/host/apps/supervisor"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// patience is how long a test waits for what takes a moment.
const patience = 2 * time.Minute

// aliceUID is nobody else's on this host.
const aliceUID = 28631

// TestMain lets this binary be the supervisor, and a program that takes a port.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "app" {
		os.Exit(supervisor.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// page is an app that answers with who it is.
const page = `exec python3 -c '
import os, sys
from http.server import *
class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        b = ("%d %s" % (os.getuid(), self.path)).encode()
        self.send_response(500 if os.path.exists("ill") else 200); self.send_header("Content-Length", str(len(b))); self.end_headers(); self.wfile.write(b)
    def log_message(self, *a): pass
print("secret is", os.environ.get("SECRET"), flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["SHOAL_PORT"])), H).serve_forever()
'`

// rig is a keeper with a directory, on this host in place of a machine.
type rig struct {
	t      *testing.T
	dir    string
	home   string
	groups *cgroups.Tree
	*apps.Keeper
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to start programs as others needs root")
	}
	dir, err := os.MkdirTemp("", "shoal-apps-") // not below t.TempDir, which others may not enter
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: filepath.Join(dir, "apps"), home: filepath.Join(dir, "home")}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(r.home, 0o755), os.Chown(r.home, aliceUID, aliceUID)); err != nil {
		t.Fatal(err)
	}
	parent := "shoal-test-apps-" + strconv.Itoa(os.Getpid()) + "-" + filepath.Base(dir)[len("shoal-apps-"):]
	if r.groups, err = cgroups.Open(cgroups.Config{Parent: parent}); err != nil {
		t.Logf("without control groups: %v", err)
	}
	t.Cleanup(func() {
		r.Want(nil, nil)
		r.until("all have ended", func() bool { return r.Live() == 0 })
		_ = r.Close()
		_ = r.groups.Prune()
		for _, h := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
			found, _ := filepath.Glob(h + parent)
			for _, d := range found {
				_ = os.Remove(d)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r.open()
	return r
}

func (r *rig) open() {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	r.Keeper, err = apps.Open(apps.Config{Dir: r.dir, Agent: self, Groups: r.groups, Local: filepath.Join(filepath.Dir(r.dir), "local"),
		Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)), Lookup: func(u shoal.UserName) (tasks.Person, bool) {
			return tasks.Person{UID: aliceUID, GID: aliceUID, Home: r.home}, u == "alice"
		}})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			all, _ := r.Collect()
			r.t.Fatalf("%s: not so; %+v", what, all)
		}
	}
}

// report waits for a report of an app that is as it should be.
func (r *rig) report(id shoal.AppID, what string, is func(api.AppReport) bool) api.AppReport {
	r.t.Helper()
	var got api.AppReport
	r.until(fmt.Sprintf("%s %s", id, what), func() bool {
		all, _ := r.Collect()
		for _, x := range all {
			if x.ID == id && is(x) {
				got = x
				return true
			}
		}
		return false
	})
	return got
}

func in(s shoal.AppState) func(api.AppReport) bool {
	return func(r api.AppReport) bool { return r.State == s }
}

func order(id shoal.AppID, command string) api.AppOrder {
	return api.AppOrder{ID: id, User: "alice", Endpoint: "web", Command: command, BaseURL: "/shoal/app/lab/web/",
		Ready: shoal.Probe{Path: "/ok", Interval: shoal.Duration(100 * time.Millisecond), Timeout: shoal.Duration(patience), Threshold: 2}}
}

// get asks through the gateway's way in, as a user of the machine would who is not root.
func get(port int, path string) (string, error) {
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchown(int(fd), aliceUID, -1) }), err)
	}}
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// An app runs as its user, is reached by the gateway alone, is adopted by the next keeper, and ends when it is told to.
func TestLife(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := order("a-life01", page)
	o.Env = map[string]string{"SECRET": "12345", "SHOAL_PORT": "1"}
	r.Want([]api.AppOrder{o}, []string{"192.0.2.1"})
	run := r.report(o.ID, "runs", in(shoal.AppRunning))
	if run.Port < 600 || run.Port > 1019 {
		t.Errorf("its way in is at port %d", run.Port)
	}
	if s, err := get(run.Port, "/"); err == nil {
		t.Errorf("who does not come from the gateway gets %q", s)
	}
	r.Want([]api.AppOrder{o}, []string{"127.0.0.1"})
	r.until("the gateway gets in", func() bool {
		s, err := get(run.Port, "/x?y=1")
		return err == nil && s == fmt.Sprintf("%d /x?y=1", aliceUID)
	})
	for _, e := range []string{apps.AppFile, apps.LockFile} {
		if b, err := os.ReadFile(filepath.Join(r.dir, string(o.ID)+e)); err != nil || strings.Contains(string(b), "12345") {
			t.Errorf("%s holds %q, %v", e, b, err)
		}
	}

	// The next keeper knows only that there is one; the control plane has forgotten the command.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err := get(run.Port, "/alone"); err != nil || !strings.HasSuffix(s, "/alone") {
		t.Errorf("without a keeper: %q, %v", s, err)
	}
	r.open()
	short := api.AppOrder{ID: o.ID, User: "alice", Endpoint: "web"}
	r.Want([]api.AppOrder{short}, []string{"127.0.0.1"})
	if again := r.report(o.ID, "runs on", in(shoal.AppRunning)); again != run {
		t.Errorf("%+v, and it was %+v", again, run)
	}
	_, sent := r.Collect()
	sent()
	if all, _ := r.Collect(); len(all) != 0 {
		t.Errorf("told again: %+v", all)
	}

	// It is ill while its probes fail, and is not ended for that.
	if err := os.WriteFile(filepath.Join(r.home, "ill"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.report(o.ID, "is ill", func(x api.AppReport) bool { return strings.Contains(x.Ill, "500") && x.State == shoal.AppRunning })
	if err := os.Remove(filepath.Join(r.home, "ill")); err != nil {
		t.Fatal(err)
	}
	r.report(o.ID, "is well", func(x api.AppReport) bool { return x.Ill == "" })

	r.Stop(o.ID)
	r.report(o.ID, "has ended", in(shoal.AppEnded))
	if _, err := get(run.Port, "/"); err == nil {
		t.Error("it has ended, and answers")
	}
	_, sent = r.Collect()
	sent()
	if left, _ := filepath.Glob(filepath.Join(r.dir, "a-*")); len(left) != 0 {
		t.Errorf("left on disk: %v", left)
	}
	r.Start(o) // late, and repeated
	if r.Live() != 0 {
		t.Error("one that has ended began again")
	}
}

// What does not come up says why, with the last it wrote.
func TestFailures(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const late = 10 * time.Second // that a program of an instant has come to what it does, also where there is much to do
	cases := []struct {
		id      shoal.AppID
		command string
		change  func(*api.AppOrder)
		reason  string
		log     string
		code    int
	}{
		{"a-exit", "echo the database is missing; exit 3", nil, "its command ended with exit code 3 before it answered", "the database is missing\n", 3},
		{"a-zero", "true", nil, "ended with exit code 0 before it answered", "", 0},
		{"a-signal", "kill -9 $$", nil, "ended by signal 9 (SIGKILL) before it answered", "", 137},
		{"a-deaf", "echo hello; sleep 100", nil, "did not answer at /ok within 10s: nothing listens at 127.0.0.1:$SHOAL_PORT", "hello\n", 0},
		{"a-error", "touch ill; " + page, nil, "it answers 500", "secret is None\n", 0},
		{"a-nobody", "true", func(o *api.AppOrder) { o.User = "carol" }, "user carol has no account", "", 0},
		{"a-lost", "", nil, "the machine was started again", "", 0},
		{"a-nul", "true \x00", nil, "holds a zero byte", "", 0},
	}
	for _, c := range cases { // at once, since some take their time
		o := order(c.id, c.command)
		if c.id == "a-deaf" || c.id == "a-error" {
			o.Ready.Timeout = shoal.Duration(late)
		}
		if c.change != nil {
			c.change(&o)
		}
		r.Start(o)
	}
	for _, c := range cases {
		got := r.report(c.id, "has failed", in(shoal.AppFailed))
		if !strings.Contains(got.Reason, c.reason) || got.Log != c.log || got.ExitCode != c.code {
			t.Errorf("%s: %q, %q, %d", c.id, got.Reason, got.Log, got.ExitCode)
		}
	}
}

// When a program of somebody else's takes the port of an app before the app does, the app is started again at another.
func TestAnotherPort(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := order("a-port01", "echo $SHOAL_PORT >> ports; while [ ! -e go ]; do sleep 0.05; done; "+page)
	r.Want([]api.AppOrder{o}, []string{"127.0.0.1"})
	ports := func() []string {
		b, err := os.ReadFile(filepath.Join(r.home, "ports"))
		if err != nil {
			return nil
		}
		return strings.Fields(string(b))
	}
	r.until("it is told a port", func() bool { return len(ports()) == 1 })
	other, err := net.Listen("tcp", "127.0.0.1:"+ports()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	r.until("it is told another", func() bool { return len(ports()) == 2 })
	if err := os.WriteFile(filepath.Join(r.home, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.report(o.ID, "runs", in(shoal.AppRunning))
}

// When its supervisor is killed, the app goes as well, with all it has started, and that is told.
func TestKilledSupervisor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	o := order("a-kill01", "setsid sleep 4711 & "+page)
	r.Want([]api.AppOrder{o}, []string{"127.0.0.1"})
	run := r.report(o.ID, "runs", in(shoal.AppRunning))
	out, err := exec.Command("pgrep", "-f", "app supervise "+r.dir+" "+string(o.ID)).Output()
	pid, err2 := strconv.Atoi(strings.TrimSpace(string(out)))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	got := r.report(o.ID, "has failed", in(shoal.AppFailed))
	if !strings.Contains(got.Reason, "was killed") {
		t.Errorf("%+v", got)
	}
	if _, err := get(run.Port, "/"); err == nil {
		t.Error("it answers")
	}
	if r.groups != nil {
		r.until("what it started is gone", func() bool {
			return exec.Command("pgrep", "-u", strconv.Itoa(aliceUID), "-f", "sleep 4711").Run() != nil
		})
	}
}

// A stop that comes before the supervisor answers is not lost; nor is one that comes while no keeper runs.
func TestEarlyStop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	early := order("a-early1", page)
	r.Start(early)
	r.Stop(early.ID)
	r.report(early.ID, "has ended", in(shoal.AppEnded))
	late := order("a-late01", page)
	r.Start(late)
	r.report(late.ID, "runs", in(shoal.AppRunning))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.Want(nil, nil)
	r.report(late.ID, "has ended", in(shoal.AppEnded))
	r.Stop("a-never1")
	r.report("a-never1", "is told as ended", in(shoal.AppEnded))
}
