package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// taskOOMScore makes the kernel take tasks before logins when the machine as a whole is out of memory.
const taskOOMScore = "500"

// taskSlack is the kernel's own: how late a timer may be.
const taskSlack = 50 * time.Microsecond

// forker starts processes and waits for all of them.
type forker struct {
	requests chan forkRequest
	mu       sync.Mutex // over fork and registering, and over waiting and finding
	waiting  map[int]chan<- exit
}

// exit is how a process ended.
type exit struct {
	status syscall.WaitStatus
	cpu    time.Duration // of it and the children it waited for
	memory int64         // bytes, of the largest of them
}

type forkRequest struct {
	argv, env []string
	dir       string
	files     []uintptr
	person    tasks.Person
	group     cgroups.Group
	exit      chan<- exit // capacity 1
	answer    chan forkAnswer
}

type forkAnswer struct {
	pid int
	err error
}

func newForker() *forker {
	f := &forker{requests: make(chan forkRequest), waiting: map[int]chan<- exit{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go f.reap(signals)
	cgroups.Apart(f.fork)
	return f
}

// start starts a process; what became of it goes to req.exit.
func (f *forker) start(req forkRequest) (int, error) {
	if req.group.Stays() {
		return f.forkOne(req)
	}
	req.answer = make(chan forkAnswer, 1)
	f.requests <- req
	a := <-req.answer
	return a.pid, a.err
}

// fork starts the processes in whose control groups no thread stays, on one thread: that enters the groups, and tasks are
// killed when the thread that started them ends, which is when the supervisor does.
func (f *forker) fork() {
	for req := range f.requests {
		pid, err := f.forkOne(req)
		req.answer <- forkAnswer{pid, err}
	}
}

func (f *forker) forkOne(req forkRequest) (pid int, err error) {
	groups := make([]uint32, len(req.person.Groups))
	for i, g := range req.person.Groups {
		groups[i] = uint32(g)
	}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: uint32(req.person.UID), Gid: uint32(req.person.GID), Groups: groups}}
	attr := &syscall.ProcAttr{Dir: req.dir, Env: req.env, Files: req.files, Sys: sys}
	f.mu.Lock()
	defer f.mu.Unlock()
	err = req.group.Spawn(sys, func() (err error) {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(taskSlack), 0, 0, 0) // ours is more, and inherited
		pid, err = syscall.ForkExec(req.argv[0], req.argv, attr)
		return err
	})
	if pid == 0 {
		return 0, err
	}
	f.waiting[pid] = req.exit
	// A thread that did not find back from the group does not matter to the task; removing the group will say so.
	if fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		_, _ = unix.Write(fd, []byte(taskOOMScore)) // it has ended, or the kernel does not allow it
		_ = unix.Close(fd)
	}
	return pid, nil
}

// reap waits for whatever has ended: tasks' first processes, and orphans, which come to the supervisor.
func (f *forker) reap(signals <-chan os.Signal) {
	for range signals {
		for f.reapOne() {
		}
	}
}

func (f *forker) reapOne() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	var status syscall.WaitStatus
	var used syscall.Rusage
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, &used)
	if errors.Is(err, syscall.EINTR) {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if c := f.waiting[pid]; c != nil {
		delete(f.waiting, pid)
		c <- exit{status, time.Duration(used.Utime.Nano() + used.Stime.Nano()), used.Maxrss << 10}
	}
	return true
}

// startError says in words why a process could not be started in dir.
func startError(err error, user, dir string) string {
	switch {
	case errors.Is(err, syscall.E2BIG):
		return "the command and its environment are longer than the system allows"
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return fmt.Sprintf("no process could be started: %v", err)
	case errors.Is(err, syscall.EINVAL):
		return "the command or its environment holds a zero byte"
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOTDIR),
		errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.EIO):
		if _, shell := os.Stat(shellPath); shell == nil {
			return fmt.Sprintf("cannot go to the working directory %s as %s: %v", dir, user, err)
		}
	}
	return fmt.Sprintf("cannot start %s: %v", shellPath, err)
}
