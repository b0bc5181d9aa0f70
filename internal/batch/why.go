package batch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
)

// whyEvents is how many events an answer carries.
const whyEvents = 10

// question is what is known of a job that somebody asks about.
type question struct {
	job    shoal.Job
	pool   shoal.Pool
	gone   bool // the pool is
	after  []shoal.Job
	events []shoal.Event
	failed shoal.Machine // the pool's latest, if that did not start
}

// WhyJob says why a job is as it is.
func (b *Batch) WhyJob(ctx context.Context, by access.Subject, id shoal.JobID) (api.Why, error) {
	var q question
	err := b.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		q, err = read(tx, by, id)
		return err
	})
	if err != nil {
		return api.Why{}, err
	}
	why := api.Why{Subject: "job " + outcome.Title(q.job), Since: q.job.Since, Events: q.events}
	j := q.job
	switch {
	case j.State.Ended():
		why.Sentence = "it " + outcome.Ended(j.State)
		if j.Reason != "" {
			why.Sentence += ": " + j.Reason
		}
	case j.Cancel:
		why.Sentence = fmt.Sprintf("it is being cancelled (%s): %s still to be ended", j.Reason, outcome.Tasks(j.Counts.Starting+j.Counts.Running))
	case j.Blocked:
		why.Reasons = b.waits(q)
		why.Sentence = "it " + join(why.Reasons)
	case j.Counts.Queued == 0:
		why.Sentence = "it is running: " + progress(j.Counts)
	default:
		why.Reasons = b.waits(q)
		why.Sentence = "it waits: " + join(why.Reasons)
		if j.Counts.Queued < j.Counts.Total() {
			why.Sentence = progress(j.Counts) + ": " + join(why.Reasons)
		}
	}
	return why, nil
}

func read(tx *store.Tx, by access.Subject, id shoal.JobID) (q question, err error) {
	if q.job, err = visible(tx, by, access.View, id); err != nil {
		return q, err
	}
	if err = q.look(tx); err != nil {
		return q, err
	}
	q.events, err = tx.EventsAbout(shoal.ObjectJob, string(id), whyEvents)
	return q, err
}

// look reads what the job may wait for.
func (q *question) look(tx *store.Tx) (err error) {
	q.pool, err = tx.Pools().Get(q.job.Spec.Pool)
	if q.gone = err != nil && shoal.KindOf(err) == shoal.KindNotFound; err != nil && !q.gone {
		return err
	}
	q.pool.Name = q.job.Spec.Pool
	if q.failed, err = lastFailure(tx, q.pool.Name); err != nil {
		return err
	}
	for _, dep := range q.job.Spec.After {
		d, err := tx.Jobs().Get(shoal.JobID(dep.Job))
		if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return err
		}
		if err == nil {
			q.after = append(q.after, d)
		}
	}
	return nil
}

// waits are the reasons why a job's tasks wait.
func (b *Batch) waits(q question) []shoal.Reason {
	if !q.job.Blocked {
		return b.obstacles(q)
	}
	var reasons []shoal.Reason
	for _, d := range q.after {
		if d.State != shoal.JobSucceeded {
			reasons = append(reasons, shoal.Reason{Code: "after", Sentence: fmt.Sprintf("waits for job %s (%s)", outcome.Title(d), d.State)})
		}
	}
	return reasons
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

// progress counts a job's tasks: "2 of 8 tasks run, 3 have ended, 3 wait".
func progress(c shoal.Counts) string {
	running := c.Starting + c.Running
	s := fmt.Sprintf("%d of %s %s", running, outcome.Tasks(c.Total()), outcome.Verb(running, "runs", "run"))
	if n := c.Total() - running - c.Queued; n > 0 {
		s += fmt.Sprintf(", %d %s ended", n, outcome.Verb(n, "has", "have"))
	}
	if c.Queued > 0 {
		s += fmt.Sprintf(", %d %s", c.Queued, outcome.Verb(c.Queued, "waits", "wait"))
	}
	return s
}

func join(reasons []shoal.Reason) string {
	all := make([]string, len(reasons))
	for i, r := range reasons {
		all[i] = r.Sentence
	}
	return strings.Join(all, "; ")
}

// obstacles are what stands between a job's waiting tasks and a machine.
func (b *Batch) obstacles(q question) []shoal.Reason {
	w := b.book.Explain(q.job.ID)
	e, known, delayed, next := w.Explanation, w.Known, w.Delayed, w.Next
	var all []shoal.Reason
	add := func(code, format string, args ...any) {
		all = append(all, shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)})
	}
	if delayed > 0 {
		wait := max(time.Until(next), 0).Round(time.Second)
		add("again", "%s ended early and %s tried again, the next in %s", outcome.Tasks(delayed), outcome.Verb(delayed, "is", "are"), shoal.Duration(wait))
	}
	if delayed == q.job.Counts.Queued {
		return all
	}
	switch {
	case q.gone || q.pool.Deleting:
		add("poolGone", "pool %s is being deleted", q.pool.Name)
	case !known:
		add("unknown", "the server has just started and has not looked at it yet")
	case e.AtLimit:
		add("userLimit", "%s holds as many GPUs in pool %s as one user may (%d)", q.job.User, q.pool.Name, q.pool.Limits.PerUser.GPUs)
	case e.Machines == 0:
		add("noMachine", "%s", noMachine(q.pool))
	default:
		all = append(all, machinesNow(q.pool, e)...)
	}
	if q.failed.ID != "" && e.Machines == e.Starting {
		add("failing", "machine %s did not start: %s", q.failed.ID, q.failed.Reason)
	}
	if e.Ahead > 0 {
		add("ahead", "%s %s before it", outcome.Tasks(e.Ahead), outcome.Verb(e.Ahead, "was there", "were there"))
	}
	return all
}

func noMachine(p shoal.Pool) string {
	most := p.Size.Max
	if p.Fixed != nil {
		most = p.Fixed.Size
	}
	if most == 0 {
		return fmt.Sprintf("pool %s has no machine and may have none: its size is 0 at most", p.Name)
	}
	return fmt.Sprintf("pool %s has no machine; one is asked for", p.Name)
}

// machinesNow tells how the machines of a pool stand: "3 of 4 machines are full, 1 is draining".
func machinesNow(p shoal.Pool, e sched.Explanation) []shoal.Reason {
	if e.Machines == e.Starting {
		return []shoal.Reason{{Code: "starting", Sentence: fmt.Sprintf("pool %s has no machine ready; %d %s starting", p.Name, e.Starting, outcome.Verb(e.Starting, "is", "are"))}}
	}
	var all []shoal.Reason
	for _, c := range []struct {
		n               int
		code, one, many string
	}{
		{e.Room, "room", "has room", "have room"},
		{e.Full, "full", "is full", "are full"},
		{e.Kept, "kept", "is kept for a larger task", "are kept for larger tasks"},
		{e.Small, "small", "is too small", "are too small"},
		{e.Draining, "draining", "is draining", "are draining"},
		{e.Starting, "starting", "is starting", "are starting"},
		{e.Silent, "silent", "does not answer", "do not answer"},
		{e.Leaving, "leaving", "is stopped or stopping", "are stopped or stopping"},
	} {
		if c.n == 0 {
			continue
		}
		s := fmt.Sprintf("%d %s", c.n, outcome.Verb(c.n, c.one, c.many))
		if len(all) == 0 {
			s = fmt.Sprintf("%d of %d machines of pool %s %s", c.n, e.Machines, p.Name, outcome.Verb(c.n, c.one, c.many))
		}
		all = append(all, shoal.Reason{Code: c.code, Sentence: s})
	}
	return all
}
