package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// PastJob is what is left of a job of long ago: that it was, and how it ended.
type PastJob struct {
	ID        shoal.JobID    `json:"-"`
	User      shoal.UserName `json:"-"`
	Name      string         `json:"name,omitempty"`
	Pool      shoal.PoolName `json:"pool"`
	Share     string         `json:"share,omitempty"`
	External  string         `json:"externalId,omitempty"`
	State     shoal.JobState `json:"state"`
	Reason    string         `json:"reason,omitempty"`
	ExitCode  int            `json:"exitCode,omitempty"`
	Signal    int            `json:"signal,omitempty"`
	Cause     shoal.Cause    `json:"cause,omitempty"`
	Attempts  int            `json:"attempts,omitempty"`
	Counts    shoal.Counts   `json:"counts"`
	MaxMemory shoal.Bytes    `json:"maxMemory,omitempty"`
	CPUTime   shoal.Duration `json:"cpuTime,omitempty"`
	Submitted time.Time      `json:"submitted,omitzero"`
	Started   time.Time      `json:"started,omitzero"`
	Ended     time.Time      `json:"ended,omitzero"`
	Rev       shoal.Rev      `json:"rev,omitempty"`
}

// Job is a past job in the form of others, as far as anything is known of it.
func (p PastJob) Job() shoal.Job {
	j := shoal.Job{ID: p.ID, User: p.User, State: p.State, Reason: p.Reason, Since: p.Ended, Counts: p.Counts, Next: p.Counts.Total(),
		Submitted: p.Submitted, Started: p.Started, Ended: p.Ended,
		Spec: shoal.JobSpec{Name: p.Name, Pool: p.Pool, Share: p.Share, ExternalID: p.External}}
	j.Rev = p.Rev
	return j
}

// PastJob returns what is left of a job; false if nothing is, because there was none or all of it is there.
func (tx *Tx) PastJob(id shoal.JobID) (p PastJob, found bool, err error) {
	n, err := strconv.ParseInt(string(id), 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != string(id) {
		return p, false, nil
	}
	p.ID = id
	err = tx.query(func(rows Rows) error {
		found = true
		var body sql.RawBytes
		if err := rows.Scan(&p.User, &body); err != nil {
			return err
		}
		return json.Unmarshal(body, &p)
	}, "SELECT user, body FROM past_jobs WHERE job = ?", n)
	return p, found, err
}

// JobsEndedBefore returns jobs that ended before a time, those that ended first, at most limit.
func (tx *Tx) JobsEndedBefore(t time.Time, limit int) ([]shoal.Job, error) {
	return list[shoal.Job](tx, "SELECT body FROM jobs WHERE ended > 0 AND ended < ? ORDER BY ended LIMIT ?", pack.Nanos(t), unlimited(limit))
}

// ForgetJobs leaves of jobs that have ended what past says of each. The attempts of large ones are to be
// trimmed before.
func (tx *Tx) ForgetJobs(past []PastJob) error {
	for _, p := range past {
		n, err := jobNumber(p.ID)
		if err != nil {
			return err
		}
		body, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("cannot forget job %s: %w", p.ID, err)
		}
		if err := tx.put("INSERT INTO past_jobs (job, user, body) VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE SET user = excluded.user, body = excluded.body", n, string(p.User), string(body)); err != nil {
			return err
		}
		if err := tx.Jobs().Delete(p.ID); err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return err
		}
	}
	return nil
}

// Of the attempts of a job so many go at once: packs are large.
const (
	trimPacks = 20
	trimRows  = 500
)

// TrimAttempts deletes the attempts of a job, some at a time. It tells how many rows went.
func (db *DB) TrimAttempts(ctx context.Context, job shoal.JobID) (int64, error) {
	n, err := jobNumber(job)
	if err != nil {
		return 0, err
	}
	const packs = "DELETE FROM packs WHERE job = ?1 AND chunk IN (SELECT chunk FROM packs WHERE job = ?1 ORDER BY chunk LIMIT ?2)"
	total, err := db.trim(ctx, trimPacks, packs, n, trimPacks)
	if err != nil {
		return total, err
	}
	// The primary key of attempts is what a step is told by: all up to one of them.
	const rows = `DELETE FROM attempts WHERE job = ?1 AND idx <= coalesce(
		(SELECT idx FROM attempts WHERE job = ?1 ORDER BY idx, attempt LIMIT 1 OFFSET ?2), 1099511627776)`
	for {
		var gone int64
		err := db.Update(ctx, func(tx *Tx) (err error) {
			gone, err = tx.change(rows, n, trimRows)
			return err
		})
		if total += gone; err != nil || gone < trimRows {
			return total, err
		}
	}
}
