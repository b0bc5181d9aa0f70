package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
)

const (
	tendEvery = 15 * time.Second // how often it is looked for what is to end
	endAgain  = time.Minute      // until an agent is asked once more
)

// desktopUse keeps since when nobody is connected to a user's desktop. It reports whether that has changed.
func desktopUse(s *shoal.Session, now time.Time) bool {
	there := slices.ContainsFunc(s.Pins, func(p shoal.Pin) bool { return p.Kind == "desktop" && p.Count > 0 })
	connected := atDesktop(*s)
	switch {
	case there && !connected && s.LeftDesktop.IsZero():
		s.LeftDesktop = now.UTC().Round(0)
	case (!there || connected) && !s.LeftDesktop.IsZero():
		s.LeftDesktop, s.Ends, s.Ending = time.Time{}, time.Time{}, ""
	default:
		return false
	}
	return true
}

// atDesktop reports whether somebody is connected to the desktop of a session, or is about to be.
func atDesktop(s shoal.Session) bool {
	return slices.ContainsFunc(s.Parts, func(p shoal.Part) bool { return p.Kind == shoal.ProtocolRDP })
}

// idleEnds are when a pool ends what nobody uses.
type idleEnds struct{ desktop, web, unused, warn time.Duration }

func idleEndsOf(p shoal.Pool) (d idleEnds) {
	d.warn, d.unused = time.Duration(p.Scale.Idle.Warn), p.Scale.Idle.UnusedFor()
	if d.warn > 0 {
		d.warn = max(d.warn, 2*tendEvery) // a shorter time might pass between two looks
	}
	for _, e := range p.Endpoints {
		switch e.Protocol {
		case shoal.ProtocolRDP:
			d.desktop = time.Duration(e.IdleEnd)
		case shoal.ProtocolHTTP:
			d.web = max(d.web, time.Duration(e.IdleEnd))
		}
	}
	return d
}

// What of a session may end beside an app, which is named by its endpoint. A session ends but for what has rules of its own.
const (
	endsDesktop = "desktop"
	endsSession = "session"
	endsMachine = "machine" // and nobody's use puts that off
)

// ending says what of a session ends next unless it is used, and when. Zero: nothing does. Unused is since when nothing of
// it has been in use, if that is so and worth saying.
func ending(s shoal.Session, d idleEnds, apps []shoal.App, unused time.Time) (at time.Time, what string) {
	if !unused.IsZero() {
		at, what = later(unused.Add(d.unused), s.KeepUntil), endsSession
		if s.Ending == endsSession && s.Ends.Sub(at).Abs() < endStep {
			at = s.Ends
		}
		return at, what // it has neither apps nor a desktop
	}
	if d.desktop > 0 && !s.LeftDesktop.IsZero() && !atDesktop(s) {
		at, what = later(s.LeftDesktop.Add(d.desktop), s.KeepUntil), endsDesktop
	}
	for _, a := range apps {
		if end := later(a.Ends, s.KeepUntil); a.Session == s.ID && !a.Ends.IsZero() && (at.IsZero() || end.Before(at)) {
			at, what = end, a.Endpoint
		}
	}
	return at, what
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// tend has ended what nobody has used for as long as the pool says, desktops and sessions, and tells their users before.
// Where there is nothing of that kind it does nothing.
func (b *Broker) tend(ctx context.Context) error {
	if err := b.cfg.Keep(ctx); err != nil {
		return err
	}
	limits := map[shoal.PoolName]idleEnds{}
	var all []shoal.Session
	any, news := false, false
	waits := b.someWait()
	var ends map[shoal.MachineID]time.Time
	look := func(tx *store.Tx) error {
		all, any, news = nil, waits, false
		var err error
		if ends, err = endsOf(tx); err != nil {
			return err
		}
		any = any || len(ends) > 0
		pools, err := tx.Pools().List()
		if err != nil {
			return err
		}
		web := false
		for _, p := range pools {
			limits[p.Name] = idleEndsOf(p)
			any = any || limits[p.Name].desktop > 0 || limits[p.Name].web > 0
			web = web || limits[p.Name].web > 0
		}
		if !any && !b.marked {
			return nil
		}
		var apps []shoal.App
		if web {
			if apps, err = tx.LiveApps(); err != nil {
				return err
			}
		}
		sessions, err := tx.LiveSessions()
		for _, s := range sessions {
			at, what := b.endsNext(s, limits[s.Pool], apps, ends)
			other := !at.Equal(s.Ends) || what != s.Ending
			if !other && what != endsDesktop && what != endsSession {
				continue
			}
			s.Ends, s.Ending, news = at, what, news || other
			all = append(all, s)
		}
		return err
	}
	if err := b.cfg.Store.View(ctx, look); err != nil {
		return err
	}
	if news {
		err := b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			if err := look(tx); err != nil {
				return err
			}
			return mark(tx, all)
		})
		if err != nil {
			return err
		}
	}
	b.marked = any
	now := time.Now()
	for _, s := range all {
		if s.Ending == endsDesktop || s.Ending == endsSession {
			if err := b.end(ctx, s, limits[s.Pool], now); err != nil {
				return err
			}
		}
	}
	b.forgetTold(all)
	return nil
}

// endsNext is ending, or the end of the session's machine if that comes before.
func (b *Broker) endsNext(s shoal.Session, d idleEnds, apps []shoal.App, machines map[shoal.MachineID]time.Time) (at time.Time, what string) {
	at, what = ending(s, d, apps, b.unusedSince(s, d.unused, time.Now()))
	if m := machines[s.Machine]; !m.IsZero() && (at.IsZero() || m.Before(at)) {
		at, what = m, endsMachine
	}
	return at, what
}

// putEnds sets when something of a session ends next, by what is on record now.
func (b *Broker) putEnds(tx *store.Tx, s *shoal.Session) error {
	pool, err := tx.Pools().Get(s.Pool)
	if err != nil {
		return err
	}
	apps, err := tx.LiveApps()
	if err != nil {
		return err
	}
	machines, err := endsOf(tx)
	s.Ends, s.Ending = b.endsNext(*s, idleEndsOf(pool), apps, machines)
	return err
}

// endsOf are the machines that end with whoever is there, and when.
func endsOf(tx *store.Tx) (map[shoal.MachineID]time.Time, error) {
	machines, err := tx.LiveMachines()
	ends := map[shoal.MachineID]time.Time{}
	for _, m := range machines {
		if at, _ := m.Ends(); !at.IsZero() {
			ends[m.ID] = at.UTC().Round(0)
		}
	}
	return ends, err
}

// mark puts on record when something of sessions ends, where that is news.
func mark(tx *store.Tx, all []shoal.Session) error {
	for _, s := range all {
		was, err := tx.Sessions().Get(s.ID)
		if err != nil {
			return err
		}
		if was.Ends.Equal(s.Ends) && was.Ending == s.Ending {
			continue
		}
		if _, err := tx.Sessions().Put(s); err != nil {
			return err
		}
	}
	return nil
}

// told is what was done about something that is to end.
type told struct {
	ends  time.Time // of which the user was told
	since time.Time // when that was last
	asked time.Time // when its agent was asked to end it
}

// end tells a user of what ends unless she uses it, or has it ended.
func (b *Broker) end(ctx context.Context, s shoal.Session, d idleEnds, now time.Time) error {
	t, e := b.told[s.ID], b.endOf(s, d, now)
	switch unwarned := d.warn > 0 && t.since.IsZero(); {
	case now.Before(s.Ends) || unwarned:
		if now.Before(s.Ends.Add(-d.warn)) || t.ends.Equal(s.Ends) {
			return nil
		}
		t.ends, t.since = s.Ends, now
		b.cfg.Send(s.Machine, api.Record{Message: &api.Message{User: s.User, Text: e.warning}})
	case d.warn > 0 && now.Sub(t.since) < d.warn-tendEvery: // this server was not there to say so in time, or the clock was set
		return nil
	case now.Sub(t.asked) < endAgain:
		return nil
	default:
		first := t.asked.IsZero()
		if !b.cfg.Send(s.Machine, e.order) {
			return nil // its agent is not there now; unknown is not idle
		}
		t.asked = now
		if first {
			err := b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
				event(tx, s, e.code, e.sentence)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	b.told[s.ID] = t
	return nil
}

// end is how something of a session ends.
type end struct {
	warning        string
	order          api.Record
	code, sentence string
}

func (b *Broker) endOf(s shoal.Session, d idleEnds, now time.Time) end {
	at := s.Ends.Format("15:04 MST")
	if !now.Before(s.Ends) {
		at = now.UTC().Add(d.warn).Format("15:04 MST")
	}
	if s.Ending == endsDesktop {
		since := shoal.Duration(now.Sub(s.LeftDesktop).Truncate(time.Second))
		return end{fmt.Sprintf("Shoal: nobody has been connected to your desktop on machine %s for %s. It ends at %s with all that is open there, unless you connect to it.", s.Machine, since, at),
			api.Record{EndDesktop: &api.EndDesktop{User: s.User}},
			"desktopEnded", fmt.Sprintf("the desktop of %s on machine %s is ended: nobody was connected to it for %s", s.User, s.Machine, since)}
	}
	since := shoal.Duration(now.Sub(b.unusedSince(s, 0, now)).Truncate(time.Second))
	return end{fmt.Sprintf("Shoal: you have not used your session on machine %s for %s, and nothing of yours runs there. It ends at %s, unless you type something or run `shoal session keep-awake 8h`.", s.Machine, since, at),
		api.Record{EndUnused: &api.EndUnused{User: s.User, Unused: shoal.Duration(d.unused - min(d.unused/10, endStep))}},
		"sessionUnused", fmt.Sprintf("the session of %s on machine %s is ended: nothing of it was used for %s", s.User, s.Machine, since)}
}

// forgetTold drops what was done about what is used again, or no more.
func (b *Broker) forgetTold(all []shoal.Session) {
	for id := range b.told {
		if !slices.ContainsFunc(all, func(s shoal.Session) bool { return s.ID == id && (s.Ending == endsDesktop || s.Ending == endsSession) }) {
			delete(b.told, id)
		}
	}
}

// tendAll does so until ctx ends.
func (b *Broker) tendAll(ctx context.Context) {
	tries := retry.New(b.cfg.Log, "broker")
	for retry.Sleep(ctx, tendEvery) == nil {
		tries.Do(ctx, "end what nobody uses", b.tend)
	}
}
