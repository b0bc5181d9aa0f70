package gateway

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// DoorLimits bound who may be in without having said who they are.
type DoorLimits struct {
	Full  int // never more; default 200
	Early int // from here on guests are shown out, the more of them the fuller it is; default 100
}

const (
	defaultFull  = 200
	defaultEarly = 100
	// pace is the time between two guests of one crowded source: a key exchange costs about
	// a millisecond, so a flood takes less than half a processor and those who come with it wait
	// less than maxWait.
	pace    = 2500 * time.Microsecond
	maxWait = time.Second
	// newcomer is how long a guest is left in peace: a login by key over a long line takes less.
	newcomer = 2 * time.Second
	// crowdShare: a source with one in so many of all guests makes room even for whom it is too new to be shown out else.
	crowdShare = 4
	// promising is how long one is who has offered a key that would do: a signature follows, also from a
	// client that is slow.
	promising = 15 * time.Second
	// maxKnown bounds from how many sources it is known that somebody has logged in.
	maxKnown = 10_000
	// maxWaiting bounds those who wait for their turn, of all sources.
	maxWaiting = 1000
	// awayTime is how long those who are not let in, or shown out, are left standing: who
	// is sent away at once knocks again at once.
	awayTime = 3 * time.Second
	maxAway  = 1000
)

// Door lets in connections that have not authenticated yet, and shows out guests to keep room:
// those of the source that has the most, among them first those who guessed passwords. So a
// crowd of guessers gets in its own way, and somebody with a key gets in, from elsewhere and from beside them. Where a crowd comes from
// everywhere, guests from where somebody has logged in before stay, and come in, before all others.
type Door struct {
	limits DoorLimits

	mu      sync.Mutex
	guests  map[*Guest]struct{}
	sources map[string]*source
	known   map[string]struct{} // sources from which somebody has logged in
	waiting int
	away    int
}

type source struct {
	guests  int
	waiting int
	next    time.Time // whose turn it is then has not come yet
}

// Guest is a connection that has not authenticated.
type Guest struct {
	door    *Door
	source  string
	since   time.Time
	guesses int
	peace   time.Duration // how long the guest is left in peace, unless it guesses
	show    func()
}

// NewDoor makes a door. Limits that are zero get their defaults.
func NewDoor(l DoorLimits) *Door {
	if l.Full <= 0 {
		l.Full = defaultFull
	}
	if l.Early <= 0 || l.Early > l.Full {
		l.Early = min(defaultEarly, l.Full)
	}
	return &Door{limits: l, guests: map[*Guest]struct{}{}, sources: map[string]*source{}, known: map[string]struct{}{}}
}

// Source returns what counts as one source of connections: an address, of IPv6 the network of a site.
func Source(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	site, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return site.String()
}

// Enter lets a connection in, or returns nil: there is no room for it. It may wait up to a second
// where many come from the same source. ShowOut is called, once at most and on another goroutine,
// when the guest has to leave for others; it must end the connection.
func (d *Door) Enter(ctx context.Context, from string, showOut func()) *Guest {
	if !d.queue(ctx, from) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.guests)
	if over := n - d.limits.Early; over >= 0 {
		full := n >= d.limits.Full
		if full || rand.IntN(d.limits.Full-d.limits.Early+1) < over {
			out := d.tiresome(from, time.Now())
			if out == nil && full {
				out = d.crowding(from)
			}
			if out == nil && full {
				d.forget(from)
				return nil
			}
			if out != nil {
				go out.show()
				out.leave()
			}
		}
	}
	g := &Guest{door: d, source: from, since: time.Now(), peace: newcomer, show: showOut}
	d.guests[g] = struct{}{}
	d.at(from).guests++
	return g
}

// queue waits for the turn of one more guest of a source.
func (d *Door) queue(ctx context.Context, from string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.at(from)
	now := time.Now()
	wait := s.next.Sub(now)
	if wait > maxWait || wait > 0 && d.waiting >= maxWaiting {
		return false
	}
	s.next = now.Add(max(wait, 0))
	if s.guests+s.waiting >= d.limits.Early/10 {
		s.next = s.next.Add(pace)
	}
	if wait <= 0 {
		return true
	}
	s.waiting++
	d.waiting++
	d.mu.Unlock()
	turn := time.NewTimer(wait)
	defer turn.Stop()
	select {
	case <-turn.C:
	case <-ctx.Done():
	}
	d.mu.Lock()
	s.waiting--
	d.waiting--
	d.forget(from)
	return ctx.Err() == nil
}

func (d *Door) at(from string) *source {
	s := d.sources[from]
	if s == nil {
		s = &source{}
		d.sources[from] = s
	}
	return s
}

// forget drops what is known of a source of which nobody is left.
func (d *Door) forget(from string) {
	if s := d.sources[from]; s != nil && s.guests == 0 && s.waiting == 0 {
		delete(d.sources, from)
	}
}

// tiresome returns the guest to show out for one of a source, if there is one.
func (d *Door) tiresome(from string, now time.Time) *Guest {
	most := 0
	for _, s := range d.sources {
		most = max(most, s.guests)
	}
	var worst *Guest
	for g := range d.guests {
		if g.guesses == 0 && now.Sub(g.since) < g.peace {
			continue
		}
		if 2*d.sources[g.source].guests < most { // it is not these who take the room
			continue
		}
		if d.before(g.source, from) && !d.crowd(g.source, from) {
			continue
		}
		if worst == nil || d.worse(g, worst) {
			worst = g
		}
	}
	return worst
}

// crowding returns the guest to show out for one of another source where all are too new to be tiresome, if there is one: the
// newest of a source that takes much of the room, and far more than hers, or of any that is not known where hers is. Who has offered a key
// that would do stays.
func (d *Door) crowding(from string) *Guest {
	var newest *Guest
	for g := range d.guests {
		if g.source == from || g.peace > newcomer || !d.crowd(g.source, from) && !d.before(from, g.source) {
			continue
		}
		if newest == nil || g.since.After(newest.since) {
			newest = g
		}
	}
	return newest
}

// crowd reports whether a source takes much of the room, and far more than another.
func (d *Door) crowd(source, other string) bool {
	n := d.sources[source].guests
	return n*crowdShare >= len(d.guests) && n >= 2*(d.at(other).guests+1)
}

// before reports whether guests of a source come before those of another: somebody has logged in from there.
func (d *Door) before(from, other string) bool {
	_, is := d.known[from]
	_, too := d.known[other]
	return is && !too
}

// worse orders guests: those of unknown sources, of many, who guess, who are old.
func (d *Door) worse(a, b *Guest) bool {
	if d.before(a.source, b.source) || d.before(b.source, a.source) {
		return d.before(b.source, a.source)
	}
	if x, y := d.sources[a.source].guests, d.sources[b.source].guests; x != y {
		return x > y
	}
	if a.guesses != b.guesses {
		return a.guesses > b.guesses
	}
	return a.since.Before(b.since)
}

// TurnAway blocks for some seconds, or until ctx ends, with a connection that is then to be closed. Nothing
// should be done for it meanwhile.
func (d *Door) TurnAway(ctx context.Context) {
	d.mu.Lock()
	full := d.away >= maxAway
	if !full {
		d.away++
	}
	d.mu.Unlock()
	if full {
		return
	}
	pause := time.NewTimer(awayTime/2 + rand.N(awayTime))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	d.mu.Lock()
	d.away--
	d.mu.Unlock()
}

// Guess records that the guest tries a password.
func (g *Guest) Guess() {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	g.guesses++
}

// Promise records that the guest has offered a key that would do, and has yet to prove that it has it.
func (g *Guest) Promise() {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	g.peace = promising
}

// Welcome is Leave for a guest that has authenticated: others from there come before those from elsewhere from now on.
func (g *Guest) Welcome() {
	d := g.door
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[g.source] = struct{}{}
	for other := range d.known {
		if len(d.known) <= maxKnown {
			break
		}
		delete(d.known, other)
	}
	g.leave()
}

// Leave gives the place back: the guest has authenticated or has gone. It may be called again.
func (g *Guest) Leave() {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	g.leave()
}

func (g *Guest) leave() {
	d := g.door
	if _, in := d.guests[g]; !in {
		return
	}
	delete(d.guests, g)
	d.sources[g.source].guests--
	d.forget(g.source)
}

// Guests returns how many are in.
func (d *Door) Guests() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.guests)
}
