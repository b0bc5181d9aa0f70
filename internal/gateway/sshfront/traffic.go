package sshfront

import (
	"sync"
	"time"
)

// Somebody is at work where so much goes through within a minute. What an editor, an open page or a clock in a terminal send
// by themselves is less; keystrokes are seen on the machine's terminals.
const (
	trafficIn   = 16 << 10 // from the client
	trafficOut  = 1 << 20  // to her
	trafficTime = time.Minute
)

// traffic counts what goes through the channels of a visit.
type traffic struct {
	mu      sync.Mutex
	since   time.Time
	in, out int
	told    bool
}

// moved counts some bytes. It reports, once for each minute, that they are many.
func (t *traffic) moved(in bool, n int, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) >= trafficTime {
		t.since, t.in, t.out, t.told = now, 0, 0, false
	}
	if in {
		t.in += n
	} else {
		t.out += n
	}
	if t.told || t.in < trafficIn && t.out < trafficOut {
		return false
	}
	t.told = true
	return true
}

// passed tells whoever wants to know that somebody is at work.
func (v *visit) passed(in bool, n int) {
	if v.traffic.moved(in, n, time.Now()) && v.target.Used != nil {
		v.target.Used()
	}
}
