package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal/internal/rig"
)

// inside tells a process that it is the one in the namespaces, and what its control groups are called.
const inside = "SHOAL_TEST_CLUSTER"

// Main runs a package's tests in namespaces of their own: networks, processes and mounts. Whatever a test starts ends with it,
// and its servers are reached from there only, as nothing else is from there: what has to be fetched is fetched before. m is
// *testing.M, root the repository's, and images those of images/ that will be built.
func Main(m interface{ Run() int }, root string, images ...string) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	if os.Getuid() != 0 || slices.ContainsFunc(os.Args, func(a string) bool { return a == "-test.short=true" || strings.HasPrefix(a, "-test.list") }) {
		os.Exit(m.Run())
	}
	if err := fetch(root, images); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	name := "shoal-kube-" + strconv.Itoa(os.Getpid())
	cmd := exec.Command("unshare", append([]string{"--net", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child",
		"sh", "-c", `ip link set lo up && "$@"; exit $?`, "sh"}, os.Args...)...)
	cmd.Env = append(os.Environ(), inside+"="+name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if left := removeGroups(name); left != nil {
		fmt.Fprintln(os.Stderr, left)
		err = errors.Join(err, left)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fetch builds what needs the network.
func fetch(root string, images []string) error {
	ctx := context.Background()
	if _, err := build(ctx, root, func(s string) { fmt.Fprintln(os.Stderr, s) }); err != nil {
		return err
	}
	for _, name := range images {
		if err := Image(ctx, root, name, "/dev/null", "localhost/test:1"); err != nil {
			return err
		}
	}
	return nil
}

// Image builds one of images/ into an archive, with the binaries of SHOAL_BIN or bin/.
func Image(ctx context.Context, root, name, archive, tag string) error {
	return run(ctx, "", append(os.Environ(), "SHOAL_IMAGE_CACHE="+rig.Cache), filepath.Join(root, "images", "build"), name, archive, tag)
}

// hierarchies are the mounts of control groups: one, or one for each controller.
func hierarchies() ([]string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			out = append(out, f[1])
		}
	}
	return out, nil
}

// makeGroup makes a control group in every hierarchy, where processors can be used.
func makeGroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := h
		for part := range strings.SplitSeq(name, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if b, err := os.ReadFile(filepath.Join(parent, file)); err == nil && filepath.Base(h) != "unified" {
					if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// removeGroups removes control groups whose processes have been killed.
func removeGroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for range 100 {
		err = nil
		for _, h := range all {
			var dirs []string
			_ = filepath.WalkDir(filepath.Join(h, name), func(p string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, p)
				}
				return nil
			})
			slices.Reverse(dirs)
			for _, dir := range dirs {
				if e := os.Remove(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
					err = errors.Join(err, e)
				}
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}
