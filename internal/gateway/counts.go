package gateway

import (
	"maps"
	"sync"
)

// Counts holds how many there are of something, in all and of each key. Its methods may be called from any goroutine.
type Counts struct {
	most, each int

	mu  sync.Mutex
	all int
	of  map[string]int
}

// NewCounts makes one that lets so many in, in all and of each key.
func NewCounts(most, each int) *Counts { return &Counts{most: most, each: each, of: map[string]int{}} }

// Enter counts one more, unless there are too many.
func (c *Counts) Enter(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.most || c.of[key] >= c.each {
		return false
	}
	c.all++
	c.of[key]++
	return true
}

// Leave takes one back that was let in.
func (c *Counts) Leave(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if c.of[key]--; c.of[key] <= 0 {
		delete(c.of, key)
	}
}

// Each is how many there are of each key.
func (c *Counts) Each() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.of)
}
