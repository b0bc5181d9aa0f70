package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/providers/local/rootfs"
)

// prepare makes the directories of a machine. Nothing of it is an effect
// outside the machine's own directory.
func (a *assembly) prepare() error {
	for _, d := range []string{"upper", "work", "root", "run", "trees"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, t := range a.image.Trees {
		for _, d := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(a.tree(t), d), 0o755); err != nil {
				return err
			}
		}
		// The uppermost directory's owner and mode are those of the merged one.
		if err := like(t.Path, filepath.Join(a.tree(t), "upper")); err != nil {
			return err
		}
	}
	if err := like(a.image.Root, filepath.Join(a.dir, "upper")); err != nil {
		return err
	}
	return nil
}

// tree is where the writable layer of a tree lies.
func (a *assembly) tree(t rootfs.Tree) string {
	return filepath.Join(a.dir, "trees", strings.ReplaceAll(strings.Trim(t.Path, "/"), "/", "_"))
}

// like gives a directory the mode and owner of another.
func like(of, dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(of, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: of, Err: err}
	}
	if err := os.Chown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(dir, st.Mode&0o7777)
}

// mountRoot mounts the machine's root file system and writes its own files into it.
// It runs in the machine's mount namespace.
func (a *assembly) mountRoot() error {
	root := filepath.Join(a.dir, "root")
	if err := a.overlay([]string{a.image.Root}, a.dir, root); err != nil {
		return err
	}
	for _, t := range a.image.Trees {
		lowers := []string{t.Path}
		if t.Mask != "" {
			lowers = []string{t.Mask, t.Path}
		}
		// The places are in a lower that Shoal made, or in a tree of the host: no foreign link leads out.
		if err := a.overlay(lowers, a.tree(t), filepath.Join(root, t.Path)); err != nil {
			return err
		}
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer r.Close()
	// runc follows a link at /dev to where it leads on the host when it makes the links in there.
	for _, name := range []string{"dev", "proc", "run", "sys"} {
		if err := realDir(r, name); err != nil {
			return err
		}
	}
	if err := a.identity(r); err != nil {
		return err
	}
	return a.runtimeDir()
}

// realDir makes sure that a directory is one, and no link to another.
func realDir(r *os.Root, name string) error {
	if info, err := r.Lstat(name); err == nil && info.IsDir() {
		return nil
	}
	if err := r.RemoveAll(name); err != nil {
		return err
	}
	return r.Mkdir(name, 0o755)
}

// overlay mounts one overlay. Unless the pool wants setuid programs, those in it have no effect.
func (a *assembly) overlay(lowers []string, layer, at string) error {
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`).Replace
	for i, l := range lowers {
		lowers[i] = escape(l)
	}
	data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(lowers, ":"),
		escape(filepath.Join(layer, "upper")), escape(filepath.Join(layer, "work")))
	flags := uintptr(unix.MS_NODEV)
	if !a.rec.Spec.Setuid {
		flags |= unix.MS_NOSUID
	}
	if err := unix.Mount("shoal", at, "overlay", flags, data); err != nil {
		return fmt.Errorf("overlay on %s: %w", at, err)
	}
	return nil
}

// identity writes the files that make the machine itself and not another. The image may be anybody's: all
// goes through an os.Root, out of which no link leads.
func (a *assembly) identity(r *os.Root) error {
	name := string(a.rec.Spec.ID)
	id := sha128(name + a.rec.Spec.Token)
	files := []struct{ path, text string }{
		{"etc/hostname", name + "\n"},
		{"etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n%s %s\n", a.rec.Host.Addr, name)},
		{"etc/resolv.conf", fmt.Sprintf("nameserver %s\noptions timeout:3 attempts:2\n", a.p.net.Gateway())},
		{"etc/machine-id", id + "\n"},
	}
	for _, f := range files {
		if err := replace(r, f.path, f.text); err != nil {
			return err
		}
	}
	// Host keys that an image brings are known to all who have the image.
	if a.rec.Starts == 1 {
		keys, err := fs.Glob(r.FS(), "etc/ssh/ssh_host_*")
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := r.Remove(k); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := r.MkdirAll("usr/local/bin", 0o755); err != nil {
		return err
	}
	if err := r.Symlink("/opt/shoal/bin/shoal", "usr/local/bin/shoal"); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// replace writes a file in place of whatever is there, a link included.
func replace(r *os.Root, name, text string) error {
	if old, err := r.ReadFile(name); err == nil && string(old) == text {
		if info, err := r.Lstat(name); err == nil && info.Mode().IsRegular() {
			return nil
		}
	}
	if err := r.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := r.RemoveAll(name); err != nil {
		return err
	}
	return r.WriteFile(name, []byte(text), 0o644)
}

// runtimeDir fills the machine's /run: a tmpfs that is prepared beside the root and bound into it by
// runc, which would otherwise give a tmpfs the mode of whatever is below.
func (a *assembly) runtimeDir() error {
	dir := filepath.Join(a.dir, "run")
	if err := unix.Mount("shoal", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=128m"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", dir, err)
	}
	for _, d := range []struct {
		name string
		mode uint32
	}{{"lock", 0o1777}, {"sshd", 0o755}, {"shoal", 0o755}, {"shoal/control", 0o700}, {"user", 0o755}} {
		if err := os.Mkdir(filepath.Join(dir, d.name), 0o755); err != nil {
			return err
		}
		if err := unix.Chmod(filepath.Join(dir, d.name), d.mode); err != nil {
			return err
		}
	}
	utmp := filepath.Join(dir, "utmp")
	if err := os.WriteFile(utmp, nil, 0o600); err != nil {
		return err
	}
	if err := os.Chown(utmp, 0, utmpGroup); err != nil {
		return err
	}
	if err := unix.Chmod(utmp, 0o664); err != nil {
		return err
	}
	join, err := json.Marshal(a.rec.Spec.Join)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "shoal", "join.json"), join, 0o600)
}

// utmpGroup is the number of group utmp, fixed by Debian and most others.
const utmpGroup = 43
