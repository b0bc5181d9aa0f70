// Package bell wakes who waits for something.
package bell

import "sync"

// Bells wake who waits for something. They are there only while somebody does.
type Bells[K comparable] map[K]*bell

type bell struct {
	rung      chan struct{}
	listeners int
}

// Ring wakes who waits for k.
func (b Bells[K]) Ring(k K) {
	if x := b[k]; x != nil {
		close(x.rung)
		delete(b, k)
	}
}

// Listen returns a channel that is closed at the next ring, and what to call when done with it. Take
// it, look, then wait.
func Listen[K comparable](mu *sync.Mutex, all Bells[K], k K) (<-chan struct{}, func()) {
	mu.Lock()
	defer mu.Unlock()
	x := all[k]
	if x == nil {
		x = &bell{rung: make(chan struct{})}
		all[k] = x
	}
	x.listeners++
	return x.rung, func() {
		mu.Lock()
		defer mu.Unlock()
		if x.listeners--; x.listeners == 0 && all[k] == x {
			delete(all, k)
		}
	}
}
