package store

import (
	"math"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Interval is a stretch of time of a machine or a session, for the bill.
type Interval = usage.Interval

// OpenInterval starts an interval. If one of the same kind and id is open already nothing
// happens: however often a start is told, its time counts once.
func (tx *Tx) OpenInterval(i Interval) error {
	if i.Start.IsZero() {
		return shoal.Errorf(shoal.KindInvalid, "cannot open an interval of %s %s without its start", i.Kind, i.ID)
	}
	const insert = `INSERT INTO intervals (kind, id, start, stop, pool, machine, user, per_hour, currency)
		SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
		WHERE NOT EXISTS (SELECT 1 FROM intervals WHERE kind = ?1 AND id = ?2 AND stop = 0)
		ON CONFLICT DO NOTHING`
	_, err := tx.change(insert, string(i.Kind), i.ID, pack.Nanos(i.Start), pack.Nanos(i.End),
		string(i.Pool), string(i.Machine), string(i.User), i.Price.PerHour, i.Price.Currency)
	return err
}

// CloseInterval ends the open interval of a kind and id; without one nothing happens. An end
// before the start counts as the start.
func (tx *Tx) CloseInterval(kind shoal.ObjectKind, id string, end time.Time) error {
	_, err := tx.change("UPDATE intervals SET stop = CASE WHEN start > ?1 THEN start ELSE ?1 END WHERE kind = ?2 AND id = ?3 AND stop = 0", pack.Nanos(end), string(kind), id)
	return err
}

// MoveOpenIntervals has what is open last for as long as it did, although the clock was set by so much and shows now. Put forward, it
// ends when the clock was set and begins anew, so that what was there before stays beside what it was there with; put back, it would
// overlap itself, so its start is moved.
func (tx *Tx) MoveOpenIntervals(by time.Duration, now time.Time) error {
	if by < 0 {
		_, err := tx.change("UPDATE intervals SET start = start + ? WHERE stop = 0", int64(by))
		return err
	}
	open, err := tx.IntervalsSince(time.Unix(0, math.MaxInt64))
	for _, i := range open {
		if err == nil {
			err = tx.CloseInterval(i.Kind, i.ID, now.Add(-by))
		}
		if i.Start = now; err == nil {
			err = tx.OpenInterval(i)
		}
	}
	return err
}

// IntervalsSince returns the intervals that are open or ended after t, by kind, id and start.
func (tx *Tx) IntervalsSince(t time.Time) ([]Interval, error) {
	const query = `SELECT kind, id, start, stop, pool, machine, user, per_hour, currency FROM intervals
		WHERE stop = 0 UNION ALL
		SELECT kind, id, start, stop, pool, machine, user, per_hour, currency FROM intervals
		WHERE stop > 0 AND stop > ? ORDER BY 1, 2, 3`
	var all []Interval
	err := tx.query(func(rows Rows) error {
		var i Interval
		var start, stop int64
		if err := rows.Scan(&i.Kind, &i.ID, &start, &stop, &i.Pool, &i.Machine, &i.User, &i.Price.PerHour, &i.Price.Currency); err != nil {
			return err
		}
		i.Start, i.End = pack.Time(start), pack.Time(stop)
		all = append(all, i)
		return nil
	}, query, pack.Nanos(t))
	return all, err
}
