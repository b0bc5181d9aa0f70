package broker

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

const (
	seenFor  = 3 * time.Minute  // a report is worth so long: agents make one every minute
	notedFor = 10 * time.Minute // whoever pauses for less is not told when her session would end
	endStep  = 20 * time.Second // reports differ by so much in when something was used last
)

// unusedSince is since when nothing of a session has been in use. It is zero while something is or may be, when it is not
// known, when it has been so for a short while only, and where there is something that ends by rules of its own: a desktop, an app.
func (b *Broker) unusedSince(s shoal.Session, limit time.Duration, now time.Time) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.seen[s.Machine]
	u := last.users[s.User]
	if u.Unused <= 0 || u.InUse != "" || now.Sub(last.at) > seenFor || s.Machine == "" {
		return time.Time{}
	}
	apart := slices.ContainsFunc(s.Parts, func(p shoal.Part) bool { return p.Kind != "ssh" }) ||
		slices.ContainsFunc(u.Pins, func(p shoal.Pin) bool { return p.Kind == "desktop" || p.Kind == "kernel" || p.Kind == "terminal" })
	if apart {
		return time.Time{}
	}
	since := later(later(last.at.Add(-time.Duration(u.Unused)), s.Started), b.used[s.ID])
	for _, p := range s.Parts {
		since = later(since, p.Since)
	}
	if now.Sub(since) < min(notedFor, limit/2) {
		return time.Time{}
	}
	return since.UTC().Round(0)
}

// someWait reports whether somebody has what only waits for her.
func (b *Broker) someWait() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, last := range b.seen {
		for _, u := range last.users {
			if u.Unused > 0 {
				return true
			}
		}
	}
	return false
}

// usedOf notes when something goes through a session's connections.
func (b *Broker) usedOf(id shoal.SessionID) func() {
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.done[id] != nil { // it has not ended
			b.used[id] = time.Now()
		}
	}
}
