package why_test

import (
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/why"
	"github.com/shoal-pool/shoal/internal/sched"
)

func TestAnswer(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	pool := shoal.Pool{Name: "lab", Machine: shoal.Resources{CPUs: 4000, Memory: 64 << 30}, Size: shoal.Size{Max: 4}, Limits: shoal.Limits{PerUser: shoal.PerUser{Tasks: 5, Memory: 8 << 30}, PerGroup: shoal.PerGroup{CPUs: 6000}}}
	full := sched.Explanation{Machines: 4, Full: 3, Draining: 1, Turn: 1}
	with := func(change func(*sched.Explanation)) why.Wait {
		e := full
		change(&e)
		return why.Wait{Explanation: e, Known: true}
	}
	queued := shoal.Job{ID: "7", User: "alice", State: shoal.JobQueued, Counts: shoal.Counts{Queued: 3}}
	job := func(change func(*shoal.Job)) shoal.Job {
		j := queued
		change(&j)
		return j
	}
	for _, c := range []struct {
		job  shoal.Job
		wait why.Wait
		want string
	}{
		{queued, with(func(e *sched.Explanation) { e.Promised = now.Add(4 * time.Minute) }),
			"it waits: 3 of 4 machines of pool lab are full; 1 is draining; it starts in about 4 min at the latest"},
		{queued, with(func(e *sched.Explanation) { e.Free = now.Add(4 * time.Minute) }),
			"it waits: 3 of 4 machines of pool lab are full; 1 is draining; next slot expected in about 4 min"},
		{queued, with(func(e *sched.Explanation) { e.Full, e.Draining, e.Seated, e.Kept, e.Head = 1, 0, 2, 1, "5" }),
			"it waits: 1 of 4 machines of pool lab is full; 2 are kept for who is logged in; 1 is kept for job 5, which goes before"},
		{queued, with(func(e *sched.Explanation) { e.Ahead, e.Turn = 5, 3 }),
			"it waits: 3 of 4 machines of pool lab are full; 1 is draining; 5 tasks were there before it; 2 users have had less so far and go before alice"},
		{queued, with(func(e *sched.Explanation) { e.AtLimit, e.Limit = true, "userTasks" }), "it waits: alice runs as many tasks in pool lab as one user may (5)"},
		{queued, with(func(e *sched.Explanation) { e.AtLimit, e.Limit = true, "userMemory" }), "it waits: alice holds as much memory in pool lab as one user may (8GiB)"},
		{job(func(j *shoal.Job) { j.Spec.Nodes = shoal.Fixed(2); j.Spec.Resources.CPUs = 4000 }),
			with(func(e *sched.Explanation) { e.AtLimit, e.Limit, e.Free = true, "groupCPUs", now.Add(time.Hour) }),
			"it waits: one task alone is more than a group may have running in pool lab; it waits until that changes"},
		{queued, with(func(e *sched.Explanation) { e.AtLimit, e.Limit = true, "groupCPUs" }), "it waits: the group of alice holds as many processors in pool lab as one group may (6)"},
		{job(func(j *shoal.Job) { j.Spec.MaxRunning = 2; j.Counts = shoal.Counts{Queued: 1, Running: 2} }),
			with(func(e *sched.Explanation) { e.AtLimit, e.Limit = true, "maxRunning" }),
			"2 of 3 tasks run, 1 waits: as many of its tasks run as it wants at a time (2)"},
		{job(func(j *shoal.Job) { j.Spec.Nodes = shoal.Fixed(3) }), with(func(e *sched.Explanation) { e.Room, e.Full, e.Draining = 2, 2, 0 }),
			"it waits: 2 of 4 machines of pool lab have room; 2 are full; it needs 3 at once"},
		{queued, why.Wait{Known: true, Gated: true, Ready: 0, Explanation: full}, "it waits: 3 tasks wait for tasks that come before"},
		{queued, why.Wait{Known: true, Gated: true, Ready: 1, Explanation: sched.Explanation{Machines: 1, Full: 1}},
			"it waits: 2 tasks wait for tasks that come before; 1 of 1 machines of pool lab is full"},
		{queued, why.Wait{Known: true, Delayed: 3, Next: now.Add(8 * time.Second)}, "it waits: 3 tasks ended early and are tried again, the next in 8s"},
		{queued, why.Wait{Known: true}, "it waits: pool lab has no machine; one is asked for"},
		{job(func(j *shoal.Job) {
			j.Blocked = true
			j.Spec.After = []shoal.Dependency{{Job: "1"}, {Job: "2", Condition: shoal.AfterAny}, {Job: "3", Condition: shoal.AfterFailed}, {Job: "4"}}
		}), why.Wait{}, "it waits for job 1 (running); waits for the end of job 2 (running); waits for a failure of job 3 (running)"},
		{job(func(j *shoal.Job) { j.State, j.Reason = shoal.JobFailed, "it exited with 3" }), why.Wait{}, "it failed: it exited with 3"},
	} {
		q := why.Question{Job: c.job, Pool: pool, Wait: c.wait, Now: now}
		for _, id := range []shoal.JobID{"1", "2", "3", "4"} {
			s := shoal.JobRunning
			if id == "4" {
				s = shoal.JobSucceeded
			}
			q.After = append(q.After, shoal.Job{ID: id, State: s})
		}
		if got, _ := why.Answer(q); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
