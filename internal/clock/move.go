package clock

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// move moves all that has begun and not ended. Machines that are gone, and what has ended, keep their times.
func move(tx *store.Tx, by time.Duration, now time.Time) error {
	bill := func(tx *store.Tx, by time.Duration) error { return tx.MoveOpenIntervals(by, now) }
	for _, move := range []func(*store.Tx, time.Duration) error{movePools, moveMachines, moveSessions, moveApps, bill} {
		if err := move(tx, by); err != nil {
			return err
		}
	}
	tx.Event(shoal.Event{Kind: "Server", Name: "clock", Code: "clockSet", Sentence: sentence(by)})
	return nil
}

// shift moves times; a zero one says that there is none.
func shift(by time.Duration, times ...*time.Time) {
	for _, t := range times {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
}

// each changes objects and puts them back.
func each[K ~string, V any](table store.Table[K, V], all []V, err error, change func(*V)) error {
	for i := range all {
		if err == nil {
			change(&all[i])
			_, err = table.Put(all[i])
		}
	}
	return err
}

func movePools(tx *store.Tx, by time.Duration) error {
	all, err := tx.Pools().List()
	return each(tx.Pools(), all, err, func(p *shoal.Pool) {
		if p.Fixed != nil {
			shift(by, &p.Fixed.Until)
		}
		if p.Paused != nil {
			shift(by, &p.Paused.Since)
		}
		shift(by, &p.Resumed)
	})
}

func moveMachines(tx *store.Tx, by time.Duration) error {
	all, err := tx.LiveMachines()
	return each(tx.Machines(), all, err, func(m *shoal.Machine) {
		shift(by, &m.Since, &m.LastSeen, &m.ReadyAt, &m.IdleAt, &m.OldSince, &m.EndsAt)
		if m.Stopped.IsZero() {
			shift(by, &m.Started)
		}
		for i := range m.Cordons {
			shift(by, &m.Cordons[i].Since, &m.Cordons[i].Deadline)
		}
	})
}

func moveSessions(tx *store.Tx, by time.Duration) error {
	all, err := tx.LiveSessions()
	return each(tx.Sessions(), all, err, func(s *shoal.Session) {
		shift(by, &s.Since, &s.Started, &s.KeepUntil, &s.LastInput, &s.LeftDesktop, &s.Ends)
		for i := range s.Parts {
			shift(by, &s.Parts[i].Since)
		}
	})
}

func moveApps(tx *store.Tx, by time.Duration) error {
	all, err := tx.LiveApps()
	return each(tx.Apps(), all, err, func(a *shoal.App) {
		shift(by, &a.Since, &a.Started, &a.LastActivity, &a.Ends)
	})
}
