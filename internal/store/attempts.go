package store

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// PutAttempt stores an attempt, replacing what was stored of it. It is the cheapest write of the
// store: one row, no revision conflict to check.
func (tx *Tx) PutAttempt(a shoal.Attempt) error {
	job, err := jobNumber(a.Job)
	if err != nil {
		return err
	}
	if a.Attempt < 1 {
		return shoal.Errorf(shoal.KindInvalid, "cannot store attempt %s: attempts count from 1", a.AttemptRef)
	}
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("cannot store attempt %s: %w", a.AttemptRef, err)
	}
	const put = `INSERT INTO attempts (job, idx, attempt, latest, machine, user, state, ended, body)
		VALUES (?1, ?2, ?3, CASE WHEN EXISTS (SELECT 1 FROM attempts WHERE job = ?1 AND idx = ?2 AND attempt > ?3) THEN 0 ELSE 1 END, ?4, ?5, ?6, ?7, ?8)
		ON CONFLICT (job, idx, attempt) DO UPDATE SET machine = ?4, user = ?5, state = ?6, ended = ?7, body = ?8`
	if err := tx.put(put, job, a.Index, a.Attempt, string(a.Machine), string(a.User), string(a.State), pack.Nanos(a.Ended), string(body)); err != nil {
		return fmt.Errorf("cannot store attempt %s: %w", a.AttemptRef, err)
	}
	if len(a.Members) > 1 {
		if err := tx.putNodes(job, a); err != nil {
			return err
		}
	}
	if a.Attempt == 1 {
		return nil
	}
	const older = "UPDATE attempts SET latest = 0 WHERE job = ? AND idx = ? AND attempt < ? AND latest = 1"
	err = tx.exec(older, job, a.Index, a.Attempt)
	return err
}

// putNodes keeps the list of the machines of an attempt that has several, while it is starting or running.
func (tx *Tx) putNodes(job int64, a shoal.Attempt) error {
	if a.State.Ended() {
		err := tx.exec("DELETE FROM attempt_nodes WHERE job = ? AND idx = ? AND attempt = ?", job, a.Index, a.Attempt)
		return err
	}
	for _, m := range a.Members[1:] {
		const put = "INSERT INTO attempt_nodes (machine, job, idx, attempt) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
		if err := tx.exec(put, string(m.Machine), job, a.Index, a.Attempt); err != nil {
			return err
		}
	}
	return nil
}

func jobNumber(id shoal.JobID) (int64, error) {
	n, err := strconv.ParseInt(string(id), 10, 64)
	if err != nil || n <= 0 {
		return 0, shoal.Errorf(shoal.KindNotFound, "no job %q", string(id))
	}
	return n, nil
}

// Attempt returns the latest attempt of a task, or KindNotFound.
func (tx *Tx) Attempt(ref shoal.TaskRef) (shoal.Attempt, error) {
	all, err := tx.attemptsOf(ref.Job, "SELECT body FROM attempts WHERE job = ? AND idx = ? ORDER BY attempt DESC LIMIT 1", ref.Index)
	if err == nil && len(all) == 0 {
		all, err = tx.packedOne(ref)
	}
	if err != nil {
		return shoal.Attempt{}, err
	}
	if len(all) == 0 {
		return shoal.Attempt{}, shoal.Errorf(shoal.KindNotFound, "task %s has had no attempt", ref)
	}
	return all[0], nil
}

// History returns all attempts of a task, oldest first.
func (tx *Tx) History(ref shoal.TaskRef) ([]shoal.Attempt, error) {
	all, err := tx.attemptsOf(ref.Job, "SELECT body FROM attempts WHERE job = ? AND idx = ? ORDER BY attempt", ref.Index)
	if err != nil || len(all) > 0 && all[0].Attempt == 1 {
		return all, err
	}
	first, err := tx.packedOne(ref)
	return append(first, all...), err
}

// Attempts returns the latest attempt of each task of a job whose index is from or more, by index.
// A limit of 0 means all.
func (tx *Tx) Attempts(job shoal.JobID, from, limit int) ([]shoal.Attempt, error) {
	const query = "SELECT body FROM attempts WHERE job = ? AND idx >= ? AND latest = 1 ORDER BY idx LIMIT ?"
	limit = unlimited(limit)
	all, err := tx.attemptsOf(job, query, from, limit)
	if err != nil {
		return nil, err
	}
	n, err := jobNumber(job)
	if err != nil {
		return nil, err
	}
	packed, err := tx.packed(job, n, max(from, 0), limit)
	if err != nil || len(packed) == 0 {
		return all, err
	}
	all = pack.Merge(packed, all)
	if limit >= 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

// Failures returns the latest attempts of a job that ended their task otherwise than succeeded
// (failed, timedout, cancelled), lowest index first. A limit of 0 means all.
func (tx *Tx) Failures(job shoal.JobID, limit int) ([]shoal.Attempt, error) {
	const query = `SELECT body FROM attempts WHERE job = ? AND idx >= 0 AND latest = 1 AND state IN ('failed', 'timedout', 'cancelled')
		ORDER BY idx LIMIT ?`
	return tx.attemptsOf(job, query, unlimited(limit))
}

func (tx *Tx) attemptsOf(job shoal.JobID, query string, args ...any) ([]shoal.Attempt, error) {
	n, err := jobNumber(job)
	if err != nil {
		return nil, err
	}
	return list[shoal.Attempt](tx, query, append([]any{n}, args...)...)
}

// LiveAttempts returns all attempts that are starting or running.
func (tx *Tx) LiveAttempts() ([]shoal.Attempt, error) {
	return list[shoal.Attempt](tx, "SELECT body FROM attempts WHERE state IN ('starting', 'running') ORDER BY machine, job, idx")
}

// LiveAttemptsOn returns the attempts that are starting or running on a machine, as any of their nodes.
func (tx *Tx) LiveAttemptsOn(machine shoal.MachineID) ([]shoal.Attempt, error) {
	const query = "SELECT body FROM attempts WHERE machine = ? AND state IN ('starting', 'running') ORDER BY job, idx"
	all, err := list[shoal.Attempt](tx, query, string(machine))
	if err != nil {
		return nil, err
	}
	const others = `SELECT a.body FROM attempt_nodes n JOIN attempts a ON a.job = n.job AND a.idx = n.idx AND a.attempt = n.attempt
		WHERE n.machine = ? ORDER BY n.job, n.idx`
	more, err := list[shoal.Attempt](tx, others, string(machine))
	return append(all, more...), err
}

// MachinesWithTasksOf returns the machines on which tasks of a user are starting or running.
func (tx *Tx) MachinesWithTasksOf(user shoal.UserName) ([]shoal.MachineID, error) {
	var all []shoal.MachineID
	err := tx.query(func(rows Rows) error {
		var id shoal.MachineID
		err := rows.Scan(&id)
		all = append(all, id)
		return err
	}, `SELECT machine FROM attempts WHERE state IN ('starting', 'running') AND user = ?1
		UNION SELECT n.machine FROM attempt_nodes n JOIN attempts a ON a.job = n.job AND a.idx = n.idx AND a.attempt = n.attempt
		WHERE a.user = ?1 ORDER BY machine`, string(user))
	return all, err
}

// LooseAttemptsSince returns the attempts that held a machine at t or later, but for those that are packed:
// those that ended after t and those that are starting or running. Their order means nothing.
func (tx *Tx) LooseAttemptsSince(t time.Time) ([]shoal.Attempt, error) {
	live, err := tx.LiveAttempts()
	if err != nil {
		return nil, err
	}
	const query = "SELECT body FROM attempts WHERE ended > 0 AND ended > ? AND state NOT IN ('starting', 'running') ORDER BY ended, job, idx, attempt"
	ended, err := list[shoal.Attempt](tx, query, pack.Nanos(t))
	return append(ended, live...), err
}

// unlimited turns 0 into a limit that is none.
func unlimited(n int) int {
	if n <= 0 {
		return math.MaxInt
	}
	return n
}
