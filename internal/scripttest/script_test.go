package scripttest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

const scripts = "../../testdata/script"

// TestScripts runs the scripts one after the other: each compares the host before and after.
func TestScripts(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("machines need root")
		}
		t.Skip("machines need root")
	}
	bin := binaries(t)
	testscript.RunT(serial{t}, testscript.Params{
		Dir:                 scripts,
		WorkdirRoot:         t.TempDir(),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return setUp(env, bin) },
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

// serial is a test whose parts do not run at the same time.
type serial struct{ *testing.T }

func (s serial) Parallel() {}

func (s serial) Verbose() bool { return testing.Verbose() }

func (s serial) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(serial{t}) })
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
func setUp(env *testscript.Env, bin string) error {
	w := &world{dir: env.WorkDir, endDatabase: func() error { return nil }}
	var err error
	for _, port := range []*string{&w.api, &w.ssh, &w.https, &w.rdp} {
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	w.root = root
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
		"SHOAL_DATA="+w.path("data"), "API_PORT="+w.api, "SSH_PORT="+w.ssh, "HTTPS_PORT="+w.https, "RDP_PORT="+w.rdp)
	env.Values[worldKey{}] = w
	if w.before, err = w.look(); err != nil {
		return err
	}
	env.Defer(w.close)
	return nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
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
