package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// finish ends a session on record.
func finish(tx *store.Tx, s shoal.Session, why string) error {
	now := time.Now().UTC().Round(0)
	s.State, s.Since, s.Ended, s.Reason, s.Parts, s.Pins = shoal.SessionEnded, now, now, why, nil, nil
	s.LeftDesktop, s.Ends, s.Ending = time.Time{}, time.Time{}, ""
	if _, err := tx.Sessions().Put(s); err != nil {
		return err
	}
	where := ""
	if s.Machine != "" {
		where = " on machine " + string(s.Machine)
	}
	event(tx, s, "sessionEnded", fmt.Sprintf("the session of %s%s ended: %s", s.User, where, why))
	return tx.CloseInterval(shoal.ObjectSession, string(s.ID), now)
}

// disconnect puts on record that no part of a session is open.
func disconnect(tx *store.Tx, s shoal.Session, why string) error {
	s.State, s.Since, s.Reason, s.Parts = shoal.SessionDisconnected, time.Now().UTC().Round(0), why, nil
	_, err := tx.Sessions().Put(s)
	return err
}

// recordClosed puts closed parts on record.
func (b *Broker) recordClosed(ctx context.Context) error {
	b.mu.Lock()
	closing := slices.Clone(b.closing)
	b.mu.Unlock()
	if len(closing) == 0 {
		return nil
	}
	var ended []shoal.SessionID
	var left []shoal.Session
	err := b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		ended, left = nil, nil
		for _, p := range closing {
			s, err := tx.Sessions().Get(p.session)
			if shoal.KindOf(err) == shoal.KindNotFound || (err == nil && !s.Live()) {
				continue
			}
			if err != nil {
				return err
			}
			before := len(s.Parts)
			s.Parts = slices.DeleteFunc(s.Parts, func(x shoal.Part) bool { return x.ID == p.id })
			desktopUse(&s, time.Now())
			switch {
			case len(s.Parts) > 0 || before == 0:
				_, err = tx.Sessions().Put(s)
			case p.withdrawn && len(s.Pins) == 0 && s.Since.Equal(s.Started):
				ended = append(ended, s.ID)
				if err = tx.CloseInterval(shoal.ObjectSession, string(s.ID), s.Started); err == nil { // she never was there: nothing to be billed
					err = finish(tx, s, "the login was withdrawn")
				}
			default:
				left = append(left, s)
				err = disconnect(tx, s, "no connection is open")
				event(tx, s, "sessionDisconnected", fmt.Sprintf("%s has no connection to machine %s any more", s.User, s.Machine))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.released(ended)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closing = b.closing[len(closing):]
	for _, s := range left {
		last, known := b.seen[s.Machine]
		if known && len(alive(last.users[s.User].Pins)) == 0 {
			b.empty[s.ID] = time.Now().Add(emptyFor)
		}
	}
	return nil
}

// alive are the pins that hold a session. A task is no session's: it holds the machine by itself.
func alive(pins []shoal.Pin) []shoal.Pin {
	return slices.DeleteFunc(slices.Clone(pins), func(p shoal.Pin) bool { return p.Kind == "task" || p.Count <= 0 })
}

// maxSeen bounds how many machines' latest reports are kept.
const maxSeen = 4096

// Activity takes an agent's report of who has what on its machine. It lists everybody: who is not
// in it has nothing there.
func (b *Broker) Activity(ctx context.Context, machine shoal.MachineID, a api.Activity) error {
	users := map[shoal.UserName]api.UserActivity{}
	for _, u := range a.Users {
		users[u.User] = u
	}
	b.mu.Lock()
	b.pinCarried(machine, users)
	b.seen[machine] = sighting{time.Now(), users}
	for id := range b.seen { // machines come and go; forgetting one costs a few seconds at most
		if len(b.seen) <= maxSeen {
			break
		}
		delete(b.seen, id)
	}
	b.mu.Unlock()

	var news bool
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessionsOn(machine)
		if err != nil {
			return err
		}
		news = len(strangers(sessions, users)) > 0
		for _, s := range sessions {
			_, changed := observe(s, users[s.User])
			news = news || changed
			b.judgeEmpty(s, alive(users[s.User].Pins))
		}
		return nil
	})
	if err != nil || !news {
		return err
	}
	return b.cfg.Store.Update(ctx, func(tx *store.Tx) error { return record(tx, machine, users) })
}

// carry notes that connections of a session may go on through the server that led before.
func (b *Broker) carry(s shoal.Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.Machine != "" {
		b.carried[place{s.Machine, s.User}] = true
	}
}

// pinCarried has connections through a former server hold their sessions, until a report shows none. The caller
// holds the lock.
func (b *Broker) pinCarried(machine shoal.MachineID, users map[shoal.UserName]api.UserActivity) {
	for at := range b.carried {
		if at.machine != machine {
			continue
		}
		u := users[at.user]
		if u.Connections == 0 {
			delete(b.carried, at)
			continue
		}
		if !slices.ContainsFunc(u.Pins, func(p shoal.Pin) bool { return p.Kind == "connection" }) {
			u.Pins = append(slices.Clone(u.Pins), shoal.Pin{Kind: "connection", Count: u.Connections})
			users[at.user] = u
		}
	}
}

// judgeEmpty keeps the time at which a session may end because nothing lives there.
func (b *Broker) judgeEmpty(s shoal.Session, pins []shoal.Pin) {
	b.mu.Lock()
	defer b.mu.Unlock()
	due, counting := b.empty[s.ID]
	switch {
	case len(s.Parts) > 0 || len(pins) > 0:
		delete(b.empty, s.ID)
	case !counting:
		b.empty[s.ID] = time.Now().Add(emptyFor)
		b.wake()
	case time.Until(due) < emptyFor-emptyConfirmed && time.Until(due) > 0 && time.Since(s.Since) >= emptyConfirmed:
		b.empty[s.ID] = time.Now()
		b.wake()
	}
}

// observe is a session with what its agent saw; changed if that is worth storing.
func observe(s shoal.Session, u api.UserActivity) (shoal.Session, bool) {
	pins := alive(u.Pins)
	kinds := func(pins []shoal.Pin) string {
		all := ""
		for _, p := range pins {
			all += p.Kind + " "
		}
		return all
	}
	changed := kinds(pins) != kinds(s.Pins)
	if !changed && time.Since(s.Updated) >= touchEvery {
		changed = !slices.Equal(pins, s.Pins) || u.LastInput.After(s.LastInput)
	}
	s.Pins = pins
	changed = desktopUse(&s, time.Now()) || changed
	if u.LastInput.After(s.LastInput) {
		s.LastInput = u.LastInput.UTC().Round(0)
	}
	if s.State == shoal.SessionDisconnected {
		s.Reason = "no connection is open"
		if len(pins) > 0 {
			s.Reason = "what lives on the machine keeps it: " + describe(pins)
		}
	}
	return s, changed
}

// strangers are the users who have something on a machine without a session there, in order.
func strangers(sessions []shoal.Session, users map[shoal.UserName]api.UserActivity) []shoal.UserName {
	var all []shoal.UserName
	for name, u := range users {
		has := slices.ContainsFunc(sessions, func(s shoal.Session) bool { return s.User == name })
		if len(alive(u.Pins)) > 0 && !has {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// record stores what an agent saw, and gives a session to whoever has something there without one.
func record(tx *store.Tx, machine shoal.MachineID, users map[shoal.UserName]api.UserActivity) error {
	sessions, err := tx.LiveSessionsOn(machine)
	if err != nil {
		return err
	}
	for _, s := range sessions {
		if s, changed := observe(s, users[s.User]); changed {
			if _, err := tx.Sessions().Put(s); err != nil {
				return err
			}
		}
	}
	unknown := strangers(sessions, users)
	if len(unknown) == 0 {
		return nil
	}
	m, err := tx.Machines().Get(machine)
	if err != nil || m.State != shoal.MachineReady {
		return err
	}
	pool, err := tx.Pools().Get(m.Pool)
	if err != nil {
		return err
	}
	for _, name := range unknown {
		if _, err := tx.Users().Get(name); shoal.KindOf(err) == shoal.KindNotFound {
			continue
		} else if err != nil {
			return err
		}
		now := time.Now().UTC().Round(0)
		s := shoal.Session{ID: shoal.NewSessionID(), User: name, Pool: m.Pool, Machine: machine, State: shoal.SessionDisconnected,
			Since: now, Started: now}
		s, _ = observe(s, users[name])
		known, err := cameBefore(tx, name, machine)
		if err != nil {
			return err
		}
		s.Found = !known
		if s, err = tx.Sessions().Insert(s); err != nil {
			return err
		}
		event(tx, s, "sessionFound", fmt.Sprintf("%s has %s on machine %s without a session; one is recorded", name, describe(s.Pins), machine))
		if err := tx.OpenInterval(interval(s, pool)); err != nil {
			return err
		}
	}
	return nil
}

// cameBefore reports whether a user has logged in to a machine once. What she has there without a session
// may be hers then; of anybody else a machine's root could say that she is there.
func cameBefore(tx *store.Tx, user shoal.UserName, machine shoal.MachineID) (bool, error) {
	const latest = 20
	former, _, err := tx.SessionsPage(store.SessionFilter{User: user, Machine: machine, Ended: true}, "", latest)
	return slices.ContainsFunc(former, func(s shoal.Session) bool { return !s.Found }), err
}

// describe lists pins: "tmux, process (3)".
func describe(pins []shoal.Pin) string {
	all := ""
	for i, p := range pins {
		if i > 0 {
			all += ", "
		}
		all += p.Kind
		if p.Count > 1 {
			all += fmt.Sprintf(" (%d)", p.Count)
		}
	}
	return all
}

// sweep ends the sessions whose machine went and those where nothing lives any more.
func (b *Broker) sweep(ctx context.Context) error {
	var stranded []shoal.Session
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		stranded, err = tx.StrandedSessions()
		return err
	})
	if err != nil {
		return err
	}
	due := b.due()
	if len(stranded)+len(due) == 0 {
		return nil
	}
	var ended []shoal.SessionID
	later := map[shoal.SessionID]time.Time{}
	err = b.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		ended = nil
		clear(later)
		stranded, err := tx.StrandedSessions()
		if err != nil {
			return err
		}
		for _, s := range stranded {
			if err := finish(tx, s, lost(tx, s.Machine)); err != nil {
				return err
			}
			ended = append(ended, s.ID)
		}
		for _, id := range due {
			over, again, err := b.endEmpty(tx, id)
			if err != nil {
				return err
			}
			if over {
				ended = append(ended, id)
			} else {
				later[id] = again
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.postpone(later)
	b.released(ended)
	return nil
}

// lost says what became of a machine.
func lost(tx *store.Tx, id shoal.MachineID) string {
	m, err := tx.Machines().Get(id)
	if err != nil {
		return fmt.Sprintf("machine %s is gone", id)
	}
	why := fmt.Sprintf("machine %s is %s", id, m.State)
	if m.Reason != "" {
		why += ": " + m.Reason
	}
	return why
}

// due are the sessions that may end now.
func (b *Broker) due() []shoal.SessionID {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []shoal.SessionID
	for id, at := range b.empty {
		if !time.Now().Before(at) {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return all
}

// postpone sets when sessions are looked at again; a zero time: not until their agent tells more.
func (b *Broker) postpone(later map[shoal.SessionID]time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, at := range later {
		if at.IsZero() {
			delete(b.empty, id)
		} else {
			b.empty[id] = at
		}
	}
}

// endEmpty ends a session where nothing lives, unless something speaks against it: then again
// says when to look next.
func (b *Broker) endEmpty(tx *store.Tx, id shoal.SessionID) (over bool, again time.Time, err error) {
	s, err := tx.Sessions().Get(id)
	if shoal.KindOf(err) == shoal.KindNotFound || (err == nil && !s.Live()) {
		return true, again, nil
	}
	if err != nil || len(s.Parts) > 0 || len(s.Pins) > 0 {
		return false, again, err
	}
	if now := time.Now(); now.Before(s.KeepUntil) {
		return false, s.KeepUntil, nil
	}
	m, err := tx.Machines().Get(s.Machine)
	if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
		return false, again, err
	}
	if err == nil && (m.Health == shoal.HealthUnknown || m.Health == shoal.HealthDown) {
		return false, again, nil // unknown is not gone
	}
	return true, again, finish(tx, s, "nothing of the user's lives on the machine any more")
}

// End ends a session on somebody's word. Its front ends close their connections, and the machine's agent ends what
// she has there. What it cannot end, or does not hear of, is found again by its next report.
func (b *Broker) End(ctx context.Context, id shoal.SessionID) error {
	var s shoal.Session
	err := b.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if s, err = tx.Sessions().Get(id); err != nil || !s.Live() {
			return err
		}
		return finish(tx, s, "it was ended by hand")
	})
	if err != nil {
		return fmt.Errorf("cannot end session %s: %w", id, err)
	}
	if s.Live() && s.Machine != "" {
		if slices.ContainsFunc(s.Pins, func(p shoal.Pin) bool { return p.Kind == "desktop" }) {
			b.cfg.Send(s.Machine, api.Record{EndDesktop: &api.EndDesktop{User: s.User}})
		}
		b.cfg.Send(s.Machine, api.Record{EndUnused: &api.EndUnused{User: s.User, Always: true}})
	}
	b.released([]shoal.SessionID{id})
	b.wake()
	return nil
}

// maxKeepAwake bounds a keep-awake lease.
const maxKeepAwake = 30 * 24 * time.Hour

// KeepAwake keeps a session, and so its machine, for d from now although nothing lives there;
// 0 takes the lease back.
func (b *Broker) KeepAwake(ctx context.Context, id shoal.SessionID, d time.Duration) (shoal.Session, error) {
	var s shoal.Session
	if d < 0 || d > maxKeepAwake {
		return s, shoal.Errorf(shoal.KindInvalid, "cannot keep session %s awake for %s", id, shoal.Duration(d)).
			WithHint("give a duration up to %s, such as 2h", shoal.Duration(maxKeepAwake))
	}
	err := b.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		if s, err = tx.Sessions().Get(id); err != nil {
			return err
		}
		if s.State != shoal.SessionActive && s.State != shoal.SessionDisconnected {
			return shoal.Errorf(shoal.KindConflict, "session %s is %s", id, s.State)
		}
		s.KeepUntil = time.Time{}
		sentence := fmt.Sprintf("%s no longer keeps machine %s awake", s.User, s.Machine)
		if d > 0 {
			s.KeepUntil = time.Now().Add(d).UTC().Truncate(time.Second)
			sentence = fmt.Sprintf("%s keeps machine %s awake until %s", s.User, s.Machine, s.KeepUntil.UTC().Format("2006-01-02 15:04 MST"))
		}
		if err := b.putEnds(tx, &s); err != nil {
			return err
		}
		event(tx, s, "keepAwake", sentence)
		s, err = tx.Sessions().Put(s)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("cannot keep session %s awake: %w", id, err)
	}
	if d == 0 {
		b.mu.Lock()
		if _, counting := b.empty[id]; counting {
			b.empty[id] = time.Now()
		}
		b.mu.Unlock()
		b.wake()
	}
	return s, nil
}
