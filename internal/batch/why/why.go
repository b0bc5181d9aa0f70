// Package why says in sentences why jobs are as they are, from what filters have counted.
package why

import (
	"fmt"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/outcome"
	"github.com/shoal-pool/shoal/internal/sched"
)

// Wait is what the scheduler says of a job of which something waits.
type Wait struct {
	sched.Explanation
	Known   bool      // the job has been looked at
	Delayed int       // tasks that ended early and wait a while
	Next    time.Time // when the next of them goes
	Gated   bool      // its tasks become ready one by one
	Ready   int       // of a gated job: those that are
}

// Question is what is known of a job that somebody asks about.
type Question struct {
	Job    shoal.Job
	Pool   shoal.Pool
	Gone   bool          // the pool is
	After  []shoal.Job   // those that it waits for
	Failed shoal.Machine // the pool's latest, if that did not start
	Held   string        // why nothing more of its user's jobs starts
	Wait   Wait
	Now    time.Time
}

// Answer says why a job is as it is, with reasons if something of it waits.
func Answer(q Question) (string, []shoal.Reason) {
	j := q.Job
	switch {
	case j.State.Ended():
		if j.Reason != "" {
			return "it " + outcome.Ended(j.State) + ": " + j.Reason, nil
		}
		return "it " + outcome.Ended(j.State), nil
	case j.Cancel:
		return fmt.Sprintf("it is being cancelled (%s): %s still to be ended", j.Reason, outcome.Tasks(j.Counts.Starting+j.Counts.Running)), nil
	case j.Counts.Queued == 0:
		return "it is running: " + progress(j.Counts), nil
	}
	reasons := Reasons(q)
	switch {
	case j.Blocked:
		return "it " + Join(reasons), reasons
	case j.Counts.Queued < j.Counts.Total():
		return progress(j.Counts) + ": " + Join(reasons), reasons
	}
	return "it waits: " + Join(reasons), reasons
}

// Join makes one sentence of reasons.
func Join(reasons []shoal.Reason) string {
	all := make([]string, len(reasons))
	for i, r := range reasons {
		all[i] = r.Sentence
	}
	return strings.Join(all, "; ")
}

// reasons are gathered one by one.
type reasons []shoal.Reason

func (r *reasons) add(code, format string, args ...any) {
	*r = append(*r, shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)})
}

// Reasons are why tasks of a job wait.
func Reasons(q Question) []shoal.Reason {
	var all reasons
	if q.Job.Blocked {
		all.jobs(q)
		return all
	}
	if q.Held != "" && q.Job.Counts.Queued > 0 {
		all.add("budget", "%s", q.Held)
		return all
	}
	w := q.Wait
	waiting := q.Job.Counts.Queued
	if w.Delayed > 0 {
		wait := max(w.Next.Sub(q.Now), 0).Round(time.Second)
		all.add("again", "%s ended early and %s tried again, the next in %s", outcome.Tasks(w.Delayed), outcome.Verb(w.Delayed, "is", "are"), shoal.Duration(wait))
		waiting -= w.Delayed
	}
	if behind := waiting - w.Ready; w.Gated && w.Known && behind > 0 {
		all.add("afterTasks", "%s %s for tasks that come before", outcome.Tasks(behind), outcome.Verb(behind, "waits", "wait"))
		waiting -= behind
	}
	if waiting > 0 {
		all.machines(q)
	}
	return all
}

// jobs says for which jobs a job waits.
func (r *reasons) jobs(q Question) {
	for _, d := range q.Job.Spec.After {
		for _, j := range q.After {
			if string(j.ID) != d.Job || d.Task == shoal.Corresponding || d.Met(j.State) {
				continue
			}
			switch d.Condition {
			case shoal.AfterAny:
				r.add("after", "waits for the end of job %s (%s)", outcome.Title(j), j.State)
			case shoal.AfterFailed:
				r.add("after", "waits for a failure of job %s (%s)", outcome.Title(j), j.State)
			default:
				r.add("after", "waits for job %s (%s)", outcome.Title(j), j.State)
			}
		}
	}
}

// machines says what stands between waiting tasks and machines.
func (r *reasons) machines(q Question) {
	e := q.Wait.Explanation
	switch {
	case q.Gone || q.Pool.Deleting:
		r.add("poolGone", "pool %s is being deleted", q.Pool.Name)
	case !q.Wait.Known:
		r.add("unknown", "the server has just started and has not looked at it yet")
	case e.AtLimit:
		r.add(e.Limit, "%s", limit(q))
	case e.Machines == 0:
		r.add("noMachine", "%s", noMachine(q.Pool))
	default:
		r.standing(q)
	}
	if q.Failed.ID != "" && e.Machines == e.Starting {
		r.add("failing", "machine %s did not start: %s", q.Failed.ID, q.Failed.Reason)
	}
	if e.Ahead > 0 {
		r.add("ahead", "%s %s before it", outcome.Tasks(e.Ahead), outcome.Verb(e.Ahead, "was there", "were there"))
	}
	if n := e.Turn - 1; n > 0 && !e.AtLimit {
		r.add("turn", "%d %s had less so far and %s before %s", n, outcome.Verb(n, "user has", "users have"), outcome.Verb(n, "goes", "go"), q.Job.User)
	}
	switch {
	case e.Promised.After(q.Now):
		r.add("promised", "it starts in about %s at the latest", about(e.Promised.Sub(q.Now)))
	case e.Free.After(q.Now) && !e.AtLimit && e.Room < q.Job.Spec.Nodes.Least():
		r.add("free", "next slot expected in about %s", about(e.Free.Sub(q.Now)))
	}
}

// limit says which limit holds a job back.
func limit(q Question) string {
	u, g, j := q.Pool.Limits.PerUser, q.Pool.Limits.PerGroup, q.Job
	if refused := Refuse(sched.PoolOf(q.Pool), j.Spec); refused != "" && q.Wait.Limit != "maxRunning" {
		return refused + "; it waits until that changes"
	}
	user := func(what string, most any) string {
		return fmt.Sprintf("%s holds as %s in pool %s as one user may (%v)", j.User, what, q.Pool.Name, most)
	}
	group := func(what string, most any) string {
		return fmt.Sprintf("the group of %s holds as %s in pool %s as one group may (%v)", j.User, what, q.Pool.Name, most)
	}
	switch q.Wait.Limit {
	case "maxRunning":
		return fmt.Sprintf("as many of its tasks run as it wants at a time (%d)", j.Spec.MaxRunning)
	case "userTasks":
		return fmt.Sprintf("%s runs as many tasks in pool %s as one user may (%d)", j.User, q.Pool.Name, u.Tasks)
	case "userCPUs":
		return user("many processors", u.CPUs)
	case "userMemory":
		return user("much memory", u.Memory)
	case "userGPUs":
		return user("many GPUs", u.GPUs)
	case "groupTasks":
		return fmt.Sprintf("the group of %s runs as many tasks in pool %s as one group may (%d)", j.User, q.Pool.Name, g.Tasks)
	case "groupCPUs":
		return group("many processors", g.CPUs)
	case "groupMemory":
		return group("much memory", g.Memory)
	case "groupGPUs":
		return group("many GPUs", g.GPUs)
	}
	return "a limit is reached: " + q.Wait.Limit
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

// standing tells how the machines of a pool stand: "3 of 4 machines are full, 1 is draining".
func (r *reasons) standing(q Question) {
	e, p := q.Wait.Explanation, q.Pool
	if e.Machines == e.Starting {
		r.add("starting", "pool %s has no machine ready; %d %s starting", p.Name, e.Starting, outcome.Verb(e.Starting, "is", "are"))
		return
	}
	kept, keptMany := "is kept for a larger task", "are kept for larger tasks"
	switch {
	case e.Head == q.Job.ID && e.Head != "":
		kept, keptMany = "is kept for it", "are kept for it"
	case e.Head != "":
		kept = fmt.Sprintf("is kept for job %s, which goes before", e.Head)
		keptMany = fmt.Sprintf("are kept for job %s, which goes before", e.Head)
	}
	first := true
	for _, c := range []struct {
		n               int
		code, one, many string
	}{
		{e.Room, "room", "has room", "have room"},
		{e.Full, "full", "is full", "are full"},
		{e.Seated, "seated", "is kept for who is logged in", "are kept for who is logged in"},
		{e.Kept, "kept", kept, keptMany},
		{e.Small, "small", "is too small", "are too small"},
		{e.Draining, "draining", "is draining", "are draining"},
		{e.Starting, "starting", "is starting", "are starting"},
		{e.Silent, "silent", "does not answer", "do not answer"},
		{e.Leaving, "leaving", "is stopped or stopping", "are stopped or stopping"},
	} {
		switch {
		case c.n == 0:
			continue
		case first:
			r.add(c.code, "%d of %d machines of pool %s %s", c.n, e.Machines, p.Name, outcome.Verb(c.n, c.one, c.many))
		default:
			r.add(c.code, "%d %s", c.n, outcome.Verb(c.n, c.one, c.many))
		}
		first = false
	}
	if n := q.Job.Spec.Nodes.Min; n > 1 && e.Room < n {
		r.add("nodes", "it needs %d at once", n)
	}
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

// about is a time as people say it.
func about(d time.Duration) string {
	switch {
	case d < 100*time.Second:
		return fmt.Sprintf("%d s", max(int(d.Round(time.Second)/time.Second), 1))
	case d < 100*time.Minute:
		return fmt.Sprintf("%d min", int(d.Round(time.Minute)/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour)/time.Hour))
	}
	return fmt.Sprintf("%d days", int(d.Round(24*time.Hour)/(24*time.Hour)))
}
