package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoal-pool/shoal/internal/need"
)

// TestPython runs each file of tests as one test: they have nothing in common and may run at the same time.
func TestPython(t *testing.T) {
	python := interpreter(t)
	dir, err := filepath.Abs("../../sdk/python")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "tests", "test_*.py"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	slow := []string{"test_pool", "test_show", "test_hub"} // hundreds of processes; a kernel of Jupyter; a JupyterHub
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".py")
		t.Run(name, func(t *testing.T) {
			if testing.Short() && slices.Contains(slow, name) {
				t.Skip("it takes a while")
			}
			cmd := exec.CommandContext(t.Context(), python, "-W", "ignore::ResourceWarning", "-m", "unittest", "-v", "tests."+name)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "HOME="+t.TempDir(), "SHOAL_SERVER=", "SHOAL_TOKEN=", "SHOAL_DATA=")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// interpreter is the Python of the distribution, for which scripts/setup installs what the tests need.
func interpreter(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		return "/usr/bin/python3"
	}
	return need.Program(t, "python3")
}
