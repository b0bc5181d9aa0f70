package mounts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childName is the name by which this program knows that it is a child of its own. taskFD is where it reads what to do.
const (
	childName = "shoal-mounts"
	taskFD    = 3
)

// task is what a child does. Do says which of the fields count.
type task struct {
	Do string // mount, unmount, probe, attach, detach, makedir, run

	Dir    string      // mount, unmount, probe, makedir: the directory
	FS     string      // mount: the file system
	Params [][2]string // mount: its parameters; without a value: flags
	Attr   uint64      // mount: MOUNT_ATTR_*

	PID   int    // attach, detach: of the machine's first process
	Path  string // attach, detach: in the machine
	Trees []tree // attach: what to put there, and what below it
	Stage string // attach: an empty directory of the host

	Sub string // makedir: below Dir

	Groups []string // run: control files of the groups to join
	Args   []string // run: the program, which takes the child's place
}

// tree is a directory of the host on its way into a machine.
type tree struct {
	From     string
	At       string // in the machine
	ReadOnly bool
}

// Child does what the process was started for, if it is a child that this package made of its own program, and ends it. Every
// program that uses the package calls it first.
func Child() {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return
	}
	var t task
	err := json.NewDecoder(os.NewFile(taskFD, "task")).Decode(&t)
	if err == nil {
		err = t.do()
	}
	if err != nil {
		code := 1
		if no, ok := errors.AsType[syscall.Errno](err); ok {
			code = int(no)
		}
		fmt.Fprintln(os.Stdout, err)
		os.Exit(code)
	}
	os.Exit(0)
}

func (t task) do() error {
	runtime.LockOSThread()
	switch t.Do {
	case "mount":
		return t.mount()
	case "unmount":
		return unix.Unmount(t.Dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	case "probe":
		return probe(t.Dir)
	case "attach":
		return t.attach()
	case "detach":
		if err := enter(t.PID); err != nil {
			return err
		}
		return unix.Unmount(t.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	case "makedir":
		return t.makedir()
	case "run":
		return t.run()
	}
	return fmt.Errorf("no such task: %q", t.Do)
}

// childError is that of a child's system call, or of a program.
type childError struct {
	text string
	code int
}

func (e *childError) Error() string { return e.text }

// Is lets errors.Is compare with numbers of errors.
func (e *childError) Is(target error) bool {
	no, ok := target.(syscall.Errno)
	return ok && int(no) == e.code
}

// child runs a task for a limited time. A child that waits for a dead server may survive being killed; it is left to end when
// the server answers.
func (s *Set) child(ctx context.Context, t task) error {
	if s.cfg.Self == "" {
		return errors.New("this program cannot mount network shares")
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	cmd := exec.Command(s.cfg.Self)
	cmd.Args = []string{childName}
	return bounded(ctx, cmd, &t)
}

// bounded runs a program, handing it a task, and says what it said when it fails.
func bounded(ctx context.Context, cmd *exec.Cmd, t *task) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if t != nil {
		f, err := handOver(t)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended, gone := make(chan error, 1), make(chan struct{})
	go func() { defer close(gone); ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			return err
		}
		text := strings.TrimSpace(strings.ToValidUTF8(out.String()[:min(out.Len(), 500)], "?"))
		if text == "" {
			text = err.Error()
		}
		return &childError{text, exit.ExitCode()}
	case <-ctx.Done():
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		return &late{ctx.Err(), gone}
	}
}

// late is the error of a child whose time was over. It may not have ended.
type late struct {
	error
	gone chan struct{}
}

func (l *late) Unwrap() error { return l.error }

// ask runs something that asks whether a directory answers, unless what asked the last time still waits: of those who cannot
// even be killed there shall be no more than one.
func (s *Set) ask(dir string, fn func() error) error {
	s.mu.Lock()
	last := s.waiting[dir]
	s.mu.Unlock()
	if last != nil {
		select {
		case <-last.gone:
		default:
			return last
		}
	}
	err := fn()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := errors.AsType[*late](err); ok {
		s.waiting[dir] = l
	} else {
		delete(s.waiting, dir)
	}
	return err
}

// handOver puts a task, which may hold a secret, into memory that only the child gets.
func handOver(t *task) (*os.File, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	return inMemory("task", b)
}

// inMemory makes a file that is nowhere, opened at its beginning.
func inMemory(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(b)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// environment is that of children: nothing of ours but the places of programs.
func environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/", "RCLONE_CONFIG=/dev/null"}
}

// mount mounts by the kernel's own client. Parameters go one by one, so no comma in a password is anything else.
func (t task) mount() error {
	fsfd, err := unix.Fsopen(t.FS, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("this kernel has no client for %s: %w", t.FS, err)
	}
	for _, p := range t.Params {
		if p[1] == "" {
			err = unix.FsconfigSetFlag(fsfd, p[0])
		} else {
			err = unix.FsconfigSetString(fsfd, p[0], p[1])
		}
		if err != nil {
			return fmt.Errorf("the kernel does not take %s: %w%s", p[0], err, said(fsfd))
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("%w%s", err, said(fsfd))
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, int(t.Attr))
	if err != nil {
		return fmt.Errorf("%w%s", err, said(fsfd))
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, t.Dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// said is what the kernel has to say about a mount that is being made.
func said(fsfd int) string {
	var all []string
	b := make([]byte, 1024)
	for range 10 {
		n, err := unix.Read(fsfd, b)
		if err != nil || n <= 0 {
			break
		}
		all = append(all, strings.TrimSpace(strings.TrimPrefix(string(b[:n]), "e ")))
	}
	if len(all) == 0 {
		return ""
	}
	return " (" + strings.Join(all, "; ") + ")"
}

// probe asks the server twice for what no cache can answer: how full it is, and whether there is a file that nobody has.
func probe(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	_, err := os.Lstat(filepath.Join(dir, ".shoal-"+strconv.FormatInt(time.Now().UnixNano(), 36)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Unwrap(err)
	}
	// A client may have given up meanwhile; then this was the directory below.
	if table, err := mountTable(0); err != nil {
		return err
	} else if _, ok := table[dir]; !ok {
		return unix.ENOTCONN
	}
	return nil
}

// enter takes this thread into the mounts of a machine.
func enter(pid int) error {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(fd, unix.CLONE_NEWNS)
}

// attach puts directories of the host at a place of a machine, with those that lie below it already in their places, so that nobody
// sees one without the others. What was there before is let go lazily.
func (t task) attach() error {
	// The tree is put together where nobody sees it.
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for i, b := range t.Trees {
		fd, err := clone(b)
		if err != nil {
			return err
		}
		if i == 0 {
			err = unix.MoveMount(fd, "", unix.AT_FDCWD, t.Stage, unix.MOVE_MOUNT_F_EMPTY_PATH)
		} else {
			err = place(fd, t.Stage, strings.TrimPrefix(b.At, t.Path+"/"))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", b.At, err)
		}
	}
	whole, err := unix.OpenTree(unix.AT_FDCWD, t.Stage, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	before := rootOf(t.PID, t.Path)
	if err := enter(t.PID); err != nil {
		return err
	}
	if before {
		const beneath = 0x200 // MOVE_MOUNT_BENEATH, since Linux 6.5: then the place is never empty
		if unix.MoveMount(whole, "", unix.AT_FDCWD, t.Path, unix.MOVE_MOUNT_F_EMPTY_PATH|beneath) == nil {
			return unix.Unmount(t.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
		if err := unix.Unmount(t.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return err
		}
	}
	return place(whole, "/", strings.TrimPrefix(t.Path, "/"))
}

// clone is a bind mount on its way.
func clone(b tree) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, b.From, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if b.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return fd, unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr)
}

// place moves a mount to a directory below another, following no link: what is there may be anybody's.
func place(fd int, below, at string) error {
	root, err := unix.Open(below, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to, err := unix.Openat2(root, at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	return unix.MoveMount(fd, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// rootOf reports whether something is mounted at a path of a machine.
func rootOf(pid int, at string) bool {
	all, err := mountTable(pid)
	_, ok := all[at]
	return err == nil && ok
}

// makedir makes a directory on a share, and those above it.
func (t task) makedir() error {
	r, err := os.OpenRoot(t.Dir)
	if err != nil {
		return err
	}
	dir := ""
	for elem := range strings.SplitSeq(t.Sub, "/") {
		dir = path.Join(dir, elem)
		if err := r.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if info, err := r.Lstat(dir); err != nil || !info.IsDir() {
			return fmt.Errorf("%s is no directory", dir)
		}
	}
	return nil
}

// run becomes another program, outside the control group of the server, so that it outlives it.
func (t task) run() error {
	for _, f := range t.Groups {
		if err := os.WriteFile(f, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(t.Args[0])
	if err != nil {
		return err
	}
	unix.CloseOnExec(taskFD)
	return syscall.Exec(program, t.Args, environment())
}
