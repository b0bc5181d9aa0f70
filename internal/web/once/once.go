// Package once keeps secrets that are good for one use within a short time: codes that a browser carries from
// one place to another, and what confirms a request. They live in memory alone: after a restart one asks again.
package once

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
)

// Box keeps values under secrets. Its methods may be called from any goroutine.
type Box[V any] struct {
	life     time.Duration
	each     int // of one owner
	together int

	mu   sync.Mutex
	held map[[sha256.Size]byte]slot[V]
}

type slot[V any] struct {
	owner   string
	value   V
	expires time.Time
}

// New makes a box whose values are kept for a time, so many of each owner and so many together. Beyond that the
// oldest make room: of the owner's own first, so that nobody crowds others out before there are very many owners.
func New[V any](life time.Duration, each, together int) *Box[V] {
	return &Box[V]{life: life, each: each, together: together, held: map[[sha256.Size]byte]slot[V]{}}
}

// Put keeps a value under a new secret with 160 random bits.
func (b *Box[V]) Put(owner string, v V) (secret string, expires time.Time) {
	secret = shoal.NewToken()
	return secret, b.PutAs(secret, owner, v)
}

// PutAs keeps a value under a secret that the caller has made, in place of what was there.
func (b *Box[V]) PutAs(secret, owner string, v V) (expires time.Time) {
	now := time.Now()
	expires = now.Add(b.life)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.makeRoom(owner, now)
	b.held[sha256.Sum256([]byte(secret))] = slot[V]{owner, v, expires}
	return expires
}

func (b *Box[V]) makeRoom(owner string, now time.Time) {
	own := 0
	var oldest, oldestOwn [sha256.Size]byte
	for key, s := range b.held {
		if !now.Before(s.expires) {
			delete(b.held, key)
			continue
		}
		if o, ok := b.held[oldest]; !ok || s.expires.Before(o.expires) {
			oldest = key
		}
		if s.owner != owner {
			continue
		}
		own++
		if o, ok := b.held[oldestOwn]; !ok || s.expires.Before(o.expires) {
			oldestOwn = key
		}
	}
	switch {
	case own >= b.each:
		delete(b.held, oldestOwn)
	case len(b.held) >= b.together:
		delete(b.held, oldest)
	}
}

// Take returns the value under a secret and forgets it; false if there is none, or its time is over.
func (b *Box[V]) Take(secret string) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := sha256.Sum256([]byte(secret))
	s, ok := b.held[key]
	delete(b.held, key)
	if !ok || !time.Now().Before(s.expires) {
		var none V
		return none, false
	}
	return s.value, true
}

// Look returns the value under a secret and keeps it.
func (b *Box[V]) Look(secret string) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.held[sha256.Sum256([]byte(secret))]
	if !ok || !time.Now().Before(s.expires) {
		var none V
		return none, false
	}
	return s.value, true
}

// Drop forgets all of an owner's.
func (b *Box[V]) Drop(owner string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range b.held {
		if s.owner == owner {
			delete(b.held, key)
		}
	}
}

// Len is how many are kept, those whose time is over perhaps included.
func (b *Box[V]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.held)
}
