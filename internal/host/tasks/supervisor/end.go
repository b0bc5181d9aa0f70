package supervisor

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// order takes an order to end.
func (t *task) order(state shoal.JobState) {
	switch state {
	case recalled:
	case shoal.JobPreempted, shoal.JobLost, fenced:
		t.end(state)
	default:
		t.end(shoal.JobCancelled)
	}
}

// end begins to end the task: a request, the grace, then force. The first reason counts, but what may not wait
// does not wait for another's grace.
func (t *task) end(state shoal.JobState) {
	grace := time.Duration(t.req.Order.Grace)
	if grace <= 0 {
		grace = defaultGrace
	}
	switch state {
	case shoal.JobLost, fenced: // another attempt waits for the place, or may run elsewhere
		t.kill.Reset(0)
		if t.stopped == "" {
			t.stopped = state
		}
		return
	case shoal.JobPreempted:
		if err := t.group.Weaken(); err != nil {
			t.note(fmt.Sprintf("it kept its share of the processor to the end: %v", err))
		}
	}
	if t.stopped != "" {
		return
	}
	t.stopped = state
	t.kill.Reset(grace)
	if t.first != 0 {
		_ = unix.Kill(-t.first, unix.SIGTERM)
	}
	// Those that left the process group hear of it as well, and nobody twice.
	for _, pid := range t.pids() {
		if pgid, err := unix.Getpgid(pid); err == nil && (t.first == 0 || pgid != t.first) {
			_ = unix.Kill(pid, unix.SIGTERM)
		}
	}
}

// pids are the task's processes, as far as they can be known.
func (t *task) pids() []int {
	if t.group.None() {
		return nil // those in the first one's process group are reached by that
	}
	pids, _ := t.group.Pids()
	return pids
}

// empty reports whether no process of the task is left. Only asked while it is ended.
func (t *task) empty() bool {
	if t.group.None() {
		return len(tasks.Strays(t.req.Person.UID, t.dir, t.firsts)) == 0
	}
	return len(t.pids()) == 0
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

// signalNumber is that of "USR1" or "SIGUSR1"; zero: there is none.
func signalNumber(name string) syscall.Signal {
	return unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
}

// signalAhead tells the task that its time is nearly over. A first process that would die of the signal is
// left out if there are others: it is the shell that waits for a program which knows what to do.
func (t *task) signalAhead() {
	sig := signalNumber(t.req.Order.Signal)
	pids := t.pids()
	if t.group.None() {
		pids = tasks.Strays(t.req.Person.UID, t.dir, t.firsts)
	}
	for _, pid := range pids {
		if pid == t.first && len(pids) > 1 && !minds(pid, sig) {
			continue
		}
		_ = unix.Kill(pid, sig) // what has just ended need not know
	}
}

// minds reports whether a process survives a signal: it catches, ignores or blocks it.
func minds(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return true
	}
	for l := range strings.Lines(string(b)) {
		name, mask, _ := strings.Cut(l, ":")
		if name != "SigBlk" && name != "SigIgn" && name != "SigCgt" {
			continue
		}
		if m, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64); err == nil && m&(1<<(uint(sig)-1)) != 0 {
			return true
		}
	}
	return false
}

// judge says how the task ended, by how its process did.
func (t *task) judge(step string, e exit) {
	r := &t.result
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
		r.State, r.Cause, r.Reason = shoal.JobPreempted, shoal.CausePreempted, "it had to make room"
	case t.stopped == shoal.JobLost:
		r.State, r.Cause, r.Reason = shoal.JobLost, shoal.CauseCancelled, "a newer attempt took its place"
	case t.stopped == fenced:
		t.fenced()
	case t.stopped != "":
		r.State, r.Cause, r.Reason = shoal.JobCancelled, shoal.CauseCancelled, "it was cancelled"
	case r.ExitCode == 0 && step == "":
		r.State, r.Cause = shoal.JobSucceeded, shoal.CauseExit
	case t.outOfMemory():
		r.State, r.Cause = shoal.JobFailed, shoal.CauseOOM
		r.Reason = "it was ended for want of memory"
		if o.Resources.Memory > 0 {
			r.Reason += fmt.Sprintf(": it may use %s", o.Resources.Memory)
		}
	case step != "":
		t.failStep(fmt.Sprintf("%s ended with exit code %d", step, r.ExitCode), fmt.Sprintf("%s was ended by signal %d", step, r.Signal))
	case t.runtime.refused(r.ExitCode):
		how := fmt.Sprintf("%s could not run image %s", t.runtime.name, o.Container.Image)
		t.failStep(how, how)
	case r.Signal != 0:
		r.State, r.Cause = shoal.JobFailed, shoal.CauseSignal
		r.Reason = fmt.Sprintf("it was ended by signal %d (%s)", r.Signal, unix.SignalName(syscall.Signal(r.Signal)))
	default:
		r.State, r.Cause = shoal.JobFailed, shoal.CauseExit
	}
}

// outOfMemory reports whether a process of the task was ended for want of memory.
func (t *task) outOfMemory() bool {
	usage, err := t.group.Usage()
	return err == nil && usage.OOMKilled
}

// fenced ends a task that could be running elsewhere.
func (t *task) fenced() {
	t.result.State, t.result.Cause, t.result.Reason = shoal.JobLost, shoal.CauseMachineLost, tasks.LeaseOver
}

// failStep says that what was to come before the command failed, with the last lines it wrote.
func (t *task) failStep(exited, killed string) {
	how := exited
	if t.result.Signal != 0 {
		how = killed
	}
	t.result.ExitCode, t.result.Signal = 0, 0 // they are not the command's
	for _, o := range t.out {
		o.closeChildEnd()
	}
	for _, o := range []*output{t.out[1], t.out[0]} {
		o.settle(drainTime)
		if last := o.lastLines(); last != "" {
			how += ": " + last
			break
		}
	}
	t.fail(how)
}

// cleanUp takes the last output, ends what is left of the task, and removes what it had.
func (t *task) cleanUp() {
	if t.req.Order.SSH != nil && t.name != "" {
		if err := t.s.passes.Take(string(t.req.Order.User), t.name); err != nil {
			t.note(err.Error())
		}
	}
	for _, o := range t.out {
		o.closeChildEnd()
	}
	began := time.Now()
	for _, o := range t.out {
		o.settle(drainTime - time.Since(began))
	}
	t.endContainer()
	r := &t.result
	r.CPUTime, r.MaxMemory = t.cpu, shoal.Bytes(t.memory)
	if usage, err := t.group.Usage(); err == nil && !t.group.None() && !r.Started.IsZero() {
		r.CPUTime = max(usage.CPU, t.cpu)
		if usage.MaxMemory > 0 {
			r.MaxMemory = usage.MaxMemory // the other counts the supervisor's, of before the program was loaded
		}
	}
	t.undo()
	t.returnGPUs()
	began = time.Now()
	for _, o := range t.out {
		o.settle(leftTime - time.Since(began))
		o.close()
		if o.failed != nil {
			t.note(fmt.Sprintf("its output after byte %d was not kept: %v", o.size.Load(), o.failed))
		}
	}
	t.closeCopies()
	r.Ended = time.Now()
	r.Bytes = t.bytes()
	for _, n := range t.notes {
		if r.Reason != "" {
			r.Reason += "; "
		}
		r.Reason += n
	}
}
