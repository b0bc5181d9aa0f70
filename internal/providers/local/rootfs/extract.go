package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// extract unpacks a tar stream into a new directory. Entries are made through an os.Root, so neither a
// name with dots nor a link that was unpacked before leads out of it. Devices and sockets are left out:
// machines get the devices they need otherwise. An archive that unpacks to more than limit bytes is refused.
func extract(ctx context.Context, r io.Reader, dir string, limit int64) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &extraction{root: root, left: limit}
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return x.setModes()
		}
		if err != nil {
			return fmt.Errorf("the archive is damaged: %w", err)
		}
		if n >= maxEntries {
			return fmt.Errorf("the archive has more than %d entries", maxEntries)
		}
		if err := x.entry(t, h); err != nil {
			return fmt.Errorf("cannot unpack %q: %w", h.Name, err)
		}
	}
}

// maxDepth bounds how deep directories are: each entry's way is walked step by step.
const maxDepth = 128

// extraction is one archive on its way to disk.
type extraction struct {
	root *os.Root
	left int64 // bytes that may still be written
	dirs []dirMode
}

func (x *extraction) entry(t *tar.Reader, h *tar.Header) error {
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	if name == "." {
		x.dirs = append(x.dirs, dirMode{".", uint32(h.Mode) & 0o7777})
		return nil
	}
	if name == ".." || strings.HasPrefix(name, "../") {
		return errors.New("its name leads out of the archive")
	}
	if len(name) > unix.PathMax || strings.Count(name, "/") > maxDepth {
		return fmt.Errorf("its name is longer than a path can be, or more than %d directories deep", maxDepth)
	}
	if err := x.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeDir {
		if err := x.root.RemoveAll(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return x.directory(name, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.file(t, name, h)
	case tar.TypeSymlink:
		if err := x.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return x.root.Lchown(name, h.Uid, h.Gid)
	case tar.TypeLink:
		return x.root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), name)
	}
	return nil
}

func (x *extraction) directory(name string, h *tar.Header) error {
	info, err := x.root.Lstat(name)
	if err == nil && !info.IsDir() {
		if err := x.root.RemoveAll(name); err != nil {
			return err
		}
		err = fs.ErrNotExist
	}
	if err != nil {
		if err := x.root.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	// Modes of directories are set at the end: one without write permission takes no entries, though
	// not for root, and a sticky one keeps its bit.
	x.dirs = append(x.dirs, dirMode{name, uint32(h.Mode) & 0o7777})
	return x.root.Lchown(name, h.Uid, h.Gid)
}

func (x *extraction) file(t *tar.Reader, name string, h *tar.Header) error {
	f, err := x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(t, x.left+1))
	if err != nil {
		return err
	}
	if x.left -= n; x.left < 0 {
		return errors.New("the archive unpacks to more than there is room for")
	}
	if err := f.Chown(h.Uid, h.Gid); err != nil {
		return err
	}
	if c := h.PAXRecords["SCHILY.xattr.security.capability"]; c != "" {
		if err := unix.Fsetxattr(int(f.Fd()), "security.capability", []byte(c), 0); err != nil {
			return err
		}
	}
	// After chown, which drops the setuid bit.
	if err := unix.Fchmod(int(f.Fd()), uint32(h.Mode)&0o7777); err != nil {
		return err
	}
	return f.Close()
}

func (x *extraction) setModes() error {
	for _, d := range x.dirs {
		f, err := x.root.Open(d.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // replaced later in the archive
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			err = unix.Fchmod(int(f.Fd()), d.mode)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
