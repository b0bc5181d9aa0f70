package rootfs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// submounts adds what the host has mounted below the trees: an overlay does not cross mounts,
// so without this a /usr/local on a disk of its own would be an empty directory.
func (b *builder) submounts(trees []Tree) ([]Tree, error) {
	if b.host != "/" {
		return trees, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, point := range mountPoints(f) {
		if slices.ContainsFunc(trees, func(t Tree) bool { return t.Path != point && within(point, t.Path) }) &&
			!slices.ContainsFunc(trees, func(t Tree) bool { return t.Path == point }) && b.public(point) {
			trees = append(trees, Tree{Path: point})
		}
	}
	slices.SortStableFunc(trees, func(x, y Tree) int { return strings.Count(x.Path, "/") - strings.Count(y.Path, "/") })
	return trees, nil
}

// public reports whether everybody may enter a directory of the host and list it.
func (b *builder) public(path string) bool {
	info, err := os.Stat(filepath.Join(b.host, path))
	return err == nil && info.IsDir() && info.Mode()&0o005 == 0o005 && b.reachable(strings.TrimPrefix(path, "/"))
}

// mountPoints reads the places of mountinfo.
func mountPoints(r io.Reader) []string {
	var out []string
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		if f := strings.Fields(scan.Text()); len(f) > 4 {
			out = append(out, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4]))
		}
	}
	return out
}

// mask makes a lower for a tree that hides all that not everybody may read: a whiteout for each such
// file, an empty directory for each such directory. It reports whether there was anything to hide.
func (b *builder) mask(ctx context.Context, path, to string, trees []Tree) (bool, error) {
	from := filepath.Join(b.host, path)
	found := false
	err := filepath.WalkDir(from, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return skipAbsent(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 || full == from {
			return nil
		}
		if d.IsDir() && slices.ContainsFunc(trees, func(t Tree) bool { return filepath.Join(b.host, t.Path) == full }) {
			return fs.SkipDir // a tree of its own
		}
		info, err := d.Info()
		if err != nil {
			return skipAbsent(err)
		}
		if info.Mode()&0o004 != 0 && (!d.IsDir() || info.Mode()&0o001 != 0) || allowedUnread(full, b.host) {
			return nil
		}
		found = true
		rel, err := filepath.Rel(from, full)
		if err != nil {
			return err
		}
		fmt.Fprintf(b.sum, "m %s %s\n", path, rel)
		if err := b.whiteout(from, to, rel); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return found, err
}

// allowedUnread are files without read permission for all that tools need and that hold nothing.
func allowedUnread(path, host string) bool {
	rel := "/" + strings.TrimPrefix(strings.TrimPrefix(path, host), "/")
	return slices.Contains([]string{packageDB + "/lock", packageDB + "/lock-frontend", packageDB + "/triggers/Lock"}, rel)
}

// whiteout hides one entry: overlayfs takes a character device 0:0 for "not there". The directories above
// must be made with the modes and owners that they have below, since the upper ones count.
func (b *builder) whiteout(from, to, rel string) error {
	above := []string{""}
	for i, c := range rel {
		if c == '/' {
			above = append(above, rel[:i])
		}
	}
	for _, dir := range above {
		if err := likeBelow(filepath.Join(from, dir), filepath.Join(to, dir)); err != nil {
			return err
		}
	}
	return unix.Mknod(filepath.Join(to, rel), unix.S_IFCHR, 0)
}

// likeBelow makes a directory with the mode and owner of another.
func likeBelow(below, dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(below, &st); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chown(dir, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(dir, st.Mode&0o7777)
}
