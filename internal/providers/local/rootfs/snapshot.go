package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
)

// Info is an image that the store keeps.
type Info struct {
	Name    string // what a pool writes as its image
	Kind    Kind
	Created time.Time
	dir     string
}

// Root is the lower directory of a kept image.
func (i Info) Root() string { return filepath.Join(i.dir, "root") }

const snapshotPrefix = "snapshot-"

func (s *Store) snapshotDir(name string) string { return filepath.Join(s.dir, snapshotPrefix+name) }

// validName reports whether a snapshot may have this name: what a pool may, too.
func validName(name string) bool {
	if name == "" || len(name) > 63 || name == Host {
		return false
	}
	for i, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c == '-' || c == '.')) {
			return false
		}
	}
	return true
}

// Snapshot freezes the image host under a name: a copy of all that a machine of that image would see,
// which the host's next upgrade leaves alone. It takes minutes and gigabytes.
func (s *Store) Snapshot(ctx context.Context, name string, o Options) error {
	if !validName(name) {
		return shoal.Errorf(shoal.KindInvalid, "cannot take the snapshot %q: that cannot be the name of an image", name).
			WithHint("a name is up to 63 lower-case letters, digits, dots and dashes, and not \"host\"")
	}
	defer s.lock(snapshotPrefix + name)()
	dir := s.snapshotDir(name)
	if _, err := os.Stat(dir); err == nil {
		return shoal.Errorf(shoal.KindConflict, "cannot take the snapshot %s: there is one of that name: %w", name, fs.ErrExist).
			WithHint("choose another name; `shoal image remove %s` removes the old one", name)
	}
	image, err := s.hostImage(ctx, o)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.dir, tmpPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	root := filepath.Join(tmp, "root")
	if err := clone(ctx, image.Root, root, ""); err != nil {
		return fmt.Errorf("cannot take the snapshot %s: %w", name, err)
	}
	for _, t := range image.Trees {
		if err := clone(ctx, filepath.Join(s.host, t.Path), filepath.Join(root, t.Path), t.Mask); err != nil {
			return fmt.Errorf("cannot take the snapshot %s: %w", name, err)
		}
	}
	return os.Rename(tmp, dir)
}

// clone copies a directory with modes, owners, times and links, but for what a mask hides. It shares
// data where the file system can, and does not cross mounts: those are trees of their own.
func clone(ctx context.Context, from, to, mask string) error {
	var top unix.Stat_t
	if err := unix.Lstat(from, &top); err != nil {
		return err
	}
	links := map[uint64]string{}
	return filepath.WalkDir(from, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return skipAbsent(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, full)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(full, &st); err != nil {
			return skipAbsent(err)
		}
		if hidden(mask, rel) || d.IsDir() && st.Dev != top.Dev {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return cloneEntry(full, filepath.Join(to, rel), st, links)
	})
}

// hidden reports whether a mask has a whiteout at this place.
func hidden(mask, rel string) bool {
	if mask == "" {
		return false
	}
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(mask, rel), &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR
}

func cloneEntry(from, to string, st unix.Stat_t, links map[uint64]string) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, to); err != nil {
			return err
		}
		return os.Lchown(to, int(st.Uid), int(st.Gid))
	case unix.S_IFREG:
		if first := links[st.Ino]; st.Nlink > 1 && first != "" {
			return os.Link(first, to)
		}
		links[st.Ino] = to
		if err := cloneFile(from, to); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	return os.Chtimes(to, time.Time{}, time.Unix(st.Mtim.Unix()))
}

func cloneFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return skipAbsent(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		if _, err := out.ReadFrom(in); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return out.Close()
}

// List names the snapshots and unpacked archives that are kept.
func (s *Store) List() ([]Info, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var out []Info
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		i := Info{Created: info.ModTime(), dir: filepath.Join(s.dir, e.Name())}
		if name, ok := strings.CutPrefix(e.Name(), snapshotPrefix); ok {
			i.Name, i.Kind = name, KindSnapshot
		} else if b, err := os.ReadFile(filepath.Join(i.dir, "source")); err == nil {
			i.Name, i.Kind = strings.TrimSpace(string(b)), KindArchive
		} else {
			continue
		}
		out = append(out, i)
	}
	return out, nil
}

// Remove removes a kept image, which no machine may stand on. Removing what is not there succeeds.
func (s *Store) Remove(name string) error {
	list, err := s.List()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(i Info) bool { return i.Name == name }) {
		return shoal.Errorf(shoal.KindNotFound, "no image %q", name).WithHint("`shoal image list` shows what is kept")
	}
	for _, i := range list {
		if i.Name != name {
			continue
		}
		// Renamed first, so that an interruption leaves what the next start removes.
		tmp := filepath.Join(s.dir, tmpPrefix+filepath.Base(i.dir))
		if err := os.Rename(i.dir, tmp); err != nil {
			return err
		}
		if err := os.RemoveAll(tmp); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, dir := range s.archives {
		if _, err := os.Stat(dir); err != nil {
			delete(s.archives, key)
		}
	}
	return nil
}
