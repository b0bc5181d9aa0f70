package accounts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// maxSkel bounds a file of skel, and its depth.
const (
	maxSkel      = 1 << 20
	maxSkelDepth = 8
)

// skelTime is of when all is that comes from skel: older than whatever people write, so that what they have changed in it
// on another machine takes its place when it comes back. Archives of some formats know no time before 1980.
func skelTime() time.Time { return time.Date(1980, time.January, 2, 0, 0, 0, 0, time.UTC) }

// copySkel copies what a new home begins with. Nobody but root can reach the new directory meanwhile.
func copySkel(skel string, fd, uid, gid int) error { return copyTree(skel, fd, uid, gid, 0) }

func copyTree(from string, fd, uid, gid, depth int) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, os.ErrNotExist) || depth > maxSkelDepth {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, full := e.Name(), filepath.Join(from, e.Name())
		switch {
		case info.IsDir():
			err = copyDir(full, fd, name, uint32(info.Mode().Perm()), uid, gid, depth)
		case info.Mode()&os.ModeSymlink != 0:
			var to string
			if to, err = os.Readlink(full); err == nil {
				err = errors.Join(unix.Symlinkat(to, fd, name), unix.Fchownat(fd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW))
			}
		case info.Mode().IsRegular() && info.Size() <= maxSkel:
			err = copyFile(full, fd, name, uint32(info.Mode().Perm()), uid, gid)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", full, err)
		}
		if !info.IsDir() {
			at := unix.NsecToTimespec(skelTime().UnixNano())
			_ = unix.UtimesNanoAt(fd, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW) // not every file server can, of links
		}
	}
	return nil
}

func copyDir(from string, at int, name string, mode uint32, uid, gid, depth int) error {
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return err
	}
	fd, err := openDir(at, name, false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := copyTree(from, fd, uid, gid, depth+1); err != nil {
		return err
	}
	return errors.Join(unix.Fchmod(fd, mode), unix.Fchown(fd, uid, gid))
}

func copyFile(from string, at int, name string, mode uint32, uid, gid int) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(text)
	return errors.Join(err, unix.Fchmod(fd, mode), unix.Fchown(fd, uid, gid), f.Close())
}

// removeAll removes a home that was not finished, as far as skel is deep. What stays is told by its name.
func removeAll(parent int, name string, fd int) {
	empty(fd, 0)
	_ = unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}

func empty(fd, depth int) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil || depth > maxSkelDepth {
		return
	}
	d := os.NewFile(uintptr(dup), "home")
	defer d.Close()
	list, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range list {
		if unix.Unlinkat(fd, name, 0) == nil {
			continue
		}
		if sub, err := openDir(fd, name, false); err == nil {
			empty(sub, depth+1)
			unix.Close(sub)
			_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		}
	}
}

// asUser does something with the rights that a user has in file systems. The thread that is
// hers does nothing else afterwards: it ends with the goroutine.
func asUser(uid, gid int, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setgroups([]int{gid}); err != nil { // of this thread only
			done <- err
			return
		}
		if err := unix.Setfsgid(gid); err != nil {
			done <- err
			return
		}
		if err := unix.Setfsuid(uid); err != nil {
			done <- err
			return
		}
		if now, err := unix.SetfsuidRetUid(-1); err != nil || now != uid {
			done <- fmt.Errorf("cannot act as %d: %w", uid, errors.Join(err, unix.EPERM))
			return
		}
		done <- do()
	}()
	return <-done
}

// probe sees whether a mount answers and takes a file. The file has no name where the file system
// can do that.
//
// Root writes it. Where root is nobody (root_squash), the owner of the mount's uppermost directory does. Where
// that may not either, nobody writes at the top and below is not ours to try: that the mount answers and is not read-only must do.
// A full one answers too, and must not keep people from getting in to delete something.
func probe(root int, readOnly bool) error {
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(root, &fsys); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return err
	}
	if readOnly {
		return nil
	}
	if fsys.Flags&unix.ST_RDONLY != 0 {
		return unix.EROFS
	}
	err := writeFile(root)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		err = asUser(int(st.Uid), int(st.Gid), func() error { return writeFile(root) })
	}
	for _, forgiven := range []error{unix.EACCES, unix.EPERM, unix.ENOSPC, unix.EDQUOT} {
		if errors.Is(err, forgiven) {
			return nil
		}
	}
	return err
}

func writeFile(at int) error {
	fd, err := unix.Openat(at, ".", unix.O_WRONLY|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	name := ""
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		host, _ := os.Hostname()
		name = fmt.Sprintf(".shoal-probe-%s-%d", host, unix.Getpid())
		fd, err = unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("shoal\n"))
	err = errors.Join(err, unix.Close(fd))
	if name != "" {
		err = errors.Join(err, unix.Unlinkat(at, name, 0))
	}
	return err
}

// The binary form of an access control list: a version, and entries of tag, rights and id (linux/posix_acl_xattr.h).
const (
	aclVersion  = 2
	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclOther    = 0x20
	aclNoID     = 0xffffffff
)

// defaultACL gives a directory the rights that what is made in it begins with: those of mode,
// whatever the umask of who makes it. A file system without such lists is left to the umask.
func defaultACL(fd int, mode uint32) error {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range []struct{ tag, rights uint32 }{{aclUserObj, mode >> 6 & 7}, {aclGroupObj, mode >> 3 & 7}, {aclOther, mode & 7}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e.tag))
		b = binary.LittleEndian.AppendUint16(b, uint16(e.rights))
		b = binary.LittleEndian.AppendUint32(b, aclNoID)
	}
	err := unix.Fsetxattr(fd, "system.posix_acl_default", b, 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
