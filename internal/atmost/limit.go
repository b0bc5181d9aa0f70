// Package atmost bounds how much goes on at a time: for each of some, users or machines for example, so that none of them takes the
// others' places, and for all together.
package atmost

import "sync"

// Limit is such a bound. Its methods may be called from any goroutine.
type Limit[K comparable] struct {
	each, all int

	mu    sync.Mutex
	under map[K]int // under way; none is zero
	sum   int
}

// New makes a Limit of so many for each and for all together.
func New[K comparable](each, all int) *Limit[K] {
	return &Limit[K]{each: each, all: all, under: map[K]int{}}
}

// Enter takes a place, if one is left. Whoever has got one gives it back by Leave.
func (l *Limit[K]) Enter(k K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.under[k] >= l.each || l.sum >= l.all {
		return false
	}
	l.under[k]++
	l.sum++
	return true
}

// Leave gives a place back.
func (l *Limit[K]) Leave(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.under[k]--; l.under[k] == 0 {
		delete(l.under, k)
	}
}

// Taken is how many places one has, and how many all together.
func (l *Limit[K]) Taken(k K) (its, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.under[k], l.sum
}
