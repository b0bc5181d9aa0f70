package supervisor

import (
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Times of a task.
const (
	defaultGrace = 10 * time.Second
	// drainTime is how long processes that outlive a task's first may go on writing: as in
	// `program > >(tee log)`, where tee ends last.
	drainTime = 300 * time.Millisecond
	// leftTime is how long a pipe is read on that a process of somebody else's holds open.
	leftTime = 100 * time.Millisecond
	// deadTime is how long a process may take to be gone that was killed.
	deadTime = 10 * time.Second
)

const (
	shellPath = "/bin/sh"
	userPath  = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games" // Debian's for users
)

// task is an attempt in the supervisor. run has it; other goroutines go through the channels and the lock.
type task struct {
	s      *supervisor
	ref    shoal.AttemptRef
	name   string
	req    tasks.StartRequest
	group  cgroups.Group
	dir    string // scratch
	rec    *tasks.Recorder
	out    [2]*output
	exits  chan exit
	orders chan shoal.JobState

	// of run alone
	limit     *time.Timer
	kill      *time.Timer
	first     int             // the pid of the process that runs now
	firsts    []tasks.Started // it and those before it
	stopped   shoal.JobState
	cpu       time.Duration
	memory    int64
	result    tasks.Result
	forgotten []string // what could not be kept, for the reason

	mu      sync.Mutex
	started time.Time
}

func newTask(s *supervisor, r tasks.StartRequest) *task {
	t := &task{s: s, ref: r.Order.Ref, req: r, exits: make(chan exit, 1), orders: make(chan shoal.JobState, 1)}
	for i := range t.out {
		t.out[i] = &output{t: t}
	}
	return t
}

func (t *task) accepted() tasks.Accepted {
	return tasks.Accepted{Ref: t.ref, User: t.req.Order.User, UID: t.req.Person.UID}
}

func (t *task) at() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.started
}

func (t *task) bytes() [2]int64 { return [2]int64{t.out[0].size.Load(), t.out[1].size.Load()} }

// stop asks run to end the task. The first order counts.
func (t *task) stop(state shoal.JobState) {
	select {
	case t.orders <- state:
	default:
	}
}

// run is the life of a task.
func (t *task) run() {
	if why := t.prepare(); why != "" {
		t.fail(why)
	} else {
		t.work()
	}
	t.cleanUp()
	saved := t.save()
	t.s.ended(t, t.result, saved)
}

// fail ends a task that could not be started.
func (t *task) fail(why string) {
	t.result.State, t.result.Cause, t.result.Reason = shoal.JobFailed, shoal.CauseSetupFailed, why
}

// prepare makes all that is ours to make. What it returns is why it could not.
func (t *task) prepare() string {
	var err error
	if t.name, err = tasks.FileName(t.ref); err != nil {
		return err.Error()
	}
	if t.rec, err = tasks.NewRecord(t.s.set.Dir, t.name, false); err == nil {
		acc := t.accepted()
		err = t.rec.Write(tasks.Line{Accepted: &acc})
	}
	if err != nil {
		return fmt.Sprintf("cannot keep its record on the machine's disk: %v", err)
	}
	if t.group, err = t.s.groups.Task(t.req.Person.UID, t.name, t.req.Order.Resources); err != nil {
		return err.Error()
	}
	if t.dir, err = t.s.scratch(t.name, t.req.Person); err != nil {
		return fmt.Sprintf("cannot make its scratch directory: %v", err)
	}
	for i, e := range tasks.Endings() {
		t.out[i].path = filepath.Join(t.s.set.Dir, t.name+e)
		if err := t.out[i].open(t.req.Person.UID); err != nil {
			return fmt.Sprintf("cannot read its output: %v", err)
		}
	}
	return ""
}

// work runs the steps of a task, one after another.
func (t *task) work() {
	o := t.req.Order
	t.limit, t.kill = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	t.kill.Stop()
	if o.TimeLimit > 0 {
		t.limit.Reset(time.Duration(o.TimeLimit))
	} else {
		t.limit.Stop()
	}
	defer t.limit.Stop()
	defer t.kill.Stop()
	workdir := o.Workdir
	if workdir == "" {
		workdir = t.req.Person.Home
	}
	env := t.environment()
	if len(o.Outputs) > 0 {
		argv := []string{shellPath, "-c", `exec mkdir -p -- "$@"`, "sh"}
		for _, dir := range o.Outputs {
			if !path.IsAbs(dir) {
				dir = path.Join(workdir, dir)
			}
			argv = append(argv, dir)
		}
		if !t.step("making its output directories", argv, env, "/") {
			return
		}
	}
	if o.Prepare != "" && !t.step("prepare", []string{shellPath, "-c", o.Prepare}, env, workdir) {
		return
	}
	t.step("", []string{shellPath, "-c", o.Command}, env, workdir)
}

// environment is the login environment of the task's user, with what the order adds.
func (t *task) environment() []string {
	p := t.req.Person
	shell := p.Shell
	if shell == "" {
		shell = shellPath
	}
	env := map[string]string{"HOME": p.Home, "USER": string(t.req.Order.User), "LOGNAME": string(t.req.Order.User), "SHELL": shell,
		"PATH": userPath, "LANG": "C.UTF-8"}
	for _, kv := range t.s.set.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	maps.Copy(env, t.req.Order.Env)
	env["SHOAL_SCRATCH"] = t.dir
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if k != "" && !strings.Contains(k, "=") {
			out = append(out, k+"="+env[k])
		}
	}
	return out
}

// step runs one process to its end and reports whether the next may start. The one without a name is the task's own.
func (t *task) step(name string, argv, env []string, dir string) bool {
	if t.stopped == "" {
		select {
		case state := <-t.orders:
			t.order(state)
		default:
		}
	}
	if t.stopped != "" {
		t.judge(name, exit{})
		return false
	}
	pid, err := t.s.forks.start(forkRequest{argv: argv, env: env, dir: dir, person: t.req.Person, group: t.group, exit: t.exits,
		files: []uintptr{t.s.null(), t.out[0].childEnd(), t.out[1].childEnd()}})
	if err != nil {
		t.fail(startError(err, string(t.req.Order.User), dir))
		return false
	}
	t.running(pid)
	e := t.wait()
	t.first = 0
	t.cpu += e.cpu
	t.memory = max(t.memory, e.memory)
	ok := e.status.Exited() && e.status.ExitStatus() == 0 && t.stopped == ""
	if name == "" || !ok {
		t.judge(name, e)
		return false
	}
	return true
}

// running notes that a process runs.
func (t *task) running(pid int) {
	now := time.Now()
	t.first = pid
	t.firsts = append(t.firsts, tasks.Started{PID: pid, Born: tasks.Born(pid), At: now})
	if !t.result.Started.IsZero() {
		return
	}
	t.mu.Lock()
	t.started = now
	t.mu.Unlock()
	t.result.Started = now
	// If that cannot be written, the process is found by its group or its scratch directory.
	_ = t.rec.Write(tasks.Line{Started: &t.firsts[0]})
	for _, o := range t.out {
		o.start()
	}
	t.s.tellStarted(t, now)
}

// wait waits until the process has ended, and all the others if the task is to end.
func (t *task) wait() exit {
	var e exit
	var poll <-chan time.Time
	var giveUp <-chan time.Time
	for gone := false; ; {
		select {
		case e = <-t.exits:
			gone = true
		case <-poll:
		case <-t.limit.C:
			t.end(shoal.JobTimedOut)
		case state := <-t.orders:
			t.order(state)
		case <-t.kill.C:
			t.killAll()
			giveUp = time.After(deadTime)
		case <-giveUp: // it waits in the kernel; its place cannot be used, but its end can be told
			t.note("it does not go away although it was killed")
			return exit{status: syscall.WaitStatus(unix.SIGKILL)}
		}
		if gone && (t.stopped == "" || giveUp != nil || t.empty()) {
			return e
		}
		if gone {
			poll = time.After(20 * time.Millisecond)
		}
	}
}

// order takes a Stop.
func (t *task) order(state shoal.JobState) {
	switch state {
	case shoal.JobPreempted, shoal.JobLost:
		t.end(state)
	default:
		t.end(shoal.JobCancelled)
	}
}

// end begins to end the task: a request, the grace, then force. The first reason counts.
func (t *task) end(state shoal.JobState) {
	if t.stopped != "" {
		return
	}
	t.stopped = state
	grace := time.Duration(t.req.Order.Grace)
	if grace <= 0 {
		grace = defaultGrace
	}
	if state == shoal.JobLost {
		grace = time.Millisecond // a newer attempt waits for the place
	}
	t.kill.Reset(grace)
	if t.first != 0 {
		_ = unix.Kill(-t.first, unix.SIGTERM)
	}
	if t.group.None() {
		return
	}
	// Those that left the process group hear of it as well, and nobody twice.
	pids, _ := t.group.Pids()
	for _, pid := range pids {
		if pgid, err := unix.Getpgid(pid); err == nil && pgid != t.first {
			_ = unix.Kill(pid, unix.SIGTERM)
		}
	}
}

// empty reports whether no process of the task is left. Only asked while it is ended.
func (t *task) empty() bool {
	if t.group.None() {
		return len(tasks.Strays(t.req.Person.UID, t.dir, t.firsts)) == 0
	}
	pids, _ := t.group.Pids()
	return len(pids) == 0
}

// killAll kills every process of the task. An error means that some wait in the kernel, for a file
// server perhaps; they cannot do anything any more.
func (t *task) killAll() {
	if t.first != 0 {
		_ = unix.Kill(-t.first, unix.SIGKILL)
	}
	if t.group.None() {
		tasks.KillStrays(t.req.Person.UID, t.dir, t.firsts)
		return
	}
	if err := t.group.Kill(); err != nil {
		t.note(err.Error())
	}
}

// note adds to the reason.
func (t *task) note(s string) {
	if !slices.Contains(t.forgotten, s) {
		t.forgotten = append(t.forgotten, s)
	}
}

// judge says how the task ended, by how its process did.
func (t *task) judge(step string, e exit) {
	r := &t.result
	usage, _ := t.group.Usage() // it may have used nothing
	if e.status.Signaled() {
		r.Signal = int(e.status.Signal())
		r.ExitCode = 128 + r.Signal
	} else if e.status.Exited() {
		r.ExitCode = e.status.ExitStatus()
	}
	o := t.req.Order
	switch {
	case t.stopped == shoal.JobTimedOut:
		r.State, r.Cause = shoal.JobTimedOut, shoal.CauseTimeLimit
		r.Reason = fmt.Sprintf("it ran longer than its time limit of %s", o.TimeLimit)
	case t.stopped == shoal.JobPreempted:
		r.State, r.Cause, r.Reason = shoal.JobPreempted, shoal.CauseCancelled, "it had to make room"
	case t.stopped == shoal.JobLost:
		r.State, r.Cause, r.Reason = shoal.JobLost, shoal.CauseCancelled, "a newer attempt took its place"
	case t.stopped != "":
		r.State, r.Cause, r.Reason = shoal.JobCancelled, shoal.CauseCancelled, "it was cancelled"
	case r.ExitCode == 0 && step == "":
		r.State, r.Cause = shoal.JobSucceeded, shoal.CauseExit
	case usage.OOMKilled:
		r.State, r.Cause = shoal.JobFailed, shoal.CauseOOM
		r.Reason = "it was ended for want of memory"
		if o.Resources.Memory > 0 {
			r.Reason += fmt.Sprintf(": it may use %s", o.Resources.Memory)
		}
	case step != "":
		t.failStep(step)
	case r.Signal != 0:
		r.State, r.Cause = shoal.JobFailed, shoal.CauseSignal
		r.Reason = fmt.Sprintf("it was ended by signal %d (%s)", r.Signal, unix.SignalName(syscall.Signal(r.Signal)))
	default:
		r.State, r.Cause = shoal.JobFailed, shoal.CauseExit
	}
}

// failStep says that a step before the command failed, with the last line it wrote to stderr.
func (t *task) failStep(step string) {
	how := fmt.Sprintf("%s ended with exit code %d", step, t.result.ExitCode)
	if t.result.Signal != 0 {
		how = fmt.Sprintf("%s was ended by signal %d", step, t.result.Signal)
	}
	t.result.ExitCode, t.result.Signal = 0, 0 // they are not the command's
	t.fail(how)
	for _, o := range t.out {
		o.closeChildEnd()
	}
	t.out[1].settle(drainTime)
	if last := t.out[1].lastLine(); last != "" {
		t.result.Reason += ": " + last
	}
}

// cleanUp takes the last output, ends what is left of the task, and removes what it had.
func (t *task) cleanUp() {
	for _, o := range t.out {
		o.closeChildEnd()
	}
	began := time.Now()
	for _, o := range t.out {
		o.settle(drainTime - time.Since(began))
	}
	r := &t.result
	r.CPUTime, r.MaxMemory = t.cpu, shoal.Bytes(t.memory)
	if t.group.None() {
		if !r.Started.IsZero() {
			tasks.KillStrays(t.req.Person.UID, t.dir, t.firsts)
		}
	} else {
		if usage, err := t.group.Usage(); err == nil && !r.Started.IsZero() {
			r.CPUTime = max(usage.CPU, t.cpu)
			if usage.MaxMemory > 0 {
				r.MaxMemory = usage.MaxMemory // the other counts the supervisor's, of before the program was loaded
			}
		}
		if err := tasks.RemoveGroup(t.group); err != nil {
			t.note(err.Error())
		}
	}
	began = time.Now()
	for _, o := range t.out {
		o.settle(leftTime - time.Since(began))
		o.close()
		if o.failed != nil {
			t.note(fmt.Sprintf("its output after byte %d was not kept: %v", o.size.Load(), o.failed))
		}
	}
	if t.dir != "" {
		if err := tasks.RemoveScratch(t.dir); err != nil {
			t.note(fmt.Sprintf("its scratch directory could not be removed: %v", err))
		}
	}
	r.Ended = time.Now()
	r.Bytes = t.bytes()
	for _, n := range t.forgotten {
		if r.Reason != "" {
			r.Reason += "; "
		}
		r.Reason += n
	}
}

// save writes the end to disk, and reports whether it could.
func (t *task) save() bool {
	if t.rec == nil {
		return false
	}
	defer t.rec.Close()
	err := t.rec.Write(tasks.Line{Ended: &t.result})
	return err == nil
}
