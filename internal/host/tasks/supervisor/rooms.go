package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// rooms are scratch directories that serve one task of a user after another, if they are left empty: to make and
// remove a directory costs a file system ten times as much as to name it anew.
type rooms struct {
	dir string // of all scratch directories

	mu   sync.Mutex
	made int
	idle map[int][]string // by user
}

const (
	sparePrefix = "spare-"
	maxSpare    = 32 // of a user
)

func newRooms(dir string) *rooms { return &rooms{dir: dir, idle: map[int][]string{}} }

// take makes a directory of a user's. What is there is a leftover of a supervisor that was killed.
func (r *rooms) take(dir string, p tasks.Person) error {
	r.mu.Lock()
	spare := ""
	if list := r.idle[p.UID]; len(list) > 0 {
		spare, r.idle[p.UID] = list[len(list)-1], list[:len(list)-1]
	}
	r.mu.Unlock()
	if spare != "" {
		if unix.Renameat2(unix.AT_FDCWD, spare, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE) == nil {
			return nil
		}
		_ = unix.Rmdir(spare) // what has come into it meanwhile goes when the next supervisor starts
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if err = tasks.RemoveScratch(dir); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	if err == nil {
		err = os.Lchown(dir, p.UID, p.GID)
	}
	return err
}

// free removes a directory, or keeps it for the user's next task.
func (r *rooms) free(dir string, p tasks.Person) error {
	if asNew(dir, p) {
		r.mu.Lock()
		spare := ""
		if len(r.idle[p.UID]) < maxSpare {
			r.made++
			spare = filepath.Join(r.dir, fmt.Sprintf("%s%d", sparePrefix, r.made))
		}
		r.mu.Unlock()
		if spare != "" && unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, spare, unix.RENAME_NOREPLACE) == nil {
			r.mu.Lock()
			r.idle[p.UID] = append(r.idle[p.UID], spare)
			r.mu.Unlock()
			return nil
		}
	}
	return tasks.RemoveScratch(dir)
}

// asNew reports whether a directory is as it was made: empty, and its user's alone.
func asNew(dir string, p tasks.Person) bool {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&0o7777 != 0o700 || int(st.Uid) != p.UID || int(st.Gid) != p.GID {
		return false
	}
	var buf [512]byte
	n, err := unix.Getdents(fd, buf[:])
	_, _, names := unix.ParseDirent(buf[:max(n, 0)], -1, nil)
	return err == nil && len(names) == 0 // which leaves out . and ..
}

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
