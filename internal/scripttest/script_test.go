package scripttest

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/shoal-pool/shoal/internal/need"
)

const scripts = "../../testdata/script"

// together is how many scripts run at the same time. They wait far more than they compute.
const together = 5

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", strconv.Itoa(together)); err != nil {
		panic(err)
	}
	flag.Parse() // who says otherwise is heard
	os.Exit(m.Run())
}

// TestScripts runs the scripts, several at a time. Each looks for what its own server left; the host as a whole is
// compared when all have ended, unless others make machines on it, too (SHOAL_BUSY_HOST).
func TestScripts(t *testing.T) {
	if os.Getuid() != 0 {
		need.Missing(t, "machines need root")
	}
	bin := binaries(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	before, err := look(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("SHOAL_BUSY_HOST") != "" {
			return
		}
		left, err := lookUntilClean(root, before, func(string) bool { return true })
		if err != nil || len(left) > 0 {
			t.Errorf("left on the host by all scripts together: %v\n%s", err, strings.Join(left, "\n"))
		}
	})
	testscript.Run(t, testscript.Params{
		Dir:                 scripts,
		WorkdirRoot:         t.TempDir(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return setUp(env, root, bin) },
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve": serve, "stop-serve": stopServe, "kill9": kill9, "leftovers": leftovers,
			"person": person, "fill": fill, "exits": exits, "wait-for": waitFor, "guide": guide, "fileserver": fileserver, "database": database,
		},
	})
}

// condition is what a line may begin with in brackets, beside testscript's own.
func condition(name string) (bool, error) {
	if name == "prove" {
		return os.Getenv("SHOAL_PROVE") != "", nil
	}
	return false, fmt.Errorf("no condition is called %q", name)
}

// binaries returns the directory of the programs as they are shipped, built unless SHOAL_BIN names it.
func binaries(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("SHOAL_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "./cmd/shoal", "./cmd/shoal-agent")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the programs: %v\n%s", err, out)
	}
	return dir
}

// setUp gives a script a world of its own: directories, ports, an ssh that knows the gateway.
func setUp(env *testscript.Env, root, bin string) error {
	w := &world{dir: env.WorkDir, root: root, endDatabase: func() error { return nil }}
	var err error
	for _, port := range []*string{&w.api, &w.ssh, &w.https, &w.rdp, &w.agents} {
		var held net.Listener
		if *port, held, err = freePort(); err != nil {
			return err
		}
		env.Defer(func() { held.Close() })
	}
	for _, d := range []string{"wrap", "keys", "team", "home/.ssh"} {
		if err := os.MkdirAll(w.path(d), 0o755); err != nil {
			return err
		}
	}
	// A bare scp or ssh of a script is the real one with the script's own configuration.
	for _, name := range []string{"ssh", "scp", "sftp"} {
		text := fmt.Sprintf("#!/bin/sh\nexec /usr/bin/%s -F %s \"$@\"\n", name, w.path("ssh_config"))
		if err := os.WriteFile(w.path("wrap", name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	config := fmt.Sprintf("Host pool\n    HostName 127.0.0.1\nHost 127.0.0.1\n    IdentityFile "+w.path("home", ".ssh", "id_ed25519")+"\nHost pool 127.0.0.1\n    Port %s\n    StrictHostKeyChecking yes\n    UserKnownHostsFile %s\n    IdentitiesOnly yes\n    LogLevel INFO\n",
		w.ssh, w.path("known_hosts"))
	if err := os.WriteFile(w.path("ssh_config"), []byte(config), 0o644); err != nil {
		return err
	}
	env.Vars = append(env.Vars,
		"PATH="+strings.Join([]string{w.path("wrap"), bin, os.Getenv("PATH"), "/usr/sbin", "/sbin"}, ":"),
		"HOME="+w.path("home"), "LC_ALL=C.UTF-8", "ROOT="+root, "TEAM="+w.path("team"),
		"SHOAL_DATA="+w.path("data"), "API_PORT="+w.api, "SSH_PORT="+w.ssh, "HTTPS_PORT="+w.https, "RDP_PORT="+w.rdp, "AGENT_PORT="+w.agents)
	env.Values[worldKey{}] = w
	if w.before, err = look(root); err != nil {
		return err
	}
	env.Defer(w.close)
	return nil
}

var lastPort atomic.Int32

// freePort returns a port that no other script gets, nor one of another such process: who has the name in the kernel has
// the port, until close. The kernel gives it to nobody by itself: it is below the range of those.
func freePort() (port string, held net.Listener, err error) {
	const first, count = 20000, 10000
	lastPort.CompareAndSwap(0, int32(os.Getpid()))
	for range count {
		port = strconv.Itoa(first + int(lastPort.Add(1))%count)
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		held, err = net.Listen("unix", "@shoal-script-port-"+port)
		if err = errors.Join(err, l.Close()); err == nil {
			return port, held, nil
		}
	}
	return "", nil, errors.New("no port is free")
}

// What a script has on the host is not taken for another's whose name begins its own.
func TestScriptsKnowTheirOwn(t *testing.T) {
	t.Parallel()
	w := &world{dir: "/tmp/scripts/script-deploy"}
	for line, want := range map[string]bool{
		"mount /tmp/scripts/script-deploy/data/local/m-1":         true,
		"listens /tmp/scripts/script-deploy/data/shoal.sock":      true,
		"mount /tmp/scripts/script-deploy-asks/data/local/m-1":    false,
		"listens /tmp/scripts/script-deploy-asks/data/shoal.sock": false,
	} {
		if got := w.bears(line); got != want {
			t.Errorf("%s: %v, want %v", line, got, want)
		}
	}
}

// Every script looks for what it left.
func TestScriptsEndWithALookAround(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(scripts, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		body, _, _ := strings.Cut(string(text), "\n-- ")
		if !strings.HasPrefix(body, "# ") {
			t.Errorf("%s does not begin by saying what it shows", f)
		}
		if strings.Contains(body, "\nserve") && !strings.HasSuffix(strings.TrimSpace(body), "\nleftovers") {
			t.Errorf("%s does not end with leftovers", f)
		}
	}
}
