package runner

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Times of the link to the supervisor.
const (
	helloTime  = 30 * time.Second // for a supervisor to say hello; one that does not is killed
	retryFirst = 50 * time.Millisecond
	retryLast  = 5 * time.Second
	// startTime is how long it is tried to start a supervisor until attempts are given up.
	startTime = 30 * time.Second
	// supervisorSlack is how late its timers may be.
	supervisorSlack = 2 * time.Millisecond
)

func (r *Runner) path(name string) string { return filepath.Join(r.cfg.Dir, name) }

// connect connects to a supervisor that is there. nil: there is none.
func (r *Runner) connect() (net.Conn, *bufio.Reader, *tasks.Hello, error) {
	c, err := net.Dial("unix", r.path("socket"))
	if err != nil {
		return nil, nil, nil, err
	}
	_ = c.SetReadDeadline(time.Now().Add(r.cfg.helloTime))
	in := bufio.NewReaderSize(c, 64<<10)
	var e tasks.Event
	err = json.NewDecoder(&oneLine{in: in}).Decode(&e)
	if err == nil && e.Hello == nil {
		err = errors.New("it does not say hello")
	}
	if err != nil {
		_ = c.Close()
		return nil, nil, nil, fmt.Errorf("the supervisor of tasks does not answer: %w", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	return c, in, e.Hello, nil
}

// oneLine reads no further than the end of a line, so that what follows is left to another reader.
type oneLine struct {
	in  *bufio.Reader
	end bool
}

func (o *oneLine) Read(p []byte) (int, error) {
	if o.end || len(p) == 0 {
		return 0, errors.New("the line has ended")
	}
	b, err := o.in.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0], o.end = b, b == '\n'
	return 1, nil
}

// supervisorLock takes the lock that a supervisor holds while it lives. An error means that one does.
func (r *Runner) supervisorLock() (*os.File, error) {
	f, err := os.OpenFile(r.path("supervisor.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// link is the connection to the supervisor. When it returns nothing more is sent or received.
func (r *Runner) link(l *linked) {
	defer close(r.ended)
	for {
		if l == nil {
			select {
			case <-r.done:
				return
			case <-r.wake:
			}
			if l = r.begin(); l == nil {
				continue // nothing to do, or closed
			}
		}
		if r.cfg.Working != nil {
			r.cfg.Working(true)
		}
		r.talk(l)
		if r.cfg.Working != nil {
			r.cfg.Working(false)
		}
		l = nil
		select {
		case <-r.done:
			return
		default:
		}
		r.supervisorGone()
		poke(r.wake)
	}
}

// linked is a connection with its reader.
type linked struct {
	conn net.Conn
	in   *bufio.Reader
}

// begin starts a supervisor if one is needed. It tries for a while, then gives up the attempts that wait for it.
func (r *Runner) begin() *linked {
	wait := retryFirst
	for began := time.Now(); ; wait = min(2*wait, retryLast) {
		r.mu.Lock()
		needed := len(r.queue) > 0 && r.live > 0
		if !needed {
			r.queue = nil // Drops of a supervisor that is no more
		}
		r.mu.Unlock()
		if !needed {
			return nil
		}
		l, err := r.spawn()
		if err == nil {
			return l
		}
		if time.Since(began) > r.cfg.startTime {
			r.giveUp(err)
			return nil
		}
		r.cfg.Log.Warn("cannot start the supervisor of tasks; trying again", "error", err)
		select {
		case <-r.done:
			return nil
		case <-time.After(wait):
		}
	}
}

// spawn starts a supervisor and connects to it.
func (r *Runner) spawn() (*linked, error) {
	lock, err := r.supervisorLock()
	if err != nil {
		// One is just going, or was not seen before.
		if c, in, _, err := r.connect(); err == nil {
			return &linked{c, in}, nil
		}
		return nil, fmt.Errorf("the former one has not gone yet: %w", err)
	}
	defer lock.Close()
	if err := os.Remove(r.path("socket")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.path("socket"), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	file, err := l.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	set, err := json.Marshal(tasks.Settings{Dir: r.cfg.Dir, Places: r.cfg.Places, Env: r.cfg.Env, Groups: r.cfg.Groups.Config(), GPUs: r.cfg.GPUs,
		Idle: r.cfg.Idle, Limit: r.cfg.OutputLimit})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(r.cfg.Agent, "task", "supervise", string(set))
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{file, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := withSlack(cmd.Start); err != nil {
		return nil, err
	}
	_, _ = fmt.Fprintf(lock, "%10d\n", cmd.Process.Pid) // for killHung; always as long
	gone := make(chan error, 1)
	go func() { gone <- cmd.Wait() }() // it is ours while we live, then the first process's
	// Our listener is closed only on return: if the supervisor dies at once the connection breaks then.
	_ = l.Close()
	_ = file.Close()
	c, in, _, err := r.connect()
	if err != nil {
		select {
		case how := <-gone:
			err = fmt.Errorf("%w (%v)", err, how)
		default:
		}
		return nil, err
	}
	return &linked{c, in}, nil
}

// withSlack calls start, and what that starts has timers which the kernel may let be late, for as long as it lives. Of Go's
// runtime a thread looks every 20 µs after those that are in the kernel, which costs each task 0.06 ms.
func withSlack(start func() error) error {
	runtime.LockOSThread() // whose slack it inherits
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(supervisorSlack), 0, 0, 0) // without it all is as well
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }()     // as it was
	return start()
}

// giveUp ends the attempts that wait for a supervisor that cannot be started.
func (r *Runner) giveUp(err error) {
	r.cfg.Log.Error("cannot start the supervisor of tasks", "error", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = nil
	for _, a := range r.attempts {
		if a.phase != ended {
			r.endHere(a, tasks.Result{State: shoal.JobLost, Cause: shoal.CauseMachineLost, Reason: "the machine could not start it: " + err.Error()})
		}
	}
}

// talk sends and receives until the connection ends or the Runner is closed.
func (r *Runner) talk(l *linked) {
	received := make(chan struct{})
	go func() {
		defer close(received)
		in := json.NewDecoder(l.in)
		for {
			var e tasks.Event
			if in.Decode(&e) != nil {
				return
			}
			r.take(e)
		}
	}()
	idle := time.NewTimer(r.cfg.Idle)
	defer idle.Stop()
	r.mu.Lock()
	if r.lease != 0 { // whatever this supervisor knows: before all else
		r.leaseTold = r.lease
		r.queue = slices.Insert(r.queue, 0, tasks.Request{Lease: r.lease})
	}
	r.mu.Unlock()
	poke(r.wake)
	for open := true; open; {
		select {
		case <-received:
			open = false
		case <-r.done:
			open = false
		case <-idle.C:
			r.mu.Lock()
			if r.live == 0 && len(r.queue) == 0 {
				r.queue = append(r.queue, tasks.Request{Quit: true})
			}
			r.mu.Unlock()
			open = r.flush(l)
		case <-r.wake:
			open = r.flush(l)
			r.mu.Lock()
			if r.live == 0 {
				idle.Reset(r.cfg.Idle)
			}
			r.mu.Unlock()
		}
	}
	_ = l.conn.Close()
	<-received
}

// flush sends what is queued.
func (r *Runner) flush(l *linked) bool {
	r.mu.Lock()
	list := r.queue
	r.queue = nil
	r.mu.Unlock()
	return len(list) == 0 || tasks.WriteLines(l.conn, list) == nil
}

// take takes an event of the supervisor.
func (r *Runner) take(e tasks.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Started != nil:
		if a := r.attempts[e.Started.Ref]; a != nil && a.phase == sent {
			a.phase, a.started, a.onDisk = running, e.Started.At, true
			r.mark(a)
		}
	case e.Ready != nil:
		if a := r.attempts[*e.Ready]; a != nil && a.phase == sent {
			a.ready = true
			r.mark(a)
		}
	case e.Output != nil:
		if a := r.attempts[e.Output.Ref]; a != nil && a.phase != ended {
			for i, n := range e.Output.Bytes {
				a.size[i] = max(a.size[i], n)
			}
			r.mark(a)
		}
	case e.Ended != nil:
		r.takeEnd(*e.Ended)
		if r.live == 0 {
			poke(r.wake) // for the time that it is idle
		}
	}
}

func (r *Runner) takeEnd(e tasks.EndedEvent) {
	a := r.attempts[e.Ref]
	if a == nil {
		if e.Unsaved {
			r.queue = append(r.queue, tasks.Request{Drop: &e.Ref})
		}
		return
	}
	a.unsaved = e.Unsaved
	a.onDisk = true
	if e.Unsaved {
		r.cfg.Log.Warn("the end of a task is not on disk", "attempt", a.ref.String())
	}
	r.end(a, e.Result)
}

// killHung kills a supervisor that lives but does not answer.
func (r *Runner) killHung() {
	b, err := os.ReadFile(r.path("supervisor.lock"))
	pid, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil || pid <= 1 {
		return
	}
	exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	if err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == filepath.Base(r.cfg.Agent) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
