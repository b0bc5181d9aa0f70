package runner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// phase is how far an attempt has come; see the package comment.
type phase int

const (
	waiting phase = iota
	sent
	running
	ended
)

// attempt is what a Runner knows of one.
type attempt struct {
	ref      shoal.AttemptRef
	name     string
	user     shoal.UserName
	uid      int
	phase    phase
	came     int64               // counts those that came
	start    *tasks.StartRequest // until its end
	stop     shoal.JobState
	older    *attempt // waited for, or was when this ended
	unwanted bool     // forgotten before its end

	started    time.Time
	result     tasks.Result // when ended
	unsaved    bool         // the end is not on disk; the supervisor keeps it
	onDisk     bool         // there may be files
	size       [2]int64
	acked      [2]int64
	gen        int // counts Resends, after which an older acknowledgement means nothing
	savedAck   int64
	adopted    bool // all files may be there
	held       bool // it gets ready only, until an order without Hold comes
	ready      bool
	ackedReady bool
	ackedRun   bool
	ackedEnd   bool
	marked     bool // is in Runner.dirty
}

// mark notes that there may be something to report.
func (r *Runner) mark(a *attempt) {
	if !a.news() {
		return
	}
	if !a.marked {
		a.marked = true
		r.dirty = append(r.dirty, a)
	}
	poke(r.changed)
}

// add makes an attempt known.
func (r *Runner) add(a *attempt) {
	r.came++
	a.came = r.came
	r.attempts[a.ref] = a
	r.jobIn(a.ref.Job)
	if n := r.newest[a.ref.TaskRef]; n == nil || n.ref.Attempt < a.ref.Attempt {
		r.newest[a.ref.TaskRef] = a
	}
}

func (r *Runner) start(o api.TaskOrder) {
	if a := r.attempts[o.Ref]; a != nil {
		if !o.Hold {
			r.letBegin(a)
		}
		return
	}
	if r.forgotten.has(o.Ref) {
		return
	}
	newest := r.newest[o.Ref.TaskRef]
	if newest != nil && newest.ref.Attempt > o.Ref.Attempt || r.forgotten.newer(o.Ref) {
		r.cfg.Log.Debug("an attempt came after a newer one", "attempt", o.Ref.String())
		return
	}
	name, err := tasks.FileName(o.Ref)
	if err != nil {
		r.cfg.Log.Error("cannot run a task", "error", err)
		return
	}
	if o.Refused != "" {
		r.refuse(o, tasks.Result{State: shoal.JobFailed, Cause: shoal.CauseSetupFailed, Reason: o.Refused})
		return
	}
	p, ok := r.cfg.Lookup(o.User)
	if !ok || p.UID == 0 {
		r.refuse(o, tasks.Result{State: shoal.JobFailed, Cause: shoal.CauseSetupFailed, Reason: "user " + string(o.User) + " has no account on this machine"})
		return
	}
	if r.cfg.Adapt != nil {
		o = r.cfg.Adapt(o)
	}
	a := &attempt{ref: o.Ref, name: name, user: o.User, uid: p.UID, held: o.Hold, start: &tasks.StartRequest{Order: o, Person: p}, phase: sent}
	if o.Container != nil && r.cfg.Mounts != nil {
		a.start.Mounts = r.cfg.Mounts()
	}
	if newest != nil {
		r.stop(newest, shoal.JobLost)
	}
	if a.older = newest.live(); a.older != nil {
		a.phase = waiting
	}
	r.add(a)
	r.shares(o, p)
	r.live++
	if a.phase == sent {
		r.hand(a)
	}
}

// live is the attempt itself, or if that has ended the one that it had waited for; nil: none of them lives.
func (a *attempt) live() *attempt {
	for a != nil && a.phase == ended {
		a = a.older
	}
	return a
}

// letBegin lets an attempt begin that was to get ready only.
func (r *Runner) letBegin(a *attempt) {
	if !a.held {
		return
	}
	a.held = false
	if a.start != nil {
		a.start.Order.Hold = false // for one that waits, or must be handed over again
	}
	if a.phase == sent {
		r.queue = append(r.queue, tasks.Request{Begin: &a.ref})
	}
}

// hand queues a start for the supervisor, behind the lease that it is under.
func (r *Runner) hand(a *attempt) {
	a.phase = sent
	if len(r.spares) > 0 {
		a.start.Spare, r.spares = r.spares[0], r.spares[1:]
	}
	r.tellLease()
	r.queue = append(r.queue, tasks.Request{Start: a.start})
}

// refuse makes an attempt known as ended that never starts.
func (r *Runner) refuse(o api.TaskOrder, end tasks.Result) {
	name, err := tasks.FileName(o.Ref)
	if err != nil {
		r.cfg.Log.Error("cannot refuse a task", "error", err)
		return
	}
	a := &attempt{ref: o.Ref, name: name, user: o.User}
	r.add(a)
	r.live++ // end takes it off
	r.endHere(a, end)
}

// endHere ends an attempt that the supervisor does not have, and writes that down.
func (r *Runner) endHere(a *attempt, end tasks.Result) {
	end.Ended = time.Now()
	end.Bytes = a.size
	rec, err := tasks.GoOn(r.cfg.Dir, a.name)
	if err == nil {
		if !a.onDisk {
			err = rec.Write(tasks.Line{Accepted: &tasks.Accepted{Ref: a.ref, User: a.user, UID: a.uid}})
		}
		err = errors.Join(err, rec.Write(tasks.Line{Ended: &end}))
		rec.Close()
	}
	if err != nil {
		r.cfg.Log.Warn("the end of a task is not on disk", "attempt", a.ref.String(), "error", err)
	}
	a.onDisk = true
	r.end(a, end)
}

// end takes the end of an attempt.
func (r *Runner) end(a *attempt, end tasks.Result) {
	if a.phase == ended {
		return
	}
	a.phase, a.result, a.start = ended, end, nil
	a.size = end.Bytes
	if a.started.IsZero() {
		a.started = end.Started
	}
	r.live--
	if a.ref.Index < 0 { // the job's release command
		r.jobOver(a.ref.Job)
	}
	if a.unwanted {
		r.forget(a)
	} else {
		r.mark(a)
	}
	// The one that waited for this can start.
	if n := r.newest[a.ref.TaskRef]; n != nil && n.phase == waiting && n.older == a {
		n.older = nil
		r.hand(n)
		poke(r.wake)
	}
}

// stop ends a live attempt.
func (r *Runner) stop(a *attempt, state shoal.JobState) {
	switch a.phase {
	case waiting:
		r.endHere(a, stopped(state, "it was ended before it started"))
	case sent, running:
		if a.stop == "" || state == shoal.JobLost {
			a.stop = state
			r.queue = append(r.queue, tasks.Request{Stop: &api.StopOrder{Ref: a.ref, State: state}})
		}
	case ended:
	}
}

// stopped is the end of an attempt by order.
func stopped(state shoal.JobState, reason string) tasks.Result {
	if !tasks.KnownState(state) || state == shoal.JobSucceeded {
		state = shoal.JobCancelled
	}
	cause := shoal.CauseCancelled
	if state == shoal.JobPreempted {
		cause = shoal.CausePreempted
	}
	return tasks.Result{State: state, Cause: cause, Reason: reason}
}

// forget drops an ended attempt with its files.
func (r *Runner) forget(a *attempt) {
	r.forgotten.add(a.ref)
	delete(r.attempts, a.ref)
	defer r.jobOut(a.ref.Job)
	if r.newest[a.ref.TaskRef] == a {
		if older := a.live(); older != nil {
			r.newest[a.ref.TaskRef] = older
		} else {
			delete(r.newest, a.ref.TaskRef)
		}
	}
	if a.unsaved {
		r.queue = append(r.queue, tasks.Request{Drop: &a.ref})
	}
	if a.onDisk {
		r.removeFiles(a)
	}
}

// removeFiles removes the files of an attempt, the record last: while it is there the attempt is known.
func (r *Runner) removeFiles(a *attempt) {
	files := make([]string, 0, 4)
	for i, e := range tasks.Endings() {
		if a.size[i] > 0 || a.adopted {
			files = append(files, e)
		}
	}
	if a.savedAck > 0 || a.adopted {
		files = append(files, tasks.AckFile)
	}
	for _, e := range files {
		r.remove(a.name + e)
	}
	if record := a.name + tasks.RecordFile; len(r.spares) < maxSpares && a.phase == ended && !a.adopted {
		r.spares = append(r.spares, record)
	} else {
		r.remove(record)
	}
}

func (r *Runner) remove(name string) {
	if err := os.Remove(r.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.cfg.Log.Warn("a file of a task stays", "error", err)
	}
}

// maxSpares is how many records of forgotten attempts are kept to become others'. They do so long before it is forgotten
// that they were forgotten.
const maxSpares = 64

// saveAck writes down how much was acknowledged. It is a saving, not a promise: a torn file reads as nothing.
func (a *attempt) saveAck(dir string) {
	if sum := a.acked[0] + a.acked[1]; sum != a.savedAck {
		a.savedAck = sum
		text := strconv.FormatInt(a.acked[0], 10) + " " + strconv.FormatInt(a.acked[1], 10) + "\n"
		_ = os.WriteFile(filepath.Join(dir, a.name+tasks.AckFile), []byte(text), 0o600)
	}
}

// memory is which attempts were forgotten last, so that an order that was under way does not start one again.
type memory struct {
	refs map[shoal.AttemptRef]bool
	top  map[shoal.TaskRef]int
	ring []shoal.AttemptRef
	next int
	file *os.File
	rows int
}

// memorySize is more than can be under way.
const memorySize = 4096

const memoryFile = "forgotten"

func (m *memory) load(dir string) {
	m.refs, m.top = map[shoal.AttemptRef]bool{}, map[shoal.TaskRef]int{}
	path := filepath.Join(dir, memoryFile)
	b, _ := os.ReadFile(path) // nothing is forgotten, then
	for name := range strings.Lines(string(b)) {
		if ref, ok := tasks.ParseName(strings.TrimSuffix(name, "\n")); ok {
			m.keep(ref)
		}
	}
	// Without the file the memory lasts as long as the process.
	m.file, _ = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	m.rewrite()
}

func (m *memory) keep(ref shoal.AttemptRef) {
	if m.refs[ref] {
		return
	}
	if len(m.ring) < memorySize {
		m.ring = append(m.ring, ref)
	} else {
		old := m.ring[m.next]
		delete(m.refs, old)
		if m.top[old.TaskRef] == old.Attempt {
			delete(m.top, old.TaskRef)
		}
		m.ring[m.next] = ref
		m.next = (m.next + 1) % memorySize
	}
	m.refs[ref] = true
	m.top[ref.TaskRef] = max(m.top[ref.TaskRef], ref.Attempt)
}

func (m *memory) has(ref shoal.AttemptRef) bool { return m.refs[ref] }

// newer reports whether a newer attempt of the same task was forgotten.
func (m *memory) newer(ref shoal.AttemptRef) bool { return m.top[ref.TaskRef] > ref.Attempt }

func (m *memory) add(ref shoal.AttemptRef) {
	m.keep(ref)
	if m.file == nil {
		return
	}
	if m.rows >= 2*memorySize {
		m.rewrite()
		return
	}
	if name, err := tasks.FileName(ref); err == nil {
		_, _ = m.file.WriteString(name + "\n") // as above
		m.rows++
	}
}

// rewrite begins the file anew.
func (m *memory) rewrite() {
	if m.file == nil {
		return
	}
	var b strings.Builder
	for i := range m.ring {
		if name, err := tasks.FileName(m.ring[(m.next+i)%len(m.ring)]); err == nil {
			b.WriteString(name + "\n")
		}
	}
	m.rows = len(m.ring)
	if m.file.Truncate(0) == nil {
		_, _ = m.file.WriteAt([]byte(b.String()), 0)
		_, _ = m.file.Seek(0, 2)
	}
}

func (m *memory) close() error {
	if m.file == nil {
		return nil
	}
	return m.file.Close()
}
