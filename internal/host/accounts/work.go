package accounts

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Work is what is to be done below one directory: a mount, or "/" for the machine's own disk. It is JSON
// since it goes to another process.
type Work struct {
	Root      string `json:"root"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	Probe     bool   `json:"probe,omitempty"` // see whether it answers and can be written to
	Homes     []Home `json:"homes,omitempty"`
	Skel      string `json:"skel,omitempty"` // what a new home begins with; empty: nothing
	GroupDirs []Dir  `json:"groupDirs,omitempty"`
}

// Home is a home directory, or another directory that is a user's own.
type Home struct {
	Path string         `json:"path"` // below the root, absolute
	User shoal.UserName `json:"user,omitempty"`
	UID  int            `json:"uid"`
	GID  int            `json:"gid"`
	// Bare: it begins empty. Mounted: somebody else puts it there, with the user's rights, and it is only waited for.
	Bare    bool   `json:"bare,omitempty"`
	Mounted bool   `json:"mounted,omitempty"`
	Links   []Link `json:"links,omitempty"` // that it holds
	New     bool   `json:"new,omitempty"`   // of what is done: it was made just now
}

// Link is a symbolic link in a home.
type Link struct {
	Path string `json:"path"` // relative to the home
	To   string `json:"to"`
}

// Dir is a directory of a group.
type Dir struct {
	Path string `json:"path"` // relative to the root
	GID  int    `json:"gid"`
	Mode uint32 `json:"mode"`
}

// defaultGroupMode is that of a group directory which names none.
const defaultGroupMode = 0o2770

// Plan divides what users and groups need on disk into one Work per mount and, last, one for the machine's own disk.
func Plan(users []api.Account, groups []api.Group, mounts []api.AgentMount, skel string) []Work {
	works := make([]Work, len(mounts)+1)
	for i, m := range mounts {
		works[i] = Work{Root: m.Path, ReadOnly: m.ReadOnly, Skel: skel}
		if m.ReadOnly || m.Unowned { // there are no groups either
			continue
		}
		for _, d := range m.GroupDirs {
			mode, err := strconv.ParseUint(d.Mode, 8, 32)
			if err != nil || mode > 0o7777 {
				mode = defaultGroupMode
			}
			for _, g := range groups {
				works[i].GroupDirs = append(works[i].GroupDirs, Dir{GID: g.GID, Mode: uint32(mode) | unix.S_ISGID,
					Path: strings.ReplaceAll(d.Path, "{group}", string(g.Name))})
			}
		}
	}
	works[len(mounts)] = Work{Root: "/", Skel: skel}
	for _, u := range users {
		if u.Disabled {
			continue
		}
		h := Home{Path: path.Clean(u.Home), User: u.Name, UID: u.UID, GID: u.GID}
		w := &works[len(mounts)]
		for i, m := range mounts {
			if within(m.Path, u.Home) && len(m.Path) >= len(w.Root) {
				w, h.Mounted = &works[i], m.Unowned
			}
			if m.Links && !m.ReadOnly {
				own := Home{Path: Notebooks(m, u.Name), User: u.Name, UID: u.UID, GID: u.GID, Bare: true, Mounted: m.Unowned}
				works[i].Homes = append(works[i].Homes, own)
				h.Links = LinksTo(m, u.Name)
			}
		}
		if !w.ReadOnly {
			w.Homes = append(w.Homes, h)
		}
	}
	return works
}

// Notebooks is a user's own directory on a mount that homes link to.
func Notebooks(m api.AgentMount, user shoal.UserName) string {
	return path.Join(m.Path, "notebooks", string(user))
}

// LinksTo are the links of a home to a mount: to all of it by the share's name and by its own, and to the user's directory
// where notebooks are.
func LinksTo(m api.AgentMount, user shoal.UserName) []Link {
	all := []Link{{Path: string(m.Share), To: m.Path}}
	if last := path.Base(m.Path); last != string(m.Share) && last != "notebooks" {
		all = append(all, Link{Path: last, To: m.Path})
	}
	return append(all, Link{Path: "notebooks/remote", To: Notebooks(m, user)})
}

// within reports whether a path lies below a directory.
func within(dir, p string) bool {
	return strings.HasPrefix(path.Clean(p), strings.TrimSuffix(path.Clean(dir), "/")+"/")
}

// Empty reports whether there is nothing to do.
func (w Work) Empty() bool { return !w.Probe && len(w.Homes) == 0 && len(w.GroupDirs) == 0 }

// Done is what became of a Work.
type Done struct {
	Homes     []Home   `json:"homes,omitempty"`     // that are there now
	GroupDirs []Dir    `json:"groupDirs,omitempty"` // likewise
	Awaited   []string `json:"awaited,omitempty"`   // homes that are not mounted yet
	// Problems are what cannot be made. It keeps nobody else from working.
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is what cannot be made, for a user or, without one, for a group.
type Problem struct {
	User   shoal.UserName `json:"user,omitempty"`
	Reason string         `json:"reason"`
}

// Do does the work. An error means that the mount is of no use now. What cannot be made for one user or group,
// such as a home at whose place lies a file, is a problem of theirs alone. Doing it again changes nothing.
func (w Work) Do() (Done, error) {
	var done Done
	root, err := openDir(unix.AT_FDCWD, w.Root, true)
	if err != nil {
		return done, shoal.Errorf(shoal.KindUnavailable, "cannot open %s: %w", w.Root, err)
	}
	defer unix.Close(root)
	if w.Probe {
		if err := probe(root, w.ReadOnly); err != nil {
			return done, fmt.Errorf("cannot write to %s: %w", w.Root, err)
		}
	}
	for _, h := range w.Homes {
		made, err := w.home(root, h)
		switch h.New = made; {
		case err == nil:
			done.Homes = append(done.Homes, h)
		case errors.Is(err, errAwaited):
			done.Awaited = append(done.Awaited, h.Path)
		case broken(err):
			return done, fmt.Errorf("cannot make the directory %s: %w", h.Path, err)
		default:
			done.Problems = append(done.Problems, Problem{User: h.User, Reason: fmt.Sprintf("cannot make the directory %s: %v", h.Path, err)})
		}
	}
	for _, d := range w.GroupDirs {
		where := path.Join(w.Root, d.Path)
		switch err := groupDir(root, d); {
		case err == nil:
			done.GroupDirs = append(done.GroupDirs, d)
		case broken(err):
			return done, fmt.Errorf("cannot make the group directory %s: %w", where, err)
		default:
			done.Problems = append(done.Problems, Problem{Reason: fmt.Sprintf("cannot make the group directory %s: %v", where, err)})
		}
	}
	return done, nil
}

// broken reports whether an error is about the file system as a whole.
func broken(err error) bool {
	for _, e := range []error{unix.EIO, unix.ESTALE, unix.ENOTCONN, unix.ETIMEDOUT, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ECONNABORTED, unix.EROFS, unix.ENODEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errAwaited is that of a home which somebody else has not put there yet.
var errAwaited = errors.New("it is not mounted yet")

// home makes a home if nothing is at its place: aside first and then moved, so that it is never seen half made, and
// what is found at its place is somebody's and left alone. It reports whether it made one.
func (w Work) home(root int, h Home) (made bool, err error) {
	rel, err := relative(w.Root, h.Path)
	if err != nil {
		return false, err
	}
	dir, name := path.Split(rel)
	if h.Mounted {
		return false, w.mounted(root, rel, h)
	}
	parent, err := parents(root, dir)
	if err != nil {
		return false, squashed(err, path.Join(w.Root, path.Dir(path.Clean(dir))))
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	switch err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return false, errors.New("something that is no directory is at its place")
	case err == nil && int(st.Uid) != h.UID:
		return false, fmt.Errorf("a directory of uid %d, and not of its user's (%d), is at its place: move it away, or give it to her with chown", st.Uid, h.UID)
	case err == nil:
		return false, makeLinks(parent, name, h)
	case !errors.Is(err, unix.ENOENT):
		return false, err
	}
	skel := w.Skel
	if h.Bare {
		skel = ""
	}
	err = newHome(parent, name, skel, h)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		// A share on which root is nobody: perhaps the user may do it herself.
		own := asUser(h.UID, h.GID, func() error {
			if err := unix.Mkdirat(parent, name, 0o700); err != nil || skel == "" {
				return err
			}
			fd, err := openDir(parent, name, false)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return copySkel(skel, fd, h.UID, h.GID)
		})
		err = squashed(own, path.Join(w.Root, dir))
	}
	if err != nil {
		return false, err
	}
	return true, makeLinks(parent, name, h)
}

// squashed says what is to be done where neither root nor a user may make a directory.
func squashed(err error, dir string) error {
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return fmt.Errorf("neither root, whom the file server takes for nobody, nor the user may make a directory in %s: "+
		"give it the mode 1777 on the file server, or export the share to this host with no_root_squash: %w", dir, err)
}

// mounted sees whether a home is there that somebody else puts there. A new one is empty.
func (w Work) mounted(root int, rel string, h Home) error {
	fd, err := unix.Dup(root)
	for name := range strings.SplitSeq(rel, "/") {
		if err != nil {
			break
		}
		up := fd
		fd, err = openDir(up, name, false)
		unix.Close(up)
	}
	if errors.Is(err, unix.ENOENT) {
		return errAwaited
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if int(st.Uid) != h.UID {
		return errAwaited
	}
	if h.Bare || w.Skel == "" || !isEmpty(fd) {
		return nil
	}
	return asUser(h.UID, h.GID, func() error { return copySkel(w.Skel, fd, h.UID, h.GID) })
}

// isEmpty reports whether a directory holds nothing, as far as can be seen.
func isEmpty(fd int) bool {
	again, err := openDir(fd, ".", false)
	if err != nil {
		return false
	}
	d := os.NewFile(uintptr(again), "home")
	defer d.Close()
	names, err := d.Readdirnames(1)
	return len(names) == 0 && (err == nil || errors.Is(err, io.EOF))
}

// makeLinks puts the links into a home, with no more rights than its user has. What is in their place stays.
func makeLinks(parent int, name string, h Home) error {
	if len(h.Links) == 0 {
		return nil
	}
	return asUser(h.UID, h.GID, func() error {
		home, err := openDir(parent, name, false)
		if err != nil {
			return err
		}
		defer unix.Close(home)
		var errs []error
		for _, l := range h.Links {
			if err := link(home, l); err != nil {
				errs = append(errs, fmt.Errorf("there is no link ~/%s to %s: %w", l.Path, l.To, err))
			}
		}
		return errors.Join(errs...)
	})
}

func link(home int, l Link) error {
	dir, name := path.Split(l.Path)
	at, err := unix.FcntlInt(uintptr(home), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if part == "" {
			continue
		}
		if err := unix.Mkdirat(at, part, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		next, err := openDir(at, part, false)
		if err != nil {
			return fmt.Errorf("~/%s is no directory; move it away: %w", strings.Trim(dir, "/"), err)
		}
		unix.Close(at)
		at = next
	}
	err = unix.Symlinkat(l.To, at, name)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there := make([]byte, 4096)
	n, err := unix.Readlinkat(at, name, there)
	switch {
	case err != nil:
		return errors.New("something else is in its place; move it away")
	case string(there[:n]) != l.To:
		return errors.New("a link to elsewhere is in its place; move it away")
	}
	return nil
}

func newHome(parent int, name, skel string, h Home) error {
	tmp := ".shoal-new-" + name + "-" + rand.Text() // which nobody has left
	if err := unix.Mkdirat(parent, tmp, 0o700); err != nil {
		return err
	}
	fd, err := openDir(parent, tmp, false)
	if err != nil {
		return errors.Join(err, unix.Unlinkat(parent, tmp, unix.AT_REMOVEDIR))
	}
	defer unix.Close(fd)
	if err = owned(fd); err == nil && skel != "" {
		err = copySkel(skel, fd, h.UID, h.GID)
	}
	if err == nil {
		err = unix.Fchmod(fd, 0o700)
	}
	if err == nil {
		err = unix.Fchown(fd, h.UID, h.GID)
	}
	if err == nil {
		err = unix.Renameat2(parent, tmp, parent, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // file servers often cannot
			err = unix.Renameat(parent, tmp, parent, name)
		}
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) { // another machine was faster
			removeAll(parent, tmp, fd)
			return nil
		}
	}
	if err != nil {
		removeAll(parent, tmp, fd)
	}
	return err
}

// groupDir makes a directory in which every file belongs to the group and can be written by it: the group is
// inherited by the setgid bit, and a default ACL takes the place of the umask.
func groupDir(root int, d Dir) error {
	rel, err := relative("/", path.Join("/", d.Path))
	if err != nil {
		return err
	}
	dir, name := path.Split(rel)
	parent, err := parents(root, dir)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := openDir(parent, name, false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != uint32(unix.Geteuid()) {
		if st.Gid != uint32(d.GID) {
			return errors.New("somebody else has made it")
		}
		return nil // a file server on which root is somebody else, or an administrator's choice
	}
	if st.Gid != uint32(d.GID) {
		if err := unix.Fchown(fd, -1, d.GID); err != nil {
			return err
		}
	}
	if st.Gid != uint32(d.GID) || st.Mode&0o7777 != d.Mode {
		if err := unix.Fchmod(fd, d.Mode); err != nil {
			return err
		}
	}
	return defaultACL(fd, d.Mode)
}

// relative is a path seen from a directory above it.
func relative(root, p string) (string, error) {
	if !within(root, p) {
		return "", fmt.Errorf("it is not below %s", root)
	}
	return strings.TrimPrefix(path.Clean(p), strings.TrimSuffix(path.Clean(root), "/")+"/"), nil
}

// openDir opens a directory. Only the root of a work may be reached by a link.
func openDir(at int, name string, follow bool) (int, error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	for {
		fd, err := unix.Openat(at, name, flags, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

// parents opens the directory at a relative path, making what is missing, root's and open to be passed by all.
func parents(root int, dir string) (int, error) {
	at, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for name := range strings.SplitSeq(dir, "/") {
		if name == "" {
			continue
		}
		next, err := openDir(at, name, false)
		if errors.Is(err, unix.ENOENT) {
			next, err = makeParent(at, name)
		}
		unix.Close(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

func makeParent(at int, name string) (int, error) {
	err := unix.Mkdirat(at, name, 0o755)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	fd, openErr := openDir(at, name, false)
	if openErr != nil {
		return -1, openErr
	}
	if err != nil { // another was faster
		return fd, nil
	}
	mode := uint32(0o755) // whatever the umask
	if owned(fd) != nil {
		mode = 0o1777 // root is nobody here, so users make what is theirs themselves, and cannot touch that of others
	}
	if err := unix.Fchmod(fd, mode); err != nil && mode == 0o755 {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// owned makes sure that what was just made is what was opened.
func owned(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != uint32(unix.Geteuid()) {
		return unix.EPERM
	}
	return nil
}

// Key names a home with its owner and its links, for who remembers what is made.
func (h Home) Key() string { return fmt.Sprintf("%s %d %d %q", h.Path, h.UID, h.GID, h.Links) }

// Key names a directory below a root with its group and mode, for who remembers what is made.
func (d Dir) Key(root string) string { return fmt.Sprintf("%s %s %d %o", root, d.Path, d.GID, d.Mode) }
