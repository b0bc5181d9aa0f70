// Package need is for tests that need more than Go: programs of Debian packages, a small disk. Where that is missing a test
// is skipped, but fails in continuous integration (CI=true), where a skip would pass for a trial.
package need

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Missing skips the test, or fails it in continuous integration.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: nothing may be missing here; scripts/setup test installs what is", what)
	}
	t.Skipf("%s: scripts/setup test installs what is missing", what)
}

// Program returns the path of a program.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "there is no "+name)
	}
	return path
}

// Disk returns a directory that holds size, as mount writes it: "2m".
func Disk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size="+size); err != nil {
		Missing(t, "a small file system cannot be mounted: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
