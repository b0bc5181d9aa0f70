// Package supervisor is the parent of a machine's tasks: `shoal-agent task`. See package tasks.
package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/cgroups"
	"github.com/shoal-pool/shoal/internal/host/passes"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// Descriptors that a supervisor is born with.
const (
	listenFD = 3
	lockFD   = 4 // held, never read: while it is open a supervisor lives
)

// gcPercent lets the heap, which is small, grow more before it is looked through: that would cost each task something.
const gcPercent = 200

// outputPause is how long news of output are gathered. They matter to who follows by eye.
const outputPause = 20 * time.Millisecond

// endPause is how long ends are gathered of tasks in whose place another has begun.
const endPause = 100 * time.Millisecond

// supervisor is the parent of the tasks.
type supervisor struct {
	set     tasks.Settings
	groups  *cgroups.Tree
	forks   *forker
	devnull int
	buffers buffers
	lease   lease
	passes  *passes.Desk
	rooms   *rooms
	reached atomic.Pointer[reached]

	mu           sync.Mutex
	tasks        map[shoal.AttemptRef]*task
	kept         map[shoal.AttemptRef]tasks.Result // ended, and not on disk
	jobs         map[shoal.JobID]int               // tasks of each
	preparations map[shoal.JobID]*preparation      // under way
	conn         net.Conn
	queue        []tasks.Event
	young        []young
	grown        *time.Timer    // when the eldest of them is old enough
	output       map[*task]bool // have more output than was told
	closing      bool
	wake         chan struct{} // capacity 1: there is something to send
	idle         chan struct{} // capacity 1: perhaps there is nothing left to do
	gather       chan struct{} // capacity 1: there is something to send that can wait for more
}

// Main is `shoal-agent task …`. It is started by a Runner only.
func Main(args []string) int {
	if len(args) != 2 || args[0] != "supervise" {
		fmt.Fprintln(os.Stderr, "shoal-agent task is started by the agent, not by hand")
		return 2
	}
	var set tasks.Settings
	if err := json.Unmarshal([]byte(args[1]), &set); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent task: cannot read its settings:", err)
		return 2
	}
	runtime.GOMAXPROCS(atOnce(runtime.NumCPU()))
	debug.SetMemoryLimit(64 << 20)
	debug.SetGCPercent(gcPercent)
	if err := supervise(set); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent task:", err)
		return 1
	}
	return 0
}

// atOnce is how many threads run at once. They wait for the kernel most of the time, and one that looks for work and finds
// none costs each task something (0.07 ms with two threads on two processors); but a large machine has many tasks.
func atOnce(processors int) int {
	if processors <= 4 {
		return 1
	}
	return 2
}

func supervise(set tasks.Settings) error {
	unix.CloseOnExec(listenFD)
	unix.CloseOnExec(lockFD)
	file := os.NewFile(listenFD, "listener")
	l, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("cannot listen for orders: %w", err)
	}
	_ = file.Close()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot look after orphans: %w", err)
	}
	unix.Umask(0o022)
	// What a terminal or a service manager sends to all is not for us: tasks end by order. Nobody reads the channel; tasks would
	// inherit that a signal is ignored, but not that it is caught.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	if err := makeScratch(set.Scratch); err != nil {
		return err
	}
	s := &supervisor{set: set, forks: newForker(), tasks: map[shoal.AttemptRef]*task{}, kept: map[shoal.AttemptRef]tasks.Result{}, jobs: map[shoal.JobID]int{},
		preparations: map[shoal.JobID]*preparation{}, passes: passes.At(set.Passes()), rooms: newRooms(set.Scratch), output: map[*task]bool{}, wake: make(chan struct{}, 1), idle: make(chan struct{}, 1), gather: make(chan struct{}, 1),
		grown: time.NewTimer(time.Hour)}
	if set.Groups != nil {
		if s.groups, err = cgroups.Open(*set.Groups); err != nil {
			return err // the Runner could; without limits nothing should run
		}
	}
	if s.devnull, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot give tasks an empty input: %w", err)
	}
	if err := errors.Join(s.lease.open(), s.rooms.clear(), s.groups.Sweep()); err != nil {
		return err
	}
	go s.watch()
	go s.accept(l)
	go s.send()
	s.untilIdle()
	s.leave()
	// The socket stays: the next Runner that finds nobody there replaces it.
	return nil
}

// leave removes what was kept for tasks that did not come.
func (s *supervisor) leave() {
	if err := errors.Join(s.groups.Trim(), s.rooms.clear()); err != nil {
		fmt.Fprintln(os.Stderr, "shoal-agent task: something stays:", err)
	}
}

// untilIdle returns when there has been no task and no Runner for a while.
func (s *supervisor) untilIdle() {
	timer := time.NewTimer(s.set.Idle)
	for {
		select {
		case <-s.idle:
			timer.Reset(s.set.Idle)
		case <-timer.C:
			s.mu.Lock()
			free := len(s.tasks) == 0 && len(s.kept) == 0 && s.conn == nil
			s.closing = free
			s.mu.Unlock()
			if free {
				return
			}
			// Whoever changes that wakes us.
		}
	}
}

// accept serves one Runner at a time: all that an older one has sent comes before what a newer sends.
func (s *supervisor) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			time.Sleep(100 * time.Millisecond) // no descriptors left; tasks give theirs back
			continue
		}
		if !s.greet(c) {
			_ = c.Close()
			return // it comes to our successor
		}
		s.serve(c)
		s.mu.Lock()
		s.conn, s.queue, s.young = nil, nil, nil
		clear(s.output)
		s.mu.Unlock()
		_ = c.Close()
		poke(s.idle)
	}
}

// greet makes c the Runner's connection and queues all that is known. It does not while the supervisor ends.
func (s *supervisor) greet(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	h := tasks.Hello{PID: os.Getpid()}
	for _, t := range s.tasks {
		h.Live = append(h.Live, t.live())
	}
	for ref, r := range s.kept {
		h.Ended = append(h.Ended, tasks.EndedEvent{Ref: ref, Result: r, Unsaved: true})
	}
	s.conn, s.queue, s.young = c, []tasks.Event{{Hello: &h}}, nil
	poke(s.wake)
	return true
}

func (s *supervisor) serve(c net.Conn) {
	in := json.NewDecoder(bufio.NewReaderSize(c, 64<<10))
	for {
		var r tasks.Request
		if err := in.Decode(&r); err != nil {
			return // the Runner has gone, or we do not understand each other; it comes again
		}
		switch {
		case r.Start != nil:
			s.start(*r.Start)
		case r.Begin != nil:
			s.mu.Lock()
			t := s.tasks[*r.Begin]
			s.mu.Unlock()
			if t != nil {
				t.mayBegin()
			}
		case r.Stop != nil:
			s.stop(*r.Stop)
		case r.Lease != 0:
			s.renew(r.Lease)
		case r.Drop != nil:
			s.mu.Lock()
			delete(s.kept, *r.Drop)
			s.mu.Unlock()
			poke(s.idle)
		case r.Quit:
			s.mu.Lock()
			quit := len(s.tasks) == 0 && len(s.kept) == 0
			s.mu.Unlock()
			if quit {
				s.leave()
				os.Exit(0)
			}
		}
	}
}

func (s *supervisor) start(r tasks.StartRequest) {
	ref := r.Order.Ref
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tasks[ref] != nil {
		return
	}
	if _, ok := s.kept[ref]; ok {
		return
	}
	t := newTask(s, r)
	if r.Order.After != nil {
		if t.after = s.tasks[*r.Order.After]; t.after != nil {
			t.after.leads = true
		}
	}
	s.tasks[ref] = t
	s.jobs[ref.Job]++
	if bound(r.Order) && s.lease.over() {
		t.stop(fenced)
	}
	go t.run()
}

func (s *supervisor) stop(o api.StopOrder) {
	s.mu.Lock()
	t := s.tasks[o.Ref]
	s.mu.Unlock()
	switch {
	case t == nil:
	case o.Waiting:
		t.stop(recalled)
	default:
		t.stop(o.State)
	}
}

// ended takes a task off the list. saved says that its end is on disk.
func (s *supervisor) ended(t *task, r tasks.Result, saved bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, t.ref)
	delete(s.output, t)
	if s.jobs[t.ref.Job]--; s.jobs[t.ref.Job] == 0 {
		delete(s.jobs, t.ref.Job)
		s.rooms.spareUp(s.set.JobScratch(t.ref.Job), unix.Timespec{}, t.req.Person) // what is in it is kept for the job
	}
	if !saved {
		s.kept[t.ref] = r
	}
	close(t.done)
	s.tell(tasks.Event{Ended: &tasks.EndedEvent{Ref: t.ref, Result: r, Unsaved: !saved}}, t.leads)
	if len(s.tasks) == 0 {
		poke(s.idle)
	}
}

// tell queues an event, which may wait for others to go with it. Without a Runner it is dropped: the next one hears
// all in the hello, or finds it on disk.
func (s *supervisor) tell(e tasks.Event, mayWait bool) {
	switch {
	case s.conn == nil:
		return
	case mayWait:
		poke(s.gather)
	default:
		poke(s.wake)
	}
	s.queue = append(s.queue, e)
}

// youngTime is how old a task is when it is told that it runs. Of most that are over before, the end says enough.
const youngTime = 100 * time.Millisecond

// young is a task that has just started.
type young struct {
	t  *task
	at time.Time
}

func (s *supervisor) tellStarted(t *task, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return
	}
	s.young = append(s.young, young{t, at})
	if len(s.young) == 1 {
		s.grown.Reset(youngTime)
	}
}

// grownUp takes those out of the young that live and have grown old enough to be told of.
func (s *supervisor) grownUp() (events []tasks.Event) {
	now := time.Now()
	n := 0
	for ; n < len(s.young); n++ {
		y := s.young[n]
		if s.tasks[y.t.ref] != y.t {
			continue
		}
		if now.Sub(y.at) < youngTime {
			break
		}
		events = append(events, tasks.Event{Started: &tasks.StartedEvent{Ref: y.t.ref, At: y.at}})
	}
	s.young = append(s.young[:0], s.young[n:]...)
	if len(s.young) > 0 {
		s.grown.Reset(time.Until(s.young[0].at.Add(youngTime)))
	}
	return events
}

func (s *supervisor) tellReady(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(tasks.Event{Ready: &t.ref}, false)
}

func (s *supervisor) tellOutput(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.tasks[t.ref] == t && !s.output[t] {
		s.output[t] = true
		poke(s.wake)
	}
}

// send sends what is queued; what comes meanwhile goes together.
func (s *supervisor) send() {
	var due <-chan time.Time // when output is told of that nothing else goes with
	for {
		late := false
		select {
		case <-s.wake:
		case <-s.gather:
			if due == nil {
				due = time.After(endPause)
			}
			continue
		case <-due:
			late, due = true, nil
		case <-s.grown.C:
		}
		s.mu.Lock()
		c, events := s.conn, append(s.grownUp(), s.queue...)
		s.queue = nil
		switch {
		case len(s.output) == 0:
		case len(events) > 0 || late:
			for t := range s.output {
				events = append(events, tasks.Event{Output: &tasks.OutputEvent{Ref: t.ref, Bytes: t.bytes()}})
			}
			clear(s.output)
		case due == nil:
			due = time.After(outputPause)
		}
		s.mu.Unlock()
		if c == nil || len(events) == 0 {
			continue
		}
		if err := tasks.WriteLines(c, events); err != nil {
			_ = c.Close() // serve sees it, and a Runner comes again
		}
	}
}

// null is what tasks read from.
func (s *supervisor) null() uintptr { return uintptr(s.devnull) }

// limit is how much is kept of one stream.
func (s *supervisor) limit() int64 {
	if s.set.Limit > 0 {
		return s.set.Limit
	}
	return outputLimit
}

// poke wakes who waits on a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// makeScratch makes the directory of all scratch directories. Nobody but root may change what is in it.
func makeScratch(dir string) error {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("cannot make room for tasks: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("cannot make room for tasks: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Uid != 0 || st.Mode&0o022 != 0 {
		return fmt.Errorf("cannot make room for tasks: %s is not a directory that only root may change", dir)
	}
	return nil
}
