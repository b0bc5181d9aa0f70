package sshwire

import (
	"sync"
	"time"
)

// When a pulse says what, counted from when the other side was first owed an answer.
const (
	ProbeAfter = 2 * time.Second // ask for a sign of life
	StallAfter = 5 * time.Second
	DeadAfter  = 30 * time.Second
)

// Pulse notices when the other side of a connection stops answering. It costs nothing
// while nothing is sent: only after something was sent and nothing came back does it ask for a
// sign of life, and any byte is one.
type Pulse struct {
	conn  *Conn
	probe func()             // asks; may block
	stall func(stalled bool) // no answer for StallAfter; and when there is one again
	dead  func()             // no answer for DeadAfter; called once

	mu      sync.Mutex
	timer   *time.Timer
	armed   bool
	stopped bool
	asked   bool
	stalled bool
	since   time.Time // an answer is owed since then
}

// NewPulse watches c until Stop or death. The functions are called on goroutines of their own.
func NewPulse(c *Conn, probe func(), stall func(bool), dead func()) *Pulse {
	p := &Pulse{conn: c, probe: probe, stall: stall, dead: dead}
	sent := p.sent
	c.onSend.Store(&sent)
	return p
}

// Stop ends the watch.
func (p *Pulse) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// Stalled reports whether an answer has been owed for StallAfter.
func (p *Pulse) Stalled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stalled
}

func (p *Pulse) sent() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed || p.stopped {
		return
	}
	p.armed, p.since = true, time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(ProbeAfter, p.look)
	} else {
		p.timer.Reset(ProbeAfter)
	}
}

// look is called by the timer while something was sent.
func (p *Pulse) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	now := time.Now()
	read, wrote := p.conn.LastRead(), p.conn.LastWrite()
	if !read.Before(p.since) { // it lives
		p.asked = false
		if p.stalled {
			p.stalled = false
			go p.stall(false)
		}
		if p.armed = read.Before(wrote); p.armed {
			p.since = now
			p.timer.Reset(ProbeAfter)
		}
		return
	}
	owed := now.Sub(p.since)
	if owed >= DeadAfter {
		p.stopped = true
		go p.dead()
		return
	}
	if !p.asked {
		p.asked = true
		go p.probe()
	}
	if owed >= StallAfter && !p.stalled {
		p.stalled = true
		go p.stall(true)
	}
	p.timer.Reset(time.Second)
}
