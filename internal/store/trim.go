package store

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal/internal/store/pack"
)

// trimStep is how many rows are deleted at once: others' Updates are not held up for long.
const trimStep = 2000

// TrimEvents deletes all but the newest keep events, and those from before a time (zero: of any
// age). It tells how many went.
func (db *DB) TrimEvents(ctx context.Context, keep int, before time.Time) (int64, error) {
	const old = `DELETE FROM events WHERE rev IN (SELECT rev FROM events WHERE time < ?1
		OR rev <= (SELECT rev FROM events ORDER BY rev DESC LIMIT 1 OFFSET ?2) ORDER BY rev LIMIT ?3)`
	n, err := db.trim(ctx, trimStep, old, pack.Nanos(before), max(keep, 0), trimStep)
	if err != nil || n == 0 {
		return n, err
	}
	_, err = db.trim(ctx, trimStep, `DELETE FROM event_ranges WHERE last IN (SELECT last FROM event_ranges
		WHERE rev < (SELECT coalesce(min(rev), 4611686018427387904) FROM events) LIMIT ?)`, trimStep)
	return n, err
}

// TrimHistory deletes sessions and apps that ended and machines that were gone before a time. The bill does
// not need them: it has intervals of its own.
func (db *DB) TrimHistory(ctx context.Context, before time.Time) (int64, error) {
	var total int64
	for _, what := range [][2]string{{"sessions", "ended"}, {"machines", "gone"}, {"apps", "ended"}, {"apps", "failed"}} {
		query := "DELETE FROM " + what[0] + " WHERE key IN (SELECT key FROM " + what[0] +
			" WHERE state = '" + what[1] + "' AND json_extract(body, '$.updated') < ? LIMIT ?)"
		n, err := db.trim(ctx, trimStep, query, before.UTC().Format("2006-01-02T15:04:05"), trimStep)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// trim repeats a statement that deletes at most step rows until it finds fewer.
func (db *DB) trim(ctx context.Context, step int64, query string, args ...any) (int64, error) {
	var total int64
	for {
		var n int64
		err := db.Update(ctx, func(tx *Tx) (err error) {
			n, err = tx.change(query, args...)
			return err
		})
		if err != nil {
			return total, err
		}
		if total += n; n < step {
			return total, nil
		}
	}
}
