package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// An idle agent's garbage is collected though its heap does not grow by the clock or by percent; what lives may grow
// without being looked through again and again; and tasks have a heap as Go's programs have it.
func TestHeap(t *testing.T) {
	percent := debug.SetGCPercent(100)
	procs := runtime.GOMAXPROCS(0)
	h := newHeap(false)
	t.Cleanup(func() {
		h.working(true)
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(math.MaxInt64)
		runtime.GOMAXPROCS(procs)
	})
	collections := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumGC
	}
	before := collections()
	var last []byte
	for range 64 { // 64 MiB of garbage
		for range 16 {
			last = make([]byte, 64<<10)
		}
		time.Sleep(time.Millisecond)
	}
	if n := collections() - before; n < 4 {
		t.Errorf("64 MiB of garbage were collected %d times", n)
	}
	// 64 MiB that live, then a heartbeat's worth of garbage a thousand times.
	all := make([][]byte, 0, 1024)
	for range cap(all) {
		all = append(all, make([]byte, 64<<10))
	}
	time.Sleep(100 * time.Millisecond)
	before = collections()
	for range 1000 {
		last = make([]byte, 20<<10)
		time.Sleep(10 * time.Microsecond)
	}
	if n := collections() - before; n > 100 {
		t.Errorf("20 MiB of garbage beside a large heap were collected %d times", n)
	}
	runtime.KeepAlive(all)
	runtime.KeepAlive(last)
	h.working(true)
	if p := debug.SetGCPercent(tasksHeap); p != tasksHeap {
		t.Errorf("with tasks the heap grows by %d %%", p)
	}
	if l := debug.SetMemoryLimit(-1); l != math.MaxInt64 {
		t.Errorf("with tasks the heap is bound to %d", l)
	}
}
