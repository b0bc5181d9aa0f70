package batch

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/after"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/book/lookup"
	"github.com/shoal-pool/shoal/internal/batch/book/vault"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/store"
)

// add takes a job that was found right under a number that is free.
func add(g *book.Group, user shoal.UserName, s shoal.JobSpec, id shoal.JobID) (*book.Row, error) {
	reason, err := g.Blockers(s.After)
	lost := after.Lost(s, err)
	if lost {
		reason = err.Error()
	} else if err != nil {
		return nil, err
	}
	items := s.Items
	s.Items = nil
	if n := max(len(items), len(s.Tasks)); n > 0 && s.Array == "" {
		s.Array = "0-" + strconv.Itoa(n-1)
	}
	array, err := shoal.ParseArray(s.Array)
	if err != nil {
		return nil, err
	}
	if err := g.Tx.PutItems(id, items); err != nil {
		return nil, err
	}
	stored, err := g.Tx.Jobs().Insert(shoal.Job{ID: id, User: user, Spec: s, State: shoal.JobQueued, Since: g.Now, Submitted: g.Now,
		Counts: shoal.Counts{Queued: array.Len()}, Items: len(items), Reason: reason, Blocked: reason != ""})
	if err != nil {
		return nil, err
	}
	r := g.Adopt(stored)
	if err := g.Enter(r); err != nil || !lost {
		return r, err
	}
	return r, g.Cancel(r, reason)
}

// called finds the job that its user gave a name of her own before; empty if there is none.
func called(tx *store.Tx, user shoal.UserName, external string) (shoal.JobID, error) {
	if external == "" {
		return "", nil
	}
	id, _, err := tx.JobCalled(user, external)
	return id, err
}

// SubmitBatch takes many jobs, or none with AllOrNothing if one is refused. What its result says is taken
// is on disk. A key works as with Submit, for the request as a whole.
func (b *Batch) SubmitBatch(ctx context.Context, by access.Subject, req api.BatchRequest, key string) (api.BatchResult, error) {
	if err := access.Check(by, access.Submit, access.Object{Kind: shoal.ObjectJob}); err != nil {
		return api.BatchResult{}, err
	}
	switch {
	case len(key) > maxKey:
		return api.BatchResult{}, shoal.Errorf(shoal.KindInvalid, "cannot submit the jobs: the idempotency key has more than %d bytes", maxKey)
	case len(req.Jobs) == 0 || len(req.Jobs) > api.MaxBatch:
		return api.BatchResult{}, shoal.Errorf(shoal.KindInvalid, "cannot submit %d jobs at once", len(req.Jobs)).WithHint("send from 1 to %d jobs in a request", api.MaxBatch)
	}
	s := &bulk{by: by, secrets: b.cfg.Secrets, all: req.AllOrNothing, key: key, jobs: req.Jobs, result: api.BatchResult{Items: make([]api.BatchItem, len(req.Jobs))}}
	if key != "" {
		var err error
		if s.digest, err = digestOf(req); err != nil {
			return api.BatchResult{}, err
		}
	}
	done := false
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		if done, err = s.repeated(tx); err != nil || done {
			return err
		}
		return s.check(tx)
	})
	if err != nil || done || !s.some() {
		return s.result, err
	}
	s.checked = s.result.Items
	if err = b.book.Do(ctx, s.insert); err != nil {
		return api.BatchResult{}, err // it may still be carried out: s is no longer ours
	}
	return s.result, nil
}

// bulk is a submission of many jobs on its way.
type bulk struct {
	by          access.Subject
	all         bool
	key, digest string
	jobs        []shoal.JobSpec
	checked     []api.BatchItem // what is known before the transaction, which may run twice
	result      api.BatchResult
	secrets     vault.Vault
}

func (s *bulk) keyOwner() string { return "jobs:" + string(s.by.User) }

// repeated finds out whether the request was carried out before, and gives its result.
func (s *bulk) repeated(tx *store.Tx) (bool, error) {
	if s.key == "" {
		return false, nil
	}
	k, found, err := tx.RequestKey(s.keyOwner(), s.key)
	if err != nil || !found {
		return false, err
	}
	if k.Digest != s.digest {
		return false, shoal.Errorf(shoal.KindConflict, "cannot submit the jobs: key %q was used for others", s.key).WithHint("use a new key for new jobs")
	}
	text, err := io.ReadAll(flate.NewReader(bytes.NewReader([]byte(k.Result))))
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(text, &s.result)
}

// remember stores the result for whoever repeats the request.
func (s *bulk) remember(g *book.Group) error {
	if s.key == "" {
		return nil
	}
	text, err := json.Marshal(s.result)
	if err != nil {
		return err
	}
	var small bytes.Buffer
	w, err := flate.NewWriter(&small, flate.DefaultCompression)
	if err != nil {
		return err
	}
	if _, err = w.Write(text); err != nil {
		return err
	}
	if err = w.Close(); err != nil {
		return err
	}
	return g.Tx.PutRequestKey(store.RequestKey{Owner: s.keyOwner(), Key: s.key, Digest: s.digest, Result: small.String()})
}

// check completes the jobs and finds out which cannot be taken.
func (s *bulk) check(tx *store.Tx) error {
	p := preparing{tx: tx, tables: lookup.Of(tx), by: s.by, secrets: s.secrets}
	for i := range s.jobs {
		item := &s.result.Items[i]
		*item = api.BatchItem{ExternalID: s.jobs[i].ExternalID}
		known, err := called(tx, s.by.User, s.jobs[i].ExternalID)
		if err != nil {
			return err
		}
		if known != "" {
			item.ID, item.Existing = known, true
			continue
		}
		if err = form(&s.jobs[i]); err == nil {
			s.jobs[i], err = p.place(s.jobs[i])
		}
		if err != nil {
			if store.Broken(err) {
				return err
			}
			item.Problem = problem(err)
		}
	}
	return nil
}

// some reports whether there is anything to be taken. If the rest is to be refused with one, it does that.
func (s *bulk) some() bool {
	fresh, refused := 0, 0
	for _, item := range s.result.Items {
		switch {
		case item.Problem != nil:
			refused++
		case !item.Existing:
			fresh++
		}
	}
	if refused == 0 || !s.all {
		return fresh > 0
	}
	for i := range s.result.Items {
		if item := &s.result.Items[i]; item.Problem == nil && !item.Existing {
			item.ID, item.Problem = "", problem(shoal.Errorf(shoal.KindConflict, "it was not submitted: %d of the jobs that were to be submitted together cannot be", refused))
		}
	}
	return false
}

// insert makes the rows of the jobs that were found right.
func (s *bulk) insert(g *book.Group) error {
	if done, err := s.repeated(g.Tx); err != nil || done {
		return err
	}
	s.result.Items = slices.Clone(s.checked)
	var fresh []int // places of those to be made
	twins := map[string]int{}
	same := map[int]int{}
	pools := map[shoal.PoolName]error{}
	for i, spec := range s.jobs {
		item := &s.result.Items[i]
		if item.Problem != nil || item.Existing {
			continue
		}
		known, err := called(g.Tx, s.by.User, spec.ExternalID)
		if err != nil {
			return err
		}
		first, twin := twins[spec.ExternalID]
		switch {
		case known != "":
			item.ID, item.Existing = known, true
			continue
		case twin && spec.ExternalID != "":
			same[i] = first
			continue
		}
		twins[spec.ExternalID] = i
		if _, seen := pools[spec.Pool]; !seen {
			_, pools[spec.Pool] = g.Tables.Pool(spec.Pool)
		}
		if err = pools[spec.Pool]; err == nil {
			err = g.Admits(s.by.User, spec)
		}
		if err != nil && store.Broken(err) {
			return err
		}
		if err != nil {
			item.Problem = problem(err)
			continue
		}
		fresh = append(fresh, i)
	}
	if !s.some() || len(fresh) == 0 {
		for _, i := range fresh {
			g.Withdraw(s.by.User, s.jobs[i])
		}
		return nil
	}
	if err := s.number(g, fresh); err != nil {
		return err
	}
	for i, first := range same {
		item, twin := &s.result.Items[i], s.result.Items[first]
		item.ID, item.Existing, item.Problem = twin.ID, twin.ID != "", twin.Problem
	}
	return s.remember(g)
}

// number gives numbers in a row to the jobs at some places, stores them, and tells of all in one event.
func (s *bulk) number(g *book.Group, fresh []int) error {
	first, err := g.Tx.NextJobIDs(len(fresh))
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(first), 10, 64)
	if err != nil {
		return err
	}
	total := 0
	var r *book.Row
	for k, i := range fresh {
		id := shoal.JobID(strconv.FormatInt(n+int64(k), 10))
		if r, err = add(g, s.by.User, s.jobs[i], id); err != nil {
			return shoal.Errorf(shoal.KindInternal, "cannot submit job %s, which was found right: %w", id, err) // takes back those before it
		}
		total += r.Counts.Total()
		s.result.Items[i].ID = id
	}
	if len(fresh) == 1 {
		submitted(g, r)
		return nil
	}
	return g.Tx.EventAboutJobs(shoal.Event{Time: g.Now, Kind: shoal.ObjectJob, User: s.by.User, Code: "jobsSubmitted",
		Sentence: fmt.Sprintf("%s submitted jobs %s to %s: %s", s.by.User, first, r.ID, outcome.Tasks(total))}, first, r.ID)
}

// submitted tells of a new job.
func submitted(g *book.Group, r *book.Row) {
	g.Event(r, "jobSubmitted", "%s submitted job %s to pool %s: %s", r.User, outcome.Title(r.Job), r.Spec.Pool, outcome.Tasks(r.Counts.Total()))
}

// problem is what an error looks like in an answer that tells of several.
func problem(err error) *api.Problem {
	m := shoal.KindOf(err).Meaning()
	return &api.Problem{Type: "about:blank", Status: m.Status, Detail: err.Error(), Kind: m.Kind, Hint: shoal.HintOf(err), Mistakes: shoal.MistakesOf(err)}
}
