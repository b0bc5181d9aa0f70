package batch_test

import (
	"slices"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// lines runs an array of 200 tasks of 5 ms on two machines that hold one at a time, and returns the job when it is over.
func lines(w *world, takes func(index int) time.Duration, meanwhile func(shoal.JobID)) (shoal.Job, [2]*agent) {
	w.play = func(o api.TaskOrder) script { return script{takes: takes(o.Ref.Index), out: "out"} }
	agents := [2]*agent{w.machine("m-1"), w.machine("m-2")}
	for _, a := range agents {
		a.mu.Lock()
		a.slow = true
		a.mu.Unlock()
	}
	j := w.submit(shoal.JobSpec{Array: "1-200", Resources: shoal.Resources{CPUs: 1000, Memory: 64 << 20}})
	if meanwhile != nil {
		meanwhile(j.ID)
	}
	end := w.ended(j.ID).Job
	for _, a := range agents {
		if a.most != 1 {
			w.t.Errorf("%d tasks ran at once on %s, which holds one", a.most, a.id)
		}
	}
	return end, agents
}

// lined is how many orders an agent got that come after others.
func lined(a *agent) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Run != nil && r.Run.After != nil {
			n++
		}
	}
	return n
}

func brief(int) time.Duration { return 5 * time.Millisecond }

func TestBriefTasksComeInLines(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		end, agents := lines(w, brief, nil)
		if end.State != shoal.JobSucceeded || agents[0].started()+agents[1].started() != 200 {
			t.Errorf("%s %+v, %d and %d started", end.State, end.Counts, agents[0].started(), agents[1].started())
		}
		if n := lined(agents[0]) + lined(agents[1]); n < 100 {
			t.Errorf("%d of 200 came behind others, want most", n)
		}
		for i := 1; i <= 200; i++ {
			if h := w.history(end.ID, i); len(h) != 1 || h[0].Behind != nil || w.output(end.ID, i, false) != "out" {
				t.Errorf("task %d: %+v", i, h)
			}
		}
	})
}

// TestLongTaskGivesUpItsLine has what waits behind a task that takes long run elsewhere.
func TestLongTaskGivesUpItsLine(t *testing.T) {
	bubble(t, shoal.Pool{}, func(w *world) {
		began := time.Now()
		end, _ := lines(w, func(i int) time.Duration {
			if i == 100 {
				return time.Hour
			}
			return brief(i)
		}, func(id shoal.JobID) {
			time.Sleep(time.Minute)
			if c := w.job(id).Counts; c.Succeeded != 199 || c.Running != 1 {
				t.Errorf("after a minute %+v", c)
			}
		})
		if end.State != shoal.JobSucceeded || time.Since(began) > 61*time.Minute {
			t.Errorf("%s after %s", end.State, time.Since(began))
		}
		again := 0
		for i := 1; i <= 200; i++ {
			h := w.history(end.ID, i)
			again += len(h) - 1
			if len(h) > 1 && (h[0].State != shoal.JobPreempted || !h[0].Started.IsZero()) {
				t.Errorf("task %d: %+v", i, h[0])
			}
		}
		if again == 0 || again > 30 {
			t.Errorf("%d were called back, want those behind the long one", again)
		}
		if w.told("tasksPreempted") != nil {
			t.Error("people are told that tasks had to go")
		}
	})
}

func TestLinesAndFaults(t *testing.T) {
	for name, fault := range map[string]func(*world, shoal.JobID){
		"restart": func(w *world, _ shoal.JobID) { w.restart(10 * time.Second) },
		"cancel": func(w *world, id shoal.JobID) {
			if _, err := w.Cancel(w.ctx, alice, id); err != nil {
				w.t.Error(err)
			}
		},
		"a dead machine": func(w *world, _ shoal.JobID) {
			w.agents["m-1"].die()
			w.put("m-1", state(shoal.MachineGone))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, shoal.Pool{}, func(w *world) {
				end, _ := lines(w, brief, func(id shoal.JobID) {
					for lined(w.agents["m-1"]) == 0 {
						time.Sleep(time.Millisecond)
					}
					fault(w, id)
				})
				if want := map[bool]shoal.JobState{true: shoal.JobCancelled, false: shoal.JobSucceeded}[name == "cancel"]; end.State != want {
					t.Errorf("%s %+v", end.State, end.Counts)
				}
				if c := end.Counts; c.Total() != 200 || !slices.Contains([]int{c.Succeeded, c.Succeeded + c.Cancelled}, 200) {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}
