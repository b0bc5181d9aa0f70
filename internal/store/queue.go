package store

import (
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// The table queue has a row for each job that has not ended, and nothing else: finished jobs, however
// many there are, cost nothing when it is read. A row is a job in short. Its shape is JSON and the same
// for most jobs of a user, so that it is decoded once; the rest is a string of numbers.

// shape is what a job in short has of what does not change.
type shape struct {
	User shoal.UserName `json:"user"`
	Spec shoal.JobSpec  `json:"spec"`
}

// shapeOf leaves out what only matters to whoever runs a job.
func shapeOf(j *shoal.Job) shape {
	s := j.Spec
	s.Name, s.Command, s.Workdir, s.Prepare, s.Release, s.Stdout, s.Stderr, s.ExternalID = "", "", "", "", "", "", "", ""
	s.Env, s.Inputs, s.Outputs, s.Secrets, s.Labels, s.Items, s.Container = nil, nil, nil, nil, nil, nil, nil
	if len(s.Tasks) > 0 {
		s.Tasks = make([]shoal.TaskSpec, len(s.Tasks))
		for i, t := range j.Spec.Tasks {
			s.Tasks[i] = shoal.TaskSpec{Name: t.Name, After: t.After}
		}
	}
	return shape{j.User, s}
}

// The layout of hot: a version, flags, the state, then numbers.
const (
	hotVersion = 1
	hotCancel  = 1 << 0
	hotBlocked = 1 << 1
)

func hotStates() []shoal.JobState {
	return []shoal.JobState{shoal.JobQueued, shoal.JobStarting, shoal.JobRunning}
}

// hotOf is the part of a job in short that changes.
func hotOf(j *shoal.Job) []byte {
	b := make([]byte, 3, 40)
	b[0] = hotVersion
	if j.Cancel {
		b[1] |= hotCancel
	}
	if j.Blocked {
		b[1] |= hotBlocked
	}
	for i, s := range hotStates() {
		if s == j.State {
			b[2] = byte(i)
		}
	}
	c := j.Counts
	for _, n := range []int{j.Next, j.Items, c.Queued, c.Starting, c.Running, c.Succeeded, c.Failed, c.Cancelled, c.TimedOut, int(j.Rev)} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(pack.Nanos(j.Submitted))), uint64(pack.Nanos(j.Started)))
}

var errShort = errors.New("a row of the queue cannot be read")

// readHot fills in what hotOf wrote.
func readHot(b []byte, j *shoal.Job) error {
	states := hotStates()
	if len(b) < 3 || b[0] != hotVersion || int(b[2]) >= len(states) {
		return errShort
	}
	j.Cancel, j.Blocked, j.State = b[1]&hotCancel != 0, b[1]&hotBlocked != 0, states[b[2]]
	b = b[3:]
	c := &j.Counts
	for _, n := range []*int{&j.Next, &j.Items, &c.Queued, &c.Starting, &c.Running, &c.Succeeded, &c.Failed, &c.Cancelled, &c.TimedOut} {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return errShort
		}
		*n, b = int(v), b[size:]
	}
	rev, n1 := binary.Uvarint(b)
	submitted, n2 := binary.Uvarint(b[max(n1, 0):])
	started, n3 := binary.Uvarint(b[max(n1, 0)+max(n2, 0):])
	if n1 <= 0 || n2 <= 0 || n3 <= 0 {
		return errShort
	}
	j.Rev, j.Submitted, j.Started = shoal.Rev(rev), pack.Time(int64(submitted)), pack.Time(int64(started))
	return nil
}

// queueJob keeps the queue true to a job that was written.
func (tx *Tx) queueJob(j *shoal.Job, fresh bool) error {
	n, err := jobNumber(j.ID)
	if err != nil {
		return err
	}
	if j.State.Ended() {
		if err = tx.exec("DELETE FROM queue WHERE job = ?", n); err == nil && j.Counts.Total() >= minPack {
			err = tx.exec("INSERT INTO unpacked (job) VALUES (?) ON CONFLICT DO NOTHING", n)
		}
		return err
	}
	hot := hotOf(j)
	if !fresh {
		changed, err := tx.db.Exec("UPDATE queue SET hot = ? WHERE job = ?", hot, n)
		if err != nil || changed > 0 {
			return err
		} // else it is tried again after its end
	}
	text, err := json.Marshal(shapeOf(j))
	if err != nil {
		return fmt.Errorf("cannot store job %s: %w", j.ID, err)
	}
	err = tx.exec("INSERT INTO queue (job, hot, shape) VALUES (?, ?, ?) ON CONFLICT (job) DO UPDATE SET hot = excluded.hot, shape = excluded.shape", n, hot, string(text))
	return err
}

// maxShapes bounds how many shapes are kept in mind while the queue is read.
const maxShapes = 4096

// EachActiveJob hands the jobs that have not ended to fn one by one, oldest first. They are in short:
// Reason, Since, Created and Updated are missing, and of Spec there is only what their placement goes by.
// What two jobs have in common they may share: fn changes nothing that Spec refers to. fn must not use
// tx; its error ends the walk.
func (tx *Tx) EachActiveJob(fn func(shoal.Job) error) error {
	shapes := map[string]*shape{}
	var failed error
	err := tx.query(func(rows Rows) error {
		var id int64
		var hot, text sql.RawBytes
		if err := rows.Scan(&id, &hot, &text); err != nil {
			return err
		}
		s := shapes[string(text)]
		if s == nil {
			s = &shape{}
			if err := json.Unmarshal(text, s); err != nil {
				return fmt.Errorf("cannot read job %d of the queue: %w", id, err)
			}
			if len(shapes) >= maxShapes {
				clear(shapes)
			}
			shapes[string(text)] = s
		}
		j := shoal.Job{ID: shoal.JobID(strconv.FormatInt(id, 10)), User: s.User, Spec: s.Spec}
		if err := readHot(hot, &j); err != nil {
			return fmt.Errorf("cannot read job %d of the queue: %w", id, err)
		}
		failed = fn(j)
		return failed
	}, "SELECT job, hot, shape FROM queue ORDER BY job")
	if failed != nil {
		return failed
	}
	return err
}

// ActiveJobs are the jobs that have not ended, oldest first, in short like those of EachActiveJob.
func (tx *Tx) ActiveJobs() (all []shoal.Job, err error) {
	err = tx.EachActiveJob(func(j shoal.Job) error { all = append(all, j); return nil })
	return all, err
}

// NextJobID counts up the number of jobs. A rolled-back Update gives its number back.
func (tx *Tx) NextJobID() (shoal.JobID, error) { return tx.NextJobIDs(1) }

// NextJobIDs takes n numbers for jobs, in a row, and returns the first.
func (tx *Tx) NextJobIDs(n int) (shoal.JobID, error) {
	first := tx.db.Job + 1
	tx.db.Job += int64(n)
	return shoal.JobID(strconv.FormatInt(first, 10)), tx.put("UPDATE counters SET value = ? WHERE name = 'job'", tx.db.Job)
}

// fillQueue makes the queue of a file that had none.
func fillQueue(tx *Tx) error {
	var ids []int64
	err := tx.query(func(rows Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, "SELECT key FROM jobs ORDER BY key")
	if err != nil {
		return err
	}
	for _, id := range ids {
		j, err := tx.Jobs().Get(shoal.JobID(strconv.FormatInt(id, 10)))
		if err != nil {
			return err
		}
		if err := tx.queueJob(&j, true); err != nil {
			return err
		}
		ended := j.Ended
		if j.State.Ended() && ended.IsZero() {
			ended = time.Unix(1, 0) // of a time when that was not noted
		}
		if err := tx.exec("UPDATE jobs SET ended = ? WHERE key = ?", pack.Nanos(ended), id); err != nil {
			return err
		}
	}
	return nil
}
