package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/store"
)

// Status answers for many jobs in short, also for those of long ago. One that the subject may not see is
// unknown.
func Status(tx *store.Tx, by access.Subject, req api.StatusRequest) (api.StatusResult, error) {
	label, err := selection(by, len(req.IDs)+len(req.ExternalIDs), req.Label, len(req.ExternalIDs) > 0)
	if err != nil {
		return api.StatusResult{}, err
	}
	result := api.StatusResult{}
	if result.Rev, err = tx.Rev(); err != nil {
		return result, err
	}
	q := statuses{tx: tx, by: by, since: req.Rev, items: []api.JobStatus{}}
	if label.Key != "" {
		result.Next, err = q.labelled(label, req.Cursor, &result.Rev)
	} else {
		err = q.named(req.IDs, req.ExternalIDs)
	}
	result.Items = q.items
	return result, err
}

// selection checks what selects the jobs of a request about many.
func selection(by access.Subject, named int, text string, own bool) (store.Label, error) {
	label, err := store.ParseLabel(text)
	switch {
	case err != nil:
		return label, err
	case named > 0 && text != "" || named == 0 && text == "":
		return label, shoal.Errorf(shoal.KindInvalid, "it is not said which jobs are meant").WithHint("give ids and externalIds, or a label")
	case named > api.MaxBatch:
		return label, shoal.Errorf(shoal.KindInvalid, "cannot look at %d jobs at once", named).WithHint("ask about at most %d in a request", api.MaxBatch)
	case (own || text != "") && by.User == "":
		return label, shoal.Errorf(shoal.KindInvalid, "labels and externalIds are those of a user's own jobs").WithHint("sign in as a user, or act as one")
	}
	return label, nil
}

// statuses gathers what is said of jobs.
type statuses struct {
	tx    *store.Tx
	by    access.Subject
	since shoal.Rev
	items []api.JobStatus
}

func (q *statuses) named(ids []shoal.JobID, external []string) error {
	for _, id := range ids {
		j, err := Visible(q.tx, q.by, access.View, id)
		if shoal.KindOf(err) == shoal.KindNotFound {
			q.items = append(q.items, api.JobStatus{ID: id, Unknown: true})
			continue
		}
		if err == nil {
			err = q.add(j)
		}
		if err != nil {
			return err
		}
	}
	for _, name := range external {
		id, found, err := q.tx.JobCalled(q.by.User, name)
		if err != nil {
			return err
		}
		if !found {
			q.items = append(q.items, api.JobStatus{ExternalID: name, Unknown: true})
			continue
		}
		j, err := Recall(q.tx, id)
		if err == nil {
			err = q.add(j)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// labelled reads one page of the subject's own jobs that carry a label. The cursor holds the revision of
// the first page: what changed while the pages were read is told when it is asked for next.
func (q *statuses) labelled(label store.Label, cursor string, rev *shoal.Rev) (next string, err error) {
	if cursor != "" {
		before, first, _ := strings.Cut(cursor, "@")
		n, err := strconv.ParseInt(first, 10, 64)
		if err != nil || n <= 0 || shoal.Rev(n) > *rev {
			return "", shoal.Errorf(shoal.KindInvalid, "cannot read %q as a cursor", cursor).WithHint("a cursor is the `next` of the answer before")
		}
		*rev, cursor = shoal.Rev(n), before
	}
	for scanned := 0; scanned < api.MaxBatch; scanned += MaxPage {
		jobs, following, err := q.tx.JobsPage(store.JobFilter{User: q.by.User, Label: label}, cursor, MaxPage)
		if err != nil {
			return "", err
		}
		for _, j := range jobs {
			if err := q.add(j); err != nil {
				return "", err
			}
		}
		if cursor = following; cursor == "" {
			return "", nil
		}
	}
	return fmt.Sprintf("%s@%d", cursor, *rev), nil
}

func (q *statuses) add(j shoal.Job) error {
	if q.since > 0 && j.Rev <= q.since {
		return nil
	}
	s, err := statusOf(q.tx, j)
	q.items = append(q.items, s)
	return err
}

// statusOf says in short what became of a job.
func statusOf(tx *store.Tx, j shoal.Job) (api.JobStatus, error) {
	s := api.JobStatus{ID: j.ID, ExternalID: j.Spec.ExternalID, Name: j.Spec.Name, State: j.State, Reason: j.Reason, Counts: j.Counts,
		Submitted: j.Submitted, Started: j.Started, Ended: j.Ended, Rev: j.Rev}
	if !j.State.Ended() {
		return s, nil
	}
	p, found, err := tx.PastJob(j.ID)
	if err != nil {
		return s, err
	}
	if found {
		s.ExitCode, s.Signal, s.Cause, s.Attempts, s.MaxMemory, s.CPUTime = p.ExitCode, p.Signal, p.Cause, p.Attempts, p.MaxMemory, p.CPUTime
		return s, nil
	}
	var decides []shoal.Attempt
	switch {
	case j.State != shoal.JobSucceeded:
		s.ExitCode = outcome.ExitOwn
		decides, err = tx.Failures(j.ID, 1)
	case j.Counts.Total() == 1:
		decides, err = tx.Attempts(j.ID, 0, 1)
	}
	if err != nil || len(decides) == 0 {
		return s, err
	}
	a := decides[0]
	s.Signal, s.Cause, s.Attempts, s.MaxMemory, s.CPUTime = a.Signal, a.Cause, a.Attempt, a.MaxMemory, a.CPUTime
	if j.State != shoal.JobSucceeded {
		s.ExitCode = ExitOf(a)
	}
	return s, nil
}

// Targets finds the jobs that are meant to be ended, and says what is known of those that cannot be.
func Targets(tx *store.Tx, by access.Subject, req api.CancelRequest) (ids []shoal.JobID, result api.CancelResult, err error) {
	label, err := selection(by, len(req.IDs)+len(req.ExternalIDs), req.Label, len(req.ExternalIDs) > 0)
	if err != nil {
		return nil, result, err
	}
	if label.Key != "" {
		ids, err = ownActive(tx, by.User, label)
		return ids, result, err
	}
	wanted := req.IDs
	for _, name := range req.ExternalIDs {
		id, found, err := tx.JobCalled(by.User, name)
		if err != nil {
			return nil, result, err
		}
		if !found {
			result.Unknown = append(result.Unknown, name)
			continue
		}
		wanted = append(wanted[:len(wanted):len(wanted)], id)
	}
	for _, id := range wanted {
		j, err := Visible(tx, by, access.Cancel, id)
		switch kind := shoal.KindOf(err); {
		case err == nil && j.State.Ended():
			result.Over = append(result.Over, j.ID)
		case err == nil:
			ids = append(ids, j.ID)
		case kind == shoal.KindNotFound:
			result.Unknown = append(result.Unknown, string(id))
		case kind == shoal.KindDenied:
			result.Refused = append(result.Refused, id)
		default:
			return nil, result, err
		}
	}
	return ids, result, nil
}

// ownActive are a user's jobs that carry a label and have not ended.
func ownActive(tx *store.Tx, user shoal.UserName, label store.Label) (ids []shoal.JobID, err error) {
	for cursor := ""; ; {
		jobs, next, err := tx.JobsPage(store.JobFilter{User: user, Label: label}, cursor, MaxPage)
		if err != nil {
			return nil, err
		}
		for _, j := range jobs {
			if !j.State.Ended() {
				ids = append(ids, j.ID)
			}
		}
		if cursor = next; cursor == "" {
			return ids, nil
		}
	}
}

// Past is what will be left of jobs that ended before a time, at most limit of them.
func Past(tx *store.Tx, before time.Time, limit int) ([]store.PastJob, error) {
	jobs, err := tx.JobsEndedBefore(before, limit)
	if err != nil {
		return nil, err
	}
	var past []store.PastJob
	for _, j := range jobs {
		s, err := statusOf(tx, j)
		if err != nil {
			return nil, err
		}
		past = append(past, store.PastJob{ID: j.ID, User: j.User, Name: j.Spec.Name, Pool: j.Spec.Pool, Share: j.Spec.Share, External: j.Spec.ExternalID,
			State: j.State, Reason: j.Reason, ExitCode: s.ExitCode, Signal: s.Signal, Cause: s.Cause, Attempts: s.Attempts, Counts: j.Counts,
			MaxMemory: s.MaxMemory, CPUTime: s.CPUTime, Submitted: j.Submitted, Started: j.Started, Ended: j.Ended, Rev: j.Rev})
	}
	return past, nil
}
