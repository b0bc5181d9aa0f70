// Package removal removes directories that strangers have filled. What people make can be deeper than
// a process has descriptors or a goroutine has stack, so nothing here goes down: what is deep is moved up.
package removal

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tree removes whatever is at a path, with all below it, and follows no link. What does not exist is removed.
// It holds a handful of descriptors, however deep the tree is. Whoever can still write there can keep it
// busy until ctx ends.
func Tree(ctx context.Context, path string) error {
	path = filepath.Clean(path)
	if path == "/" || path == "." {
		return &fs.PathError{Op: "remove", Path: path, Err: unix.EINVAL}
	}
	parent, err := open(unix.AT_FDCWD, filepath.Dir(path), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	at, name := int(parent.Fd()), filepath.Base(path)
	if err := unlink(at, name); !errors.Is(err, unix.ENOTEMPTY) {
		return wrap(path, err)
	}
	top, err := open(at, name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer top.Close()
	c := clearing{top: int(top.Fd())}
	if err := c.run(ctx); err != nil {
		return wrap(path, err)
	}
	return wrap(path, unlink(at, name))
}

func wrap(path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "remove", Path: path, Err: err}
}

// clearing empties one directory, the top.
type clearing struct {
	top   int
	moved int // how many directories were moved up, which makes their names
}

// run goes over the top until nothing is in it. Each time its directories lose one level, the next levels being
// moved up beside them.
func (c *clearing) run(ctx context.Context) error {
	for {
		var failed error
		found, removed := 0, 0
		err := each(c.top, func(name string) {
			found++
			if ctx.Err() != nil {
				return
			}
			if err := c.remove(name); err == nil {
				removed++
			} else if failed == nil {
				failed = err
			}
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case found == 0:
			return nil
		case removed == 0:
			return failed
		}
	}
}

// remove removes an entry of the top. The directories in it are moved to the top.
func (c *clearing) remove(name string) error {
	err := unlink(c.top, name)
	if !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	dir, err := open(c.top, name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer dir.Close()
	var failed error
	err = each(int(dir.Fd()), func(sub string) {
		err := unlink(int(dir.Fd()), sub)
		if errors.Is(err, unix.ENOTEMPTY) {
			err = c.raise(int(dir.Fd()), sub)
		}
		if failed == nil {
			failed = err
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	return unlink(c.top, name)
}

// raise moves a directory to the top, under a name that is free.
func (c *clearing) raise(at int, name string) error {
	for {
		c.moved++
		err := unix.Renameat2(at, name, c.top, ".up-"+strconv.Itoa(c.moved), unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // file servers often cannot; a directory replaces an empty one only
			err = unix.Renameat(at, name, c.top, ".up-"+strconv.Itoa(c.moved))
		}
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
	}
}

// unlink removes a file or an empty directory. One that is not empty is ENOTEMPTY, one that is not there is removed.
func unlink(at int, name string) error {
	err := unix.Unlinkat(at, name, 0)
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		if dir := unix.Unlinkat(at, name, unix.AT_REMOVEDIR); !errors.Is(dir, unix.ENOTDIR) {
			err = dir
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EEXIST): // POSIX allows it in place of the other
		return unix.ENOTEMPTY
	}
	return err
}

// each reads a directory from its beginning.
func each(at int, do func(name string)) error {
	dir, err := open(at, ".", 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		const some = 1024
		names, err := dir.Readdirnames(some)
		for _, n := range names {
			do(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func open(at int, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}
