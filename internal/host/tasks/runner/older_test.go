package runner

import (
	"log/slog"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// A later attempt at a task waits for the first, which takes its time to end, whatever has become of those between.
func TestOldestIsWaitedFor(t *testing.T) {
	for between, f := range map[string]func(r *Runner, second shoal.AttemptRef){
		"waits": func(*Runner, shoal.AttemptRef) {},
		"is cancelled": func(r *Runner, second shoal.AttemptRef) {
			r.Stop(api.StopOrder{Ref: second, State: shoal.JobCancelled})
		},
		"is forgotten": func(r *Runner, second shoal.AttemptRef) { r.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{second}}) },
		"is cancelled and forgotten": func(r *Runner, second shoal.AttemptRef) {
			r.Stop(api.StopOrder{Ref: second, State: shoal.JobCancelled})
			r.Forget(api.ForgetTask{Refs: []shoal.AttemptRef{second}})
		},
	} {
		r := &Runner{cfg: Config{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Lookup: func(shoal.UserName) (tasks.Person, bool) { return users()["bob"], true }},
			changed: make(chan struct{}, 1), wake: make(chan struct{}, 1), attempts: map[shoal.AttemptRef]*attempt{}, newest: map[shoal.TaskRef]*attempt{}, jobs: map[shoal.JobID]*job{}}
		r.forgotten.load(r.cfg.Dir)
		start := func(n int) { r.Start(api.TaskOrder{Ref: ref("1", 0, n), User: "bob"}) }
		start(1)
		start(2)
		f(r, ref("1", 0, 2))
		start(3)
		start(4)
		first, third, last := r.attempts[ref("1", 0, 1)], r.attempts[ref("1", 0, 3)], r.attempts[ref("1", 0, 4)]
		if first.phase != sent || third.phase != ended || last.phase != waiting {
			t.Errorf("when the second %s, the first, third and fourth are in phases %v, %v and %v", between, first.phase, third.phase, last.phase)
		}
		r.takeEnd(tasks.EndedEvent{Ref: first.ref, Result: tasks.Result{State: shoal.JobLost}})
		if last.phase != sent {
			t.Errorf("when the second %s, the fourth is in phase %v at the end", between, last.phase)
		}
		must(t, r.forgotten.close())
	}
}
