package store

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/commit"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// Event stores an event with this Update. Rev is filled in, and Time if it is zero.
func (tx *Tx) Event(e shoal.Event) {
	if e.Time.IsZero() {
		e.Time = now()
	}
	e.Rev = tx.db.Next()
	body, err := json.Marshal(e) // strings and times: it cannot fail for a time of this age
	if err == nil {
		const insert = "INSERT INTO events (rev, time, kind, name, body) VALUES (?, ?, ?, ?, ?)"
		err = tx.exec(insert, int64(e.Rev), pack.Nanos(e.Time), string(e.Kind), e.Name, string(body))
	}
	tx.db.Spoil(err) // an Update whose event cannot be stored is not stored
	tx.db.Events = e.Rev
	if e.Kind != shoal.ObjectJob {
		tx.db.Others = e.Rev
	}
}

// EventAboutJobs stores an event about all the jobs numbered from first to last. Its name is "first-last".
func (tx *Tx) EventAboutJobs(e shoal.Event, first, last shoal.JobID) error {
	from, err := jobNumber(first)
	if err != nil {
		return err
	}
	to, err := jobNumber(last)
	if err != nil {
		return err
	}
	e.Kind, e.Name = shoal.ObjectJob, string(first)+"-"+string(last)
	tx.Event(e)
	err = tx.exec("INSERT INTO event_ranges (last, first, rev) VALUES (?, ?, ?) ON CONFLICT (last) DO UPDATE SET first = excluded.first, rev = excluded.rev", to, from, int64(tx.db.Events))
	return err
}

// Events returns the events after a revision, oldest first, at most limit.
func (tx *Tx) Events(since shoal.Rev, limit int) ([]shoal.Event, error) {
	return list[shoal.Event](tx, "SELECT body FROM events WHERE rev > ? ORDER BY rev LIMIT ?", int64(since), unlimited(limit))
}

// EventsAbout returns the latest events about one object, newest first; of a job also the one that tells
// of several jobs and of this among them.
func (tx *Tx) EventsAbout(kind shoal.ObjectKind, name string, limit int) ([]shoal.Event, error) {
	const query = "SELECT body FROM events WHERE kind = ? AND name = ? ORDER BY rev DESC LIMIT ?"
	all, err := list[shoal.Event](tx, query, string(kind), name, unlimited(limit))
	n, numErr := jobNumber(shoal.JobID(name))
	if err != nil || kind != shoal.ObjectJob || numErr != nil || limit > 0 && len(all) >= limit {
		return all, err
	}
	const among = `SELECT body FROM events WHERE rev = (SELECT CASE WHEN first <= ?1 THEN rev END
		FROM event_ranges WHERE last >= ?1 ORDER BY last LIMIT 1)`
	of, err := list[shoal.Event](tx, among, n)
	return append(all, of...), err
}

// EventsFrom returns the revision before the first event at or after a time: the since of
// Events and Watch that starts there.
func (tx *Tx) EventsFrom(t time.Time) (shoal.Rev, error) {
	all, err := list[shoal.Event](tx, "SELECT body FROM events WHERE time >= ? ORDER BY rev LIMIT 1", pack.Nanos(t))
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return tx.Rev()
	}
	return all[0].Rev - 1, nil
}

// watchBatch is how many events Watch reads at once.
const watchBatch = 256

// Watch yields the stored events after since and then those that come, without a gap, until ctx
// ends or the loop is left. An error ends it; the end of ctx is not one. Of events that were
// trimmed away it knows nothing: it starts with the oldest that is left.
func (db *DB) Watch(ctx context.Context, since shoal.Rev) iter.Seq2[shoal.Event, error] {
	return db.watch(ctx, since, func(r commit.Revs) shoal.Rev { return r.Events }, "SELECT body FROM events WHERE rev > ? ORDER BY rev LIMIT ?")
}

// WatchOthers is Watch without the events about jobs, which may be hundreds a second.
func (db *DB) WatchOthers(ctx context.Context, since shoal.Rev) iter.Seq2[shoal.Event, error] {
	return db.watch(ctx, since, func(r commit.Revs) shoal.Rev { return r.Others }, "SELECT body FROM events WHERE rev > ? AND kind <> '"+string(shoal.ObjectJob)+"' ORDER BY rev LIMIT ?")
}

func (db *DB) watch(ctx context.Context, since shoal.Rev, last func(commit.Revs) shoal.Rev, query string) iter.Seq2[shoal.Event, error] {
	return func(yield func(shoal.Event, error) bool) {
		for {
			changed := db.Changed()
			for last(db.in.Revs()) > since {
				var batch []shoal.Event
				err := db.View(ctx, func(tx *Tx) (err error) {
					batch, err = list[shoal.Event](tx, query, int64(since), watchBatch)
					return err
				})
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					yield(shoal.Event{}, err)
					return
				}
				if len(batch) == 0 {
					break
				}
				for _, e := range batch {
					if ctx.Err() != nil || !yield(e, nil) {
						return
					}
					since = e.Rev
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			case <-db.in.Closing():
				yield(shoal.Event{}, commit.ErrClosed())
				return
			}
		}
	}
}
