package book

import "github.com/shoal-pool/shoal"

// held says why nothing more of a user's jobs starts now; empty: it does.
func (b *Book) held(user shoal.UserName) string {
	if b.cfg.Held == nil {
		return ""
	}
	return b.cfg.Held(user)
}

// Reconsider has Run ask anew of whose jobs nothing more starts. It does not wait for that.
func (b *Book) Reconsider() {
	b.mu.Lock()
	b.stale = true
	b.mu.Unlock()
	b.wake()
}
