package cgroups

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// station is a thread that stays in a slot of version 1 and starts the processes of one task after another there. To go
// to a group and back costs the kernel more than to fork (0.07 ms, with four hierarchies). Only the thread is there: the
// process's memory is charged to where its first thread is, and when memory is short the kernel looks at first
// threads only. But the process is on the group's list, and counts among its tasks.
type station struct {
	t    *Tree
	work chan func() // closed when the thread is to go home
	gone chan struct{}
	once sync.Once
}

// maxStations bounds the threads, of which the runtime bears ten thousand. Slots beyond do without.
const maxStations = 512

// errNoStation says that a slot has no thread of its own.
var errNoStation = errors.New("the thread has not come to its group")

// station puts a thread into the slot, if it is of version 1 and there are not too many.
func (t *Tree) station(g Group) *station {
	if slices.ContainsFunc(t.hierarchies, func(h hierarchy) bool { return h.v2 }) {
		return nil
	}
	t.mu.Lock()
	full := t.stations >= maxStations
	if !full {
		t.stations++
	}
	t.mu.Unlock()
	if full {
		return nil
	}
	s := &station{t: t, work: make(chan func()), gone: make(chan struct{})}
	came := make(chan bool)
	Apart(func() { s.run(g, came) })
	if !<-came {
		<-s.gone
		return nil
	}
	return s
}

func (s *station) run(g Group, came chan<- bool) {
	defer func() {
		s.t.mu.Lock()
		s.t.stations--
		s.t.mu.Unlock()
		close(s.gone)
	}()
	moved := 0
	var err error
	for _, h := range g.t.hierarchies {
		if err = g.write(h, "tasks", "0"); err != nil { // 0: the thread that writes
			break
		}
		moved++
	}
	came <- err == nil
	if err == nil {
		for do := range s.work {
			do()
		}
	}
	for _, h := range g.t.hierarchies[:moved] {
		err = errors.Join(err, g.t.goHome(h))
	}
	if err == nil {
		runtime.UnlockOSThread() // else it ends
	}
}

// Apart runs f in a goroutine that is locked to its thread, which is not the first one of the process: what all threads
// allocate is charged to the group where that is.
func Apart(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != os.Getpid() {
			f()
			return
		}
		begun := make(chan struct{})
		Apart(func() { close(begun); f() }) // on another, while this one is ours
		<-begun
		runtime.UnlockOSThread()
	}()
}

// do runs a function on the thread.
func (s *station) do(f func() error) error {
	err := errNoStation
	done := make(chan struct{})
	s.work <- func() {
		defer close(done)
		err = f()
	}
	<-done
	return err
}

// leave sends the thread home and waits until it is there.
func (s *station) leave() {
	if s != nil {
		s.once.Do(func() { close(s.work) })
		<-s.gone
	}
}

// Stays reports whether a thread of ours stays in the group, so that Spawn may be called on any.
func (g Group) Stays() bool { return g.slot != nil && g.slot.station != nil }

// others leaves out this process, of which a thread may be in the group.
func others(pids []int) []int {
	me := os.Getpid()
	return slices.DeleteFunc(pids, func(pid int) bool { return pid == me })
}
