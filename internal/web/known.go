package web

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
)

// knownFor is how long it is remembered whose a cookie is, and maxKnown of how many.
const (
	knownFor = 2 * time.Second
	maxKnown = 10_000
)

// known remembers for moments whose cookie is whose, for all those requests that one page makes.
type known struct {
	mu    sync.Mutex
	epoch uint64 // counts what was forgotten
	by    map[[sha256.Size]byte]acquaintance
}

type acquaintance struct {
	user  shoal.UserName
	until time.Time
}

func newKnown() *known { return &known{by: map[[sha256.Size]byte]acquaintance{}} }

// get returns the epoch for put, too: what was looked up before something was forgotten must not come back.
func (k *known) get(key [sha256.Size]byte, now time.Time) (shoal.UserName, uint64, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.by[key]
	return a.user, k.epoch, ok && now.Before(a.until)
}

func (k *known) put(key [sha256.Size]byte, user shoal.UserName, epoch uint64, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if epoch != k.epoch {
		return
	}
	if len(k.by) >= maxKnown {
		clear(k.by)
	}
	k.by[key] = acquaintance{user, now.Add(knownFor)}
}

// forget drops what is known of a user.
func (k *known) forget(user shoal.UserName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epoch++
	for key, a := range k.by {
		if a.user == user {
			delete(k.by, key)
		}
	}
}
