package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shoal-pool/shoal/internal/host/localdisk"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

const (
	shellPath = "/bin/sh"
	userPath  = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games" // Debian's for users
	drainTime = 200 * time.Millisecond                                     // for what it wrote last
)

// child is the app's first process.
type child struct {
	pid    int
	born   uint64
	exited chan struct{} // closed when it has ended; then status is known
	status syscall.WaitStatus
	out    *os.File      // our end of its output
	read   chan struct{} // closed when that is read to its end
}

// start starts the command as the user.
func (a *attempt) start(port int) (*child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	c := &child{exited: make(chan struct{}), read: make(chan struct{}), out: out}
	p := a.o.Person
	groups := make([]uint32, len(p.Groups))
	for i, g := range p.Groups {
		groups[i] = uint32(g)
	}
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID), Groups: groups}}
	attr := &syscall.ProcAttr{Dir: p.Home, Env: a.environ(port), Files: []uintptr{null.Fd(), theirs.Fd(), theirs.Fd()}, Sys: sys}
	argv := []string{shellPath, "-c", a.o.Order.Command}
	started := make(chan error, 1)
	go func() {
		// The process is killed when the thread that started it ends, so this one stays for it.
		runtime.LockOSThread()
		err := a.group.Spawn(sys, func() (err error) {
			c.pid, err = syscall.ForkExec(argv[0], argv, attr)
			return err
		})
		if c.pid != 0 { // it runs, though this thread may not have found back
			c.born = tasks.Born(c.pid)
			err = nil
		}
		started <- err
		if err == nil {
			c.wait()
		}
	}()
	if err := <-started; err != nil {
		_ = out.Close()
		return nil, startError(err, string(a.o.Order.User), p.Home)
	}
	go func() {
		defer close(c.read)
		_, _ = a.log.ReadFrom(out)
	}()
	return c, nil
}

func (c *child) wait() {
	for {
		_, err := syscall.Wait4(c.pid, &c.status, 0, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	close(c.exited)
}

func (c *child) gone() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// done takes the last output and lets go. Everything of the app is killed by now, but for what hangs in the kernel.
func (c *child) done() {
	select {
	case <-c.read:
	case <-time.After(drainTime):
	}
	_ = c.out.Close()
	select {
	case <-c.exited:
	case <-time.After(time.Second):
	}
}

// startError says in words why the command could not be started.
func startError(err error, user, home string) error {
	switch {
	case errors.Is(err, syscall.E2BIG):
		return errors.New("the command and its environment are longer than the system allows")
	case errors.Is(err, syscall.EINVAL):
		return errors.New("the command or its environment holds a zero byte")
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.EIO):
		if _, shell := os.Stat(shellPath); shell == nil {
			return fmt.Errorf("cannot go to the home directory %s as %s: %w", home, user, err)
		}
	}
	return fmt.Errorf("cannot start %s: %w", shellPath, err)
}

// environ is the login environment of the user, with what the order adds, and last what the app is told.
func (a *attempt) environ(port int) []string {
	p, o := a.o.Person, a.o.Order
	shell := p.Shell
	if shell == "" {
		shell = shellPath
	}
	env := map[string]string{"HOME": p.Home, "USER": string(o.User), "LOGNAME": string(o.User), "SHELL": shell, "PATH": userPath, "LANG": "C.UTF-8"}
	maps.Copy(env, o.Env)
	env["SHOAL_PORT"], env["SHOAL_BASE_URL"], env["SHOAL_ENDPOINT"] = strconv.Itoa(port), o.BaseURL, o.Endpoint
	if a.o.Local != "" {
		env["SHOAL_LOCAL"] = localdisk.Of(a.o.Local, p.UID)
	}
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if k != "" && !strings.Contains(k, "=") {
			out = append(out, k+"="+env[k])
		}
	}
	return out
}
