package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// rooms are scratch directories that serve one task of a user after another, if they are left empty: to make and
// remove a directory costs a file system ten times as much as to name it anew, which is done once.
type rooms struct {
	dir string // of all scratch directories

	mu   sync.Mutex
	made int
	idle map[int][]spare // by user
}

// spare is a directory that waits for a task, and when something came or went in it last.
type spare struct {
	path string
	at   unix.Timespec
}

const (
	sparePrefix = "spare-"
	maxSpare    = 32 // of a user
)

func newRooms(dir string) *rooms { return &rooms{dir: dir, idle: map[int][]spare{}} }

// spare gives out a directory under the name that it waited with, for a task whose processes are known by more than that.
// It is as it was made.
func (r *rooms) spare(uid int) (s spare, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.idle[uid]
	if len(list) == 0 {
		return s, false
	}
	s, r.idle[uid] = list[len(list)-1], list[:len(list)-1]
	return s, true
}

// take makes a directory of a user's, and returns what free is to be told. What is there is a leftover of a
// supervisor that was killed.
func (r *rooms) take(dir string, p tasks.Person) (was unix.Timespec, err error) {
	if s, ok := r.spare(p.UID); ok {
		if unix.Renameat2(unix.AT_FDCWD, s.path, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE) == nil {
			return s.at, nil
		}
		_ = unix.Rmdir(s.path) // what has come into it meanwhile goes when the next supervisor starts
	}
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if err = tasks.RemoveScratch(dir); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err == nil {
		err = os.Lchown(dir, p.UID, p.GID)
	}
	return unix.Timespec{}, err
}

// share makes a directory of a user's that may be there already.
func (r *rooms) share(dir string, p tasks.Person) error {
	if s, ok := r.spare(p.UID); ok {
		err := unix.Renameat2(unix.AT_FDCWD, s.path, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		r.keep(p.UID, s)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
	}
	err := unix.Mkdir(dir, 0o700)
	if err == nil {
		return os.Lchown(dir, p.UID, p.GID)
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// free removes a directory, or keeps it for the user's next task.
func (r *rooms) free(dir string, was unix.Timespec, p tasks.Person) error {
	if r.spareUp(dir, was, p) {
		return nil
	}
	return tasks.RemoveScratch(dir)
}

// spareUp keeps a directory for the user's next task, if it is as it was made.
func (r *rooms) spareUp(dir string, was unix.Timespec, p tasks.Person) bool {
	at, ok := asNew(dir, was, p)
	if !ok {
		return false
	}
	s := spare{at: at}
	r.mu.Lock()
	switch {
	case len(r.idle[p.UID]) >= maxSpare:
	case strings.HasPrefix(filepath.Base(dir), sparePrefix):
		s.path = dir
	default:
		r.made++
		s.path = filepath.Join(r.dir, sparePrefix+strconv.Itoa(r.made))
	}
	r.mu.Unlock()
	if s.path != dir && (s.path == "" || unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, s.path, unix.RENAME_NOREPLACE) != nil) {
		return false
	}
	r.keep(p.UID, s)
	return true
}

func (r *rooms) keep(uid int, s spare) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle[uid] = append(r.idle[uid], s)
}

// asNew reports whether a directory is as it was made: empty, and its user's alone. If nothing came or went since it
// was last seen empty, which was not just now, that need not be read. (A user who sets the time back finds what she
// left in a later scratch directory of hers, until the next supervisor removes it.)
func asNew(dir string, was unix.Timespec, p tasks.Person) (at unix.Timespec, ok bool) {
	var st unix.Stat_t
	if unix.Lstat(dir, &st) != nil || st.Mode != unix.S_IFDIR|0o700 || int(st.Uid) != p.UID || int(st.Gid) != p.GID {
		return at, false
	}
	if st.Mtim == was {
		return was, true
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return at, false
	}
	defer unix.Close(fd)
	var buf [512]byte
	n, err := unix.Getdents(fd, buf[:])
	_, _, names := unix.ParseDirent(buf[:max(n, 0)], -1, nil)
	if time.Since(time.Unix(st.Mtim.Unix())) > mtimeStep {
		at = st.Mtim
	}
	return at, err == nil && len(names) == 0 // which leaves out . and ..
}

// mtimeStep is more than a file system's clock moves on at a time.
const mtimeStep = 100 * time.Millisecond

// clear removes those that wait for a task, and those of supervisors before.
func (r *rooms) clear() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.idle)
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), sparePrefix) {
			err = errors.Join(err, tasks.RemoveScratch(filepath.Join(r.dir, e.Name())))
		}
	}
	return err
}
