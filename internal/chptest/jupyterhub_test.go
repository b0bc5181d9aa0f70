package chptest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestJupyterHub runs JupyterHub's own tests, as Debian ships them, with our front end as the configurable-http-proxy
// that they start: those of the proxy, with SHOAL_PROVE all others that go through it, too.
func TestJupyterHub(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes: left out with -short")
	}
	const python = "/usr/bin/python3" // Debian's packages are its own
	out, err := exec.Command(python, "-c", "import pytest, pytest_asyncio, requests_mock, jupyterhub.tests; print(jupyterhub.tests.__path__[0])").CombinedOutput()
	if err != nil {
		t.Fatalf("JupyterHub's tests are missing, run scripts/setup test: %s", out)
	}
	dir := strings.TrimSpace(string(out))
	for _, name := range []string{"proxy", "named_servers", "services"}[:prove(1, 3)] {
		t.Run(name, func(t *testing.T) {
			// They use fixed ports: in a network of their own nobody else does.
			cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "patience", "-W", "ignore", "--asyncio-mode=auto", filepath.Join(dir, "test_"+name+".py"))
			cmd.Dir = t.TempDir()
			if err := os.WriteFile(filepath.Join(cmd.Dir, "patience.py"), []byte(patient), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(standIn)+":"+os.Getenv("PATH"), "PYTHONPATH="+cmd.Dir, "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, tail(string(out)))
			}
			m := regexp.MustCompile(`(\d+) passed`).FindStringSubmatch(string(out))
			if m == nil {
				t.Fatalf("no test was run:\n%s", tail(string(out)))
			}
			if n, err := strconv.Atoi(m[1]); err != nil || n < 5 {
				t.Errorf("only %s tests were run", m[1])
			}
			t.Log(m[0])
		})
	}
}

// patient has the hub wait for a user's server that takes longer than ten seconds to come or to go, as on a host that has much
// to do: the tests look at what there is after its answer.
const patient = `
from jupyterhub.handlers.base import BaseHandler
for name in ("slow_spawn_timeout", "slow_stop_timeout"):
    setattr(BaseHandler, name, property(lambda self, name=name: self.settings.get(name, 120)))
`

func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}
