package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"sync"
)

// heap keeps what the agent's own memory costs a machine, and its host, low. An idle agent makes hardly any garbage, and
// most of the processor time of an idle machine would be the collection that Go makes every two minutes all the same:
// while there are no tasks, garbage is collected when there is some.
type heap struct {
	mu    sync.Mutex
	tasks bool
}

const (
	idleGarbage = 2 << 20 // how much an idle agent keeps, in bytes; Go collects 1 MiB or 3 % before that
	tasksHeap   = 200     // by how many percent the heap grows between two collections while there are tasks
)

func newHeap() *heap {
	h := &heap{}
	h.working(false)
	return h
}

// working makes the heap one for tasks: each costs some of it, and looking through it often costs the processor more
// than memory that is given back when they are over.
func (h *heap) working(on bool) {
	h.mu.Lock()
	h.tasks = on
	h.mu.Unlock()
	if on {
		runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
		debug.SetMemoryLimit(math.MaxInt64)
		debug.SetGCPercent(tasksHeap)
		return
	}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.FreeOSMemory()
	h.bound()
}

// bound allows an idle agent some garbage beside what it needs now, and does so again after each collection.
func (h *heap) bound() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tasks {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	used := int64(m.Sys - m.HeapIdle)
	debug.SetMemoryLimit(used + used/8 + idleGarbage)
	runtime.AddCleanup(new([2]*heap), (*heap).bound, h)
}
