package batch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/admit"
	"github.com/shoal-pool/shoal/internal/batch/book"
	"github.com/shoal-pool/shoal/internal/batch/book/lookup"
	"github.com/shoal-pool/shoal/internal/batch/book/vault"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
)

// maxKey bounds an idempotency key.
const maxKey = 256

// Submit takes a job; it is on disk when it returns. A key that is not empty makes it safe to
// repeat: for a week the same key of the same user gives the same job, and with another job is a
// conflict.
func (b *Batch) Submit(ctx context.Context, by access.Subject, s shoal.JobSpec, key string) (shoal.Job, error) {
	if err := access.Check(by, access.Submit, access.Object{Kind: shoal.ObjectJob}); err != nil {
		return shoal.Job{}, err
	}
	if len(key) > maxKey {
		return shoal.Job{}, shoal.Errorf(shoal.KindInvalid, "cannot submit the job: its idempotency key has more than %d bytes", maxKey)
	}
	digest, err := digestOf(s)
	if err != nil {
		return shoal.Job{}, err
	}
	if err := form(&s); err != nil {
		return shoal.Job{}, err
	}
	var j shoal.Job
	known := shoal.JobID("")
	err = b.book.Do(ctx, func(g *book.Group) (err error) {
		if known, err = earlier(g.Tx, by.User, key, digest); err == nil && known == "" {
			known, err = called(g.Tx, by.User, s.ExternalID)
		}
		if err != nil || known != "" {
			return err
		}
		j, err = b.insert(g, by, s, key, digest)
		return err
	})
	if err != nil {
		return shoal.Job{}, err
	}
	if known != "" {
		return b.Job(ctx, by, known)
	}
	return j, nil
}

func digestOf(s any) (string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// earlier finds the job that a key has led to already; empty if none.
func earlier(tx *store.Tx, user shoal.UserName, key, digest string) (shoal.JobID, error) {
	if key == "" {
		return "", nil
	}
	k, found, err := tx.RequestKey(keyOwner(user), key)
	if err != nil || !found {
		return "", err
	}
	if k.Digest != digest {
		return "", shoal.Errorf(shoal.KindConflict, "cannot submit the job: key %q was used for another one, job %s", key, k.Result).
			WithHint("use a new key for a new job")
	}
	return shoal.JobID(k.Result), nil
}

func keyOwner(user shoal.UserName) string { return "job:" + string(user) }

// insert completes a job and makes its row. An error comes before anything is changed.
func (b *Batch) insert(g *book.Group, by access.Subject, s shoal.JobSpec, key, digest string) (shoal.Job, error) {
	p := preparing{tx: g.Tx, tables: g.Tables, by: by, secrets: b.cfg.Secrets}
	s, err := p.place(s)
	if err != nil {
		return shoal.Job{}, err
	}
	if err := g.Admits(by.User, s); err != nil {
		return shoal.Job{}, err
	}
	id, err := g.Tx.NextJobID()
	if err != nil {
		return shoal.Job{}, err
	}
	r, err := add(g, by.User, s, id)
	if err != nil {
		return shoal.Job{}, err
	}
	submitted(g, r)
	return r.Job, b.putKey(g, by.User, key, digest, id)
}

func (b *Batch) putKey(g *book.Group, user shoal.UserName, key, digest string, id shoal.JobID) error {
	if key == "" {
		return nil
	}
	if g.Now.Sub(b.trimmed) > trimEvery {
		if err := g.Tx.TrimRequestKeys(g.Now.Add(-keepKeys)); err != nil {
			return err
		}
		b.trimmed = g.Now
	}
	return g.Tx.PutRequestKey(store.RequestKey{Owner: keyOwner(user), Key: key, Digest: digest, Result: string(id)})
}

// form completes a job as far as nothing need be known for it, and says what is wrong with it.
func form(s *shoal.JobSpec) error {
	spec.DefaultJob(s)
	if mistakes := append(spec.CheckJob(*s), admit.Clashes(*s)...); len(mistakes) > 0 {
		return spec.Invalid(mistakes)
	}
	return nil
}

// preparing finds places for jobs of one user.
type preparing struct {
	tx      *store.Tx
	tables  *lookup.Tables
	by      access.Subject
	pool    shoal.PoolName // of those that name none; empty: not known yet
	secrets vault.Vault
}

// place completes a job that has the right form, and says why it cannot be taken.
func (p *preparing) place(s shoal.JobSpec) (_ shoal.JobSpec, err error) {
	user, err := p.tables.User(p.by.User)
	if err != nil {
		return s, err
	}
	if user.Disabled {
		return s, shoal.Errorf(shoal.KindDenied, "cannot submit a job: user %s is disabled", user.Name)
	}
	if s.Pool == "" && p.pool == "" {
		if p.pool, err = defaultPool(p.tx, p.by); err != nil {
			return s, err
		}
	}
	if s.Pool == "" {
		s.Pool = p.pool
	}
	pool, err := p.tables.Pool(s.Pool)
	if err != nil {
		return s, shoal.Errorf(shoal.KindOf(err), "cannot submit the job: %w", err).WithHint("`shoal pool list` shows the pools")
	}
	if wrong := spec.PlaceJob(&s, pool); len(wrong) > 0 {
		return s, spec.Invalid(wrong)
	}
	spec.FitJob(&s, pool.Machine)
	admit.Limit(&s, pool)
	if err := admit.Check(s, pool); err != nil {
		return s, err
	}
	if err := p.secrets.Known(p.tx, user, s); err != nil {
		return s, err
	}
	s.After, err = resolve(p.tx, p.by, s.After)
	return s, err
}

// defaultPool is where a job goes that names no pool: where its user is, else the pool marked so,
// else the only one for jobs.
func defaultPool(tx *store.Tx, by access.Subject) (shoal.PoolName, error) {
	if by.Machine != "" {
		m, err := tx.Machines().Get(by.Machine)
		return m.Pool, err
	}
	pools, err := tx.Pools().List()
	if err != nil {
		return "", err
	}
	pools = slices.DeleteFunc(pools, func(p shoal.Pool) bool { return !p.Has(shoal.UseBatch) || p.Deleting })
	if i := slices.IndexFunc(pools, func(p shoal.Pool) bool { return p.Default }); i >= 0 {
		return pools[i].Name, nil
	}
	switch len(pools) {
	case 0:
		return "", shoal.Errorf(shoal.KindInvalid, "cannot submit the job: there is no pool for jobs").WithHint("apply a pool with `uses: [batch]`")
	case 1:
		return pools[0].Name, nil
	}
	names := make([]string, len(pools))
	for i, p := range pools {
		names[i] = string(p.Name)
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot submit the job: it names no pool, and there are several").
		WithHint("say which: %s", strings.Join(names, ", "))
}

// resolve turns the jobs that must succeed first into their numbers. A name is the newest job of
// that name of the same user.
func resolve(tx *store.Tx, by access.Subject, after []shoal.Dependency) ([]shoal.Dependency, error) {
	var all []shoal.Dependency
	for _, d := range after {
		j, err := find(tx, by, d.Job)
		if err != nil {
			return nil, err
		}
		if d.Job = string(j.ID); !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all, nil
}

func find(tx *store.Tx, by access.Subject, name string) (shoal.Job, error) {
	if n, err := strconv.ParseInt(name, 10, 64); err == nil && n > 0 {
		j, err := visible(tx, by, access.View, shoal.JobID(name))
		if err != nil {
			return j, shoal.Errorf(shoal.KindOf(err), "cannot submit the job: it is to run after another, but there is %w", err)
		}
		return j, nil
	}
	jobs, _, err := tx.JobsPage(store.JobFilter{User: by.User, Name: name}, "", 1)
	if err != nil {
		return shoal.Job{}, err
	}
	if len(jobs) == 0 {
		return shoal.Job{}, shoal.Errorf(shoal.KindNotFound, "cannot submit the job: it is to run after %q, and you have no job of that name", name).
			WithHint("submit that one first, or give its number")
	}
	return jobs[0], nil
}
