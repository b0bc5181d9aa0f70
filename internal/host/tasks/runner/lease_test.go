package runner

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/tasks"
)

// short is a lease that ends while a test looks on, and long one that does not.
const (
	short = 300 * time.Millisecond
	long  = time.Hour
)

func fenced(r api.TaskReport) bool {
	return r.State == shoal.JobLost && r.Cause == shoal.CauseMachineLost && strings.Contains(r.Reason, "longer than the lease")
}

// shorten has the lease end at a time, which only tests do.
func (b *box) shorten(until time.Duration) {
	b.runner.mu.Lock()
	b.runner.lease, b.runner.leaseTold = 0, 0
	b.runner.mu.Unlock()
	b.runner.Renew(until)
}

// told waits until the supervisor has been told all there was: it takes one thing after another.
func (b *box) told() {
	b.t.Helper()
	b.run(order("9", "true", func(o *api.TaskOrder) { o.Idempotent = true }))
}

// Without an answer for the length of the lease, tasks end that must not run twice, however stubborn they are; nothing
// is started until there is an answer again.
func TestLease(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		b.runner.Renew(tasks.Uptime() + long)
		bound := order("1", "trap '' TERM; echo ready; while :; do sleep 0.02; done", func(o *api.TaskOrder) { o.Grace = shoal.Duration(long) })
		free := order("2", "echo ready; exec sleep 1000", func(o *api.TaskOrder) { o.Idempotent = true })
		for _, o := range []api.TaskOrder{bound, free} {
			b.runner.Start(o)
			b.says(o.Ref, "ready")
		}
		// One that is already being ended, with all the time it likes, has no more of it either.
		ending := bound
		ending.Ref.Job = "3"
		b.runner.Start(ending)
		b.says(ending.Ref, "ready")
		b.runner.Stop(api.StopOrder{Ref: ending.Ref, State: shoal.JobCancelled})

		until := tasks.Uptime() + short
		b.shorten(until)
		if s := b.end(bound.Ref); !fenced(s.report) {
			t.Errorf("%+v", s.report)
		}
		if tasks.Uptime() < until-short/2 {
			t.Error("it was ended before the lease was over")
		}
		if r := b.end(ending.Ref).report; r.State != shoal.JobCancelled {
			t.Errorf("%+v", r)
		}
		if r := b.run(order("4", "echo never")).report; !fenced(r) || !r.Started.IsZero() {
			t.Errorf("started after the lease: %+v", r)
		}
		if b.pump(); b.of(free.Ref).report.State != shoal.JobRunning {
			t.Errorf("the idempotent one: %+v", b.of(free.Ref).report)
		}
		b.runner.Renew(tasks.Uptime() + long)
		if r := b.run(order("5", "true")).report; r.State != shoal.JobSucceeded {
			t.Errorf("after an answer: %+v", r)
		}
		b.runner.Stop(api.StopOrder{Ref: free.Ref, State: shoal.JobCancelled})
		b.end(free.Ref)
	})
}

// The lease holds when the agent is no more.
func TestLeaseWithoutAgent(t *testing.T) {
	b := newBox(t, true)
	o := order("1", "echo ready; exec sleep 1000")
	b.runner.Renew(tasks.Uptime() + long)
	b.runner.Start(o)
	b.says(o.Ref, "ready")
	b.shorten(tasks.Uptime() + 5*short)
	b.told()
	must(t, b.runner.Close())
	b.until("nothing runs any more", func() bool { return len(processesOf(firstUID)) == 0 })
	b.open()
	if s := b.end(o.Ref); !fenced(s.report) || string(s.out[0]) != "ready\n" {
		t.Errorf("%+v", s.report)
	}
}

// When what watches over the tasks stood still over the end of the lease, an answer that came meanwhile does not
// bring them back.
func TestLeaseAndStandstill(t *testing.T) {
	b := newBox(t, true)
	o := order("1", "echo ready; exec sleep 1000")
	b.runner.Renew(tasks.Uptime() + long)
	b.runner.Start(o)
	b.says(o.Ref, "ready")
	until := tasks.Uptime() + 5*short
	b.shorten(until)
	b.told()
	pid := b.supervisorPID()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	time.Sleep(until + short - tasks.Uptime())
	b.runner.Renew(tasks.Uptime() + long)
	b.runner.Start(order("2", "true"))
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	if s := b.end(o.Ref); !fenced(s.report) {
		t.Errorf("%+v", s.report)
	}
	if r := b.end(ref("2", 0, 1)).report; r.State != shoal.JobSucceeded {
		t.Errorf("%+v", r)
	}
}
