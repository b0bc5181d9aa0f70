package guest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/rig"
)

// kernel is one of Debian's, ready to boot.
type kernel struct {
	kernel  string // the image
	modules string // an archive of the modules that guests may need
}

// wanted are the modules, by their directories; modprobe finds those among them that others need.
var wanted = []string{"fs/nfs", "fs/nfs_common", "fs/smb", "fs/fscache", "fs/netfs", "fs/lockd", "fs/fuse", "fs/nls", "net/sunrpc", "net/dns_resolver",
	"net/core", "drivers/virtio", "drivers/net/virtio_net.ko", "drivers/net/net_failover.ko", "crypto", "lib", "arch/x86/crypto"}

// modules unpacks the newest kernel package of the cache, unless that was done before.
func modules(ctx context.Context) (kernel, error) {
	packages, err := filepath.Glob(filepath.Join(rig.Cache, "linux-image-*-cloud-amd64_*.deb"))
	if err != nil || len(packages) == 0 {
		return kernel{}, errors.Join(fmt.Errorf("%s holds no package of a kernel: run scripts/setup test", rig.Cache), err)
	}
	slices.Sort(packages)
	from := packages[len(packages)-1]
	to := strings.TrimSuffix(from, ".deb") + ".guest-1" // the number changes with what is made below
	k := kernel{kernel: filepath.Join(to, "vmlinuz"), modules: filepath.Join(to, "modules.cpio.gz")}
	lock, err := os.OpenFile(filepath.Join(rig.Cache, "lock"), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return kernel{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return kernel{}, err
	}
	if _, err := os.Stat(to); err == nil {
		return k, nil
	}
	return k, unpack(ctx, from, to)
}

// unpack makes a package into a directory with the kernel's image and the archive of modules.
func unpack(ctx context.Context, from, to string) error {
	tmp, err := os.MkdirTemp(rig.Cache, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	all, ready, root := filepath.Join(tmp, "all"), filepath.Join(tmp, "ready"), filepath.Join(tmp, "root")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return err
	}
	if err := run(ctx, "dpkg-deb", "-x", from, all); err != nil {
		return err
	}
	images, _ := filepath.Glob(filepath.Join(all, "boot", "vmlinuz-*")) // the pattern is well formed
	if len(images) != 1 {
		return fmt.Errorf("%s has %d kernels", from, len(images))
	}
	if err := copyFile(images[0], filepath.Join(ready, "vmlinuz")); err != nil {
		return err
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	tree := filepath.Join("lib", "modules", release)
	for _, w := range wanted {
		if err := copyTree(filepath.Join(all, tree, "kernel", w), filepath.Join(root, "usr", tree, "kernel", w)); err != nil {
			return err
		}
	}
	for _, f := range []string{"modules.order", "modules.builtin", "modules.builtin.modinfo"} {
		if err := copyFile(filepath.Join(all, tree, f), filepath.Join(root, "usr", tree, f)); err != nil {
			return err
		}
	}
	if err := os.Symlink("usr/lib", filepath.Join(root, "lib")); err != nil {
		return err
	}
	if err := run(ctx, "busybox", "depmod", "-b", root, release); err != nil {
		return err
	}
	out, err := os.Create(filepath.Join(ready, "modules.cpio.gz"))
	if err != nil {
		return err
	}
	if err := errors.Join(archive(ctx, root, out), out.Close()); err != nil {
		return err
	}
	return os.Rename(ready, to)
}

// layout makes directories and what busybox does.
func layout(root string) error {
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "proc", "sys", "dev", "run", "tmp", "root", "mnt", "var/lib/nfs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := copyFile(busybox, filepath.Join(root, "usr/bin/busybox")); err != nil {
		return err
	}
	names, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return err
	}
	for _, name := range append(strings.Fields(string(names)), "../sbin/modprobe") { // the kernel calls that by its path
		if err := os.Symlink("/usr/bin/busybox", filepath.Join(root, "usr/bin", name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// program copies one of the host's, and its libraries.
func program(ctx context.Context, root, name string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return err
		}
	}
	to := filepath.Join(root, "usr/bin", name)
	if strings.Contains(path, "/sbin/") {
		to = filepath.Join(root, "usr/sbin", name)
	}
	if err := copyFile(path, to); err != nil {
		return err
	}
	libraries, err := exec.CommandContext(ctx, "ldd", path).Output()
	if err != nil {
		return nil // it is static
	}
	for f := range strings.FieldsSeq(string(libraries)) {
		if filepath.IsAbs(f) {
			if err := copyFile(f, filepath.Join(root, f)); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyTree copies a directory or a file; what the kernel has not is left out.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		return copyFile(path, to+strings.TrimPrefix(path, from))
	})
}

// copyFile copies a file with its mode, into a directory that is made if it must.
func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	_ = os.Remove(to) // a link to busybox, at most
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// archive writes a directory as the kernel wants it for a first file system.
func archive(ctx context.Context, root string, out io.Writer) error {
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	find := exec.CommandContext(ctx, "find", ".", "-print0")
	find.Dir = root
	names, err := find.Output()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "busybox", "cpio", "-0", "-o", "-H", "newc", "-R", "0:0")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = root, bytes.NewReader(names), z, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cpio: %w: %s", err, said.Bytes())
	}
	return z.Close()
}

func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
