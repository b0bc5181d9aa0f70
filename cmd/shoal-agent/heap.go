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
	idle int // on how many processors it runs while there are no tasks

	mu      sync.Mutex
	tasks   bool
	watched bool // the next collection calls bound
}

const (
	idleGarbage = 2 << 20 // how much an idle agent keeps, in bytes; Go collects 1 MiB or 3 % before that
	tasksHeap   = 200     // by how many percent the heap grows between two collections while there are tasks
)

// newHeap makes the heap of an agent without tasks. One that carries people's connections, since nobody else reaches the
// machine, runs on two processors also then.
func newHeap(carries bool) *heap {
	h := &heap{idle: 1}
	if carries {
		h.idle = atMost(2)
	}
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
		runtime.GOMAXPROCS(atMost(2))
		debug.SetMemoryLimit(math.MaxInt64)
		debug.SetGCPercent(tasksHeap)
		return
	}
	runtime.GOMAXPROCS(h.idle)
	debug.SetGCPercent(-1)
	debug.FreeOSMemory()
	h.mu.Lock()
	h.bound()
	h.mu.Unlock()
}

// atMost is so many processors, or all that there are.
func atMost(n int) int { return min(n, runtime.NumCPU()) }

// collected is called after a collection.
func (h *heap) collected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watched = false
	h.bound()
}

// bound allows an idle agent some garbage beside what it needs now, and does so again after each collection. h.mu is held.
func (h *heap) bound() {
	if h.tasks {
		return
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	used := int64(m.Sys - m.HeapIdle)
	debug.SetMemoryLimit(used + used/8 + idleGarbage)
	if !h.watched {
		h.watched = true
		runtime.AddCleanup(new([2]*heap), (*heap).collected, h)
	}
}
