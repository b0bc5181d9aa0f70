package clock

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// move moves all that has begun and not ended. Machines that are gone, and what has ended, keep their times.
func move(tx *store.Tx, by time.Duration) error {
	for _, move := range []func(*store.Tx, time.Duration) error{movePools, moveMachines, moveSessions, moveApps, (*store.Tx).MoveOpenIntervals} {
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

func movePools(tx *store.Tx, by time.Duration) error {
	all, err := tx.Pools().List()
	for _, p := range all {
		if err != nil {
			return err
		}
		if p.Fixed == nil && p.Paused == nil && p.Resumed.IsZero() {
			continue
		}
		if p.Fixed != nil {
			f := *p.Fixed
			shift(by, &f.Until)
			p.Fixed = &f
		}
		if p.Paused != nil {
			f := *p.Paused
			shift(by, &f.Since)
			p.Paused = &f
		}
		shift(by, &p.Resumed)
		_, err = tx.Pools().Put(p)
	}
	return err
}

func moveMachines(tx *store.Tx, by time.Duration) error {
	all, err := tx.LiveMachines()
	for _, m := range all {
		if err != nil {
			return err
		}
		shift(by, &m.Since, &m.LastSeen, &m.ReadyAt, &m.IdleAt, &m.OldSince, &m.EndsAt)
		if m.Stopped.IsZero() {
			shift(by, &m.Started)
		}
		m.Cordons = slices.Clone(m.Cordons)
		for i := range m.Cordons {
			shift(by, &m.Cordons[i].Since, &m.Cordons[i].Deadline)
		}
		_, err = tx.Machines().Put(m)
	}
	return err
}

func moveSessions(tx *store.Tx, by time.Duration) error {
	all, err := tx.LiveSessions()
	for _, s := range all {
		if err != nil {
			return err
		}
		shift(by, &s.Since, &s.Started, &s.KeepUntil, &s.LastInput, &s.LeftDesktop, &s.Ends)
		s.Parts = slices.Clone(s.Parts)
		for i := range s.Parts {
			shift(by, &s.Parts[i].Since)
		}
		_, err = tx.Sessions().Put(s)
	}
	return err
}

func moveApps(tx *store.Tx, by time.Duration) error {
	all, err := tx.LiveApps()
	for _, a := range all {
		if err != nil {
			return err
		}
		shift(by, &a.Since, &a.Started, &a.LastActivity, &a.Ends)
		_, err = tx.Apps().Put(a)
	}
	return err
}
