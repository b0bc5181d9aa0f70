package local

import (
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
)

// The back-off: the first wrong passwords are free, then each doubles the time until the next is
// looked at. It is forgotten after a quarter of an hour without a wrong one.
const (
	freeGuesses   = 3
	firstWait     = time.Second
	maxSourceWait = 5 * time.Minute
	maxUserWait   = 30 * time.Second // short: others' guesses must not shut her out for long
	forgetAfter   = 15 * time.Minute
	rememberGood  = 30 * 24 * time.Hour
	maxRemembered = 20000 // entries of each map; the stalest are dropped
)

// brake slows guessing down, by source and by account.
type brake struct {
	mu      sync.Mutex
	sources map[string]*guesses
	users   map[shoal.UserName]*guesses
	good    map[goodPair]time.Time // when the user last signed in from the source
}

type goodPair struct {
	user   shoal.UserName
	source string
}

// guesses counts wrong passwords in a row.
type guesses struct {
	wrong int
	last  time.Time
	until time.Time // not before
}

func newBrake() *brake {
	return &brake{sources: map[string]*guesses{}, users: map[shoal.UserName]*guesses{}, good: map[goodPair]time.Time{}}
}

// wait is how long a check for the user from the source must still wait. A source from which she
// has signed in before does not suffer from others' guesses at her account.
func (b *brake) wait(user shoal.UserName, source string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := b.sources[source].wait(now)
	if at, ok := b.good[goodPair{user, source}]; !ok || now.Sub(at) > rememberGood {
		wait = max(wait, b.users[user].wait(now))
	}
	return wait
}

func (g *guesses) wait(now time.Time) time.Duration {
	if g == nil {
		return 0
	}
	return max(g.until.Sub(now), 0)
}

// wrong counts a wrong password.
func (b *brake) wrong(user shoal.UserName, source string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources[source] = b.sources[source].more(now, maxSourceWait)
	b.users[user] = b.users[user].more(now, maxUserWait)
	trim(b.sources, func(g *guesses) time.Time { return g.last })
	trim(b.users, func(g *guesses) time.Time { return g.last })
}

func (g *guesses) more(now time.Time, limit time.Duration) *guesses {
	if g == nil || now.Sub(g.last) > forgetAfter {
		g = &guesses{}
	}
	g.wrong, g.last = g.wrong+1, now
	if g.wrong > freeGuesses {
		wait := limit
		if doublings := g.wrong - freeGuesses - 1; doublings < 16 {
			wait = min(firstWait<<doublings, limit)
		}
		g.until = now.Add(wait)
	}
	return g
}

// right forgets the wrong ones.
func (b *brake) right(user shoal.UserName, source string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sources, source)
	delete(b.users, user)
	b.good[goodPair{user, source}] = now
	trim(b.good, func(t time.Time) time.Time { return t })
}

// trim keeps a map within bounds by dropping the stalest of a handful of entries.
func trim[K comparable, V any](m map[K]V, when func(V) time.Time) {
	for len(m) > maxRemembered {
		var stalest K
		var at time.Time
		looked := 0
		for k, v := range m { // in random order
			if t := when(v); looked == 0 || t.Before(at) {
				stalest, at = k, t
			}
			if looked++; looked == 16 {
				break
			}
		}
		delete(m, stalest)
	}
}

// normalSource is the address of a source without its port; of IPv6 the network of 64 bits that
// one subscriber has.
func normalSource(source string) string {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		ap, err := netip.ParseAddrPort(source)
		if err != nil {
			return source
		}
		addr = ap.Addr()
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}
