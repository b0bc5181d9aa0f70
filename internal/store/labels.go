package store

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
)

// Label is one of a job's labels.
type Label struct{ Key, Value string }

// ParseLabel reads "key=value"; an empty text is no label.
func ParseLabel(text string) (Label, error) {
	key, value, found := strings.Cut(text, "=")
	if text != "" && (!found || key == "") {
		return Label{}, shoal.Errorf(shoal.KindInvalid, "cannot read %q as a label", text).WithHint("write KEY=VALUE")
	}
	return Label{key, value}, nil
}

// jobStored keeps what belongs to jobs true to one that was written.
func (tx *Tx) jobStored(j *shoal.Job, fresh bool) error {
	if err := tx.queueJob(j, fresh); err != nil || !fresh {
		return err
	}
	n, err := jobNumber(j.ID)
	if err != nil {
		return err
	}
	for key, value := range j.Spec.Labels {
		if err := tx.exec("INSERT INTO job_labels (user, key, value, job) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", string(j.User), key, value, n); err != nil {
			return err
		}
	}
	if j.Spec.ExternalID == "" {
		return nil
	}
	added, err := tx.db.Exec("INSERT INTO external_ids (user, external, job) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", string(j.User), j.Spec.ExternalID, n)
	if err != nil || added == 1 {
		return err
	}
	return shoal.Errorf(shoal.KindConflict, "user %s has a job with the externalId %q already", j.User, j.Spec.ExternalID)
}

// jobDeleted removes what belongs to a job that was deleted. Its user's own name for it is not given again.
func (tx *Tx) jobDeleted(column any) error {
	for _, table := range []string{"queue", "job_labels", "job_items", "unpacked", "packs", "attempts", "attempt_nodes"} {
		if err := tx.exec("DELETE FROM "+table+" WHERE job = ?", column); err != nil {
			return err
		}
	}
	return nil
}

// JobCalled returns the number of the job that a user gave a name of her own; false if there never was one.
func (tx *Tx) JobCalled(user shoal.UserName, external string) (id shoal.JobID, found bool, err error) {
	err = tx.query(func(rows Rows) error {
		var n int64
		err := rows.Scan(&n)
		id, found = shoal.JobID(strconv.FormatInt(n, 10)), true
		return err
	}, "SELECT job FROM external_ids WHERE user = ? AND external = ?", string(user), external)
	return id, found, err
}

// HasLabel reports whether one of the jobs numbered from first to last carries a label.
func (tx *Tx) HasLabel(l Label, first, last shoal.JobID) (found bool, err error) {
	from, err := jobNumber(first)
	if err != nil {
		return false, err
	}
	to, err := jobNumber(last)
	if err != nil {
		return false, err
	}
	err = tx.query(func(Rows) error { found = true; return nil },
		"SELECT 1 FROM job_labels WHERE key = ? AND value = ? AND job BETWEEN ? AND ? LIMIT 1", l.Key, l.Value, from, to)
	return found, err
}

// The size of a row of items: so many at most, and no more once it is so large.
const (
	itemsPerRow = 256
	itemsRow    = 32 << 10
)

// itemRow is some of a job's items, as a row holds them: how many, the length of each, then all of them.
type itemRow struct {
	job   shoal.JobID
	first int
	items []shoal.Item
}

// PutItems stores what the tasks of a job work on, by position.
func (tx *Tx) PutItems(job shoal.JobID, items []shoal.Item) error {
	n, err := jobNumber(job)
	if err != nil {
		return err
	}
	for first := 0; first < len(items); {
		last, size := first, 0
		for last < len(items) && last-first < itemsPerRow && size < itemsRow {
			size += len(items[last])
			last++
		}
		body := binary.AppendUvarint(make([]byte, 0, size+2*(last-first)+8), uint64(last-first))
		for _, item := range items[first:last] {
			body = binary.AppendUvarint(body, uint64(len(item)))
		}
		for _, item := range items[first:last] {
			body = append(body, item...)
		}
		if err := tx.put("INSERT INTO job_items (job, first, body) VALUES (?, ?, ?) ON CONFLICT (job, first) DO UPDATE SET body = excluded.body", n, first, body); err != nil {
			return fmt.Errorf("cannot store the items of job %s: %w", job, err)
		}
		first = last
	}
	return nil
}

// Item returns what the task at a position works on; false if the job has no items. Reading neighbours one
// after the other is cheap.
func (tx *Tx) Item(job shoal.JobID, position int) (shoal.Item, bool, error) {
	if r := tx.items; r.job != job || position < r.first || position >= r.first+len(r.items) {
		if err := tx.readItems(job, position); err != nil {
			return nil, false, err
		}
	}
	i := position - tx.items.first
	if i < 0 || i >= len(tx.items.items) {
		return nil, false, nil
	}
	return tx.items.items[i], true, nil
}

func (tx *Tx) readItems(job shoal.JobID, position int) error {
	n, err := jobNumber(job)
	if err != nil {
		return err
	}
	tx.items = itemRow{}
	return tx.query(func(rows Rows) error {
		var first int
		var body []byte
		if err := rows.Scan(&first, &body); err != nil {
			return err
		}
		items, err := readItemRow(body)
		tx.items = itemRow{job, first, items}
		return err
	}, "SELECT first, body FROM job_items WHERE job = ? AND first <= ? ORDER BY first DESC LIMIT 1", n, position)
}

func readItemRow(body []byte) ([]shoal.Item, error) {
	damaged := shoal.Errorf(shoal.KindInternal, "a row of items cannot be read")
	count, n := binary.Uvarint(body)
	if n <= 0 || count > itemsPerRow {
		return nil, damaged
	}
	body = body[n:]
	ends := make([]int, count)
	total := 0
	for i := range ends {
		size, n := binary.Uvarint(body)
		if n <= 0 || size > uint64(len(body)) {
			return nil, damaged
		}
		body = body[n:]
		total += int(size)
		ends[i] = total
	}
	if total != len(body) || !sort.IntsAreSorted(ends) {
		return nil, damaged
	}
	items := make([]shoal.Item, count)
	from := 0
	for i, end := range ends {
		items[i] = shoal.Item(body[from:end:end])
		from = end
	}
	return items, nil
}
