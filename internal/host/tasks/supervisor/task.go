package supervisor

import (
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
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
	// briefTime is how long what a task writes may wait in its pipes: most of those that do nothing are over by then.
	briefTime = 25 * time.Millisecond
	// deadTime is how long a process may take to be gone that was killed.
	deadTime = 10 * time.Second
)

const shellPath = "/bin/sh"

// fenced is the order of the lease's end. Unlike a Stop it comes from within.
const fenced shoal.JobState = "fenced"

// recalled is the order to end what waits for another; it passes by what has begun.
const recalled shoal.JobState = "recalled"

// maxOrders is more orders to end than anybody gives to one task.
const maxOrders = 8

// task is an attempt in the supervisor. run has it; other goroutines go through the channels and the lock.
type task struct {
	s      *supervisor
	ref    shoal.AttemptRef
	name   string
	req    tasks.StartRequest
	group  cgroups.Group
	slot   bool          // others may have the group before and after
	dir    string        // scratch
	dirAt  unix.Timespec // see rooms
	rec    *tasks.Recorder
	out    [2]*output
	copies []*copier
	exits  chan exit
	orders chan shoal.JobState
	begin  chan struct{} // closed when it may begin
	after  *task         // begins when that has ended; nil: at once. Not changed any more once done is closed
	done   chan struct{} // closed when it has ended
	leads  bool          // another comes after it; guarded by supervisor.mu

	// of run alone
	workdir string
	env     map[string]string
	runtime *containerRuntime // of its container; nil: none
	gpus    []string          // nodes that were made the task's user's own
	limit   *time.Timer
	armed   time.Time   // when its time began
	alarm   *time.Timer // for the signal ahead of the limit
	kill    *time.Timer
	first   int             // the pid of the process that runs now
	firsts  []tasks.Started // it and those before it
	stopped shoal.JobState
	cpu     time.Duration
	memory  int64
	result  tasks.Result
	notes   []string // what could not be kept, for the reason

	mu      sync.Mutex
	started time.Time
	ready   bool
	begun   bool
}

func newTask(s *supervisor, r tasks.StartRequest) *task {
	t := &task{s: s, ref: r.Order.Ref, req: r, exits: make(chan exit, 1), orders: make(chan shoal.JobState, maxOrders), begin: make(chan struct{}), done: make(chan struct{})}
	for i := range t.out {
		t.out[i] = &output{t: t}
	}
	if !r.Order.Hold {
		t.mayBegin()
	}
	return t
}

func (t *task) accepted() tasks.Accepted {
	return tasks.Accepted{Ref: t.ref, User: t.req.Order.User, UID: t.req.Person.UID}
}

func (t *task) live() tasks.LiveTask {
	t.mu.Lock()
	defer t.mu.Unlock()
	return tasks.LiveTask{Accepted: t.accepted(), Started: t.started, Held: !t.begun, Ready: t.ready, Bytes: t.bytes()}
}

func (t *task) bytes() [2]int64 { return [2]int64{t.out[0].size.Load(), t.out[1].size.Load()} }

// stop asks run to end the task.
func (t *task) stop(state shoal.JobState) {
	select {
	case t.orders <- state:
	default:
	}
}

// mayBegin lets a task begin that was to get ready only.
func (t *task) mayBegin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.begun {
		t.begun = true
		close(t.begin)
	}
}

// run is the life of a task.
func (t *task) run() {
	for _, timer := range []**time.Timer{&t.limit, &t.alarm, &t.kill} {
		*timer = time.NewTimer(time.Hour)
		(*timer).Stop()
		defer (*timer).Stop()
	}
	begins := t.turn()
	switch why := t.setUp(); {
	case why != "":
		t.fail(why)
	case begins:
		t.work()
	default:
		t.judge("", exit{})
	}
	t.cleanUp()
	saved := t.save()
	t.s.ended(t, t.result, saved)
}

// turn waits for the end of the task that this one comes after, and if that ended before its own turn, of the one before.
// It returns false when it is to end first.
func (t *task) turn() bool {
	for t.after != nil {
		select {
		case <-t.after.done:
			t.after = t.after.after
		case state := <-t.orders:
			if state == recalled {
				state = shoal.JobPreempted
				t.note("it waited for another, which took longer than those before")
			}
			t.order(state)
			return false
		}
	}
	return true
}

// fail ends a task that could not be started.
func (t *task) fail(why string) {
	t.result.State, t.result.Cause, t.result.Reason = shoal.JobFailed, shoal.CauseSetupFailed, why
}

// work runs the steps of a task, one after another.
func (t *task) work() {
	o := t.req.Order
	t.arm()
	if len(o.Outputs) > 0 {
		argv := []string{shellPath, "-c", `exec mkdir -p -- "$@"`, "sh"}
		for _, dir := range o.Outputs {
			if !path.IsAbs(dir) {
				dir = path.Join(t.workdir, dir)
			}
			argv = append(argv, dir)
		}
		if !t.step("making its output directories", argv, "/") {
			return
		}
	}
	if why := t.openCopies(); why != "" { // they may lie in a directory of the job's own
		t.fail(why)
		return
	}
	if !t.prepared() || !t.held() {
		return
	}
	if o.Idle {
		t.idle()
		return
	}
	t.alarmAhead()
	t.step("", t.argv(o.Command), t.workdir)
}

// arm lets the time limit begin now.
func (t *task) arm() {
	t.armed = time.Now()
	if limit := time.Duration(t.req.Order.TimeLimit); limit > 0 {
		t.limit.Reset(limit)
	}
}

// alarmAhead sets the timer of the signal, now that the command is about to begin: before, nobody listens for it.
func (t *task) alarmAhead() {
	if o := t.req.Order; o.Signal != "" && o.TimeLimit > 0 {
		t.alarm.Reset(untilSignal(o, time.Since(t.armed)))
	}
}

// listenTime is how long a command has to begin to listen, when the signal is due before it does.
const listenTime = time.Second

// untilSignal is when the signal comes so long before the limit as it should, of which something is spent.
func untilSignal(o api.TaskOrder, spent time.Duration) time.Duration {
	return max(time.Duration(o.TimeLimit-o.SignalAhead)-spent, listenTime)
}

// held tells that the task is ready and waits until it may begin, which is when its time begins.
func (t *task) held() bool {
	if !t.req.Order.Hold {
		return true
	}
	t.limit.Stop()
	t.mu.Lock()
	t.ready = true
	t.mu.Unlock()
	t.s.tellReady(t)
	if !t.pause(t.begin) {
		return false
	}
	t.arm()
	t.result.Started = time.Time{} // that was of a step before
	return true
}

// pause waits for a channel, without a process. It returns false when the task is to end.
func (t *task) pause(until <-chan struct{}) bool {
	for t.stopped == "" { // not every order ends it
		select {
		case <-until:
			return true
		case <-t.limit.C:
			t.end(shoal.JobTimedOut)
		case state := <-t.orders:
			t.order(state)
		}
	}
	t.judge("", exit{})
	return false
}

// idle keeps the task's place, and what others have started in it, until it is stopped.
func (t *task) idle() {
	t.begins(time.Now())
	t.judge("", t.wait(true))
}

// step runs one process to its end and reports whether the next may start. The one without a name is the task's own.
func (t *task) step(name string, argv []string, dir string) bool {
	for more := true; more && t.stopped == ""; {
		select {
		case state := <-t.orders:
			t.order(state)
		default:
			more = false
		}
	}
	if t.stopped != "" {
		t.judge(name, exit{})
		return false
	}
	if !t.reach(dir) {
		return false
	}
	pid, err := t.s.forks.start(forkRequest{argv: argv, env: t.environ(), dir: dir, person: t.req.Person, group: t.group, exit: t.exits,
		files: []uintptr{t.s.null(), t.out[0].childEnd(), t.out[1].childEnd()}})
	if err != nil {
		t.fail(startError(err, string(t.req.Order.User), dir))
		return false
	}
	t.running(pid, name)
	if name != "" { // of what it leaves behind, output may come at any time
		t.takeOutput()
	}
	e := t.wait(false)
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

// reach waits until a directory can be looked at: to fork while its file server does not answer would hold up all tasks,
// and the end of the lease. It returns false when the task is to end.
func (t *task) reach(dir string) bool {
	now := time.Now()
	if last := t.s.reached.Load(); last != nil && last.dir == dir && now.Sub(last.at) < reachTime {
		return true
	}
	there := make(chan struct{})
	go func() {
		var st unix.Stat_t
		_ = unix.Stat(dir, &st) // whoever goes there says what is wrong with it
		close(there)
	}()
	if !t.pause(there) {
		return false
	}
	t.s.reached.Store(&reached{dir, now})
	return true
}

// reached is a directory that was looked at last, and when that was begun.
type reached struct {
	dir string
	at  time.Time
}

// reachTime is for how long a directory counts as looked at.
const reachTime = time.Second

// running notes that a process runs.
func (t *task) running(pid int, step string) {
	now := time.Now()
	held := t.req.Order.Hold && step != ""
	t.first = pid
	first := tasks.Started{PID: pid, At: now, Held: held}
	if t.group.None() { // else what is the task's is known by that
		first.Born = tasks.Born(pid)
	}
	t.firsts = append(t.firsts, first)
	if !t.result.Started.IsZero() {
		return
	}
	if held {
		t.result.Started = now
	} else {
		t.begins(now)
	}
	if t.group.None() {
		_ = t.rec.Write(tasks.Line{Started: &first}) // if that cannot be, the scratch directory tells
	}
}

// takeOutput has output taken from now on, as it comes.
func (t *task) takeOutput() {
	for _, o := range t.out {
		o.start()
	}
}

// begins notes that the task runs.
func (t *task) begins(now time.Time) {
	t.mu.Lock()
	t.started = now
	t.mu.Unlock()
	t.result.Started = now
	t.s.tellStarted(t, now)
}

// wait waits until the process has ended, and all the others if the task is to end. Of an idle task there is
// no process to wait for.
func (t *task) wait(idle bool) exit {
	var e exit
	var poll <-chan time.Time
	var giveUp <-chan time.Time
	brief := time.NewTimer(briefTime)
	defer brief.Stop()
	for gone := idle; ; {
		select {
		case <-brief.C:
			t.takeOutput()
		case e = <-t.exits:
			gone = true
		case <-poll:
		case <-t.limit.C:
			t.end(shoal.JobTimedOut)
		case <-t.alarm.C:
			t.signalAhead()
		case state := <-t.orders:
			t.order(state)
		case <-t.kill.C:
			t.killAll()
			giveUp = time.After(deadTime)
		case <-giveUp: // it waits in the kernel; its place cannot be used, but its end can be told
			t.note("it does not go away although it was killed")
			return exit{status: syscall.WaitStatus(unix.SIGKILL)}
		}
		switch {
		case !gone, idle && t.stopped == "":
			continue
		case t.stopped == "" || giveUp != nil || t.empty():
			return e
		}
		poll = time.After(20 * time.Millisecond)
	}
}

// note adds to the reason.
func (t *task) note(s string) {
	for _, n := range t.notes {
		if n == s {
			return
		}
	}
	t.notes = append(t.notes, s)
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
