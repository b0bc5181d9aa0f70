package scale

import (
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/calendar"
)

// Bounds are what holds for a pool at a moment.
type Bounds struct {
	shoal.Size
	Placement shoal.Placement
	Window    string    // the title of the window they come from; empty: the pool's own
	Until     time.Time // when that window ends, or another begins that counts before it
	Next      time.Time // when any window begins or ends; zero: never
}

// At returns a pool with the bounds that its schedule gives it at a moment, for whoever decides by them.
func At(p shoal.Pool, now time.Time) shoal.Pool {
	b := BoundsOf(p, now)
	p.Size, p.Placement = b.Size, b.Placement
	return p
}

// Closed says which window gives a pool no machines at a moment, and until when; empty: none does.
func Closed(p shoal.Pool, now time.Time) string {
	b := BoundsOf(p, now)
	if b.Window == "" || b.Max > 0 || p.Size.Max == 0 {
		return ""
	}
	return fmt.Sprintf("window %q of its schedule holds%s", b.Window, b.until(p))
}

// until says when a window ends, where the pool's clock is; empty: it does not.
func (b Bounds) until(p shoal.Pool) string {
	if b.Until.IsZero() {
		return ""
	}
	return " until " + clock(p, b.Until)
}

// clock is a time where the pool's clock is.
func clock(p shoal.Pool, t time.Time) string {
	return t.In(p.Scale.Zone()).Format("2006-01-02 15:04 MST")
}

// BoundsOf says what holds for a pool. One window counts at a time, and what it leaves open is as the pool says,
// whatever other windows say: dates come before days of the week, and of the same sort what is written later
// before what is written earlier.
//
// Windows begin and end by the clock on the wall. A time that does not exist, when clocks are put forward, is the
// moment at which they are; of one that comes twice the first counts.
func BoundsOf(p shoal.Pool, now time.Time) Bounds {
	b := Bounds{Size: p.Size, Placement: p.Placement}
	if len(p.Scale.Schedule) == 0 {
		return b
	}
	zone := p.Scale.Zone()
	best := -1
	before := func(i, k int) bool { // window i counts before window k
		d, e := len(p.Scale.Schedule[i].Dates) > 0, len(p.Scale.Schedule[k].Dates) > 0
		return d && !e || d == e && i > k
	}
	sooner := func(to *time.Time, t time.Time) {
		if !t.IsZero() && (to.IsZero() || t.Before(*to)) {
			*to = t
		}
	}
	changes := make([]time.Time, len(p.Scale.Schedule))
	for i, w := range p.Scale.Schedule {
		c, _ := calendar.Read(calendar.Text{Days: w.Days, Dates: w.Dates, From: w.From, To: w.To}) // what is wrong with it was refused when it was written
		on, next := c.Active(now, zone)
		changes[i] = next
		sooner(&b.Next, next)
		if on && (best < 0 || before(i, best)) {
			best = i
		}
	}
	if best < 0 {
		return b
	}
	w := p.Scale.Schedule[best]
	b.Window = w.Title()
	for i, t := range changes {
		if i == best || before(i, best) {
			sooner(&b.Until, t)
		}
	}
	for _, f := range []struct {
		to   *int
		from *int
	}{{&b.Min, w.Min}, {&b.Max, w.Max}, {&b.Spare, w.Spare}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	b.Min = min(b.Min, b.Max) // a window that only lowers the most lowers the least with it
	if w.Placement != "" {
		b.Placement = w.Placement
	}
	return b
}
