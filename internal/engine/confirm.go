package engine

import (
	"crypto/rand"
	"time"

	"github.com/shoal-pool/shoal"
)

// A machine that runs goes because nobody is on it only after its agent has been asked to look once more, and only while that
// answer is fresh. Unknown is not idle: one that does not answer stays.
const (
	askAgain  = 20 * time.Second
	lookWorth = 30 * time.Second
)

// glance is how an agent was asked to look again, and when it did.
type glance struct {
	which        string
	asked, known time.Time
}

// confirmed reports whether a machine that is to go has just been looked at once more. If not, that is asked for, and a
// pass follows the answer.
func (j *judging) confirmed(r *row) bool {
	if j.engine.cfg.Look == nil || r.State != shoal.MachineReady || r.Health == shoal.HealthDown {
		return true
	}
	g := j.mem.glances[r.ID]
	if !g.known.IsZero() && j.now.Sub(g.known).Abs() < lookWorth {
		return true
	}
	if since := j.now.Sub(g.asked); since < 0 || since >= askAgain {
		j.asks = append(j.asks, r.ID)
		g.asked = j.now
	}
	j.due(g.asked.Add(askAgain), j.now)
	return false
}

// askAll asks agents to look again.
func (e *Engine) askAll(ids []shoal.MachineID, now time.Time) {
	for _, id := range ids {
		g := glance{which: rand.Text(), asked: now}
		e.mu.Lock()
		e.glances[id] = g
		e.mu.Unlock()
		e.cfg.Look(id, g.which)
	}
}

// Looked tells that an agent has looked again, as it was asked to, and that what it saw is stored.
func (e *Engine) Looked(id shoal.MachineID, which string) {
	e.mu.Lock()
	g, ok := e.glances[id]
	if ok = ok && g.which == which; ok {
		g.known = clock()
		e.glances[id] = g
	}
	e.mu.Unlock()
	if ok {
		e.Wake()
	}
}
