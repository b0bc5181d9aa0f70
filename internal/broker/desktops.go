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
	tendEvery = 15 * time.Second // how often it is looked for desktops that are to end
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

// idleEnds are a pool's endpoints that end what nobody uses.
type idleEnds struct{ desktop, web, warn time.Duration }

func idleEndsOf(p shoal.Pool) (d idleEnds) {
	d.warn = time.Duration(p.Scale.Idle.Warn)
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

// ending says what of a session ends next unless it is used, and when. Zero: nothing does.
func ending(s shoal.Session, d idleEnds, apps []shoal.App) (at time.Time, what string) {
	if d.desktop > 0 && !s.LeftDesktop.IsZero() && !atDesktop(s) {
		at, what = s.LeftDesktop.Add(d.desktop), "desktop"
		if s.KeepUntil.After(at) {
			at = s.KeepUntil
		}
	}
	for _, a := range apps {
		if a.Session == s.ID && !a.Ends.IsZero() && (at.IsZero() || a.Ends.Before(at)) {
			at, what = a.Ends, a.Endpoint
		}
	}
	return at, what
}

// tend has desktops ended that nobody has been connected to for as long as the pool says, and tells their users before.
// Where no pool says so it does nothing.
func (b *Broker) tend(ctx context.Context) error {
	limits := map[shoal.PoolName]idleEnds{}
	var all []shoal.Session
	any, news := false, false
	look := func(tx *store.Tx) error {
		all, any, news = nil, false, false
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
			at, what := ending(s, limits[s.Pool], apps)
			other := !at.Equal(s.Ends) || what != s.Ending
			if !other && what != "desktop" {
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
		if s.Ending == "desktop" {
			if err := b.endDesktop(ctx, s, limits[s.Pool], now); err != nil {
				return err
			}
		}
	}
	b.forgetTold(all)
	return nil
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

// told is what was done about a desktop that is to end.
type told struct {
	ends  time.Time // of which the user was told
	asked time.Time // when its agent was asked to end it
}

// endDesktop tells the user of a desktop that it ends, or has it ended.
func (b *Broker) endDesktop(ctx context.Context, s shoal.Session, d idleEnds, now time.Time) error {
	t := b.told[s.ID]
	since := shoal.Duration(now.Sub(s.LeftDesktop).Truncate(time.Second))
	switch {
	case now.Before(s.Ends):
		if now.Before(s.Ends.Add(-d.warn)) || t.ends.Equal(s.Ends) {
			return nil
		}
		t.ends = s.Ends
		b.cfg.Send(s.Machine, api.Record{Message: &api.Message{User: s.User, Text: fmt.Sprintf(
			"Shoal: nobody has been connected to your desktop on machine %s for %s. It ends at %s with all that is open there, unless you connect to it.",
			s.Machine, since, s.Ends.Format("15:04 MST"))}})
	case now.Sub(t.asked) < endAgain:
		return nil
	default:
		first := t.asked.IsZero()
		if !b.cfg.Send(s.Machine, api.Record{EndDesktop: &api.EndDesktop{User: s.User}}) {
			return nil // its agent is not there now; unknown is not idle
		}
		t.asked = now
		if first {
			err := b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
				event(tx, s, "desktopEnded", fmt.Sprintf("the desktop of %s on machine %s is ended: nobody was connected to it for %s", s.User, s.Machine, since))
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

// forgetTold drops what was done about desktops that are used again, or no more.
func (b *Broker) forgetTold(all []shoal.Session) {
	for id := range b.told {
		if !slices.ContainsFunc(all, func(s shoal.Session) bool { return s.ID == id && s.Ending == "desktop" }) {
			delete(b.told, id)
		}
	}
}

// tendDesktops does so until ctx ends.
func (b *Broker) tendDesktops(ctx context.Context) {
	tries := retry.New(b.cfg.Log, "broker")
	for retry.Sleep(ctx, tendEvery) == nil {
		tries.Do(ctx, "end what nobody uses", b.tend)
	}
}
