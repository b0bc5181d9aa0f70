package store

import (
	"context"
	"database/sql"
	"math"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

const (
	// minPack is how many tasks a job must have for its attempts to be packed.
	minPack = 8
	// packStep is how many attempts are packed in one transaction: others' Updates wait for no more. Each writes the
	// pack of a chunk anew.
	packStep = 1000
	// packEarly is how many must have ended in a chunk before they are packed while their job goes on.
	packEarly = 2048
	// packJobs is how many jobs are looked at together.
	packJobs = 200
	// lastIndex is above all indexes.
	lastIndex = 1 << 40
)

// Pack packs attempts that ended as most do: those of arrays that have ended, and of large ones the chunks
// that are mostly done. It reads beside whatever else goes on, writes in small transactions, and rests as long
// as it works. It changes nothing that can be seen, and tells how many attempts it packed.
func (db *DB) Pack(ctx context.Context) (int, error) {
	total := 0
	for {
		ended, err := db.numbers(ctx, "SELECT job FROM unpacked ORDER BY job LIMIT ?", packJobs)
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

// numbers reads a column of numbers.
func (db *DB) numbers(ctx context.Context, query string, args ...any) (all []int64, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		all = nil
		return tx.query(func(rows Rows) error {
			var n int64
			err := rows.Scan(&n)
			all = append(all, n)
			return err
		}, query, args...)
	})
	return all, err
}

// packEnded packs some attempts of jobs that have ended, in order, and tells with how many jobs it is done. Of
// the first job it begins at an index; next is where to go on in the first that is left.
func (db *DB) packEnded(ctx context.Context, jobs []int64, from int) (total, done, next int, err error) {
	total, err = db.packOnce(ctx, func(tx *Tx) (all []packing, err error) {
		done, next = 0, from
		for left := packStep; done < len(jobs) && left > 0; {
			some, seen, after, err := tx.planPack(jobs[done], next, lastIndex, left)
			if err != nil {
				return nil, err
			}
			all, left, next = append(all, some...), left-max(seen, 1), after
			if after <= lastIndex {
				break
			}
			done, next = done+1, 0
		}
		return all, nil
	}, func(tx *Tx, changed map[int64]bool) error {
		for _, job := range jobs[:done] {
			if changed[job] {
				continue // it is looked at again
			}
			if _, err := tx.change("DELETE FROM unpacked WHERE job = ?", job); err != nil {
				return err
			}
		}
		return nil
	})
	return total, done, next, err
}

// packGoing packs the chunks of large arrays that are mostly done.
func (db *DB) packGoing(ctx context.Context) (total int, err error) {
	var large []int64
	err = db.View(ctx, func(tx *Tx) error {
		large = nil
		return tx.query(func(rows Rows) error {
			var job int64
			var hot sql.RawBytes
			if err := rows.Scan(&job, &hot); err != nil {
				return err
			}
			var j shoal.Job
			err := readHot(hot, &j)
			if j.Counts.Succeeded >= packEarly {
				large = append(large, job)
			}
			return err
		}, "SELECT job, hot FROM queue")
	})
	for _, job := range large {
		if err != nil {
			return total, err
		}
		var chunks []int64
		chunks, err = db.numbers(ctx, "SELECT idx >> "+strconv.Itoa(pack.ChunkBits)+" AS chunk FROM attempts WHERE job = ?1 AND "+candidates+
			" GROUP BY chunk HAVING count(*) >= ?2", job, packEarly)
		for _, chunk := range chunks {
			first := int(chunk) << pack.ChunkBits
			last := first + 1<<pack.ChunkBits - 1
			for from := first; err == nil && from <= last; {
				var n int
				n, err = db.packOnce(ctx, func(tx *Tx) (all []packing, err error) {
					all, _, from, err = tx.planPack(job, from, last, packStep)
					return all, err
				}, nil)
				total += n
			}
		}
	}
	return total, err
}

// packOnce plans what is to be packed, does it in one transaction together with also, and then rests as long as
// that took. changed are the jobs of which something was changed after the plan was made.
func (db *DB) packOnce(ctx context.Context, plan func(*Tx) ([]packing, error), also func(tx *Tx, changed map[int64]bool) error) (total int, err error) {
	began := time.Now()
	var all []packing
	err = db.View(ctx, func(tx *Tx) (err error) {
		all, err = plan(tx)
		return err
	})
	if err != nil {
		return 0, err
	}
	err = db.Update(ctx, func(tx *Tx) error {
		total = 0
		changed := map[int64]bool{}
		for _, p := range all {
			done, err := tx.carryOut(p)
			if err != nil {
				return err
			}
			if done {
				total += p.fresh
			} else {
				changed[p.job] = true
			}
		}
		if also == nil {
			return nil
		}
		return also(tx, changed)
	})
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Since(began)):
	}
	return total, nil
}

// candidates are the rows that can be packed, but for what only their bodies say.
const candidates = "idx >= 0 AND latest = 1 AND attempt = 1 AND state = 'succeeded'"

// packing is a plan to put some attempts of a chunk into its pack.
type packing struct {
	job          int64
	chunk        int
	first, last  int   // the indexes between which the rows lie
	rows         int   // how many of them could be packed
	fresh        int   // and are
	odd          []int // indexes of those that are not
	old          int   // attempts that the pack holds
	since, until int64
	size         int
	body         []byte
}

// planPack looks at no more than limit attempts of a job with indexes from lowest to highest, and says how
// those that can be are packed. next is the index to go on with, above highest if there are no more.
func (tx *Tx) planPack(job int64, lowest, highest, limit int) (all []packing, seen, next int, err error) {
	rows, err := list[shoal.Attempt](tx, "SELECT body FROM attempts WHERE job = ? AND idx BETWEEN ? AND ? AND "+candidates+" ORDER BY idx LIMIT ?",
		job, lowest, highest, limit)
	if err != nil {
		return nil, 0, lowest, err
	}
	seen, next = len(rows), highest+1
	if seen == limit {
		next = rows[seen-1].Index + 1
	}
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && pack.ChunkOf(rows[n].Index) == pack.ChunkOf(rows[0].Index) {
			n++
		}
		p, err := tx.planChunk(job, rows[:n])
		if err != nil {
			return nil, 0, lowest, err
		}
		if p.fresh > 0 {
			all = append(all, p)
		}
		rows = rows[n:]
	}
	return all, seen, next, nil
}

// planChunk says how attempts of one chunk are packed.
func (tx *Tx) planChunk(job int64, rows []shoal.Attempt) (packing, error) {
	p := packing{job: job, chunk: pack.ChunkOf(rows[0].Index), first: rows[0].Index, last: rows[len(rows)-1].Index, rows: len(rows), since: math.MaxInt64}
	old, err := tx.packOf(rows[0].Job, job, p.chunk, 0, -1)
	if err != nil {
		return p, err
	}
	like := rows[0]
	if len(old) > 0 {
		like = old[0]
	}
	var fresh []shoal.Attempt
	for _, a := range rows {
		if pack.Ordinary(a, like) {
			fresh = append(fresh, a)
		} else {
			p.odd = append(p.odd, a.Index)
		}
	}
	if p.fresh, p.old = len(fresh), len(old); p.fresh == 0 {
		return p, nil
	}
	all := pack.Merge(old, fresh)
	for _, a := range all {
		p.since, p.until = min(p.since, pack.Nanos(a.Placed)), max(p.until, pack.Nanos(a.Ended))
	}
	p.size, p.body = len(all), pack.Write(all)
	return p, nil
}

// carryOut packs what was planned. false: something has changed since.
func (tx *Tx) carryOut(p packing) (bool, error) {
	var rows, old int
	const look = "SELECT count(*), coalesce((SELECT size FROM packs WHERE job = ?1 AND chunk = ?4), 0) FROM attempts WHERE job = ?1 AND idx BETWEEN ?2 AND ?3 AND " + candidates
	err := tx.query(func(r Rows) error { return r.Scan(&rows, &old) }, look, p.job, p.first, p.last, p.chunk)
	if err != nil || rows != p.rows || old != p.old {
		return false, err
	}
	if err := tx.putPack(p); err != nil {
		return false, err
	}
	from := p.first
	for _, odd := range append(p.odd, p.last+1) { // what lies between those that stay
		if from < odd {
			if err := tx.exec("DELETE FROM attempts WHERE job = ? AND idx BETWEEN ? AND ? AND "+candidates, p.job, from, odd-1); err != nil {
				return false, err
			}
		}
		from = odd + 1
	}
	return true, nil
}

func (tx *Tx) putPack(p packing) error {
	const put = `INSERT INTO packs (job, chunk, until, since, size, body) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (job, chunk) DO UPDATE SET until = excluded.until, since = excluded.since, size = excluded.size, body = excluded.body`
	err := tx.put(put, p.job, p.chunk, p.until, p.since, p.size, p.body)
	return err
}

// PutPacked stores attempts of one job and chunk (see package pack) at once as they are after Pack, to fill a store with
// much that is long over. They are ordinary ones by rising index, and there are none of the chunk yet.
func (tx *Tx) PutPacked(all []shoal.Attempt) error {
	job, err := jobNumber(all[0].Job)
	if err != nil {
		return err
	}
	p, err := tx.planChunk(job, all)
	if err == nil && len(p.odd) > 0 {
		err = shoal.Errorf(shoal.KindInvalid, "cannot pack attempts of job %s: %d are not ordinary", all[0].Job, len(p.odd))
	}
	if err != nil {
		return err
	}
	return tx.putPack(p)
}

// packOf reads a pack like pack.Read; nothing if there is none.
func (tx *Tx) packOf(id shoal.JobID, job int64, chunk, first, limit int) (all []shoal.Attempt, err error) {
	err = tx.query(func(rows Rows) error {
		var body sql.RawBytes
		if err := rows.Scan(&body); err != nil {
			return err
		}
		all, err = pack.Read(id, chunk, body, first, limit)
		return err
	}, "SELECT body FROM packs WHERE job = ? AND chunk = ?", job, chunk)
	return all, err
}

// packed returns the packed attempts of a job with indexes from first on, by index, at most limit.
func (tx *Tx) packed(id shoal.JobID, job int64, first, limit int) (all []shoal.Attempt, err error) {
	enough := errEnough{}
	err = tx.query(func(rows Rows) error {
		var chunk int
		var body sql.RawBytes
		if err := rows.Scan(&chunk, &body); err != nil {
			return err
		}
		left := limit
		if limit >= 0 {
			left = limit - len(all)
		}
		some, err := pack.Read(id, chunk, body, first, left)
		if all = append(all, some...); err == nil && limit >= 0 && len(all) >= limit {
			return enough
		}
		return err
	}, "SELECT chunk, body FROM packs WHERE job = ? AND chunk >= ? ORDER BY chunk", job, pack.ChunkOf(first))
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
	all, err := tx.packOf(ref.Job, job, pack.ChunkOf(ref.Index), ref.Index, 1)
	if err != nil || len(all) == 0 || all[0].Index != ref.Index {
		return nil, err
	}
	return all, nil
}

// PackedBetween returns packed attempts that held a machine between two times. Their order means nothing.
func (tx *Tx) PackedBetween(from, to time.Time) (all []shoal.Attempt, err error) {
	err = tx.query(func(rows Rows) error {
		var job int64
		var chunk int
		var body sql.RawBytes
		if err := rows.Scan(&job, &chunk, &body); err != nil {
			return err
		}
		some, err := pack.Read(shoal.JobID(strconv.FormatInt(job, 10)), chunk, body, 0, -1)
		for _, a := range some {
			if a.Ended.After(from) && a.Placed.Before(to) {
				all = append(all, a)
			}
		}
		return err
	}, "SELECT job, chunk, body FROM packs WHERE until > ? AND since < ?", pack.Nanos(from), pack.Nanos(to))
	return all, err
}

// CountPacked is about how many attempts PackedBetween returns, and never less.
func (tx *Tx) CountPacked(from, to time.Time) (n int, err error) {
	err = tx.query(func(rows Rows) error { return rows.Scan(&n) },
		"SELECT coalesce(sum(size), 0) FROM packs WHERE until > ? AND since < ?", pack.Nanos(from), pack.Nanos(to))
	return n, err
}
