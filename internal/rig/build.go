package rig

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Cache is where scripts/setup puts packages that tests unpack, and where what is made of them is kept.
const Cache = "/var/cache/shoal-tests"

// Build builds commands of the module at root, static, into a directory, or one into a file.
func Build(root, to string, what ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", to}, what...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", strings.Join(what, ", "), err, out)
	}
	return nil
}

// LookAt lets the cache of test results know that a result depends on the sources below root and on further files:
// without that a test whose programs are built behind its back would not be run again. Only what is looked at
// while a test runs counts, so it is called by tests, not by TestMain.
func LookAt(root string, files ...string) error {
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			return err
		}
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".go") || strings.HasPrefix(d.Name(), "go.")) {
			_, err = os.Stat(path)
		}
		if os.IsNotExist(err) {
			return nil // another test's, which has gone meanwhile
		}
		return err
	})
}
