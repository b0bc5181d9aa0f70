package store

import (
	"database/sql"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// LiveMachines are all machines but those gone, by id.
func (tx *Tx) LiveMachines() ([]shoal.Machine, error) {
	return list[shoal.Machine](tx, "SELECT body FROM machines WHERE state <> 'gone' ORDER BY key")
}

// LiveSessions are all sessions but those ended, by id.
func (tx *Tx) LiveSessions() ([]shoal.Session, error) {
	return list[shoal.Session](tx, "SELECT body FROM sessions WHERE state <> 'ended' ORDER BY key")
}

// LiveMachinesIn are the machines of a pool but those gone, by id.
func (tx *Tx) LiveMachinesIn(pool shoal.PoolName) ([]shoal.Machine, error) {
	return list[shoal.Machine](tx, "SELECT body FROM machines WHERE pool = ? AND state <> 'gone' ORDER BY key", string(pool))
}

// LiveSessionsIn are the sessions of a pool but those ended, by id.
func (tx *Tx) LiveSessionsIn(pool shoal.PoolName) ([]shoal.Session, error) {
	return list[shoal.Session](tx, "SELECT body FROM sessions WHERE pool = ? AND state <> 'ended' ORDER BY key", string(pool))
}

// LiveSessionsOn are the sessions on a machine but those ended, by id.
func (tx *Tx) LiveSessionsOn(machine shoal.MachineID) ([]shoal.Session, error) {
	return list[shoal.Session](tx, "SELECT body FROM sessions WHERE machine = ? AND state <> 'ended' ORDER BY key", string(machine))
}

// StrandedSessions are the live sessions whose machine is stopped, failed, gone or not there at all.
func (tx *Tx) StrandedSessions() ([]shoal.Session, error) {
	const query = `SELECT s.body FROM sessions s LEFT JOIN machines m ON m.key = s.machine
		WHERE s.state <> 'ended' AND s.machine <> '' AND coalesce(m.state, 'gone') IN ('stopped', 'failed', 'gone') ORDER BY s.key`
	return list[shoal.Session](tx, query)
}

// JobFilter selects jobs; zero fields select all.
type JobFilter struct {
	User       shoal.UserName
	Pool       shoal.PoolName
	Name       string
	State      shoal.JobState
	Label      Label
	ExternalID string
}

// MachineFilter selects machines; zero fields select all but those gone.
type MachineFilter struct {
	Pool  shoal.PoolName
	State shoal.MachineState // MachineGone too
	Gone  bool               // those gone as well
}

// SessionFilter selects sessions; zero fields select all but those ended.
type SessionFilter struct {
	User    shoal.UserName
	Pool    shoal.PoolName
	Machine shoal.MachineID
	State   shoal.SessionState // SessionEnded too
	Ended   bool               // those ended as well
}

// JobsPage lists jobs, newest first. The cursor is empty for the first page; the one returned
// leads to the next and is empty on the last.
func (tx *Tx) JobsPage(f JobFilter, cursor string, limit int) ([]shoal.Job, string, error) {
	var w where
	table, order := "jobs", "jobs.key"
	switch {
	case f.Label.Key != "":
		table, order = "job_labels CROSS JOIN jobs", "job_labels.job"
		w.clause("jobs.key = job_labels.job")
		w.equal("job_labels.user", string(f.User))
		w.clause("job_labels.key = ? AND job_labels.value = ?", f.Label.Key, f.Label.Value)
	case f.State != "" && !f.State.Ended():
		table, order = "queue CROSS JOIN jobs", "queue.job"
		w.clause("jobs.key = queue.job")
	}
	if f.ExternalID != "" {
		w.clause("jobs.key IN (SELECT job FROM external_ids WHERE external = ?)", f.ExternalID)
		w.clause("json_extract(jobs.body, '$.spec.externalId') = ?", f.ExternalID)
	}
	w.equal("jobs.user", string(f.User))
	w.equal("jobs.pool", string(f.Pool))
	w.equal("jobs.name", f.Name)
	w.equal("jobs.state", string(f.State))
	return page[shoal.Job](tx, table, order, w, cursor, limit)
}

// MachinesPage lists machines like JobsPage.
func (tx *Tx) MachinesPage(f MachineFilter, cursor string, limit int) ([]shoal.Machine, string, error) {
	var w where
	w.equal("pool", string(f.Pool))
	w.equal("state", string(f.State))
	if !f.Gone && f.State == "" {
		w.clause("state <> 'gone'")
	}
	return page[shoal.Machine](tx, "machines", "created_rev", w, cursor, limit)
}

// SessionsPage lists sessions like JobsPage.
func (tx *Tx) SessionsPage(f SessionFilter, cursor string, limit int) ([]shoal.Session, string, error) {
	var w where
	w.equal("user", string(f.User))
	w.equal("pool", string(f.Pool))
	w.equal("machine", string(f.Machine))
	w.equal("state", string(f.State))
	if !f.Ended && f.State == "" {
		w.clause("state <> 'ended'")
	}
	return page[shoal.Session](tx, "sessions", "created_rev", w, cursor, limit)
}

// where gathers conditions and their arguments.
type where struct {
	conditions []string
	args       []any
}

func (w *where) clause(condition string, args ...any) {
	w.conditions = append(w.conditions, condition)
	w.args = append(w.args, args...)
}

// equal adds a condition on a column unless the value is empty.
func (w *where) equal(column, value string) {
	if value != "" {
		w.clause(column+" = ?", value)
	}
}

// maxPage bounds a page whatever the caller asks for.
const maxPage = 1000

// page reads one page in falling order of a unique numeric column, which is the cursor.
func page[V any](tx *Tx, table, order string, w where, cursor string, limit int) ([]V, string, error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	if cursor != "" {
		n, err := strconv.ParseInt(cursor, 10, 64)
		if err != nil {
			return nil, "", shoal.Errorf(shoal.KindInvalid, "cannot read %q as a cursor", cursor).
				WithHint("a cursor is the `next` of the page before")
		}
		w.clause(order+" < ?", n)
	}
	query := "SELECT " + order + ", body FROM " + table
	if len(w.conditions) > 0 {
		query += " WHERE " + strings.Join(w.conditions, " AND ")
	}
	query += " ORDER BY " + order + " DESC LIMIT ?"
	var items []V
	var last int64
	more := false
	err := tx.query(func(rows Rows) error {
		if len(items) == limit {
			more = true
			return nil
		}
		var body sql.RawBytes
		if err := rows.Scan(&last, &body); err != nil {
			return err
		}
		var v V
		if err := json.Unmarshal(body, &v); err != nil {
			return err
		}
		items = append(items, v)
		return nil
	}, query, append(w.args, limit+1)...)
	if err != nil || !more {
		return items, "", err
	}
	return items, strconv.FormatInt(last, 10), nil
}
