package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// after makes an order one that comes after another.
func after(r shoal.AttemptRef) func(*api.TaskOrder) {
	return func(o *api.TaskOrder) { o.After = &r }
}

// TestLine has tasks that come one after another never overlap, whatever becomes of those before them.
func TestLine(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		log := filepath.Join(b.dir, "home-alice", "log")
		note := func(job string) string {
			return fmt.Sprintf("echo +%s >>%s; sleep 0.05; echo -%s >>%s", job, log, job, log)
		}
		orders := []api.TaskOrder{order("1", note("1"))}
		for i := 2; i <= 12; i++ {
			job := fmt.Sprint(i)
			orders = append(orders, order(job, note(job), after(ref(fmt.Sprint(i-1), 0, 1))))
		}
		orders[3].Command = "exit 3"
		orders[5].Workdir = "/does/not/exist"
		for _, o := range orders {
			b.runner.Start(o)
		}
		b.runner.Stop(api.StopOrder{Ref: orders[7].Ref, State: shoal.JobCancelled})
		b.runner.Stop(api.StopOrder{Ref: orders[9].Ref, State: shoal.JobPreempted, Waiting: true})
		want := map[int]shoal.JobState{3: shoal.JobFailed, 5: shoal.JobFailed, 7: shoal.JobCancelled, 9: shoal.JobPreempted}
		for i, o := range orders {
			s := b.end(o.Ref)
			if state := want[i]; s.report.State != state && (state != "" || s.report.State != shoal.JobSucceeded) {
				t.Errorf("task %d: %+v", i+1, s.report)
			}
		}
		if s := b.of(orders[9].Ref); !strings.Contains(s.report.Reason, "waited for another") || !s.report.Started.IsZero() {
			t.Errorf("what was called back: %+v", s.report)
		}
		raw, err := os.ReadFile(log)
		must(t, err)
		var lines []string
		for i := 1; i <= 12; i++ {
			if !slices.Contains([]int{4, 6, 8, 10}, i) {
				lines = append(lines, fmt.Sprintf("+%d", i), fmt.Sprintf("-%d", i))
			}
		}
		if got := strings.Fields(string(raw)); !slices.Equal(got, lines) {
			t.Errorf("they ran as %v, want %v", got, lines)
		}
	})
}

// TestCalledBackTooLate lets go on what has begun, and what comes after one that is not here begins at once.
func TestCalledBackTooLate(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		o := order("2", "echo here; sleep 0.2", after(ref("1", 0, 1)))
		b.runner.Start(o)
		b.says(o.Ref, "here")
		b.runner.Stop(api.StopOrder{Ref: o.Ref, State: shoal.JobPreempted, Waiting: true})
		b.runner.Stop(api.StopOrder{Ref: ref("7", 0, 1), State: shoal.JobPreempted, Waiting: true})
		if s := b.end(o.Ref); s.report.State != shoal.JobSucceeded {
			t.Errorf("%+v", s.report)
		}
		if len(b.state) != 1 {
			t.Error("something is told of a task that never came")
		}
	})
}

// TestLineIsAdopted has another Runner find a line as it was, and a supervisor that is killed lose the one that ran only.
func TestLineIsAdopted(t *testing.T) {
	both(t, func(t *testing.T, b *box) {
		first := order("1", "echo here; sleep 600")
		second := order("2", "echo second", after(first.Ref))
		third := order("3", "echo third", after(second.Ref))
		for _, o := range []api.TaskOrder{first, second, third} {
			b.runner.Start(o)
		}
		b.says(first.Ref, "here")
		must(t, b.runner.Close())
		b.open()
		b.runner.Want([]api.TaskOrder{first, second, third})
		time.Sleep(100 * time.Millisecond)
		b.pump()
		if s := b.of(second.Ref); len(s.states) > 0 {
			t.Errorf("the second did not wait: %v", s.states)
		}
		b.runner.Stop(api.StopOrder{Ref: first.Ref, State: shoal.JobCancelled})
		for o, want := range map[*api.TaskOrder]shoal.JobState{&first: shoal.JobCancelled, &second: shoal.JobSucceeded, &third: shoal.JobSucceeded} {
			if s := b.end(o.Ref); s.report.State != want {
				t.Errorf("%s: %+v, want %s", o.Ref, s.report, want)
			}
		}
	})
}

func TestLineAndSupervisorKilled(t *testing.T) {
	b := newBox(t, false)
	first := order("1", "echo here; sleep 600")
	second := order("2", "echo second", after(first.Ref))
	third := order("3", "echo third", after(second.Ref))
	for _, o := range []api.TaskOrder{first, second, third} {
		b.runner.Start(o)
	}
	b.says(first.Ref, "here")
	kill(t, b.supervisorPID())
	for o, want := range map[*api.TaskOrder]shoal.JobState{&first: shoal.JobLost, &second: shoal.JobSucceeded, &third: shoal.JobSucceeded} {
		if s := b.end(o.Ref); s.report.State != want {
			t.Errorf("%s: %+v, want %s", o.Ref, s.report, want)
		}
	}
	if b.of(third.Ref).report.Started.Before(b.of(second.Ref).report.Ended) {
		t.Error("the third did not wait for the second")
	}
}

// TestCalledBackWhileItsJobIsPrepared: what has begun runs, also if it waits for another that prepares the machine.
func TestCalledBackWhileItsJobIsPrepared(t *testing.T) {
	b := newBox(t, false)
	prepare := func(i int) api.TaskOrder {
		return order("1", "echo ran", func(o *api.TaskOrder) { o.Ref.Index, o.Prepare = i, "echo preparing; sleep 0.5" })
	}
	first, second := prepare(0), prepare(1)
	b.runner.Start(first)
	b.says(first.Ref, "preparing")
	b.runner.Start(second)
	time.Sleep(100 * time.Millisecond) // it waits by now
	b.runner.Stop(api.StopOrder{Ref: second.Ref, State: shoal.JobPreempted, Waiting: true})
	for _, o := range []api.TaskOrder{first, second} {
		if s := b.end(o.Ref); s.report.State != shoal.JobSucceeded || !strings.Contains(string(s.out[0]), "ran") {
			t.Errorf("task %d: %+v, %q", o.Ref.Index, s.report, s.out[0])
		}
	}
}
