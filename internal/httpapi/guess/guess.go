// Package guess slows down who guesses at the API.
package guess

import (
	"net/netip"
	"sync"
	"time"
)

// Brake slows down sources that prove to be nobody, whatever they try. It is coarser than the brake of the
// directory, which knows accounts: so many failures in a quarter of an hour, then a pause.
type Brake struct {
	mu   sync.Mutex
	from map[string]*failures
}

type failures struct {
	n     int
	since time.Time
	until time.Time
}

const (
	maxFailures = 20
	failureSpan = 15 * time.Minute
	failureRest = 30 * time.Second
	maxSources  = 10_000
)

// New makes a brake.
func New() *Brake { return &Brake{from: map[string]*failures{}} }

// host is a source without its port; of IPv6 the network that one subscriber has.
func host(source string) string {
	ap, err := netip.ParseAddrPort(source)
	if err != nil {
		return source
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}

// Wait is how long a source must wait before it is looked at again.
func (b *Brake) Wait(source string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.from[host(source)]
	if f == nil {
		return 0
	}
	return max(f.until.Sub(now), 0)
}

// Wrong counts a proof that did not hold.
func (b *Brake) Wrong(source string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := host(source)
	f := b.from[key]
	if f == nil || now.Sub(f.since) > failureSpan {
		f = &failures{since: now}
		b.from[key] = f
	}
	if f.n++; f.n >= maxFailures {
		f.until = now.Add(failureRest)
	}
	for k, old := range b.from { // in random order
		if len(b.from) <= maxSources {
			break
		}
		if old != f {
			delete(b.from, k)
		}
	}
}
