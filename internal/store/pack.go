package store

import (
	"context"
	"database/sql"
	"math"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
)

const (
	// minPack is how many tasks a job must have for its attempts to be packed.
	minPack = 8
	// packStep is how many attempts are packed in one transaction: others' Updates wait for no more.
	packStep = 1000
	// packEarly is how many must have ended in a chunk before they are packed while their job goes on.
	packEarly = 2048
	// packJobs is how many jobs are looked at together.
	packJobs = 200
)

// Pack packs attempts that ended as most do: those of arrays that have ended, and of large ones the chunks
// that are mostly done. It works in small transactions, changes nothing that can be seen, and tells how
// many attempts it packed.
func (db *DB) Pack(ctx context.Context) (int, error) {
	total := 0
	for {
		var ended []int64
		err := db.View(ctx, func(tx *Tx) error {
			ended = nil
			return tx.query(func(rows *sql.Rows) error {
				var job int64
				err := rows.Scan(&job)
				ended = append(ended, job)
				return err
			}, "SELECT job FROM unpacked ORDER BY job LIMIT ?", packJobs)
		})
		if err != nil {
			return total, err
		}
		if len(ended) == 0 {
			break
		}
		for from := 0; len(ended) > 0; {
			n, done, next, err := db.packEnded(ctx, ended, from)
			if total += n; err != nil {
				return total, err
			}
			ended, from = ended[done:], next
		}
	}
	n, err := db.packGoing(ctx)
	return total + n, err
}

// packEnded packs about packStep attempts of jobs that have ended, in order, and tells of how many jobs
// all are packed. Of the first job it begins at an index; next is where to go on in the first that is left.
func (db *DB) packEnded(ctx context.Context, jobs []int64, from int) (total, done, next int, err error) {
	err = db.Update(ctx, func(tx *Tx) error {
		total, done, next = 0, 0, from
		for left := packStep; done < len(jobs) && left > 0; {
			n, seen, after, err := tx.packSome(jobs[done], next, lastIndex, left)
			if err != nil {
				return err
			}
			total, left, next = total+n, left-max(seen, 1), after
			if after <= lastIndex {
				return nil
			}
			if _, err := tx.change("DELETE FROM unpacked WHERE job = ?", jobs[done]); err != nil {
				return err
			}
			done, next = done+1, 0
		}
		return nil
	})
	return total, done, next, err
}

// packGoing packs the chunks of large arrays that are mostly done.
func (db *DB) packGoing(ctx context.Context) (int, error) {
	var large []int64
	err := db.View(ctx, func(tx *Tx) error {
		large = nil
		return tx.EachActiveJob(func(j shoal.Job) error {
			if j.Counts.Succeeded < packEarly {
				return nil
			}
			n, err := jobNumber(j.ID)
			large = append(large, n)
			return err
		})
	})
	total := 0
	for _, job := range large {
		n, goErr := db.packChunks(ctx, job)
		if total += n; goErr != nil {
			return total, goErr
		}
	}
	return total, err
}

// packChunks packs the chunks of a job in which enough has ended.
func (db *DB) packChunks(ctx context.Context, job int64) (int, error) {
	var chunks []int
	err := db.View(ctx, func(tx *Tx) error {
		chunks = nil
		return tx.query(func(rows *sql.Rows) error {
			var chunk int
			err := rows.Scan(&chunk)
			chunks = append(chunks, chunk)
			return err
		}, "SELECT idx >> "+strconv.Itoa(chunkBits)+" AS chunk FROM attempts WHERE job = ?1 AND "+candidates+" GROUP BY chunk HAVING count(*) >= ?2", job, packEarly)
	})
	total := 0
	for _, chunk := range chunks {
		last := (chunk+1)<<chunkBits - 1
		for from := chunk << chunkBits; err == nil && from <= last; {
			packed, next := 0, 0
			err = db.Update(ctx, func(tx *Tx) (err error) {
				packed, _, next, err = tx.packSome(job, from, last, packStep)
				return err
			})
			total, from = total+packed, next
		}
	}
	return total, err
}

// candidates are the rows that can be packed, but for what only their bodies say.
const candidates = "idx >= 0 AND latest = 1 AND attempt = 1 AND state = 'succeeded'"

// lastIndex is above all indexes.
const lastIndex = 1 << 40

// packSome looks at no more than limit attempts of a job with indexes from lowest to highest, and packs
// those that can be. next is the index to go on with, above highest if there are no more.
func (tx *Tx) packSome(job int64, lowest, highest, limit int) (packed, seen, next int, err error) {
	id := shoal.JobID(strconv.FormatInt(job, 10))
	rows, err := list[shoal.Attempt](tx, "SELECT body FROM attempts WHERE job = ? AND idx BETWEEN ? AND ? AND "+candidates+" ORDER BY idx LIMIT ?",
		job, lowest, highest, limit)
	if err != nil {
		return 0, 0, lowest, err
	}
	seen, next = len(rows), highest+1
	if seen == limit {
		next = rows[seen-1].Index + 1
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && chunkOf(rows[n].Index) == chunkOf(rows[0].Index) {
			n++
		}
		fresh, err := tx.packChunk(id, job, rows[:n])
		if err != nil {
			return 0, 0, lowest, err
		}
		packed += fresh
		rows = rows[n:]
	}
	return packed, seen, next, nil
}

// packChunk packs those of a chunk's attempts that can be, and tells how many.
func (tx *Tx) packChunk(id shoal.JobID, job int64, rows []shoal.Attempt) (int, error) {
	chunk := chunkOf(rows[0].Index)
	old, err := tx.pack(id, job, chunk, 0, -1)
	if err != nil {
		return 0, err
	}
	like := rows[0]
	if len(old) > 0 {
		like = old[0]
	}
	var fresh []shoal.Attempt
	for _, a := range rows {
		if ordinary(a, like) {
			fresh = append(fresh, a)
		}
	}
	if len(fresh) == 0 {
		return 0, nil
	}
	all := merge(old, fresh)
	since, until := int64(math.MaxInt64), int64(0)
	for _, a := range all {
		since, until = min(since, nanos(a.Placed)), max(until, nanos(a.Ended))
	}
	const put = "INSERT OR REPLACE INTO packs (job, chunk, until, since, size, body) VALUES (?, ?, ?, ?, ?, ?)"
	if _, err := tx.change(put, job, chunk, until, since, len(all), packAttempts(all)); err != nil {
		return 0, err
	}
	if len(fresh) == len(rows) {
		_, err := tx.exec("DELETE FROM attempts WHERE job = ? AND idx BETWEEN ? AND ? AND "+candidates, job, rows[0].Index, rows[len(rows)-1].Index)
		return len(fresh), err
	}
	for _, a := range fresh {
		if _, err := tx.exec("DELETE FROM attempts WHERE job = ? AND idx = ? AND attempt = 1", job, a.Index); err != nil {
			return 0, err
		}
	}
	return len(fresh), nil
}

// pack reads a pack like unpackAttempts; nothing if there is none.
func (tx *Tx) pack(id shoal.JobID, job int64, chunk, first, limit int) (all []shoal.Attempt, err error) {
	err = tx.query(func(rows *sql.Rows) error {
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return err
		}
		all, err = unpackAttempts(id, chunk, body, first, limit)
		return err
	}, "SELECT body FROM packs WHERE job = ? AND chunk = ?", job, chunk)
	return all, err
}

// packed returns the packed attempts of a job with indexes from first on, by index, at most limit.
func (tx *Tx) packed(id shoal.JobID, job int64, first, limit int) (all []shoal.Attempt, err error) {
	enough := errEnough{}
	err = tx.query(func(rows *sql.Rows) error {
		var chunk int
		var body sql.RawBytes
		if err := rows.Scan(&chunk, &body); err != nil {
			return err
		}
		left := limit
		if limit >= 0 {
			left = limit - len(all)
		}
		some, err := unpackAttempts(id, chunk, body, first, left)
		if all = append(all, some...); err == nil && limit >= 0 && len(all) >= limit {
			return enough
		}
		return err
	}, "SELECT chunk, body FROM packs WHERE job = ? AND chunk >= ? ORDER BY chunk", job, chunkOf(first))
	if err == enough { //nolint:errorlint // it comes back as it is
		err = nil
	}
	return all, err
}

// errEnough ends a walk over rows.
type errEnough struct{}

func (errEnough) Error() string { return "that is enough" }

// packedOne returns the packed attempt at a task; nothing if there is none.
func (tx *Tx) packedOne(ref shoal.TaskRef) ([]shoal.Attempt, error) {
	job, err := jobNumber(ref.Job)
	if err != nil || ref.Index < 0 {
		return nil, err
	}
	all, err := tx.pack(ref.Job, job, chunkOf(ref.Index), ref.Index, 1)
	if err != nil || len(all) == 0 || all[0].Index != ref.Index {
		return nil, err
	}
	return all, nil
}

// PackedBetween returns packed attempts that held a machine between two times. Their order means nothing.
func (tx *Tx) PackedBetween(from, to time.Time) (all []shoal.Attempt, err error) {
	err = tx.query(func(rows *sql.Rows) error {
		var job int64
		var chunk int
		var body sql.RawBytes
		if err := rows.Scan(&job, &chunk, &body); err != nil {
			return err
		}
		some, err := unpackAttempts(shoal.JobID(strconv.FormatInt(job, 10)), chunk, body, 0, -1)
		for _, a := range some {
			if a.Ended.After(from) && a.Placed.Before(to) {
				all = append(all, a)
			}
		}
		return err
	}, "SELECT job, chunk, body FROM packs WHERE until > ? AND since < ?", nanos(from), nanos(to))
	return all, err
}

// CountPacked is about how many attempts PackedBetween returns, and never less.
func (tx *Tx) CountPacked(from, to time.Time) (n int, err error) {
	err = tx.query(func(rows *sql.Rows) error { return rows.Scan(&n) },
		"SELECT coalesce(sum(size), 0) FROM packs WHERE until > ? AND since < ?", nanos(from), nanos(to))
	return n, err
}
