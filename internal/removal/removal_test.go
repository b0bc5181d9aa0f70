package removal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// deep makes a chain of directories with a file in each.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		fd, err := unix.Openat(at, "f", unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
			err = unix.Mkdirat(at, "d", 0o700)
		}
		if err == nil {
			fd, err = unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = fd
	}
	unix.Close(at)
}

// A tree that is deeper than the process has descriptors goes, with the other things that people make.
func TestTree(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	base := t.TempDir()
	keep := filepath.Join(base, "keep")
	dir := filepath.Join(base, "dir")
	for _, d := range []string{keep, dir, dir + "/a", dir + "/a/.up-1", dir + "/.up-1", dir + "/.up-2", dir + "/empty"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3000 {
		if err := os.WriteFile(fmt.Sprintf("%s/a/%d", dir, i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{keep + "/x", dir + "/.up-1/x", dir + "/a/.up-1/x", dir + "/.up-3"} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{dir + "/link": keep, dir + "/a/link": "../../keep", dir + "/gone": "/nowhere"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(dir+"/a/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	deep(t, dir+"/empty", 5000)
	deep(t, dir+"/a/.up-1", 200)
	if err := Tree(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(keep + "/x"); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestTreeOfOthers(t *testing.T) {
	base := t.TempDir()
	for name, make := range map[string]func(string) error{
		"nothing": func(string) error { return nil },
		"a file":  func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"a link":  func(p string) error { return os.Symlink(base, p) },
		"empty":   func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		p := filepath.Join(base, name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		if err := Tree(t.Context(), p+"/"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	if err := Tree(t.Context(), base+"/no/such"); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", ".", "/", "/.."} {
		if Tree(t.Context(), bad) == nil {
			t.Errorf("%q was removed", bad)
		}
	}
}

// What cannot be removed is an error and no endless loop; the end of ctx is one, too.
func TestTreeThatStays(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		if err := os.MkdirAll(filepath.Join(dir, "x", strconv.Itoa(i), "y"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Tree(ctx, dir+"/x"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("a directory that refuses its removal needs root")
	}
	if err := unix.Mount("x", dir+"/x/5/y", "tmpfs", 0, "size=4k"); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(dir+"/x/5/y", unix.MNT_DETACH)
	if err := Tree(t.Context(), dir+"/x"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v", err)
	}
}
