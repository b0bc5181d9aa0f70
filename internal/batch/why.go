package batch

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/batch/why"
	"github.com/shoal-pool/shoal/internal/store"
)

// whyEvents is how many events an answer carries.
const whyEvents = 10

// WhyJob says why a job is as it is.
func (b *Batch) WhyJob(ctx context.Context, by access.Subject, id shoal.JobID) (api.Why, error) {
	var q why.Question
	var answer api.Why
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := visible(tx, by, access.View, id)
		if err != nil {
			return err
		}
		if q, err = question(tx, j); err != nil {
			return err
		}
		answer.Events, err = tx.EventsAbout(shoal.ObjectJob, string(id), whyEvents)
		return err
	})
	if err != nil {
		return api.Why{}, err
	}
	b.ask(&q)
	answer.Subject, answer.Since = "job "+outcome.Title(q.Job), q.Job.Since
	answer.Sentence, answer.Reasons = why.Answer(q)
	return answer, nil
}

// question reads what a job may wait for.
func question(tx *store.Tx, j shoal.Job) (q why.Question, err error) {
	q.Job = j
	q.Pool, err = tx.Pools().Get(j.Spec.Pool)
	if q.Gone = err != nil && shoal.KindOf(err) == shoal.KindNotFound; err != nil && !q.Gone {
		return q, err
	}
	q.Pool.Name = j.Spec.Pool
	if q.Failed, err = lastFailure(tx, q.Pool.Name); err != nil {
		return q, err
	}
	for _, dep := range j.Spec.After {
		d, err := tx.Jobs().Get(shoal.JobID(dep.Job))
		if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return q, err
		}
		if err == nil {
			q.After = append(q.After, d)
		}
	}
	return q, nil
}

// ask has the scheduler complete a question.
func (b *Batch) ask(q *why.Question) {
	q.Wait, q.Now = b.book.Explain(q.Job.ID), time.Now()
	q.Held = b.cfg.Held(q.Job.User)
}

// explain gives a job that waits its reason, and when it starts at the latest.
func (b *Batch) explain(q why.Question) (reason string, promised time.Time) {
	b.ask(&q)
	return why.Join(why.Reasons(q)), q.Wait.Promised
}

// unexplained reports whether a job waits without a reason on record: it is composed when somebody looks.
func unexplained(j shoal.Job) bool {
	return j.State == shoal.JobQueued && !j.Cancel && j.Reason == ""
}

// lastFailure is the machine of a pool that ended last, if it never was ready.
func lastFailure(tx *store.Tx, pool shoal.PoolName) (shoal.Machine, error) {
	const enough = 8 // beside those on their way
	latest, _, err := tx.MachinesPage(store.MachineFilter{Pool: pool, Gone: true}, "", enough)
	for _, m := range latest {
		if m.State == shoal.MachineRequested || m.State == shoal.MachineBooting {
			continue
		}
		if (m.State == shoal.MachineFailed || m.State == shoal.MachineGone) && m.ReadyAt.IsZero() && m.Reason != "" {
			return m, nil
		}
		break
	}
	return shoal.Machine{}, err
}
