package sshfront

import (
	"runtime/debug"
	"sync"
	"time"
)

const (
	calmAfter = 3 * time.Second // without a login
	crowdSize = 16              // logins before it is worth anything
)

// calm gives the memory that a crowd of logins took back to the system once it is over. Key exchanges leave
// garbage of some 50 KB each, which the runtime of a gateway that then does nothing would keep for minutes.
type calm struct {
	mu     sync.Mutex
	logins int
	timer  *time.Timer
}

// login counts one.
func (c *calm) login() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins++; c.logins < crowdSize {
		return
	}
	if c.timer != nil {
		c.timer.Reset(calmAfter)
		return
	}
	c.timer = time.AfterFunc(calmAfter, func() {
		c.mu.Lock()
		c.logins, c.timer = 0, nil
		c.mu.Unlock()
		debug.FreeOSMemory()
	})
}
